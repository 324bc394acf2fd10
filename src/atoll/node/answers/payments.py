"""What this node owes servers and is owed by those who ask it, and what it thinks of servers: kept in the journal.

Everything is in memory and, after every change, under one key of the journal, before anything that follows from it
leaves the node: a killed node goes on with exactly what it had promised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Protocol, TypeVar

import msgspec

from atoll.inference.messages import Chunk, Done, Statement, amount, amount_bytes
from atoll.inference.router import Record
from atoll.inference.spotcheck import Case
from atoll.inference.vouchers import Purse, Till
from atoll.wire.eip712 import Verifier
from atoll.wire.rpc import decode_body, encode_body

PURSE, TILL, RECORD, ANSWER, LIE = "answers/purse/", "answers/till/", "answers/record/", "answers/kept/", "answers/lie/"
MAX_EVIDENCE = 4 << 20

_Amount = Annotated[bytes, msgspec.Meta(max_length=32)]
_Kind = TypeVar("_Kind")


class Store(Protocol):
    """Where states are kept under keys (atoll.node.journal.Journal)."""

    def put_snapshot(self, key: str, data: bytes, *, durable: bool = False) -> None:
        """Keep `data` under `key`."""

    def get_snapshot(self, key: str) -> bytes | None:
        """What is kept under `key`."""

    def snapshots(self, prefix: str) -> dict[str, bytes]:
        """Everything under keys with this beginning."""

    def drop_snapshot(self, key: str) -> None:
        """Forget what is kept under `key`."""


class Cover(Protocol):
    """What the chain says of deposits, as this node sees it now. Amounts are base units."""

    def usable(self, payer: bytes) -> int:
        """What a payer has deposited and not asked back."""

    def leaving(self, payer: bytes) -> bool:
        """Whether a payer has asked for some of it back."""

    def redeemed(self, payer: bytes, payee: bytes) -> int:
        """What a payee has received from a payer in all."""


@dataclass(frozen=True)
class Bank:
    """The Deposits contract: what vouchers are signed for, what it holds, and how a voucher is brought to it.

    `redeem(payer, cumulative, signature)` pays this node; it raises ChainError.
    """

    verifier: Verifier
    cover: Cover
    redeem: Callable[[bytes, int, bytes], Awaitable[None]]


class _KeptPurse(msgspec.Struct, frozen=True, array_like=True):
    due: _Amount
    signed: _Amount
    pending: tuple[tuple[bytes, _Amount], ...]


class _KeptTill(msgspec.Struct, frozen=True, array_like=True):
    charged: _Amount
    best: _Amount
    signature: bytes
    redeemed: _Amount
    kept: tuple[tuple[bytes, _Amount], ...]


class KeptAnswer(msgspec.Struct, frozen=True, array_like=True):
    """An answer that is not paid yet, whole."""

    payer: bytes
    chunks: tuple[Chunk, ...]
    done: Done


class Evidence(msgspec.Struct, frozen=True, array_like=True):
    """Why a server is refused: the question as it was sent, its signed answer, what was found instead."""

    question: bytes
    chunks: tuple[Chunk, ...]
    result: bytes
    statement: Statement
    found: str


class Payments:
    """All purses (by server), tills (by payer), records and cases (by server) of one node."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.purses = {key: _purse(data) for key, data in self._all(PURSE)}
        self.tills = {key: _till(data) for key, data in self._all(TILL)}
        self.records: dict[bytes, Record] = {}
        self.cases: dict[bytes, Case] = {}
        for key, data in self._all(RECORD):
            self.records[key], self.cases[key] = msgspec.json.decode(data, type=tuple[Record, Case])

    def _all(self, prefix: str) -> Iterator[tuple[bytes, bytes]]:
        for key, data in self._store.snapshots(prefix).items():
            yield bytes.fromhex(key.removeprefix(prefix)), data

    # -- what this node owes -------------------------------------------------------------------------------------
    def purse(self, server: bytes) -> Purse:
        """What is owed to a server."""
        return self.purses.get(server, Purse())

    def keep_purse(self, server: bytes, purse: Purse) -> None:
        """Write it down."""
        if purse != self.purse(server):
            pending = tuple((nonce, amount_bytes(ceiling)) for nonce, ceiling in purse.pending.items())
            kept = _KeptPurse(amount_bytes(purse.due), amount_bytes(purse.signed), pending)
            self._store.put_snapshot(PURSE + server.hex(), encode_body(kept))
            self.purses[server] = purse

    # -- what this node is owed ----------------------------------------------------------------------------------
    def till(self, payer: bytes) -> Till:
        """What a payer owes."""
        return self.tills.get(payer, Till())

    def keep_till(self, payer: bytes, till: Till) -> None:
        """Write it down, and forget the answers that are paid now."""
        before = self.till(payer)
        if till == before:
            return
        amounts = (amount_bytes(till.charged), amount_bytes(till.best), till.signature, amount_bytes(till.redeemed))
        kept = _KeptTill(*amounts, tuple((nonce, amount_bytes(up_to)) for nonce, up_to in till.kept))
        self._store.put_snapshot(TILL + payer.hex(), encode_body(kept))
        self.tills[payer] = till
        for nonce in {nonce for nonce, _ in before.kept} - {nonce for nonce, _ in till.kept}:
            self._store.drop_snapshot(ANSWER + nonce.hex())

    def charge(self, payer: bytes, nonce: bytes, price: int, answer: KeptAnswer) -> None:
        """An answer was made: it and its price are written down before its end leaves. Free ones are not kept."""
        if price == 0:
            return
        till = self.till(payer).charge(nonce, price)
        if till.kept and till.kept[-1][0] == nonce:
            self._store.put_snapshot(ANSWER + nonce.hex(), encode_body(answer))
        self.keep_till(payer, till)

    def kept_answer(self, nonce: bytes) -> KeptAnswer | None:
        """An answer that is not paid yet; only if its price was charged."""
        data = self._store.get_snapshot(ANSWER + nonce.hex())
        if data is None:
            return None
        answer = decode_body(KeptAnswer, data)
        charged = any(nonce == known for known, _ in self.till(answer.payer).kept)
        return answer if charged else None

    # -- what this node thinks of servers ------------------------------------------------------------------------
    def record(self, server: bytes) -> Record:
        """What is known of a server."""
        return self.records.get(server, Record())

    def case(self, server: bytes) -> Case:
        """What checks have found against a server."""
        return self.cases.get(server, Case())

    def keep_record(self, server: bytes, record: Record, case: Case | None = None) -> None:
        """Write both down."""
        found = self.case(server) if case is None else case
        self._store.put_snapshot(RECORD + server.hex(), msgspec.json.encode((asdict(record), asdict(found))))
        self.records[server], self.cases[server] = record, found

    def keep_evidence(self, server: bytes, evidence: Evidence) -> None:
        """Keep what shows a server's first lie."""
        data = encode_body(evidence)
        if len(data) <= MAX_EVIDENCE and self.evidence(server) is None:
            self._store.put_snapshot(LIE + server.hex(), data)

    def evidence(self, server: bytes) -> Evidence | None:
        """What shows that a server lied."""
        data = self._store.get_snapshot(LIE + server.hex())
        return None if data is None else decode_body(Evidence, data)


def _purse(data: bytes) -> Purse:
    kept = decode_body(_KeptPurse, data)
    return Purse(amount(kept.due), amount(kept.signed), {nonce: amount(ceiling) for nonce, ceiling in kept.pending})


def _till(data: bytes) -> Till:
    kept = decode_body(_KeptTill, data)
    rows = tuple((nonce, amount(up_to)) for nonce, up_to in kept.kept)
    return Till(amount(kept.charged), amount(kept.best), kept.signature, amount(kept.redeemed), rows)
