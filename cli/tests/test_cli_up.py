"""``collegium up`` in processes of its own: ready, joined, refused, killed, ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collegium_testing import ModelSimulator, eventually, eventually_sync
from collegium_testing.platforms import PlatformProcess, configuration, make_key, running_platform, start_platform
from collegium_testing.simulator import Behaviour, Rule

CONFIG = configuration("http://127.0.0.1:1/v1", tenants={"acme": make_key("acme")})
STOP_SECONDS_MAX = 20.0
READY_SECONDS_MAX = 60.0
SERVERS = ("nats", "postgres")


def verb(
    *words: str, data: Path, config: dict[str, Any] | None = None, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a verb of the command line on a data folder to its end."""
    command = [sys.executable, "-m", "collegium_cli", *words, "--data", str(data)]
    if config is not None:
        file = data.parent / f"{data.name}.verb.yaml"
        file.write_text(json.dumps(config))
        command += ["--config", str(file)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COLLEGIUM_")}
    environ |= variables or {}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90, env=environ)


def running_on(folder: Path) -> list[str]:
    """Returns the processes that name the folder in their arguments or work in it."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = str((entry / "cwd").readlink())
            if arguments and (str(folder) in arguments or where.startswith(str(folder))):
                found.append(f"{entry.name} {arguments}")
    return found


def nothing_runs_on(folder: Path) -> Callable[[], bool]:
    return lambda: running_on(folder) == []


def healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health/ready", timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def runtime_of(platform: PlatformProcess) -> dict[str, Any]:
    return json.loads((platform.folder / "runtime.json").read_bytes())


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """One platform for the tests that only look at it."""
    with running_platform(tmp_path_factory.mktemp("standing") / "data", CONFIG) as platform:
        yield platform


@pytest.fixture(scope="module")
def harmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """One platform for the tests that kill a part of it; it ends as if nothing had been killed."""
    platform = start_platform(tmp_path_factory.mktemp("harmed") / "data", CONFIG)
    try:
        yield platform
        assert platform.stop() == 0
        assert running_on(platform.folder) == []
    finally:
        end_what_is_left(platform)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[PlatformProcess]]:
    """The platform, in the place of the last that was killed on the folder; ended as if nothing had been killed."""
    standing = [start_platform(tmp_path_factory.mktemp("killed") / "data", CONFIG)]
    try:
        yield standing
        assert standing[0].stop() == 0
        assert running_on(standing[0].folder) == []
    finally:
        end_what_is_left(standing[0])


def end_what_is_left(platform: PlatformProcess) -> None:
    if platform.process.poll() is None:
        platform.stop()
    with contextlib.suppress(ProcessLookupError):
        for line in running_on(platform.folder):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    eventually_sync(nothing_runs_on(platform.folder))


def test_the_ready_line_names_everything_and_everything_is_ready(standing: PlatformProcess) -> None:
    ready = standing.ready
    assert ready["ready"] is True
    services = {"gateway", "router", "worker-pool", "billing", "context", "consensus", "evolution"}
    assert set(ready["pids"]) == {*services, *SERVERS}
    assert healthy(ready["http"])
    assert stat.S_IMODE(Path(ready["admin_key_file"]).stat().st_mode) == 0o600


def test_others_can_join_by_the_runtime_file_and_nobody_else_reads_it(standing: PlatformProcess) -> None:
    runtime = runtime_of(standing)
    assert stat.S_IMODE((standing.folder / "runtime.json").stat().st_mode) == 0o600
    assert all(healthy(f"http://127.0.0.1:{port}") for port in runtime["admin_ports"].values())
    assert {stat.S_IMODE(Path(path).stat().st_mode) for path in runtime["credentials"].values()} == {0o600}


def test_a_second_up_on_the_folder_says_so_and_leaves_the_first_alone(standing: PlatformProcess) -> None:
    second = verb("up", data=standing.folder, config=CONFIG)
    assert second.returncode == 1
    assert "in use" in second.stderr
    assert second.stdout == ""
    assert healthy(standing.http)


def test_verbs_find_the_platform_on_the_folder(standing: PlatformProcess) -> None:
    tenants = verb("tenant", "ls", "--json", data=standing.folder)
    assert {one["id"] for one in json.loads(tenants.stdout)} == {"acme", "operator"}
    models = json.loads(verb("model", "ls", "--json", data=standing.folder).stdout)
    assert [model["name"] for model in models] == ["sim", "all-minilm-l6-v2"]
    assert verb("migrate", "--dry-run", data=standing.folder).stdout == "nothing to do\n"


def test_a_key_lives_from_its_creation_to_its_revocation(standing: PlatformProcess) -> None:
    made = json.loads(verb("key", "create", "--tenant", "acme", "--name", "k", "--json", data=standing.folder).stdout)
    assert verb("key", "revoke", made["id"], "--dry-run", data=standing.folder).returncode == 0
    revoked = json.loads(verb("key", "revoke", made["id"], "--json", data=standing.folder).stdout)
    assert [key["id"] for key in revoked] == [made["id"]]
    listed = verb("key", "ls", "--tenant", "acme", "--json", data=standing.folder)
    assert made["key"] not in listed.stdout
    (key,) = [key for key in json.loads(listed.stdout) if key["id"] == made["id"]]
    assert key["revoked_at"] is not None


def test_budgets_and_limits_are_objects_and_lists_of_them_lists(standing: PlatformProcess) -> None:
    for name, usd in (("one", "5"), ("other", "7")):
        made = verb("budget", "set", name, "--tenant", "acme", "--usd", usd, "--json", data=standing.folder)
        assert json.loads(made.stdout)["id"] == name
    shown = verb("budget", "show", "--tenant", "acme", "--json", data=standing.folder)
    assert [(one["id"], one["usd"]) for one in json.loads(shown.stdout)] == [("one", "5"), ("other", "7")]
    (one,) = json.loads(verb("budget", "show", "one", "--tenant", "acme", "--json", data=standing.folder).stdout)
    assert one["id"] == "one"
    table = verb("budget", "show", "--tenant", "acme", data=standing.folder).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["id", "one", "other"]
    limits = ("--tenant", "acme", "--json")
    set_to = json.loads(verb("limits", "set", "--concurrency", "4", *limits, data=standing.folder).stdout)
    assert (set_to["tenant"], set_to["limits"]["concurrency"]) == ("acme", 4)
    assert json.loads(verb("limits", "show", *limits, data=standing.folder).stdout) == set_to
    assert verb("limits", "rm", *limits, data=standing.folder).returncode == 0
    gone = verb("budget", "rm", "one", "other", "--tenant", "acme", data=standing.folder)
    assert gone.returncode == 0


def test_check_reaches_the_platforms_parts_and_names_the_model_that_is_away(standing: PlatformProcess) -> None:
    done = verb("check", "--json", data=standing.folder, config=CONFIG)
    found = {one["what"]: one["ok"] for one in map(json.loads, done.stdout.splitlines())}
    assert found == {"configuration": True, "broker": True, "database": True, "model sim": False, "gateway": True}
    assert done.returncode == 1


def test_a_task_that_failed_has_its_ladder(standing: PlatformProcess) -> None:
    refused = verb("ask", "my private question", data=standing.folder)
    assert refused.returncode == 1
    task = json.loads(verb("task", "ls", "--json", data=standing.folder).stdout)["data"][0]
    shown = verb("task", "show", task["id"], "--json", data=standing.folder)
    rungs = json.loads(shown.stdout)["ladder"]
    told = [rung["message"] for rung in rungs]
    assert told == ["AttemptStarted", "AttemptRetried"] * 3 + ["AttemptStarted", "TaskFailed"]
    assert {rung["verdict"] for rung in rungs if rung["message"] == "AttemptRetried"} == {"upstream_unreachable"}
    assert "private" not in shown.stdout


def test_a_ladder_is_the_same_by_http_alone_and_a_tenants_key_sees_its_task(
    standing: PlatformProcess, tmp_path: Path
) -> None:
    variables = {"COLLEGIUM_URL": standing.http, "COLLEGIUM_API_KEY": CONFIG["tenants"][0]["api_key"]}
    refused = verb("ask", "my private question", data=tmp_path / "elsewhere", variables=variables)
    assert refused.returncode == 1
    listed = verb("task", "ls", "--json", data=tmp_path / "elsewhere", variables=variables)
    task = json.loads(listed.stdout)["data"][0]
    short = verb("task", "show", task["id"], "--json", data=tmp_path / "elsewhere", variables=variables)
    rungs = json.loads(short.stdout)["ladder"]
    assert [rung["message"] for rung in rungs] == ["TaskSubmitted", "AttemptStarted", "TaskFailed"]
    assert rungs[1]["verdict"] == "upstream_unreachable"
    assert "operator's key" in short.stderr

    variables["COLLEGIUM_API_KEY"] = Path(standing.ready["admin_key_file"]).read_text().strip()
    whole = verb("task", "show", task["id"], "--json", data=tmp_path / "elsewhere", variables=variables)
    assert whole.stderr == ""
    assert json.loads(whole.stdout) == json.loads(
        verb("task", "show", task["id"], "--json", data=standing.folder).stdout
    )
    at_hand = {**variables, "COLLEGIUM_API_KEY": CONFIG["tenants"][0]["api_key"]}
    assert json.loads(
        verb("task", "show", task["id"], "--json", data=standing.folder, variables=at_hand).stdout
    ) == json.loads(whole.stdout)
    absent = verb("task", "show", f"tsk_{'0' * 26}", "--json", data=tmp_path / "elsewhere", variables=variables)
    told = json.loads(absent.stderr)["error"]
    assert (told["code"], told["param"]) == ("not_found", "id")
    nobodys = verb("task", "show", f"tsk_{'0' * 26}", data=tmp_path / "elsewhere", variables=variables)
    assert (nobodys.returncode, nobodys.stdout) == (1, "")
    assert "not_found" in nobodys.stderr


def test_a_tap_with_since_shows_what_passed_and_masks_it(standing: PlatformProcess) -> None:
    verb("ask", "my private question", data=standing.folder)
    command = [sys.executable, "-m", "collegium_cli", "tap", "task.settled.>", "--since", "5m", "--json"]
    tap = subprocess.Popen([*command, "--data", str(standing.folder)], stdout=subprocess.PIPE, text=True)
    assert tap.stdout is not None
    with tap.stdout:
        line = tap.stdout.readline()
        tap.send_signal(signal.SIGINT)
        assert tap.wait(10) == 0
    assert json.loads(line)["message"]["type"] == "TaskFailed"
    assert "private" not in line


def test_a_tap_with_content_shows_what_was_asked(standing: PlatformProcess) -> None:
    verb("ask", "my private question", data=standing.folder)
    command = [sys.executable, "-m", "collegium_cli", "tap", "dead.>", "--since", "5m", "--json", "--content"]
    tap = subprocess.Popen([*command, "--data", str(standing.folder)], stdout=subprocess.PIPE, text=True)
    assert tap.stdout is not None
    with tap.stdout:
        line = tap.stdout.readline()
        tap.send_signal(signal.SIGINT)
        assert tap.wait(10) == 0
    assert json.loads(line)["message"]["payload"]["prompt"] == [{"role": "user", "content": "my private question"}]


def test_a_port_that_is_taken_ends_up_with_its_reason_and_nothing_left(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = {**CONFIG, "http": {"port": taken.getsockname()[1]}}
        done = verb("up", "--json", data=tmp_path / "data", config=config)
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert done.stdout == ""
    eventually_sync(nothing_runs_on(tmp_path / "data"))


def test_a_broker_that_is_away_ends_up_with_its_reason_and_nothing_left(tmp_path: Path) -> None:
    done = verb("up", "--json", data=tmp_path / "data", config={**CONFIG, "nats": {"url": "nats://127.0.0.1:1"}})
    assert done.returncode == 1
    assert "cannot connect to the broker" in done.stderr
    assert "Traceback" not in done.stderr
    eventually_sync(nothing_runs_on(tmp_path / "data"))


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = verb("up", data=tmp_path / "file" / "data")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_a_signal_while_it_starts_ends_it_with_nothing_left(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    command = [sys.executable, "-m", "collegium_cli", "up", "--data", str(folder), "--http-port", "0"]
    up = subprocess.Popen([*command, "--grpc-port", "0"], stdout=subprocess.PIPE, text=True)
    eventually_sync((folder / "run" / "nats.json").exists)
    up.terminate()
    assert up.wait(STOP_SECONDS_MAX) == 0
    assert up.stdout is not None
    with up.stdout:
        assert up.stdout.read() == ""
    eventually_sync(nothing_runs_on(folder))


def test_only_the_wanted_services_run_and_the_end_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    command = [sys.executable, "-m", "collegium_cli", "up", "--json", "--only", "billing,context"]
    command += ["--data", str(folder), "--config", str(tmp_path / "c.json")]
    up = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    with up.stdout:
        ready = json.loads(up.stdout.readline())
        assert set(ready["pids"]) == {"billing", "context", *SERVERS}
        began = time.monotonic()
        up.send_signal(signal.SIGINT)
        assert up.wait(STOP_SECONDS_MAX) == 0
        assert time.monotonic() - began < STOP_SECONDS_MAX
    assert running_on(folder) == []
    assert json.loads((folder / "runtime.json").read_bytes())["nats"] == ""


def test_a_gateway_without_what_it_hears_from_says_so_at_once_and_is_ready_when_that_runs_beside(
    tmp_path: Path,
) -> None:
    folder, said = tmp_path / "data", tmp_path / "said"
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    where = ["--data", str(folder), "--config", str(tmp_path / "c.json"), "--http-port", "0", "--grpc-port", "0"]
    collegium = [sys.executable, "-m", "collegium_cli"]
    with said.open("w") as errors:
        up = subprocess.Popen(
            [*collegium, "up", "--json", "--only", "gateway,router", *where], stdout=subprocess.PIPE, stderr=errors
        )
    beside = None
    try:
        eventually_sync(lambda: f"collegium serve billing --data {folder}" in said.read_text(), deadline_seconds=60)
        assert up.poll() is None
        beside = subprocess.Popen([*collegium, "serve", "billing", *where], stdout=subprocess.DEVNULL)
        assert up.stdout is not None
        with up.stdout:
            assert json.loads(up.stdout.readline())["ready"] is True
    finally:
        for process in (beside, up):
            if process is not None:
                process.terminate()
                assert process.wait(STOP_SECONDS_MAX) == 0
    eventually_sync(nothing_runs_on(folder))


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["gateway", "router", "billing", "nats", "postgres"])
def test_what_is_killed_comes_back_at_its_place(harmed: PlatformProcess, name: str) -> None:
    before = runtime_of(harmed)
    os.kill(harmed.pids()[name], signal.SIGKILL)
    eventually_sync(lambda: harmed.pids().get(name) not in (None, before["pids"][name]))
    places = ("http", "grpc", "nats", "database", "admin_ports", "credentials")
    eventually_sync(
        lambda: all(healthy(f"http://127.0.0.1:{port}") for port in before["admin_ports"].values()),
        deadline_seconds=60,
    )
    after = runtime_of(harmed)
    assert {place: after[place] for place in places} == {place: before[place] for place in places}


@pytest.mark.chaos
def test_after_its_own_kill_the_services_end_and_the_next_start_takes_over(killed: list[PlatformProcess]) -> None:
    services = {killed[0].pids()[name] for name in ("gateway", "router", "billing")}
    killed[0].process.kill()
    killed[0].process.communicate()
    eventually_sync(lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in services))
    _start_again(killed)


@pytest.mark.chaos
def test_after_everything_was_killed_the_next_start_is_ready_within_a_minute(killed: list[PlatformProcess]) -> None:
    killed[0].kill_everything()
    _start_again(killed)


@pytest.mark.chaos
def test_servers_that_nobody_wrote_down_are_ended_before_others_start_on_their_folders(
    killed: list[PlatformProcess],
) -> None:
    """As after a kill between the start of a server and the saving of its identity."""
    pids = killed[0].pids()
    killed[0].process.kill()
    killed[0].process.communicate()
    for name in SERVERS:
        assert Path(f"/proc/{pids[name]}/stat").exists()
        (killed[0].folder / "run" / f"{name}.json").unlink()
    _start_again(killed)


def _start_again(killed: list[PlatformProcess]) -> None:
    key, folder = killed[0].admin_key, killed[0].folder
    began = time.monotonic()
    again = killed[0] = start_platform(folder, CONFIG)
    assert time.monotonic() - began < READY_SECONDS_MAX
    assert again.admin_key == key
    assert healthy(again.http)
    tenants = json.loads(verb("tenant", "ls", "--json", data=folder).stdout)
    assert {one["id"] for one in tenants} == {"acme", "operator"}


@pytest.mark.chaos
async def test_a_call_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with ModelSimulator() as simulator:
        simulator.script(Rule(Behaviour(hang=True)))
        key = make_key("acme")
        config = configuration(simulator.base_url, tenants={"acme": key})
        platform = await asyncio.to_thread(start_platform, tmp_path / "data", config)
        command = [sys.executable, "-m", "collegium_cli", "ask", "hi", "--data", str(platform.folder)]
        asking = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        await eventually(lambda: "sim" in simulator.counts().models)
        began = time.monotonic()
        assert await asyncio.to_thread(platform.stop) == 0
        assert time.monotonic() - began < STOP_SECONDS_MAX
        _, said = await asyncio.wait_for(asking.communicate(), 30)
    assert asking.returncode == 1
    assert len(said.splitlines()) == 1
    assert running_on(platform.folder) == []
