"""Every message of the training protocol `/atoll/training/1`: its number, its fields and its size limit, on one screen.

A message travels in an *envelope*: msgpack `[number, body, signature]`. The body is a msgpack array of the fields in
the order given here; the signature is the sender's account key (65 bytes, r || s || v) over
`tagged(MESSAGE, domain, number, body)`. The sender is recovered from the signature and never named in the body.
Numbers are never reused; a changed meaning takes a new number and, if old nodes would misread it, a new ALPN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

import msgspec

from atoll.errors import Refused
from atoll.wire.hashing import Domain, Tag, tagged
from atoll.wire.identity import recover
from atoll.wire.reasons import Reason

ALPN = b"/atoll/training/1"

Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=65, max_length=65)]
Account = Annotated[bytes, msgspec.Meta(min_length=20, max_length=20)]
Counter = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Raw = Annotated[bytes, msgspec.Meta(max_length=8192)]
"""A whole envelope, embedded as evidence: whoever reads it checks its signature again."""

States = Annotated[tuple[Hash, ...], msgspec.Meta(min_length=1, max_length=256)]
Evidence = Annotated[tuple[Raw, ...], msgspec.Meta(max_length=256)]


class Phase(IntEnum):
    """What a committee's quorum signs in a round, in this order (docs/protocol/round.md gives the reasons)."""

    LOCK = 0
    BEACON = 1
    AUDIT = 2
    OPEN = 3
    CERTIFY = 4


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What all training messages share: the job and the round that they belong to."""

    job: Hash
    round: Counter


class Commit(_Body, frozen=True):
    """A worker has finished its unit and binds itself to the result (`digest` is `training.unit.commit_hash`)."""

    unit: Hash
    digest: Hash


class AuditCommit(_Body, frozen=True):
    """An auditor has recomputed another worker's unit and binds itself before anything is revealed."""

    unit: Hash
    digest: Hash


class Reveal(_Body, frozen=True):
    """The opening of a commit: ids of the segment states (first to last), of the update, and the salt."""

    unit: Hash
    states: States
    update: Hash
    salt: Hash


class AuditReveal(_Body, frozen=True):
    """The opening of an audit commit; same fields as a reveal."""

    unit: Hash
    states: States
    update: Hash
    salt: Hash


class Replay(_Body, frozen=True):
    """A replica re-ran each segment of a disputed unit from the worker's own committed states.

    `segment` is the first one whose end differs (1..S), 0 when all agree, 255 when a state was not opened; `state` is
    the id of the replica's own end state of that segment (zeros when there is none).
    """

    unit: Hash
    segment: Annotated[int, msgspec.Meta(ge=0, le=255)]
    state: Hash


class Proposal(_Body, frozen=True):
    """The leader of `view` asks the committee to sign `payload` for `phase`; later views carry their handovers."""

    view: Counter
    phase: Phase
    payload: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    handovers: Annotated[tuple[Annotated[bytes, msgspec.Meta(max_length=1 << 20)], ...], msgspec.Meta(max_length=64)]


class Prepare(_Body, frozen=True):
    """A committee member would sign the statement `digest` of this view: the first of two steps (training.ballot)."""

    view: Counter
    phase: Phase
    digest: Hash


class Vote(_Body, frozen=True):
    """A committee member signs the statement of a phase and view, once a quorum has prepared it."""

    view: Counter
    phase: Phase
    digest: Hash
    signature: Signature


class Quorum(_Body, frozen=True):
    """A payload with the signatures of a quorum: from here on it is the one answer for this phase."""

    view: Counter
    phase: Phase
    payload: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=64)]


class Handover(_Body, frozen=True):
    """A member gives up on the leader and moves to `view`.

    `payload` is the last one that it knows to be prepared in this phase, and `prepares` are the envelopes that show it;
    both are empty when it knows none.
    """

    view: Counter
    phase: Phase
    payload: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    prepares: Annotated[tuple[Raw, ...], msgspec.Meta(max_length=64)]


class Preimage(_Body, frozen=True):
    """A link of a validator's hash chain: its AUDIT link once the commits are locked, its ASSIGN link at the end."""

    value: Hash


class Present(_Body, frozen=True):
    """An enlisted node that is not on the roster is there and wants units."""


class HistoryAsk(_Body, frozen=True):
    """The sender is in `phase` of `round` and asks for the quorums from there on: certificates, then open phases."""

    phase: Phase


Work = Commit | AuditCommit | Reveal | AuditReveal | Replay
"""What workers, auditors and replicas say about a unit."""
Ballots = Proposal | Prepare | Vote | Handover
"""What the members of a committee say to agree."""
Body = Work | Ballots | Quorum | Preimage | Present | HistoryAsk

KILOBYTE = 1024
# number -> (message, size limit of the whole envelope in bytes)
MESSAGES: dict[int, tuple[type[_Body], int]] = {
    1: (Commit, KILOBYTE),
    2: (AuditCommit, KILOBYTE),
    3: (Reveal, 16 * KILOBYTE),
    4: (AuditReveal, 16 * KILOBYTE),
    5: (Replay, KILOBYTE),
    6: (Proposal, 4096 * KILOBYTE),
    7: (Vote, KILOBYTE),
    8: (Quorum, 2048 * KILOBYTE),
    9: (Handover, 2048 * KILOBYTE),
    10: (Preimage, KILOBYTE),
    11: (Present, KILOBYTE),
    12: (HistoryAsk, KILOBYTE),
    13: (Prepare, KILOBYTE),
}
NUMBERS = {kind: number for number, (kind, _) in MESSAGES.items()}
LARGEST = max(limit for _, limit in MESSAGES.values())

_ENVELOPE = msgspec.msgpack.Decoder(tuple[int, bytes, Signature])
_BODIES = {number: msgspec.msgpack.Decoder(kind) for number, (kind, _) in MESSAGES.items()}


@dataclass(frozen=True)
class Signed:
    """A message whose signature has been checked: who sent it, what it says, and the very bytes."""

    account: bytes
    body: Body
    raw: bytes


def message_digest(domain: Domain, number: int, body: bytes) -> bytes:
    """What the sender of a message signs."""
    return tagged(Tag.MESSAGE, domain.encode(), bytes([number]), body)


def seal(domain: Domain, body: Body, account: bytes, sign: Callable[[bytes], bytes]) -> Signed:
    """Sign a message: `sign` maps a 32-byte digest to the account's 65-byte signature."""
    number = NUMBERS[type(body)]
    packed = msgspec.msgpack.encode(body)
    signature = sign(message_digest(domain, number, packed))
    return Signed(account, body, msgspec.msgpack.encode((number, packed, signature)))


def unseal(domain: Domain, raw: bytes) -> Signed:
    """Parse and check an envelope from outside; raises Refused with the reason."""
    if len(raw) > LARGEST:
        raise Refused(Reason.TOO_LARGE, f"{len(raw)} bytes; no message is larger than {LARGEST}")
    try:
        number, packed, signature = _ENVELOPE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(Reason.MALFORMED, f"not an envelope: {error}") from None
    if number not in MESSAGES:
        raise Refused(Reason.UNKNOWN_MESSAGE, f"number {number}")
    kind, limit = MESSAGES[number]
    if len(raw) > limit:
        raise Refused(Reason.TOO_LARGE, f"{kind.__name__} of {len(raw)} bytes; the limit is {limit}")
    try:
        body = _BODIES[number].decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(Reason.MALFORMED, f"{kind.__name__}: {error}") from None
    return Signed(recover(message_digest(domain, number, packed), signature), body, raw)  # type: ignore[arg-type]
