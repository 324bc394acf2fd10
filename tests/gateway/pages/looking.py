"""Asking a dashboard for its pages, and reading what a browser would find in them."""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser
from typing import Any

import httpx

from tests.gateway.pages.town import Town, app_of


def ask(source: Any, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    """The answer of a dashboard over these facts (or of an app)."""
    app = source if callable(source) else app_of(source)

    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(request())


def pages_of(town: Town) -> list[str]:
    """The address of one page of every kind."""
    job, node = town.job.hex(), town.network.by_index[-1].account.hex()
    pages = ["/", "/join", "/jobs", f"/jobs/0x{job}", f"/jobs/0x{job}/rounds/0", "/models", f"/nodes/0x{node}",
             f"/accounts/0x{node}", "/answers", "/blobs", "/settlement"]  # fmt: skip
    if town.model_blob:
        pages.append(f"/models/{town.model_blob.hex()}")
    return pages + ["/settlement/0"] * bool(town.view.epochs)


def twin_of(path: str) -> str:
    """Where a page's JSON twin is."""
    return "/index.json" if path == "/" else f"{path}.json"


class Read(HTMLParser):
    """Elements, attributes and words of a page; `text` is all words, with single spaces."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())
