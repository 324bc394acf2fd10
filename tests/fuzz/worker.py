"""One process of the fuzzer: `python -m tests.fuzz.worker ENGINE TARGET SECONDS SEED FOLDER`.

It writes each input to FOLDER/last before it tries it, so that an input that kills the process is known. A slow input
is killed by an alarm. The count of inputs and of those that were accepted is kept in FOLDER/count.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
import traceback
from hashlib import sha256
from pathlib import Path

INPUT_SECONDS = 10
MEMORY_BYTES = 2 << 30
EXAMPLES = 300


class Book:
    """What this process has tried."""

    def __init__(self, target: str, folder: Path) -> None:
        self.target, self.folder = target, folder
        self.tried = self.accepted = 0

    def note(self, data: bytes) -> None:
        """Before an input is tried."""
        (self.folder / "last").write_bytes(data)
        self.tried += 1
        if not self.tried % 64:
            self.close()
        signal.alarm(INPUT_SECONDS)

    def close(self) -> None:
        """Write down the counts."""
        (self.folder / "count").write_text(f"{self.tried} {self.accepted}", encoding="ascii")

    def finding(self, why: str) -> None:
        """Keep the last input and what it led to."""
        failed = self.folder / "failed"
        data = (failed if failed.exists() else self.folder / "last").read_bytes()
        failed.unlink(missing_ok=True)
        name = f"{self.target}-{sha256(data).hexdigest()[:12]}"
        (self.folder.parent / f"{name}.bin").write_bytes(data)
        (self.folder.parent / f"{name}.txt").write_text(why, encoding="utf-8")


def by_hypothesis(book: Book, seconds: float, start: int) -> None:
    """Structured inputs and mutations until the time is over; a finding is shrunk first."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from . import structured, targets
    from .running import Runner

    deadline = time.monotonic() + seconds
    runner = Runner() if book.target == "built-graph" else None

    def attempt(data: bytes) -> None:
        if targets.run(book.target, data):
            book.accepted += 1
            if runner:
                signal.alarm(6 * INPUT_SECONDS)
                runner.check(data)

    def once(data: bytes) -> None:
        if time.monotonic() > deadline:
            return
        book.note(data)
        try:
            attempt(data)
        except Exception:
            (book.folder / "failed").write_bytes(data)  # the time may be over before it is tried again
            raise

    number = start
    while time.monotonic() < deadline:
        number += 1
        limits = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        try:
            seed(number)(limits(given(structured.STRATEGIES[book.target])(once)))()
        except Exception:  # whatever it is, it is a finding
            book.finding(traceback.format_exc())
    signal.alarm(0)
    if runner:
        runner.close()


def by_atheris(book: Book, seconds: float, start: int) -> None:
    """Bytes that reach code which none before has reached; ends the process."""
    import atheris  # type: ignore[import-not-found]  # the extra `fuzz`

    with atheris.instrument_imports(include=["atoll", "zipfile"]):
        from . import targets

    corpus = book.folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for index, data in enumerate(targets.seeds()[book.target]):
        (corpus / f"{index}").write_bytes(data)

    def once(data: bytes) -> None:
        book.note(data)
        try:
            book.accepted += targets.run(book.target, data)
        except BaseException:
            book.finding(traceback.format_exc())
            raise

    flags = [f"-max_total_time={int(seconds)}", f"-seed={start + 1}", "-rss_limit_mb=0", "-verbosity=0"]
    flags += [f"-artifact_prefix={book.folder}/", "-max_len=65536", str(corpus)]
    atheris.Setup([sys.argv[0], *flags], once)
    atheris.Fuzz()


def main() -> None:
    """Entry point."""
    engine, target, seconds, start, folder = sys.argv[1:]
    book = Book(target, Path(folder))
    book.folder.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    ways = {"hypothesis": by_hypothesis, "atheris": by_atheris}
    ways[engine](book, float(seconds), int(start))
    book.close()


if __name__ == "__main__":
    main()
