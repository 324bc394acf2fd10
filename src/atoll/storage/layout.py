"""How a blob lies across its holders: the code, the pieces in order, and who holds which.

A blob is cut into **segments** of k MiB, the last one of what is left; each segment is cut into k data **pieces** of
equal size (padded with zero bytes at the end) and n - k parity pieces are added (`erasure`). Piece `s * n + i` is
shard i of segment s; holder i holds shard i of every segment. A piece's id is its BLAKE3, so damage shows by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from atoll.errors import Refused
from atoll.storage.erasure import MAX_SHARDS, ReedSolomon
from atoll.wire.hashing import HASH_BYTES, blob_id
from atoll.wire.reasons import Reason
from atoll.wire.rpc import decode_body, leading_number

SCHEMA = 1
ACCOUNT_BYTES = 20
UNHELD = bytes(ACCOUNT_BYTES)  # stands for a holder that could not be found; repair looks for one
MAX_PIECE_BYTES = 1 << 20
MAX_BLOB_BYTES = 1 << 30
MAX_PIECES = 8192
MAX_LAYOUT_BYTES = MAX_PIECES * (HASH_BYTES + 2) + MAX_SHARDS * (ACCOUNT_BYTES + 2) + 256


class Layout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a blob is. On the wire: the msgpack array of these fields in this order, in its shortest form.

    `blob` is the blob's id and `size` its bytes; `piece_size` = ceil(size / k), at least 1 and at most 1 MiB, is the
    bytes of a piece of every segment but the last, whose pieces have ceil(what is left / k) bytes; `pieces` are the
    ids, segment by segment; `holders` are n accounts, or none before they are chosen.
    """

    schema: int
    blob: bytes
    size: int
    k: int
    n: int
    piece_size: int
    pieces: tuple[bytes, ...]
    holders: tuple[bytes, ...] = ()

    @property
    def segments(self) -> int:
        """How many segments the blob has; an empty blob has one."""
        return max(1, -(-self.size // (self.k * self.piece_size)))

    def segment_bytes(self, segment: int) -> int:
        """Bytes of the blob that lie in this segment."""
        full = self.k * self.piece_size
        return min(full, self.size - segment * full)

    def piece_bytes(self, segment: int) -> int:
        """Bytes of each piece of this segment."""
        return max(1, -(-self.segment_bytes(segment) // self.k))

    def holder_of(self, index: int) -> bytes:
        """Account that holds piece `index`; UNHELD if nobody does."""
        return self.holders[index % self.n] if self.holders else UNHELD

    def with_holders(self, holders: tuple[bytes, ...]) -> Layout:
        """The same pieces with other holders."""
        return msgspec.structs.replace(self, holders=holders)

    @property
    def id(self) -> bytes:
        """Name of the content part: BLAKE3 of the encoded layout without holders. A repair does not change it."""
        return blob_id(encode(self.with_holders(())))


def encode(layout: Layout) -> bytes:
    """Canonical bytes of a layout."""
    return msgspec.msgpack.encode(layout)


def parse(data: bytes) -> Layout:
    """The layout in these bytes; raises Refused (TOO_LARGE, BAD_VERSION, MALFORMED)."""
    if len(data) > MAX_LAYOUT_BYTES:
        raise Refused(Reason.TOO_LARGE, f"a layout has at most {MAX_LAYOUT_BYTES} bytes")
    if leading_number(data) not in (None, SCHEMA):
        raise Refused(Reason.BAD_VERSION, f"expected a layout of schema {SCHEMA}")
    layout = decode_body(Layout, data)
    problem = _problem(layout)
    if problem is None and encode(layout) != data:
        problem = "not in its shortest form"
    if problem:
        raise Refused(Reason.MALFORMED, f"layout: {problem}")
    return layout


def _problem(layout: Layout) -> str | None:
    # The order matters: `segments` divides by k and by the piece size.
    if not 0 <= layout.size <= MAX_BLOB_BYTES:
        return f"a blob has 0..{MAX_BLOB_BYTES} bytes"
    if not 1 <= layout.k <= layout.n <= MAX_SHARDS:
        return f"expected 1 <= k <= n <= {MAX_SHARDS}"
    if layout.piece_size != _piece_size(layout.size, layout.k):
        return f"expected pieces of ceil(size / k) bytes, at least 1 and at most {MAX_PIECE_BYTES}"
    if len(layout.pieces) != layout.segments * layout.n or len(layout.pieces) > MAX_PIECES:
        return f"expected n piece ids for each segment, at most {MAX_PIECES}"
    if any(len(name) != HASH_BYTES for name in (layout.blob, *layout.pieces)):
        return f"ids have {HASH_BYTES} bytes"
    if layout.holders and len(layout.holders) != layout.n:
        return "expected n holders or none"
    if any(len(account) != ACCOUNT_BYTES for account in layout.holders):
        return f"accounts have {ACCOUNT_BYTES} bytes"
    held = [account for account in layout.holders if account != UNHELD]
    return "a holder appears twice" if len(set(held)) != len(held) else None


def _piece_size(size: int, k: int) -> int:
    return max(1, min(MAX_PIECE_BYTES, -(-size // k)))


def choose_code(nodes: int) -> tuple[int, int]:
    """(k, n) for a network of `nodes` holders: n = min(nodes, 16), k = max(1, n - ceil(n / 3)).

    One piece a node, and a third of the nodes, rounded up, may vanish: 1/1, 1/2, 2/3, 2/4, 3/5, 4/6, ... 10/16 from
    sixteen nodes on. A single node cannot lose anything. Raises ValueError for fewer than one node.
    """
    if nodes < 1:
        raise ValueError("a code needs at least one node")
    n = min(nodes, 16)
    return max(1, n - -(-n // 3)), n


def split(blob: bytes, k: int, n: int) -> tuple[Layout, list[bytes]]:
    """The layout of a blob, holders not chosen yet, and its pieces in order; raises Refused(TOO_LARGE)."""
    if len(blob) > MAX_BLOB_BYTES:
        raise Refused(Reason.TOO_LARGE, f"a blob has at most {MAX_BLOB_BYTES} bytes, not {len(blob)}")
    code = ReedSolomon(k, n)
    layout = Layout(SCHEMA, blob_id(blob), len(blob), k, n, _piece_size(len(blob), k), ())
    if layout.segments * n > MAX_PIECES:
        raise Refused(Reason.TOO_LARGE, f"{layout.segments * n} pieces, at most {MAX_PIECES}: choose a larger k")
    pieces: list[bytes] = []
    for segment in range(layout.segments):
        data = _data_pieces(layout, blob, segment)
        pieces += data + code.encode(data)
    return msgspec.structs.replace(layout, pieces=tuple(blob_id(piece) for piece in pieces)), pieces


def _data_pieces(layout: Layout, blob: bytes, segment: int) -> list[bytes]:
    start, size = segment * layout.k * layout.piece_size, layout.piece_bytes(segment)
    cuts = (blob[at : at + size] for at in range(start, start + layout.k * size, size))
    return [cut.ljust(size, b"\0") for cut in cuts]


def join(layout: Layout, pieces: Mapping[int, bytes]) -> bytes:
    """The blob, from any k good pieces of each segment (index -> bytes); one that is not what its id says is ignored.

    Raises Refused: NOT_FOUND when a segment has fewer than k good pieces, WRONG_HASH when the layout's own pieces do
    not make the blob that it names (the layout was made wrongly; another one may exist).
    """
    parts = [join_segment(layout, segment, pieces) for segment in range(layout.segments)]
    return verified(layout, b"".join(parts))


def join_segment(layout: Layout, segment: int, pieces: Mapping[int, bytes]) -> bytes:
    """One segment's bytes, from any k good pieces of it; raises Refused(NOT_FOUND) when there are fewer."""
    first = segment * layout.n
    size = layout.piece_bytes(segment)
    good = {
        index - first: piece
        for index, piece in pieces.items()
        if first <= index < first + layout.n and len(piece) == size and blob_id(piece) == layout.pieces[index]
    }
    if len(good) < layout.k:
        where = f"segment {segment + 1} of {layout.segments}"
        raise Refused(Reason.NOT_FOUND, f"{len(good)} of the {layout.k} pieces that {where} needs")
    data = ReedSolomon(layout.k, layout.n).rebuild(good, range(layout.k))
    return b"".join(data[index] for index in range(layout.k))[: layout.segment_bytes(segment)]


def verified(layout: Layout, blob: bytes) -> bytes:
    """The blob, if it is the one that the layout names; raises Refused(WRONG_HASH)."""
    if len(blob) != layout.size or blob_id(blob) != layout.blob:
        raise Refused(Reason.WRONG_HASH, f"the pieces do not make blob {layout.blob.hex()}")
    return blob
