"""The journal: order, checksums, damage, one process a home, and a writer that is killed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from atoll.errors import BadInput, Corrupt, InternalError, MachineError, UserError
from atoll.node.journal import MAX_PAYLOAD_BYTES, HomeLock, Journal

A, B = b"\xaa" * 32, b"\xbb" * 32
WRITER = Path(__file__).with_name("journal_writer.py")


def write(home: Path, statement: str, *values: object) -> None:
    """Change the file behind the journal's back."""
    connection = sqlite3.connect(home / "journal.sqlite")
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_events_come_back_in_order_and_by_job(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        assert journal.append(A, 0, "assign", b"one") == 1
        assert journal.append_all([(B, 0, "assign", b"two"), (A, 2, "lock", b""), (A, 1, "commit", b"\0\xff")]) == [
            2,
            3,
            4,
        ]
        assert journal.append_all([]) == []
    with Journal.open(tmp_path) as journal:
        assert journal.append(A, 2, "reveal", b"five", durable=True) == 5
        assert [(e.seq, e.round, e.kind, e.payload) for e in journal.read(A)] == [
            (1, 0, "assign", b"one"), (3, 2, "lock", b""), (4, 1, "commit", b"\0\xff"), (5, 2, "reveal", b"five"),
        ]  # fmt: skip
        assert [e.seq for e in journal.read(A, 2)] == [3, 5]
        assert [e.job for e in journal.read(B)] == [B]
        assert list(journal.read(b"unknown")) == []
        assert journal.jobs() == [A, B]


def test_pruning_never_reuses_numbers(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append_all([(A, round_, "x", b"") for round_ in range(5)])
        journal.append(B, 0, "x", b"")
        assert journal.prune(A, 3) == 3
        assert [e.round for e in journal.read(A)] == [3, 4]
        assert journal.prune(A, 100) == 2
        assert journal.prune(B, 100) == 1
        assert journal.jobs() == []
    with Journal.open(tmp_path) as journal:
        assert journal.append(A, 5, "x", b"") == 7


def test_snapshots(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        assert journal.get_snapshot("state") is None
        journal.put_snapshot("state", b"first")
        journal.put_snapshot("state", b"second", durable=True)
        journal.put_snapshot("other", b"")
        journal.drop_snapshot("missing")
    with Journal.open(tmp_path) as journal:
        assert journal.get_snapshot("state") == b"second"
        assert journal.get_snapshot("other") == b""
        journal.drop_snapshot("state")
        assert journal.get_snapshot("state") is None


def test_all_or_nothing(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        with pytest.raises(BadInput, match="blob"):
            journal.append_all([(A, 0, "x", b"kept?"), (A, 0, "x", bytes(MAX_PAYLOAD_BYTES + 1))])
        assert list(journal.read(A)) == []
        assert journal.append(A, 0, "x", b"") == 1


def test_the_checksum_is_over_every_field(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(A, 3, "kind", b"payload")
    connection = sqlite3.connect(tmp_path / "journal.sqlite")
    ((stored,),) = connection.execute("SELECT checksum FROM event").fetchall()
    connection.close()
    by_hand = bytes(7) + b"\1" + bytes(7) + b"\3" + b"\0\0\0\x20" + A + b"\0\0\0\x04kind" + b"payload"
    assert stored == blake3(by_hand).digest()


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("UPDATE event SET payload = ? WHERE seq = 2", (b"forged",)),
        ("UPDATE event SET round = round + 1 WHERE seq = 2", ()),
        ("UPDATE event SET kind = ? WHERE seq = 2", ("lock",)),
        ("UPDATE event SET kind = CAST(x'ff' AS TEXT) WHERE seq = 2", ()),
        ("UPDATE event SET seq = 9 WHERE seq = 2", ()),
        ("UPDATE event SET job = ? WHERE seq = 2", (B,)),
        ("UPDATE snapshot SET data = ?", (b"forged",)),
        ("UPDATE snapshot SET key = 'elsewhere'", ()),
        ("DROP TABLE event", ()),
        ("PRAGMA application_id = 1", ()),
    ],
)
def test_changed_rows_are_found_when_opening(tmp_path: Path, statement: str, values: tuple[object, ...]) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append_all([(A, i, "step", b"payload %d" % i) for i in range(4)])
        journal.put_snapshot("state", b"value")
    write(tmp_path, statement, *values)
    before = (tmp_path / "journal.sqlite").read_bytes()
    with pytest.raises(Corrupt, match="--fresh-journal") as corrupt:
        Journal.open(tmp_path)
    assert str(tmp_path / "journal.sqlite") in str(corrupt.value)
    assert (tmp_path / "journal.sqlite").read_bytes() == before


def test_changed_rows_are_found_when_reading(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append_all([(A, i, "step", b"payload %d" % i) for i in range(4)])
        journal.put_snapshot("state", b"value")
        write(tmp_path, "UPDATE event SET payload = ? WHERE seq = 3", b"forged")
        write(tmp_path, "UPDATE snapshot SET data = ?", b"forged")
        read = journal.read(A)
        assert [next(read).seq, next(read).seq] == [1, 2]
        with pytest.raises(Corrupt, match="event 3"):
            next(read)
        with pytest.raises(Corrupt, match="'state'"):
            journal.get_snapshot("state")


@pytest.mark.parametrize("damage", ["garbage", "truncated", "zeros", "page", "foreign"])
def test_a_damaged_file_is_kept_and_a_fresh_one_works(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal.open(tmp_path) as journal:
        journal.append_all([(A, i, "step", os.urandom(3000)) for i in range(50)])
    good = path.read_bytes()
    bad = {
        "garbage": b"not a database at all, " * 300,
        "truncated": good[: len(good) // 2],
        "zeros": good[:100] + bytes(len(good) - 100),
        "page": good[:50000] + os.urandom(4096) + good[54096:],
        "foreign": b"",
    }[damage]
    path.write_bytes(bad)
    if damage == "foreign":
        write(tmp_path, "CREATE TABLE recipes (name TEXT)")
        bad = path.read_bytes()
    for _ in range(2):  # a second start does not silently begin anew
        with pytest.raises(Corrupt, match="left as it is"):
            Journal.open(tmp_path)
    assert path.read_bytes() == bad
    with Journal.open(tmp_path, fresh=True) as journal:
        assert journal.jobs() == []
        journal.append(B, 0, "x", b"")
    assert (tmp_path / "journal.sqlite.damaged-1").read_bytes() == bad
    with Journal.open(tmp_path) as journal:
        assert journal.jobs() == [B]
    with Journal.open(tmp_path, fresh=True):
        assert (tmp_path / "journal.sqlite.damaged-2").exists()


def test_a_newer_format_is_not_damage(tmp_path: Path) -> None:
    Journal.open(tmp_path).close()
    write(tmp_path, "PRAGMA user_version = 2")
    with pytest.raises(UserError, match="newer Atoll"):
        Journal.open(tmp_path)


def test_one_home_one_holder(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        Journal.open(tmp_path)
    with pytest.raises(UserError):
        HomeLock(tmp_path)
    journal.close()
    journal.close()
    with pytest.raises(InternalError):
        journal.append(A, 0, "x", b"")
    HomeLock(tmp_path).release()
    Journal.open(tmp_path).close()


def test_a_failed_opening_frees_the_home(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"x" * 4096)
    with pytest.raises(Corrupt):
        Journal.open(tmp_path)
    Journal.open(tmp_path, fresh=True).close()


def test_a_home_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="expected a folder"):
        Journal.open(tmp_path / "file")


def test_a_killed_writer_loses_nothing_that_it_reported_and_frees_the_home(tmp_path: Path) -> None:
    last = 0
    for start in range(3):
        process = subprocess.Popen([sys.executable, str(WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        reported = [int(process.stdout.readline()) for _ in range(50 + 37 * start)]
        with pytest.raises(UserError, match=f"process {process.pid}"):
            Journal.open(tmp_path)
        process.kill()  # kill -9, in the middle of whatever it writes
        rest, _ = process.communicate()
        reported += [int(line) for line in rest.split("\n")[:-1]]
        assert reported[0] == last + 1
        with Journal.open(tmp_path) as journal:
            events = list(journal.read(b"job"))
            assert [e.seq for e in events] == list(range(1, len(events) + 1))
            assert reported[-1] <= len(events) <= reported[-1] + 1
            assert events[-1].payload == b"payload %d " % events[-1].round * 100
            snapshot = journal.get_snapshot("latest")
            assert snapshot in (b"state %d " % events[-1].round * 100, b"state %d " % (events[-1].round - 1) * 100)
            last = len(events)
