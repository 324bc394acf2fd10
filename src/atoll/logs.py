"""Where a node's log goes, and how an error reaches a person: one sentence, no traceback."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

from atoll.errors import AtollError

LOG_BYTES = 4 << 20


def log_to(home: Path, level: str, echo: bool) -> None:
    """Write the log to HOME/log.txt (two files of 4 MB at most); `echo` shows it on the terminal as well."""
    home.mkdir(parents=True, exist_ok=True)
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    outputs: list[logging.Handler] = [RotatingFileHandler(home / "log.txt", maxBytes=LOG_BYTES, backupCount=1)]
    if echo:
        outputs.append(logging.StreamHandler(sys.stderr))
    for output in outputs:
        output.setFormatter(form)
        logging.getLogger("atoll").addHandler(output)
    logging.getLogger("atoll").setLevel(level.upper())


def say_error(error: AtollError) -> int:
    """Tell a person what went wrong and return the exit code."""
    sys.stderr.write(f"atoll: {error}\n")
    return error.exit_code
