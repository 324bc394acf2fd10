from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atoll.errors import Corrupt, Refused
from atoll.transfer.blobs import BlobStore
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason


def opened(folder: Path, limit: int = 10) -> BlobStore:
    return BlobStore(folder, limit, sync=False)


def test_blobs_lie_where_the_documents_say(tmp_path: Path) -> None:
    store = opened(tmp_path / "blobs")
    blob = store.put(b"hello")
    assert blob == blob_id(b"hello")
    assert (tmp_path / "blobs" / blob.hex()[:2] / blob.hex()).read_bytes() == b"hello"
    assert store.path(blob).exists() and store.has(blob) and store.size(blob) == 5 and len(store) == 1
    assert store.get(blob) == b"hello" and store.read(blob, 1, 2) == b"el"


def test_the_least_recently_used_blob_makes_room(tmp_path: Path) -> None:
    store = opened(tmp_path)
    first, second = store.put(b"11111"), store.put(b"22222")
    store.get(first)
    third = store.put(b"333")
    assert [store.has(blob) for blob in (first, second, third)] == [True, False, True]
    assert store.total_bytes == 8


def test_no_more_is_forgotten_than_needed(tmp_path: Path) -> None:
    store = opened(tmp_path)
    blobs = [store.put(bytes([number]) * 2) for number in range(5)]
    last = store.put(b"xyz")
    assert list(store.ids()) == [*blobs[2:], last]


def test_pinned_blobs_stay_also_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    pinned = store.put(b"1111", pin=True)
    store.put(b"2222")
    store = opened(tmp_path)
    store.get(pinned)
    newest = store.put(b"333333")
    assert list(store.ids()) == [pinned, newest]
    assert store.pinned(pinned) and not store.pinned(newest)


def test_what_does_not_fit_beside_the_pinned_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.put(b"1111", pin=True)
    other = store.put(b"2222")
    with pytest.raises(Refused, match="7 bytes beside 4 pinned ones exceeds the limit of 10") as refusal:
        store.put(b"7777777")
    assert refusal.value.reason == Reason.BUSY
    assert store.has(other)


def test_a_blob_that_is_here_needs_no_room(tmp_path: Path) -> None:
    store = opened(tmp_path)
    blob, other = store.put(b"1111111"), store.put(b"222")
    assert store.put(b"1111111") == blob
    assert store.has(other)
    store.pin(blob)
    assert store.put(b"1111111") == blob


def test_unpinned_and_deleted(tmp_path: Path) -> None:
    store = opened(tmp_path)
    blob = store.put(b"1111111", pin=True)
    store.unpin(blob)
    store.put(b"2222222")
    assert not store.has(blob)
    blob = store.put(b"1111111", pin=True)
    assert store.delete(blob) and not store.delete(blob)
    assert not store.pinned(blob) and store.total_bytes == 0
    assert not opened(tmp_path).pinned(blob)


def test_a_pin_may_come_before_the_blob(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.pin(blob_id(b"11111"))
    store.put(b"11111")
    with pytest.raises(Refused):
        store.put(b"222222")


def test_a_damaged_blob_is_kept_aside_with_the_way_to_restore_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    blob = store.put(b"hello", pin=True)
    store.path(blob).write_bytes(b"hellO")
    with pytest.raises(Corrupt, match=f"Run `atoll get {blob.hex()}`"):
        store.get(blob)
    assert (tmp_path / "damaged" / blob.hex()).read_bytes() == b"hellO"
    assert not store.has(blob) and store.total_bytes == 0
    store.put(b"hello")
    assert store.get(blob) == b"hello"


def test_stray_files_among_the_pins_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "pinned").mkdir()
    (tmp_path / "pinned" / ("z" * 64)).touch()
    assert len(opened(tmp_path)) == 0


class Machine(RuleBasedStateMachine):
    """The store against a list in order of use, with everything that a user may do to it."""

    limit = 12

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = opened(Path(self.folder.name), self.limit)
        self.kept: list[bytes] = []  # contents, least recently used first
        self.pins: set[bytes] = set()

    contents = st.integers(0, 9).map(lambda number: bytes([number]) * (number % 5 + 1))

    @rule(content=contents)
    def put(self, content: bytes) -> None:
        fixed = sum(len(other) for other in self.kept if other in self.pins)
        if content in self.kept:
            assert self.store.put(content) == blob_id(content)
            self.kept.remove(content)
            self.kept.append(content)
        elif fixed + len(content) > self.limit:
            with pytest.raises(Refused):
                self.store.put(content)
        else:
            self.store.put(content)
            while sum(map(len, self.kept)) + len(content) > self.limit:
                self.kept.remove(next(other for other in self.kept if other not in self.pins))
            self.kept.append(content)

    @rule(content=contents)
    def get(self, content: bytes) -> None:
        if content in self.kept:
            assert self.store.get(blob_id(content)) == content
            self.kept.remove(content)
            self.kept.append(content)
        else:
            with pytest.raises(Refused):
                self.store.get(blob_id(content))

    @rule(content=contents)
    def pin(self, content: bytes) -> None:
        self.store.pin(blob_id(content))
        self.pins.add(content)

    @rule(content=contents)
    def unpin(self, content: bytes) -> None:
        self.store.unpin(blob_id(content))
        self.pins.discard(content)

    @rule(content=contents)
    def delete(self, content: bytes) -> None:
        assert self.store.delete(blob_id(content)) == (content in self.kept)
        self.pins.discard(content)
        if content in self.kept:
            self.kept.remove(content)

    @invariant()
    def agrees(self) -> None:
        assert list(self.store.ids()) == [blob_id(content) for content in self.kept]
        assert self.store.total_bytes == sum(map(len, self.kept)) <= self.limit
        again = opened(Path(self.folder.name), self.limit)
        assert set(again.ids()) == set(self.store.ids()) and again.total_bytes == self.store.total_bytes

    def teardown(self) -> None:
        self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
