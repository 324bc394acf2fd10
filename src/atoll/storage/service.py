"""A holder's side of `/atoll/storage/1`: request bytes in, response bytes out."""

from __future__ import annotations

from collections.abc import Callable

from atoll.errors import Corrupt, Refused
from atoll.storage.layout import encode, parse
from atoll.storage.messages import (
    MAX_REQUEST_BYTES,
    GetLayout,
    GetPiece,
    HavePieces,
    PutLayout,
    PutPiece,
)
from atoll.storage.pieces import PieceStore
from atoll.wire.reasons import Reason
from atoll.wire.rpc import dispatch, encode_body, handlers


def _ignore(_: Corrupt) -> None:
    """Nobody wants to hear of damage."""


class StorageService:
    """Answers from one PieceStore; `report` hears of each damaged file, the asker of NOT_FOUND."""

    def __init__(self, store: PieceStore, report: Callable[[Corrupt], None] = _ignore) -> None:
        self._store, self._report = store, report
        self._handlers = handlers(
            (PutLayout, self._put_layout),
            (PutPiece, self._put_piece),
            (GetLayout, self._get_layout),
            (GetPiece, self._get_piece),
            (HavePieces, self._have_pieces),
        )

    def handle(self, payload: bytes) -> bytes:
        """The response to one request; raises MachineError only, when the disk fails."""
        return dispatch(self._handlers, payload, MAX_REQUEST_BYTES)

    def _put_layout(self, request: PutLayout) -> bytes:
        layout = parse(request.layout)
        if not layout.holders:
            raise Refused(Reason.MALFORMED, "expected a layout that names its holders")
        self._store.put_layout(layout)
        return b""

    def _put_piece(self, request: PutPiece) -> bytes:
        layout = self._store.layout(request.layout_id)
        if request.index >= len(layout.pieces):
            raise Refused(Reason.MALFORMED, f"the layout has {len(layout.pieces)} pieces")
        self._store.put(layout.pieces[request.index], request.data)
        return b""

    def _get_layout(self, request: GetLayout) -> bytes:
        return encode_body([encode(layout) for layout in self._store.get_layouts(request.blob)])

    def _get_piece(self, request: GetPiece) -> bytes:
        try:
            return self._store.get(request.piece)
        except Corrupt as damage:
            self._report(damage)
            raise Refused(Reason.NOT_FOUND, "the piece was damaged") from damage

    def _have_pieces(self, request: HavePieces) -> bytes:
        return encode_body(self._store.has(request.pieces))
