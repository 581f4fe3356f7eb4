from pathlib import Path

from collegium_servers import NatsConfig, NatsUser, nats, render_config

PUBLIC_KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_every_write_is_synced_only_when_power_must_not_lose_it(tmp_path: Path) -> None:
    assert "sync_interval: always" in render_config(NatsConfig(tmp_path, durability="power"))
    assert 'sync_interval: "2m"' in render_config(NatsConfig(tmp_path))


def test_an_empty_allow_list_denies_everything(tmp_path: Path) -> None:
    text = render_config(NatsConfig(tmp_path, users=(NatsUser(PUBLIC_KEY, subscribe=("_INBOX.router.>",)),)))
    assert 'publish: { deny: [">"] }' in text
    assert 'subscribe: { allow: ["_INBOX.router.>"] }' in text


def test_a_denial_takes_back_what_a_wildcard_allows(tmp_path: Path) -> None:
    user = NatsUser(PUBLIC_KEY, publish=("a.>",), deny_publish=("a.b",))
    assert 'publish: { allow: ["a.>"], deny: ["a.b"] }' in render_config(NatsConfig(tmp_path, users=(user,)))


def test_monitoring_stays_on_loopback_when_the_broker_does_not(tmp_path: Path) -> None:
    text = render_config(NatsConfig(tmp_path, host="0.0.0.0", port=4222, monitor_port=8222))
    assert 'listen: "0.0.0.0:4222"' in text
    assert 'http: "127.0.0.1:8222"' in text


def test_what_streams_may_take_is_stated_and_not_what_is_free_at_the_start(tmp_path: Path) -> None:
    text = render_config(NatsConfig(tmp_path))
    assert f"max_file_store: {32 * 1024**3}" in text
    assert "max_memory_store" not in text
    assert "max_file_store" not in render_config(NatsConfig(tmp_path, max_file_bytes=None))
    text = render_config(NatsConfig(tmp_path, max_file_bytes=1 << 30, max_memory_bytes=1 << 20))
    assert "max_file_store: 1073741824" in text
    assert "max_memory_store: 1048576" in text


def test_a_store_folder_may_hold_spaces_and_quotes() -> None:
    assert r'store_dir: "/data of \"us\"/nats"' in render_config(NatsConfig(Path('/data of "us"/nats')))


def test_the_program_is_found_without_path(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert nats.binary_path().name == "nats-server"
