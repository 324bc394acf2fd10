"""The page /join in Chromium, at a gateway on loopback: the house of tests/gateway/tabs with pages and files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from atoll.errors import Unreachable
from atoll.gateway.assets import Assets
from atoll.gateway.pages.site import make_environment
from tests.gateway.tabs.house import House

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class Home(House):
    """A house whose chain cannot be reached: an account that is not registered stays so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.chain.register_for = self.chain.enlist_for = None

    def send(self, *what: Any) -> None:
        """Envelopes go out; transactions do not."""
        if what[0] is None:
            raise Unreachable("the chain does not answer")
        super().send(*what)


@dataclass
class Opened:
    """A gateway and a browser on it. `errors` are those that the pages reported."""

    house: House
    url: str
    browser: Browser
    errors: list[str] = field(default_factory=list)

    async def page(self, keep: dict[str, str] | None = None, **context: Any) -> Page:
        """A page with a storage of its own, that `keep` is put into before the page is opened."""
        return await self.page_of(await self.browser.new_context(**context), keep)

    async def page_of(self, context: BrowserContext, keep: dict[str, str] | None = None) -> Page:
        """Another page of a context: it shares the storage."""
        page = await context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        await page.goto(f"{self.url}/static/icon.svg")  # same origin, no script
        for name, value in (keep or {}).items():
            await page.evaluate("([name, value]) => localStorage.setItem(name, value)", [name, value])
        await page.goto(f"{self.url}/join")
        return page


@asynccontextmanager
async def opened(house: House, chromium: str) -> AsyncIterator[Opened]:
    """Serve the house with its pages behind the guard, and start a browser."""
    assets = Assets()
    template = make_environment().get_template("join.html")

    async def join(_: Request) -> Response:
        return HTMLResponse(template.render(data={}, topics="", twin="", here="/join"))

    async def jobs(_: Request) -> Response:
        name, price = house.manifest.name, str(house.manifest.policy.unit_price)
        row = {"state": "running", "label": name, "unit_price": price, "segments": house.manifest.segments, "places": 3}
        return JSONResponse({"jobs": [row]})

    async def icon(_: Request) -> Response:
        return Response(status_code=204)

    more = [Route("/join", join), Route("/jobs.json", jobs), Route("/favicon.ico", icon), Mount("/static", assets)]
    async with house.open(more) as where, async_playwright() as play:
        browser = await play.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield Opened(house, f"http://{where}", browser)
        finally:
            await browser.close()


def stored_key(house: House, tab: int = 0) -> dict[str, str]:
    """What the page keeps in this browser once it has the key of one of the house's accounts."""
    return {"atoll.key": house.tab_nodes[tab].key.private.hex()}
