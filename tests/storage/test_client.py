from __future__ import annotations

import asyncio
import random
from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from atoll.errors import Refused, Unreachable
from atoll.storage.client import fetch_blob, store_blob
from atoll.storage.layout import UNHELD, Layout, encode, split
from atoll.storage.messages import ALPN, GetPiece, HavePieces, PutLayout, PutPiece
from atoll.storage.pieces import PieceStore
from atoll.storage.placement import Node, order
from atoll.storage.service import StorageService
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason
from atoll.wire.rpc import encode_body, encode_ok, encode_refusal, leading_number

BLOB = random.Random(3).randbytes(5000)
MIB = 1 << 20


class Network:
    """Holders in one process; `down` do not answer, `hung` never do, `lying` change a byte of each piece."""

    def __init__(self, folder: Path, count: int, limit: int = 100 * MIB) -> None:
        self.nodes = [Node(number.to_bytes(20, "big"), f"10.0.{number}.0/24") for number in range(1, count + 1)]
        self.accounts = [node.account for node in self.nodes]
        self.stores = {account: PieceStore(folder / account.hex(), limit, sync=False) for account in self.accounts}
        self.down: set[bytes] = set()
        self.hung: set[bytes] = set()
        self.lying: set[bytes] = set()
        self.asked: list[tuple[bytes, int]] = []

    async def request(self, account: bytes, alpn: bytes, payload: bytes) -> bytes:
        assert alpn == ALPN
        number = leading_number(payload)
        assert number is not None
        self.asked.append((account, number))
        if account in self.hung:
            await asyncio.Event().wait()
        if account in self.down:
            raise Unreachable("no answer")
        response = StorageService(self.stores[account]).handle(payload)
        if account in self.lying and number == GetPiece.__struct_config__.tag:
            response = response[:-1] + bytes([response[-1] ^ 1])
        return response

    def count(self, message: type[msgspec.Struct]) -> int:
        return sum(number == message.__struct_config__.tag for _, number in self.asked)

    def store(self, blob: bytes, nodes: list[Node] | None = None, code: tuple[int, int] | None = None) -> Layout:
        return asyncio.run(store_blob(blob, self.nodes if nodes is None else nodes, self.request, code))

    def fetch(self, blob: bytes) -> bytes:
        return asyncio.run(fetch_blob(blob, self.accounts, self.request))


# Storing.
def test_each_holder_gets_its_own_piece(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    layout = network.store(BLOB)
    assert (layout.k, layout.n) == (4, 6)
    assert list(layout.holders) == order(layout.blob, network.nodes)
    for index, holder in enumerate(layout.holders):
        assert network.stores[holder].has(layout.pieces) == [index == other for other in range(6)]
        assert network.stores[holder].get_layouts(layout.blob) == [layout]


def test_storing_again_sends_no_piece_twice(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    first = network.store(BLOB)
    assert network.count(PutPiece) == 6
    assert network.store(BLOB) == first
    assert network.count(PutPiece) == 6


def test_a_spare_takes_the_place_of_a_holder_that_fails(tmp_path: Path) -> None:
    network = Network(tmp_path, 8)
    planned = order(blob_id(BLOB), network.nodes)
    network.down = {planned[1]}
    layout = network.store(BLOB, code=(4, 6))
    assert layout.holders == (planned[0], planned[6], *planned[2:6])
    assert network.stores[planned[7]].get_layouts(layout.blob) == [layout]  # others know where it is, too
    network.down = set(planned[2:4])
    assert network.fetch(layout.blob) == BLOB


def test_no_spare_takes_the_place_of_two(tmp_path: Path) -> None:
    network = Network(tmp_path, 9)
    planned = order(blob_id(BLOB), network.nodes)
    network.down = {planned[0], planned[3], planned[6]}
    layout = network.store(BLOB, code=(4, 6))
    assert sorted(layout.holders) == sorted(set(planned) - network.down)[:6] == sorted(set(layout.holders))
    for index, holder in enumerate(layout.holders):
        assert network.stores[holder].has([layout.pieces[index]]) == [True]


def test_a_full_holder_is_passed_over(tmp_path: Path) -> None:
    network = Network(tmp_path, 7)
    planned = order(blob_id(BLOB), network.nodes)
    network.stores[planned[0]] = PieceStore(tmp_path / "small", 10, sync=False)
    assert network.store(BLOB, code=(4, 6)).holders == (planned[6], *planned[1:6])


def test_without_spares_the_layout_says_which_pieces_nobody_holds(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    planned = order(blob_id(BLOB), network.nodes)
    network.down = {planned[2]}
    layout = network.store(BLOB)
    assert layout.holders == (*planned[:2], UNHELD, *planned[3:])
    assert network.fetch(layout.blob) == BLOB


def test_too_few_holders_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    network.down = set(network.accounts[:2])
    with pytest.raises(Unreachable, match=r"4 of 6 holders took .* expected at least 5; start more nodes"):
        network.store(BLOB)


def test_networks_of_every_size_lose_what_they_may(tmp_path: Path) -> None:
    for count in (1, 2, 3, 5, 17):
        network = Network(tmp_path / str(count), count)
        layout = network.store(BLOB)
        network.down = set(layout.holders[: layout.n - layout.k])
        assert network.fetch(layout.blob) == BLOB


def test_nobody_to_store_with(tmp_path: Path) -> None:
    network = Network(tmp_path, 1)
    with pytest.raises(Unreachable, match="start at least one"):
        network.store(BLOB, nodes=[])
    with pytest.raises(ValueError, match="6 pieces needs as many nodes"):
        network.store(BLOB, code=(4, 6))


def test_an_empty_blob(tmp_path: Path) -> None:
    network = Network(tmp_path, 3)
    assert network.fetch(network.store(b"").blob) == b""


# Fetching.
def test_any_two_of_six_may_vanish(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    layout = network.store(BLOB)
    for gone in combinations(network.accounts, 2):
        network.down = set(gone)
        assert network.fetch(layout.blob) == BLOB


def test_any_two_of_six_may_lie_or_hang(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    layout = network.store(BLOB)
    for one, other in combinations(network.accounts, 2):
        network.lying, network.hung = {one}, {other}
        assert network.fetch(layout.blob) == BLOB


def test_too_few_pieces_says_how_many_and_what_to_do(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    layout = network.store(BLOB)
    network.down, network.lying = set(network.accounts[:2]), {network.accounts[2]}
    with pytest.raises(Unreachable) as error:
        network.fetch(layout.blob)
    message = str(error.value)
    assert "3 of the 4 pieces" in message
    assert "2 nodes did not answer, 1 sent damaged pieces" in message
    assert f"run `atoll get {layout.blob.hex()}` again" in message


def test_a_damaged_file_of_a_holder_is_survived(tmp_path: Path) -> None:
    network = Network(tmp_path, 3)
    layout = network.store(BLOB)
    store = network.stores[layout.holders[0]]
    store.path(layout.pieces[0]).write_bytes(b"damage")
    assert network.fetch(layout.blob) == BLOB


def test_several_segments_each_with_another_holder_failing(tmp_path: Path) -> None:
    blob = random.Random(4).randbytes(4 * MIB + 100)  # 2/3: three segments
    network = Network(tmp_path, 3)
    layout = network.store(blob)
    assert layout.segments == 3
    for segment, holder in enumerate(layout.holders):
        assert network.stores[holder].delete(layout.pieces[segment * 3 + segment])
    assert network.fetch(layout.blob) == blob


def test_after_the_first_segment_only_as_many_pieces_as_needed_travel(tmp_path: Path) -> None:
    network = Network(tmp_path, 3)
    layout = network.store(random.Random(4).randbytes(4 * MIB + 100))
    network.asked.clear()
    network.fetch(layout.blob)
    assert network.count(GetPiece) == 3 + 2 + 2


def test_an_unknown_blob(tmp_path: Path) -> None:
    network = Network(tmp_path, 3)
    with pytest.raises(Refused, match="none of 3 nodes knows") as refusal:
        network.fetch(bytes(32))
    assert refusal.value.reason == Reason.NOT_FOUND
    network.down = {network.accounts[0]}  # one that might have known it
    with pytest.raises(Unreachable, match="no layout was found"):
        network.fetch(bytes(32))


def test_pieces_are_found_where_the_layout_does_not_say(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    layout = network.store(BLOB)
    nowhere = layout.with_holders(tuple(bytes([200 + number]) * 20 for number in range(6)))
    network.down = set(nowhere.holders)
    for store in network.stores.values():
        store.put_layout(nowhere)
    assert network.fetch(layout.blob) == BLOB
    assert network.count(HavePieces) > 6


def test_false_layouts_cannot_hide_the_blob(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    layout = network.store(BLOB)
    lie, pieces = split(b"x" * len(BLOB), 4, 6)
    false = msgspec.structs.replace(lie, blob=layout.blob, holders=layout.holders)
    for account in network.accounts[:4]:
        store = PieceStore(tmp_path / "false" / account.hex(), MIB, sync=False)
        store.put_layout(false)
        for name, piece in zip(lie.pieces, pieces, strict=True):
            store.put(name, piece)
        for name in layout.pieces:
            if network.stores[account].has([name]) == [True]:
                store.put(name, network.stores[account].get(name))
        network.stores[account] = store  # knows only the lie, but still holds its piece of the truth
    assert network.fetch(layout.blob) == BLOB


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        encode_ok(b""),
        encode_ok(encode_body([b"no layout"])),
        encode_ok(encode_body([encode(split(b"another blob", 1, 1)[0].with_holders((bytes([1]) * 20,)))])),
        encode_refusal(Reason.PAUSED),
    ],
)
def test_answers_that_are_no_layouts_are_passed_over(tmp_path: Path, answer: bytes) -> None:
    network = Network(tmp_path, 3)
    layout = network.store(BLOB)
    odd = b"\xee" * 20

    async def request(account: bytes, alpn: bytes, payload: bytes) -> bytes:
        return answer if account == odd else await network.request(account, alpn, payload)

    assert asyncio.run(fetch_blob(layout.blob, [odd, *network.accounts], request)) == BLOB


def test_a_wrong_count_of_haves_counts_as_none(tmp_path: Path) -> None:
    network = Network(tmp_path, 2)

    async def request(account: bytes, alpn: bytes, payload: bytes) -> bytes:
        if leading_number(payload) == HavePieces.__struct_config__.tag and account == network.accounts[0]:
            return encode_ok(encode_body([True, True]))
        return await network.request(account, alpn, payload)

    layout = asyncio.run(store_blob(BLOB, network.nodes, request))
    assert network.accounts[0] not in layout.holders
    assert asyncio.run(fetch_blob(layout.blob, network.accounts, request)) == BLOB


def test_nothing_is_left_running(tmp_path: Path) -> None:
    network = Network(tmp_path, 6)
    layout = network.store(BLOB)
    network.hung = set(network.accounts[:2])

    async def fetch_and_count() -> int:
        await fetch_blob(layout.blob, network.accounts, network.request)
        return len(asyncio.all_tasks())

    assert asyncio.run(fetch_and_count()) == 1  # this test's own
    assert network.count(PutLayout) > 0
