"""The page /join in Chromium: a person's way through it, real rounds, and what is done about a false gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from atoll.sim.faults import Faults
from atoll.training.committee import UNIT
from atoll.wire.identity import format_account
from atoll.wire.messages import Commit, unseal
from tests.gateway.tabs.house import NODES, House
from tests.web.joining import Home, Opened, opened, stored_key

SECONDS = 150
PATIENCE = 60_000  # milliseconds that one thing may take on a busy machine
FAST = {"atoll.limits": json.dumps({"cpuShare": 100}), "atoll.speed": "2000"}
SLOWER = 15.0  # simulated nodes take so many times longer, so that a browser on a busy machine keeps up


def visit(house: House, chromium: str, story: Callable[[Opened], Awaitable[None]], slower: float = SLOWER) -> Opened:
    """Run a story at a gateway whose network is that much slower than simulated ones are."""
    house.network.dice.faults = Faults(slow={str(index): slower for index in range(NODES)})

    async def run() -> Opened:
        async with asyncio.timeout(SECONDS), opened(house, chromium) as at:
            await story(at)
            return at

    return asyncio.run(run())


async def working(at: Opened) -> Page:
    """A page that is at work with the account of the house's first tab, as far as its unit: the network waits."""
    page = await at.page({**stored_key(at.house), **FAST})
    await page.click("#start")
    return page


async def said(page: Page, words: str) -> None:
    await expect(page.locator("#status")).to_contain_text(words, timeout=PATIENCE)


async def noticed(page: Page, words: str) -> None:
    await expect(page.locator("#notice-list")).to_contain_text(words, timeout=PATIENCE)


def reasons(house: House, number: int = 0) -> list[int]:
    rows = house.network.history[number].certificate.verdicts
    return [row.reason for row in rows if row.kind == UNIT and row.account == house.observer.account]


def test_a_tab_trains_checks_others_and_earns(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=2)

    async def story(at: Opened) -> None:
        page = await working(at)
        await said(page, "committed")
        house.go()
        await said(page, "The job is done")
        rows = page.locator("#unit-list li")
        await expect(rows.filter(has_text="Training, round 1: accepted")).to_have_count(1)
        await expect(rows.filter(has_text="Training, round 1: accepted")).to_contain_text("Signed by the committee")
        await expect(rows.filter(has_text="Training, round 2: accepted")).to_contain_text("1")
        await expect(rows.filter(has_text="Check of another's unit").first).to_contain_text("accepted")
        earned = float(await page.inner_text("#earned"))
        assert earned == sum([float(text) for text in await page.locator("#unit-list .pay").all_inner_texts()]) >= 2.5
        assert await page.get_attribute("#statement", "href") == f"/accounts/{format_account(house.observer.account)}"
        assert await page.locator("#notice-list li").count() == 0

    at = visit(house, chromium, story)
    assert at.errors == []
    assert [reasons(house, number) for number in (0, 1)] == [[0], [0]]


def test_a_reload_opens_what_was_committed(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)

    async def story(at: Opened) -> None:
        page = await working(at)
        await said(page, "committed")
        await page.reload()  # it was at work, so it goes on by itself
        await said(page, "committed")
        house.go()
        await said(page, "The job is done")
        commits = {raw for _, raw in house.said if isinstance(unseal(house.domain, raw).body, Commit)}
        assert len(commits) == 1
        assert at.errors == []

    visit(house, chromium, story)
    assert reasons(house) == [0]


def test_a_gateway_that_does_not_pass_on_the_work_is_noticed(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)
    house.deaf = True

    async def story(at: Opened) -> None:
        page = await working(at)
        await said(page, "committed")
        house.go()
        await noticed(page, "The gateway did not pass on your work")

    visit(house, chromium, story, slower=4 * SLOWER)  # the others need long enough that it was no mere lateness


def test_a_gateway_that_serves_other_bytes_is_noticed(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)

    async def spoil(route: Route) -> None:
        answer = await route.fetch()
        body = bytearray(await answer.body())
        body[-1] ^= 1
        await route.fulfill(response=answer, body=bytes(body))

    async def story(at: Opened) -> None:
        page = await at.page({**stored_key(house), **FAST})
        await page.route(f"**/join/blob/{house.manifest.initial}", spoil)
        await page.click("#start")
        await noticed(page, "The gateway served bytes that are not what their name says")
        assert house.said == []  # nothing was committed to

    visit(house, chromium, story)


def test_nothing_runs_before_the_start_and_nothing_after_the_stop(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)

    async def story(at: Opened) -> None:
        page = await at.page(FAST)
        sockets: list[str] = []
        page.on("websocket", lambda socket: sockets.append(socket.url))
        await expect(page.locator("#consent")).to_be_visible()
        await expect(page.locator("#limits")).to_have_attribute("open", "")
        assert (sockets, page.workers) == ([], [])
        assert await page.evaluate("localStorage.getItem('atoll.key')") is None
        await page.click("#start")
        await said(page, "Writing your account into the registry. The gateway refused: the chain does not answer")
        assert len(sockets) == 1
        await page.click("#stop")
        await expect(page.locator("#consent")).to_be_visible()
        assert page.workers == []
        await page.reload()
        await expect(page.locator("#consent")).to_be_visible()

    visit(house, chromium, story)


def test_pause_lets_the_unit_wait(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)

    async def story(at: Opened) -> None:
        page = await at.page({**stored_key(house), **FAST, "atoll.limits": json.dumps({"cpuShare": 10})})
        await page.click("#start")
        await said(page, "Training a unit")
        await page.click("#pause")
        await said(page, "Paused by you. The unit under way waits.")
        await expect(page.locator("#pause")).to_have_text("Go on")
        await page.click("#limits summary")
        await page.fill("[name=cpuShare]", "100")
        await page.click("#pause")
        await said(page, "committed")

    visit(house, chromium, story)


def test_a_key_goes_to_another_browser(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)

    async def story(at: Opened) -> None:
        page = await at.page(FAST)
        await page.click("#start")
        await page.click("#key summary")
        async with page.expect_download() as saved:
            await page.click("#save-key")
        path = await (await saved.value).path()
        account = await page.inner_text("#account")
        assert json.loads(Path(path).read_text())["account"] == account
        other = await at.page(FAST)
        await other.click("#key summary")
        await other.fill("#import-form [name=text]", "not a key")
        await other.click("#import-form button")
        await expect(other.locator("#key-answer")).to_contain_text("This is no key")
        await other.fill("#import-form [name=text]", Path(path).read_text())
        await other.click("#import-form button")
        await expect(other.locator("#account")).to_have_text(account)
        await other.reload()
        await expect(other.locator("#account")).to_have_text(account)
        await other.click("#key summary")
        await other.click("#show-key")
        assert await other.input_value("#key-text") == Path(path).read_text()

    visit(house, chromium, story)


def test_a_full_gateway_is_told_in_words(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1, max_tabs=0)

    async def story(at: Opened) -> None:
        page = await working(at)
        await said(page, "No place is free")

    visit(house, chromium, story)


def test_another_tab_with_the_same_key_takes_over(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)

    async def story(at: Opened) -> None:
        page = await working(at)
        await said(page, "Round 1")
        other = await at.page_of(page.context)  # the same browser: it begins by itself
        await said(page, "another tab works with this account now")
        await said(other, "Round 1")

    visit(house, chromium, story)


def test_the_page_fits_a_small_phone(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)

    async def story(at: Opened) -> None:
        page = await at.page(FAST, viewport={"width": 360, "height": 740})
        for part in ("key", "device"):
            await page.click(f"#{part} summary")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        for button in await page.locator("#tab button:visible, #tab summary").all():
            box = await button.bounding_box()
            assert box is not None
            assert box["height"] >= 44
        unnamed = "[...document.querySelectorAll('#tab :is(input, select, textarea)')].filter((e) => !e.labels.length"
        assert await page.evaluate(f"{unnamed} && !e.ariaLabel).length") == 0

    visit(house, chromium, story)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(scheme: str, tmp_path: Path, chromium: str, runtime: Path) -> None:
    """https://github.com/dequelabs/axe-core: before the start and at work, with everything unfolded."""
    house = Home(tmp_path, rounds=1)
    axe = (runtime / "node_modules" / "axe-core" / "axe.min.js").read_text()

    async def faults(page: Page) -> list[str]:
        await page.evaluate(axe + "; 0")
        return list(await page.evaluate("axe.run(document).then((found) => found.violations.map(({ id }) => id))"))

    async def story(at: Opened) -> None:
        small = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
        page = await at.page({**stored_key(house), **FAST}, **small)
        for part in ("limits", "key", "device"):
            await page.click(f"#{part} summary")
        assert await faults(page) == []
        await page.click("#start")
        await said(page, "committed")
        assert await faults(page) == []

    visit(house, chromium, story)
