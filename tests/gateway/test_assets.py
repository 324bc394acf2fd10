"""Static files: types, versions, and large files that are kept compressed."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from atoll.gateway.assets import FOLDER, Assets, version_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "page.js").write_text("export {};")
    (tmp_path / "vendor" / "run.wasm.gz").write_bytes(gzip.compress(b"\x00asm" * 100))
    return tmp_path


def ask(folder: Path, path: str, **headers: str) -> httpx.Response:
    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=[Mount("/static", Assets(folder))]))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers={key.replace("_", "-"): value for key, value in headers.items()})

    return asyncio.run(request())


def test_a_compressed_file_is_served_under_its_name(folder: Path) -> None:
    found = ask(folder, "/static/vendor/run.wasm", accept_encoding="gzip")
    assert found.headers["content-type"] == "application/wasm"
    assert (found.headers["content-encoding"], found.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert found.content == b"\x00asm" * 100  # the client unpacked it
    plain = ask(folder, "/static/vendor/run.wasm", accept_encoding="identity")
    assert "content-encoding" not in plain.headers
    assert plain.content == b"\x00asm" * 100
    assert ask(folder, "/static/vendor/none.wasm").status_code == 404
    assert ask(folder, "/static/vendor/run.wasm.gz.gz").status_code == 404


def test_a_link_with_the_version_is_kept_and_others_are_checked(folder: Path) -> None:
    version = version_of(folder)
    assert "immutable" in ask(folder, f"/static/page.js?v={version}").headers["cache-control"]
    for path in ("/static/page.js", "/static/page.js?v=old"):
        found = ask(folder, path)
        assert found.headers["cache-control"] == "no-cache"
        assert ask(folder, path, if_none_match=found.headers["etag"]).status_code == 304
    (folder / "page.js").write_text("export { };  // changed")
    assert version_of(folder) != version


def test_scripts_have_their_type(folder: Path) -> None:
    assert ask(folder, "/static/page.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert ask(folder, "/static/../secret").status_code == 404


def test_our_scripts_write_no_markup_and_load_nothing_from_elsewhere() -> None:
    ours = [*FOLDER.glob("*.js"), FOLDER / "style.css"]
    assert len(ours) >= 4
    for path in ours:
        text = path.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
        assert not re.search(r"https?://(?!www\.w3\.org)", text), path
        assert "@import" not in text
