"""Appends to the journal of a home until it is killed: `journal_writer.py HOME` writes each number that is stored."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from atoll.node.journal import Journal

if __name__ == "__main__":
    with Journal.open(Path(sys.argv[1])) as journal:
        for i in count():
            seq = journal.append(b"job", i, "step", b"payload %d " % i * 100)
            journal.put_snapshot("latest", b"state %d " % i * 100)
            sys.stdout.write(f"{seq}\n")
            sys.stdout.flush()
