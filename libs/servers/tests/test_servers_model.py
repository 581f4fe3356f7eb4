import os
from pathlib import Path

import aiohttp
import pytest
from collegium_servers import WrongHashError, model
from collegium_servers.identity import gone

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"abd")
    with pytest.raises(WrongHashError, match="not ba7816bf"):
        model.verify(file, tmp_path / "stamp", SHA256_OF_ABC)
    assert not (tmp_path / "stamp").exists()


def test_a_checked_file_is_read_again_only_after_it_changed(tmp_path: Path) -> None:
    file, stamp = tmp_path / "model.gguf", tmp_path / "stamp"
    file.write_bytes(b"abc")
    state = file.stat()
    model.verify(file, stamp, SHA256_OF_ABC)
    file.write_bytes(b"abd")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    model.verify(file, stamp, SHA256_OF_ABC)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(WrongHashError):
        model.verify(file, stamp, SHA256_OF_ABC)


def test_a_broken_stamp_means_not_checked(tmp_path: Path) -> None:
    file, stamp = tmp_path / "model.gguf", tmp_path / "stamp"
    file.write_bytes(b"abc")
    stamp.write_text("{half")
    model.verify(file, stamp, SHA256_OF_ABC)
    assert SHA256_OF_ABC in stamp.read_text()


async def test_a_wrong_file_is_never_served(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"not a model")
    monkeypatch.setattr(model, "locate", lambda: file)
    for _ in range(2):  # and the folder is free again afterwards
        with pytest.raises(WrongHashError):
            await model.start(tmp_path / "data")


@pytest.mark.model
async def test_it_answers_with_usage_and_asks_for_its_key(tmp_path: Path) -> None:
    server = await model.start(tmp_path, slots=1, context_tokens=256, api_key="model-key")
    question = {"model": server.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    url = f"{server.base_url}/chat/completions"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.post(url, json=question) as answer:
                assert answer.status == 401
            async with session.post(url, json=question, headers={"authorization": "Bearer model-key"}) as answer:
                assert answer.status == 200
                body = await answer.json()
    finally:
        code = await server.stop()
    assert code == 0
    assert body["model"] == server.model
    assert 0 < body["usage"]["completion_tokens"] <= 4
    assert await gone(server.pid, 0)
