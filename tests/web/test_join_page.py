"""The page /join in Chromium: a person's way through it, real rounds, and what is done about a false gateway."""

from __future__ import annotations

import asyncio
import json
import re
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
        await expect(page.locator("#offers")).to_contain_text("pays 1 ATL for an accepted unit")
        await expect(page.locator("#new-key")).to_be_visible()
        assert (sockets, page.workers) == ([], [])
        assert await page.evaluate("localStorage.getItem('atoll.key')") is None
        await page.click("#start")
        await said(page, "Writing your account into the registry. The gateway refused: the chain does not answer")
        assert len(sockets) == 1
        await expect(page.locator("#claim-words")).to_contain_text("claims for you when an epoch is final")
        await page.click("#stop")
        await expect(page.locator("#consent")).to_be_visible()
        await expect(page.locator("#stopped-title")).to_be_focused()
        await expect(page.locator("#stopped-sum")).to_contain_text("0 ATL earned, 0 pieces of work accepted")
        await expect(page.locator("#stopped-statement")).to_have_attribute("href", re.compile("/accounts/0x"))
        await expect(page.locator("#old-key")).to_be_visible()
        await expect(page.locator("#new-key")).to_be_hidden()
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


def test_whole_units_that_come_too_late_twice_make_room_for_small_ones(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)

    async def hold(_: Route) -> None:
        """The model never arrives, so the unit is never finished."""

    async def story(at: Opened) -> None:
        page = await at.page({**stored_key(house), **FAST, "atoll.late": "1"})
        await page.route(f"**/join/blob/{house.manifest.initial}", hold)
        await page.click("#start")
        await expect(page.locator("#speed")).to_contain_text("whole units")
        await said(page, "getting the unit ready")
        house.go()
        await noticed(page, "this device takes small ones from now on")
        assert "may suit" not in await page.inner_text("#notice-list")
        await expect(page.locator("#speed")).to_contain_text("small units")
        assert await page.evaluate("localStorage.getItem('atoll.late')") == "2"

    visit(house, chromium, story)


def test_a_verdict_that_was_missed_comes_from_the_statement(tmp_path: Path, chromium: str) -> None:
    house = Home(tmp_path, rounds=1)
    account = house.observer.account
    line = {"job": "0x" + house.network.terms.job.hex(), "round": 0, "unit": "0x" + "ab" * 32, "kind": 2, "reason": 0,
            "amount": str(5 * 10**17), "sentence": "Accepted and paid."}  # fmt: skip
    old = {**line, "job": "0x" + "cd" * 32}  # of an earlier visit

    async def statement(route: Route) -> None:
        await route.fulfill(json={"lines": [line, old], "page": 1, "pages": 1})

    async def story(at: Opened) -> None:
        page = await at.page({**stored_key(house), **FAST})
        await page.route("**/accounts/**", statement)
        await page.click("#start")
        await said(page, "committed")
        assert await page.locator("#unit-list li").count() == 0
        house.view.claimed[account] = house.settler.book.totals.accounts[account] = 10**18
        rows = page.locator("#unit-list li")
        await expect(rows).to_have_text(["Check of another's unit, round 1: accepted0.5As the gateway tells it."])
        await expect(page.locator("#earned")).to_have_text("0.5")
        await page.click("#stop")
        await expect(page.locator("#stopped-sum")).to_contain_text("0.5 ATL earned, 1 piece of work accepted")
        await expect(rows).to_have_count(1)
        await expect(page.locator("#history")).to_be_visible()

    assert visit(house, chromium, story).errors == []


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
        page = await at.page({**stored_key(house), **FAST}, viewport={"width": 360, "height": 740})
        await page.click("#start")
        await said(page, "Round 1")  # the network of the key is shown by now
        assert "registry 0x" in str(await page.text_content("#network"))
        await page.click("#stop")
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
