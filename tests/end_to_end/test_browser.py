"""A network as people see it in headless Chromium: the dashboard, tabs that train and are paid, a tab that lies."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from atoll.ledger.chain import Chain
from atoll.wire.identity import parse_account

from .conftest import Network

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

WEB = Path(__file__).parents[1] / "web"
SCREENS = Path(__file__).parents[2] / "build" / "screens"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
UNITS = 5
PATIENCE = 200_000  # milliseconds that a tab may take for its units, on two busy cores
SIZES = {"phone": (390, 844, "dark"), "desktop": (1280, 800, "light")}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network with work for a long time."""
    found = Network(tmp_path_factory.mktemp("browser") / "home", "--nodes", "5", "--rounds", "300")
    try:
        found.wait_for(lambda: "training begins" in found.output())
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def page_of(network: Network) -> str:
    """Where its dashboard is."""
    line = next(line for line in network.output().splitlines() if "dashboard: " in line)
    return line.rpartition("dashboard: ")[2].strip().rstrip("/")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or another one that is on the PATH."""
    found = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
    if found is None:
        pytest.skip("needs a browser: chromium is not on the PATH")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield launched
        launched.close()


def twin(base: str, path: str) -> Any:
    """The JSON twin of a page."""
    answer = httpx.get(f"{base}{'/index' if path == '/' else path}.json", timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.json()


def job_of(base: str) -> str:
    return str(twin(base, "/jobs")["jobs"][0]["job"])


def start_tab(browser: Any, base: str, faults: list[str]) -> Any:
    """A person opens /join in a fresh browser and presses Start."""
    page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{base}/join")
    page.click("#start")
    page.wait_for_function("() => document.querySelector('#account').textContent.startsWith('0x')")
    return page


def account_of(page: Any) -> str:
    return str(page.text_content("#account")).strip()


def test_the_chart_moves(browser: Any, page_of: str) -> None:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(f"{page_of}/")
    page.click("#jobs a")
    page.wait_for_selector(".plot canvas")
    seen = int(page.text_content("#rounds tbody tr:not(.open) th"))
    drawn = page.locator(".plot canvas").screenshot()
    page.wait_for_function(
        "seen => Number(document.querySelector('#rounds tbody tr:not(.open) th').textContent) >= seen + 2", arg=seen,
        timeout=90_000,
    )  # fmt: skip
    assert page.locator(".plot canvas").screenshot() != drawn
    page.context.close()


def tampered(route: Any) -> None:
    """The quantiser of a cheat: ten times the change."""
    source = route.fetch().text()
    assert "rint(change[at] * scale)" in source
    route.fulfill(
        body=source.replace("rint(change[at] * scale)", "rint(-change[at] * scale)"), content_type="text/javascript"
    )


def test_tabs_train_and_are_paid_and_a_cheat_is_caught(browser: Any, network: Network, page_of: str) -> None:
    faults: list[str] = []
    tabs = [start_tab(browser, page_of, faults) for _ in range(2)]
    cheat_context = browser.new_context()
    cheat_context.route("**/atoll/quantise.js*", tampered)
    cheat = cheat_context.new_page()
    cheat.goto(f"{page_of}/join")
    cheat.click("#start")
    for tab in tabs:
        tab.wait_for_function(
            "wanted => Number(document.querySelector('#units').textContent) >= wanted", arg=UNITS, timeout=PATIENCE
        )
    cheat.wait_for_selector("text=The update is not the quantised difference", timeout=PATIENCE)
    rejected = account_of(cheat)
    accounts = [account_of(tab) for tab in tabs]
    check_paid(network, page_of, accounts)
    record = twin(page_of, f"/accounts/{rejected.lower()}")
    assert faults == []
    assert all(line["amount"] == "0" for line in record["lines"] if line["work"] == "training unit")
    check_statement(browser, page_of, accounts[0])
    for tab in tabs:
        tab.context.close()
    cheat_context.close()


def check_paid(network: Network, base: str, accounts: list[str]) -> None:
    """What the tabs have earned is on the chain, in their own accounts."""
    at = twin(base, "/")["network"]
    chain = Chain.connect(at["rpc"], parse_account(at["registry"]))
    for account in accounts:
        network.wait_for(lambda account=account: chain.balance(parse_account(account)) > 0, 90)


def check_statement(browser: Any, base: str, account: str) -> None:
    """Every line of the statement can be recomputed in the browser."""
    page = browser.new_context().new_page()
    page.goto(f"{base}/accounts/{account.lower()}")
    page.click("#check-all")
    page.wait_for_function("() => document.querySelector('#check-sum').textContent.includes('matches the chain')")
    page.context.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The accessibility checker, as the lockfile of tests/web names it."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js: npm is not on the PATH")
    source = WEB / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        command = ["npm", "ci", "--silent", "--no-fund", "--no-audit", "--ignore-scripts"]
        subprocess.run(command, cwd=WEB, check=True, timeout=240)
    return source.read_text("utf-8")


def pages(base: str) -> dict[str, str]:
    """Each kind of page, by the name of its picture."""
    job = job_of(base)
    worker = twin(base, "/")["nodes"][-1]["account"]
    found = {
        "network": "/", "jobs": "/jobs", "job": f"/jobs/{job}", "round": f"/jobs/{job}/rounds/1", "models": "/models",
        "blobs": "/blobs", "settlement": "/settlement", "epoch": "/settlement/0", "node": f"/nodes/{worker}",
        "account": f"/accounts/{worker}", "answers": "/answers", "join": "/join",
    }  # fmt: skip
    return found


def test_every_page_is_accessible_and_has_its_picture(browser: Any, page_of: str, axe: str) -> None:
    SCREENS.mkdir(parents=True, exist_ok=True)
    serious: dict[str, list[str]] = {}
    for size, (width, height, scheme) in SIZES.items():
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = context.new_page()
        for name, path in pages(page_of).items():
            answer = page.goto(f"{page_of}{path}")
            assert answer.status == 200, path
            page.screenshot(path=SCREENS / f"{name}-{size}.png", full_page=True)
            page.evaluate(axe)  # by the debugger: the page's own policy lets no other script in
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            worst = [one["id"] for one in found["violations"] if one["impact"] in ("serious", "critical")]
            serious |= {f"{name} {size}": worst} if worst else {}
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} is too wide"
        context.close()
    assert serious == {}
