"""Makes docs/dashboard.png: the page of a job, and a phone that works for it, in a real run of `atoll up`.

Run it as `python docs/screenshot.py`; it needs Chromium and takes about two minutes.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PORT = 8499
BASE = f"http://127.0.0.1:{PORT}"
ROUNDS = 14  # that the curve shows
HEIGHT, WIDTH, PHONE = 860, 1180, 390
GAP, EDGE = 28, 24
PAPER = (214, 218, 214)


def job() -> dict[str, object]:
    """The job that runs; empty before there is one."""
    try:
        found = httpx.get(f"{BASE}/jobs.json", timeout=5).json()["jobs"]
        return dict(httpx.get(f"{BASE}/jobs/{found[0]['job']}.json", timeout=5).json()) if found else {}
    except httpx.HTTPError:
        return {}


def wait_for_rounds(count: int) -> str:
    """The job's id, once so many rounds are over."""
    while True:
        found = job()
        if int(str(found.get("round", 0))) >= count:
            return str(found["job"])
        time.sleep(1)


def shot(page: Page) -> Image.Image:
    """What a page shows now."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def pictures(browser: Browser) -> tuple[Image.Image, Image.Image]:
    """The job's page on a desk, and /join on a phone that has earned something."""
    wait_for_rounds(2)
    phone = browser.new_page(viewport={"width": PHONE, "height": HEIGHT})
    phone.goto(f"{BASE}/join")
    phone.click("#start")
    phone.wait_for_function("() => Number(document.querySelector('#units').textContent) >= 3", timeout=120_000)
    desk = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    desk.goto(f"{BASE}/jobs/{wait_for_rounds(ROUNDS)}")
    desk.wait_for_timeout(1500)
    phone.evaluate("() => window.scrollTo(0, 0)")
    return shot(desk), shot(phone)


def main() -> None:
    """Run a network, let a tab work for it, and put both pictures side by side."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        command = [sys.executable, "-m", "atoll", "up", "--home", f"{folder}/home", "--port", str(PORT), "--plain"]
        network = subprocess.Popen([*command, "--rounds", "200"], stdout=subprocess.DEVNULL)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            desk, phone = pictures(browser)
        finally:
            browser.close()
            network.terminate()
            network.wait()
    sheet = Image.new("RGB", (WIDTH + PHONE + GAP + 2 * EDGE, HEIGHT + 2 * EDGE), PAPER)
    sheet.paste(desk, (EDGE, EDGE))
    sheet.paste(phone, (EDGE + WIDTH + GAP, EDGE))
    target = Path(__file__).parent / "dashboard.png"
    sheet.quantize(64, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main()
