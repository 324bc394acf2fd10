"""`python -m tests.fuzz --minutes 5 [--target NAME] [--seed N] [--folder FOLDER]`: fuzz, and tell what was found.

`python -m tests.fuzz --try FILE --target NAME` runs one input again, as a finding's `.bin` file holds it. Ends with 1
when something was found. Structured inputs are made by hypothesis; where the extra `fuzz` is installed, atheris looks
for bytes that reach code which none before has reached.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from .targets import TARGETS, run, seeds
from .worker import INPUT_SECONDS

START_SECONDS = 60  # what a worker may take besides its time, and for its last input


def slices(only: str, minutes: float) -> list[tuple[str, str, float]]:
    """Engine, target and seconds of each slice."""
    pairs = [("hypothesis", name) for name in TARGETS]
    if find_spec("atheris"):
        pairs += [("atheris", name) for name in TARGETS if seeds()[name]]
    pairs = [pair for pair in pairs if only in ("", pair[1])]
    weight = {"built-graph": 3.0, "graph": 2.0}
    total = sum(weight.get(name, 1.0) for _, name in pairs)
    return [(engine, name, 60 * minutes * weight.get(name, 1.0) / total) for engine, name in pairs]


def one(engine: str, target: str, seconds: float, start: int, folder: Path) -> str:
    """Run one slice; what it tried, in words."""
    place = folder / f"{engine}-{target}"
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.worker", engine, target, str(seconds), str(start), str(place)]
    before = set(folder.glob("*.bin"))
    with open(place / "log", "wb") as log:
        try:
            code = subprocess.run(
                command, stdout=log, stderr=log, timeout=seconds + START_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
    if code and set(folder.glob("*.bin")) == before:
        _keep(place, target, f"the process ended with {_named(code)}\n" + _tail(place / "log"))
    tried, accepted = (place / "count").read_text().split() if (place / "count").exists() else ("0", "0")
    found = len(set(folder.glob("*.bin")) - before)
    return f"{int(tried):>8,} inputs, {int(accepted):>6,} accepted, {found} findings"


def _keep(place: Path, target: str, why: str) -> None:
    from .worker import Book

    if (place / "last").exists():
        Book(target, place).finding(why)
    else:
        (place.parent / f"{target}-start.bin").write_bytes(b"")
        (place.parent / f"{target}-start.txt").write_text(why, encoding="utf-8")


def _named(code: int) -> str:
    if code == -signal.SIGALRM:
        return f"SIGALRM: one input took more than {INPUT_SECONDS} s"
    return signal.Signals(-code).name if code < 0 else f"code {code}"


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-4_000:]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Parse the command line and fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--target", default="", choices=["", *TARGETS])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--try", dest="again", type=Path)
    options = parser.parse_args()
    if options.again:
        _say("accepted" if run(options.target, options.again.read_bytes()) else "refused")
        return 0
    folder = options.folder / str(options.seed)
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    for engine, target, seconds in slices(options.target, options.minutes):
        told = one(engine, target, seconds, options.seed, folder)
        _say(f"[{time.monotonic() - begin:5.0f} s] {engine:<10} {target:<12} {told}")
    found = sorted(folder.glob("*.txt"))
    for path in found:
        _say(f"found: {path.with_suffix('.bin')}: {path.read_text(encoding='utf-8').strip().splitlines()[-1][:200]}")
    _say(f"{len(found)} findings (seed {options.seed}, {folder})")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
