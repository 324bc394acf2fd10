"""Makes docs/picture.svg: the live view of a real run of `atoll up`, as the terminal shows it.

Run it as `python docs/picture.py`; it takes about a minute.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console

from atoll.cli.live import picture
from atoll.cli.up import Up, UpOptions, _lock

WIDTH, HEIGHT = 118, 36


def draw(up: Up, target: Path) -> None:
    """Write what the live view shows now."""
    console = Console(record=True, width=WIDTH, height=HEIGHT, force_terminal=True, file=io.StringIO())
    console.print(picture(up.facts(), time.time(), None, WIDTH, HEIGHT))
    svg = console.export_svg(title="atoll up --nodes 6 --dishonest 1")
    target.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))  # nothing is loaded from elsewhere


def main() -> None:
    """Run a network and keep the last picture of its training."""
    import asyncio

    target = Path(__file__).parent / "picture.svg"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        options = UpOptions(
            nodes=6, rounds=12, dishonest=1, attack="random", model="cnn", data="mnist", budget=None, home=home,
            host="127.0.0.1", port=0, chain=None, exit=True, json=None, plain=True,
        )  # fmt: skip
        up = Up(options)

        def follow() -> None:
            while up.phase != "done":
                if len(up.facts().accuracy) >= 11:
                    draw(up, target)
                time.sleep(0.5)

        threading.Thread(target=follow, daemon=True).start()
        with _lock(home):
            sys.exit(asyncio.run(up.run()))


if __name__ == "__main__":
    main()
