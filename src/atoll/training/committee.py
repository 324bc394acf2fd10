"""What a committee signs: one payload for each phase of a round, and what counts as a quorum of signatures.

A quorum is floor(2m/3) + 1 of m members. A signature counts for one phase and one view (leader); how members come to
sign the same payload is in `training.ballot`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from atoll.errors import Refused
from atoll.training.beacon import Draw, combine
from atoll.wire.eip712 import CERTIFICATE, Value, Verifier, committee_hash
from atoll.wire.hashing import Domain, Tag, keccak, tagged, u32
from atoll.wire.identity import recover
from atoll.wire.merkle import MerkleTree
from atoll.wire.messages import Account, Evidence, Handover, Hash, Phase, Prepare, Quorum, Raw, Signed
from atoll.wire.reasons import Reason

DISPUTED = 255
"""A finding that is not yet a verdict: the audit disagreed, or did not come; replicas decide."""

UNIT, AUDIT, REPLICA, VALIDATION = 1, 2, 3, 4
"""Kinds of work that a round's verdicts list; the same numbers as the kinds of receipts (docs/protocol/receipts.md)."""


class _Payload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Canonical msgpack array: the same content has the same bytes."""


class LockPayload(_Payload, frozen=True):
    """The commits of this round as signed envelopes, ordered by unit id."""

    commits: Evidence


Links = Annotated[tuple[tuple[Account, Hash], ...], msgspec.Meta(max_length=64)]


class BeaconPayload(_Payload, frozen=True):
    """The revealed hash-chain links, ordered by account: the audit beacon follows from them."""

    links: Links


class AuditPayload(_Payload, frozen=True):
    """The auditors' commits as signed envelopes, ordered by unit id."""

    commits: Evidence


class OpenPayload(_Payload, frozen=True):
    """What was revealed, and what the members found: (unit, reason code or DISPUTED), ordered by unit id."""

    reveals: Evidence
    audit_reveals: Evidence
    findings: Annotated[tuple[tuple[Hash, int], ...], msgspec.Meta(max_length=256)]


class Row(_Payload, frozen=True):
    """One verdict: a kind of work, the unit it was done on, who did it, and OK or the reason why it is not paid."""

    kind: int
    unit: Hash
    account: Account
    reason: int


class CertifyPayload(_Payload, frozen=True):
    """The end of a round: replays as evidence, verdicts, the new model, and who takes part in the next round."""

    replays: Annotated[tuple[Raw, ...], msgspec.Meta(max_length=768)]  # three for each of 256 units
    present: Evidence
    links: Links
    verdicts: Annotated[tuple[Row, ...], msgspec.Meta(max_length=2048)]
    model: Hash
    roster: Annotated[tuple[Account, ...], msgspec.Meta(max_length=256)]
    committee: Annotated[tuple[Account, ...], msgspec.Meta(max_length=16)]
    lock_root: Hash
    last: bool


Payload = LockPayload | BeaconPayload | AuditPayload | OpenPayload | CertifyPayload
PAYLOADS: dict[Phase, type[_Payload]] = {
    Phase.LOCK: LockPayload,
    Phase.BEACON: BeaconPayload,
    Phase.AUDIT: AuditPayload,
    Phase.OPEN: OpenPayload,
    Phase.CERTIFY: CertifyPayload,
}
_DECODERS = {phase: msgspec.msgpack.Decoder(kind) for phase, kind in PAYLOADS.items()}


def encode(payload: Payload | Row) -> bytes:
    """Canonical bytes of a payload."""
    return msgspec.msgpack.encode(payload)


def decode(phase: Phase, data: bytes) -> Payload:
    """Parse a payload from outside; refuses anything that is not the canonical form."""
    try:
        payload = _DECODERS[phase].decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(Reason.MALFORMED, f"payload of {phase.name}: {error}") from None
    if msgspec.msgpack.encode(payload) != data:
        raise Refused(Reason.MALFORMED, f"payload of {phase.name} is not in canonical form")
    return payload  # type: ignore[return-value]


@dataclass(frozen=True)
class Place:
    """Where a committee's signature counts: the network, the contract that checks it, the job, the round."""

    domain: Domain
    jobs_contract: bytes
    job: bytes
    round: int
    committee: tuple[bytes, ...]


def quorum(members: int) -> int:
    """Signatures that make a statement of a committee of so many members."""
    return 2 * members // 3 + 1


def verdict_root(verdicts: Sequence[Row]) -> bytes:
    """Root of the tree over the encoded verdict rows, in their order."""
    return MerkleTree([encode(row) for row in verdicts]).root


def lock_root(lock: LockPayload) -> bytes:
    """Root of the tree over the commit envelopes, in their order."""
    return MerkleTree(list(lock.commits)).root


def certificate_fields(place: Place, payload: CertifyPayload, attempt: int) -> dict[str, Value]:
    """The EIP-712 `Certificate` that the Jobs contract checks; `attempt` is the view in which it was signed."""
    return {
        "job": place.job,
        "round": place.round,
        "attempt": attempt,
        "lockRoot": payload.lock_root,
        "verdictRoot": verdict_root(payload.verdicts),
        "modelRoot": payload.model,
        "committee": committee_hash(place.committee),
        "nextCommittee": committee_hash(payload.committee),
        "last": payload.last,
    }


def statement_digest(place: Place, phase: Phase, view: int, payload: bytes) -> bytes:
    """What a member signs: a tagged hash for the inner phases, the EIP-712 certificate for the last one.

    The view is part of it: signatures from different views never add up to a quorum.
    """
    if phase is not Phase.CERTIFY:
        where = (place.domain.encode(), place.job, u32(place.round))
        return tagged(Tag.STATEMENT, *where, bytes([phase]), u32(view), keccak(payload))
    certificate = decode(phase, payload)
    if not isinstance(certificate, CertifyPayload):
        raise Refused(Reason.MALFORMED, "a certificate was expected")
    verifier = Verifier(place.domain.chain_id, place.jobs_contract)
    return CERTIFICATE.digest(verifier, certificate_fields(place, certificate, view))


def verify_quorum(place: Place, message: Quorum) -> Payload:
    """Check the signatures of a quorum message against the committee; returns its payload or raises Refused."""
    digest = statement_digest(place, message.phase, message.view, message.payload)
    signers = {recover(digest, signature) for signature in message.signatures}
    if not signers <= set(place.committee):
        raise Refused(Reason.UNKNOWN_ACCOUNT, "a signer is not a member of the committee")
    needed = quorum(len(place.committee))
    if len(signers) < needed:
        raise Refused(Reason.BAD_SIGNATURE, f"{len(signers)} of {len(place.committee)} signed; {needed} must")
    return decode(message.phase, message.payload)


Open = Callable[[bytes], Signed]
"""Opens an envelope and checks its signature; raises Refused."""


def prepared_view(place: Place, body: Handover, open_: Open) -> int:
    """The view in which a handover's payload was prepared, -1 if it names none; raises Refused for bad evidence."""
    if not body.payload and not body.prepares:
        return -1
    said, members = set(), set()
    for raw in body.prepares:
        signed = open_(raw)
        prepare = signed.body
        if not isinstance(prepare, Prepare) or signed.account not in place.committee:
            raise Refused(Reason.MALFORMED, "prepares of members were expected")
        if (prepare.job, prepare.round, prepare.phase) != (place.job, place.round, body.phase):
            raise Refused(Reason.MALFORMED, "a prepare belongs to another round or phase")
        said.add((prepare.view, prepare.digest))
        members.add(signed.account)
    if len(said) != 1 or len(members) < quorum(len(place.committee)):
        raise Refused(Reason.BAD_PROOF, "no quorum prepared the same statement")
    view, digest = said.pop()
    if view >= body.view or digest != statement_digest(place, body.phase, view, body.payload):
        raise Refused(Reason.BAD_PROOF, "the prepares are not those of the payload, or of a later view")
    return view


def carried_payload(place: Place, phase: Phase, view: int, handovers: Sequence[bytes], open_: Open) -> bytes:
    """The payload that a new leader must propose, b"" if it is free to choose: the one that was prepared last.

    `handovers` are envelopes; raises Refused unless a quorum of members signed one for this phase and view.
    """
    members, found = set(), []
    for raw in handovers:
        signed = open_(raw)
        body = signed.body
        if not isinstance(body, Handover) or (body.job, body.round) != (place.job, place.round):
            raise Refused(Reason.MALFORMED, "a handover of this round was expected")
        if (body.phase, body.view) != (phase, view) or signed.account not in place.committee:
            raise Refused(Reason.NOT_LEADER, "a handover belongs to another view or an outsider")
        members.add(signed.account)
        found.append((-prepared_view(place, body, open_), keccak(body.payload), body.payload))
    if len(members) < quorum(len(place.committee)):
        raise Refused(Reason.NOT_LEADER, f"{len(members)} handovers are no quorum")
    return min(found)[2]


def next_beacon(place: Place, payload: CertifyPayload) -> bytes:
    """The assignment beacon of the round after a certificate."""
    return combine(place.domain, place.job, place.round, Draw.ASSIGN, dict(payload.links))


def read_evidence(open_: Open, raws: Sequence[bytes], kind: type, place: Place) -> list[Signed]:
    """Open embedded envelopes that must all be messages of one kind and of this round; raises Refused."""
    opened = []
    for raw in raws:
        signed = open_(raw)
        if not isinstance(signed.body, kind) or (signed.body.job, signed.body.round) != (place.job, place.round):
            raise Refused(Reason.MALFORMED, f"{kind.__name__} of this round was expected as evidence")
        opened.append(signed)
    return opened


def ordered(rows: Mapping[bytes, Signed]) -> tuple[bytes, ...]:
    """Envelopes in the order of their keys: the canonical order of evidence."""
    return tuple(rows[key].raw for key in sorted(rows))
