"""Documents and search over HTTP, from an upload to an answer."""

from __future__ import annotations

import io
from typing import Any

import aiohttp
import pytest

from tests.conftest import Stage

pytestmark = pytest.mark.timeout(240)
WAIT = {"Prefer": "wait=60"}


async def search(http: aiohttp.ClientSession, query: str, **more: Any) -> Any:
    async with http.post("/v1/search", json={"query": query, **more}) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def code(response: aiohttp.ClientResponse) -> tuple[int, str]:
    return response.status, (await response.json())["error"]["code"]


async def test_a_document_is_added_found_replaced_and_removed(stage: Stage):
    markdown = "# Rotors\n\nHelicopters hover by turning a rotor.\n"
    async with stage.session() as http:
        query = "/v1/documents?id=rotors&tags=air,manual"
        headers = {**WAIT, "Content-Type": "text/markdown"}
        async with http.post(query, data=markdown, headers=headers) as response:
            made = await response.json()
            assert (response.status, made["state"], made["chunks"]) == (200, "indexed", 1), made
            assert response.headers["location"] == "/v1/documents/rotors"
        found = await search(http, "what makes a chopper hover", explain=True)
        assert found["data"][0]["document"] == "rotors"
        assert (found["data"][0]["tags"], found["mode"], found["degraded"]) == (["air", "manual"], "hybrid", None)
        assert found["data"][0]["explain"]["dense"]["rank"] == 1
        async with http.post("/v1/documents", json={"id": "rotors", "content": "else"}) as response:
            assert await code(response) == (409, "already_exists")
        body = {"content": "Gliders have no engine.", "tags": ["air"]}
        async with http.put("/v1/documents/rotors", json=body, headers=WAIT) as response:
            assert (await response.json())["state"] == "indexed"
        assert (await search(http, "rotor", mode="words"))["data"] == []
        assert len((await search(http, "engine", mode="words"))["data"]) == 1
        async with http.get("/v1/documents") as response:
            assert "rotors" in [one["id"] for one in (await response.json())["data"]]
        async with http.delete("/v1/documents/rotors") as response:
            assert (await response.json())["deleted"]
        assert (await search(http, "engine", mode="words"))["data"] == []
        async with http.get("/v1/documents/rotors") as response:
            assert await code(response) == (404, "not_found")


async def test_a_large_document_goes_through_the_object_store_and_is_followed(stage: Stage):
    text = "\n\n".join(f"# Chapter {n}\n\n" + f"Words about subject{n} and more. " * 30 for n in range(40))
    padding = "\n\n" + "0" * 600_000
    async with stage.session() as http:
        async with http.post("/v1/documents", json={"id": "long", "content": text, "type": "markdown"}) as response:
            assert response.status == 202, await response.text()
        events: list[str] = []
        async with http.get("/v1/documents/long/events") as response:
            async for line in response.content:
                if line.startswith(b"event:"):
                    events.append(line.decode().split()[1])
        assert events[-1] == "done"
        assert (await search(http, "subject17", mode="words"))["data"][0]["document"] == "long"
        large = io.BytesIO((text + padding).encode())
        headers = {"Content-Type": "text/plain"}
        async with http.post("/v1/documents?id=large", data=large, headers=headers) as response:
            made = await response.json()
            assert response.status == 202, made
            assert (made["state"], made["bytes"]) == ("accepted", len(text) + len(padding))
        for name in ("long", "large"):
            async with http.delete(f"/v1/documents/{name}") as response:
                assert response.status == 200


async def test_bad_documents_and_questions_are_refused(stage: Stage):
    async with stage.session() as http:
        for body, expected in (
            ({"content": ""}, (422, "document_empty")),
            ({"content_base64": "AAECAwQ="}, (422, "document_undecodable")),
            ({"content": "<div>" * 5_000, "type": "html"}, (422, "document_too_deep")),
            ({"content_base64": "?"}, (400, "invalid_value")),
            ({}, (400, "invalid_value")),
            ({"content": "x", "id": "a/b"}, (400, "invalid_value")),
            ({"content": "x", "tags": ["t"] * 100}, (400, "invalid_value")),
        ):
            async with http.post("/v1/documents", json=body) as response:
                assert await code(response) == expected, body
        for charset in ("utf-99", "undefined", "idna", "hex", "unicode_escape"):
            headers = {"Content-Type": f"text/plain; charset={charset}"}
            async with http.post("/v1/documents", data=b"x", headers=headers) as response:
                assert await code(response) == (422, "document_undecodable"), charset
            form = aiohttp.FormData()
            form.add_field("file", b"x", filename="a.md", content_type=headers["Content-Type"])
            async with http.post("/v1/documents", data=form) as response:
                assert await code(response) == (422, "document_undecodable"), charset
        async with http.post("/v1/documents", data=b"x", headers={"Content-Type": "image/png"}) as response:
            assert await code(response) == (400, "invalid_value")
        for body in ({"query": " "}, {"query": "x", "limit": 0}, {"query": "x", "filters": {"fields": {"a": []}}}):
            async with http.post("/v1/search", json=body) as response:
                assert await code(response) == (400, "invalid_value"), body
    async with (
        aiohttp.ClientSession(stage.platform.ready["http"]) as http,
        http.post("/v1/search", json={}) as response,
    ):
        assert await code(response) == (401, "missing_api_key")
