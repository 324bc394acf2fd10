"""What a tab is told: the gateway's knowledge as frames. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from atoll.gateway.tabs.duties import Duties
from atoll.gateway.tabs.frames import VERSION, write
from atoll.gateway.tabs.limits import CERTIFICATES_AT_ONCE, CERTIFICATES_BYTES
from atoll.graph.manifest import Manifest
from atoll.ledger.receipts import Receipt
from atoll.node.job import Job
from atoll.training.committee import AUDIT, REPLICA, UNIT
from atoll.training.context import MAX_ROSTER
from atoll.training.data.samples import Form
from atoll.training.unit import UnitSpec
from atoll.wire.hashing import HASH_BYTES
from atoll.wire.merkle import depth
from atoll.wire.messages import Phase
from atoll.wire.reasons import Reason

KINDS = {UNIT: "unit", AUDIT: "audit", REPLICA: "replica"}
"""Kinds of work that a tab does, as its frames name them."""


@dataclass(frozen=True)
class Place:
    """The network that a tab joins: what its signatures are bound to."""

    chain_id: int
    registry: bytes
    jobs: bytes
    settlement: bytes
    endpoint: bytes


@dataclass(frozen=True)
class Standing:
    """An account as registry and ledger know it; amounts in base units. `hints` are those to be signed."""

    registered: bool
    nonce: int
    roles: int
    hints: str
    earned: int
    claimed: int
    balance: int


def welcome(place: Place, challenge: bytes) -> str:
    """The first frame of a socket."""
    return write(
        "welcome",
        version=VERSION,
        chain_id=place.chain_id,
        registry=place.registry.hex(),
        jobs=place.jobs.hex(),
        settlement=place.settlement.hex(),
        endpoint=place.endpoint.hex(),
        challenge=challenge.hex(),
    )


def account(standing: Standing, token: str) -> str:
    """How an account stands, and what lets this socket's tab upload."""
    return write(
        "account",
        registered=standing.registered,
        nonce=standing.nonce,
        roles=standing.roles,
        hints=standing.hints,
        earned=str(standing.earned),
        claimed=str(standing.claimed),
        balance=str(standing.balance),
        token=token,
    )


def job(core: Job, manifest_id: bytes, manifest: Manifest, account: bytes, size: int) -> str:
    """A job that may be joined; `size` are the bytes of its parts. `places` is what the budget leaves for newcomers.

    When it is done, its last certificate comes with it: no round follows that would bring it.
    """
    room = min(core.terms.room, MAX_ROSTER)
    last = core.sign(core.certificates[-1]).raw.hex() if core.standing.done and core.certificates else None
    return write(
        "job",
        job=core.terms.job.hex(),
        name=manifest.name,
        manifest=manifest_id.hex(),
        enlisted=account in core.enlisted,
        rounds=core.terms.rounds,
        unit_price=str(manifest.policy.unit_price),
        segments=manifest.segments,
        steps=manifest.steps,
        download_bytes=size + _unit_bytes(core, manifest),
        done=core.standing.done,
        places=max(0, room - len(core.standing.roster)),
        certificate=last,
        first_committee=[member.hex() for member in core.terms.committee],
    )


def _unit_bytes(core: Job, manifest: Manifest) -> int:
    """Samples of one unit with their proofs."""
    shard = manifest.data.count // max(1, len(core.terms.roster))
    samples = min(shard, manifest.steps * manifest.batch)
    return samples * (Form.of(manifest).sample_bytes + depth(manifest.data.count) * HASH_BYTES)


def certificates(core: Job, first: int) -> list[bytes]:
    """Envelopes with the CERTIFY quorums of a job from round `first` on, without gaps; none when it is not so far."""
    found: list[bytes] = []
    left = CERTIFICATES_BYTES
    for quorum in core.certificates[first : first + CERTIFICATES_AT_ONCE]:
        raw = core.sign(quorum).raw
        left -= len(raw)
        if found and left < 0:
            break
        found.append(raw)
    return found


@dataclass(frozen=True)
class Chapter:
    """What all tabs are told alike about a job's present round: made once for each change of it."""

    beacon: str
    model: str
    committee: tuple[str, ...]
    roster: tuple[str, ...]
    shards: int
    quorums: tuple[str, ...]
    certificate: str | None


def state_key(core: Job) -> tuple[object, ...]:
    """Changes whenever a round frame may: the round, its phase, and who is enlisted."""
    state = core.round
    if state is None:
        return core.standing.round, core.standing.done
    return core.standing.round, state.ballot.phase, len(core.enlisted)


def chapter(core: Job) -> Chapter | None:
    """The common part of the present round; None once the job is done. Signs the quorums for the way to the tab."""
    state = core.round
    if state is None:
        return None
    context, number = state.context, state.context.place.round
    closed = [core.sign(quorum).raw.hex() for quorum in state.quorums_from(Phase.LOCK)]
    before = core.sign(core.certificates[number - 1]).raw.hex() if number else None
    return Chapter(
        context.beacon.hex(),
        context.model.hex(),
        tuple(member.hex() for member in context.place.committee),
        tuple(member.hex() for member in context.roster),
        context.shards,
        tuple(closed),
        before,
    )


def round_of(duties: Duties, common: Chapter, said: Sequence[bytes]) -> str:
    """What a round asks of an account; `said` are its envelopes of this round that the gateway has."""
    replays = [{**_unit(unit, common.shards), "reveal": signed.raw.hex()} for unit, signed in duties.replays]
    return write(
        "round",
        job=duties.job.hex(),
        round=duties.round,
        phase=duties.phase.name.lower(),
        beacon=common.beacon,
        model=common.model,
        committee=common.committee,
        roster=common.roster,
        on_roster=duties.on_roster,
        unit=None if duties.unit is None else _unit(duties.unit, common.shards),
        audits=[_unit(unit, common.shards) for unit in duties.audits],
        replays=replays,
        quorums=common.quorums,
        certificate=common.certificate,
        said=[raw.hex() for raw in said],
    )


def _unit(unit: UnitSpec, shards: int) -> Mapping[str, object]:
    return {
        "id": unit.id.hex(),
        "account": unit.account.hex(),
        "index": unit.index,
        "shard": unit.shard,
        "shards": shards,
        "segments": unit.segments,
    }


def verdicts(receipts: Iterable[Receipt], account: bytes) -> list[str]:
    """What a certified round says about an account's work, and what is owed for it."""
    return [
        write(
            "verdict",
            job=receipt.job.hex(),
            round=receipt.round,
            unit=receipt.unit.hex(),
            kind=KINDS[receipt.kind],
            reason=Reason(receipt.reason).name,
            sentence=Reason(receipt.reason).sentence,
            amount=str(receipt.amount),
        )
        for receipt in receipts
        if receipt.account == account and receipt.kind in KINDS
    ]
