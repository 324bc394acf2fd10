"""The messages of `/atoll/storage/1`: numbers, fields and limits. All since version 1; numbers are never reused.

| number | request | body of the response |
|---|---|---|
| 1 | PutLayout: the layout, its holders named | empty |
| 2 | PutPiece: layout id, index, bytes | empty |
| 3 | GetLayout: blob id | array of 1..4 layouts |
| 4 | GetPiece: piece id | the piece |
| 5 | HavePieces: up to 1024 piece ids | array of as many booleans |
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from atoll.storage.layout import MAX_LAYOUT_BYTES, MAX_PIECE_BYTES, MAX_PIECES
from atoll.wire.rpc import Hash, Request

ALPN = b"/atoll/storage/1"
MAX_REQUEST_BYTES = MAX_PIECE_BYTES + 4096
MAX_RESPONSE_BYTES = 4 * MAX_LAYOUT_BYTES + 4096
MAX_ASKED = 1024  # piece ids in one HavePieces

LayoutBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_LAYOUT_BYTES)]


class PutLayout(Request, frozen=True, tag=1):
    """Keep this layout: pieces of it follow, or somebody will ask where its pieces are."""

    layout: LayoutBytes


class PutPiece(Request, frozen=True, tag=2):
    """Keep piece `index` of a layout that was put before."""

    layout_id: Hash
    index: Annotated[int, msgspec.Meta(ge=0, lt=MAX_PIECES)]
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_PIECE_BYTES)]


class GetLayout(Request, frozen=True, tag=3):
    """Which layouts does the node know for this blob?"""

    blob: Hash


class GetPiece(Request, frozen=True, tag=4):
    """Send this piece."""

    piece: Hash


class HavePieces(Request, frozen=True, tag=5):
    """Which of these pieces does the node have?"""

    pieces: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=MAX_ASKED)]
