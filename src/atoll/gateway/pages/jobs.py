"""The pages of jobs and rounds: from facts to what is shown. Pure.

What a function returns is the page's JSON twin, and all that its template knows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from atoll.gateway.figures import PHASE_WORDS
from atoll.gateway.pages.facts import Followed, JobFacts, Missing, RoundNow, Snapshot, counted, hexed, unhexed
from atoll.ledger.receipts import Kind
from atoll.node.job import Standing, begin, context_of
from atoll.training.committee import (
    AUDIT,
    REPLICA,
    UNIT,
    VALIDATION,
    CertifyPayload,
    Place,
    Row,
    next_beacon,
    quorum,
    verdict_root,
)
from atoll.training.context import MAX_ROSTER
from atoll.training.events import Finished
from atoll.training.unit import UnitSpec
from atoll.wire.reasons import Reason

Json = Any
SHOWN_ROUNDS = 60
"""Certified rounds in the table of a job, the latest ones."""
CHARTED = 1000
"""Points of a job's curve."""
ROUND_PHASES = ("lock", "beacon", "audit", "open", "certify")


def jobs_page(facts: Snapshot, _: Mapping[str, str]) -> Json:
    """`/jobs`: every job on the chain, those that run first."""
    rows = [brief(facts, job) for job in facts.jobs.values()]
    order = {"running": 0, "open": 1, "done": 2}
    return {"jobs": sorted(rows, key=lambda row: (order[row["state"]], row["name"], row["job"]))}


def brief(facts: Snapshot, job: JobFacts) -> Json:
    """One job in a line."""
    on_chain, scores = job.on_chain, sorted(job.scores.items())
    accuracy = [found["accuracy"] for _, found in scores if "accuracy" in found]
    last = {} if job.behind or not scores else scores[-1][1]  # an old score must not be taken for the present one
    policy = job.manifest.policy if job.manifest else None
    return {
        "job": hexed(job.id),
        "name": job.name,
        "label": facts.label(job.id),
        "state": _state(job),
        "phase": _phase(job),
        "round": max(job.followed.standing.round if job.followed else 0, on_chain.certified),
        "known": len(job.finished),
        "behind": job.behind,
        "rounds": on_chain.end,
        "certified": on_chain.certified,
        "accuracy": accuracy[-1] if accuracy and last else None,
        "loss": last.get("loss"),
        "graded": scores[-1][0] if last else None,
        "trend": accuracy[-40:],
        "workers": len(job.followed.standing.roster) if job.followed else len(on_chain.roster),
        "developer": hexed(on_chain.developer),
        "budget": str(on_chain.budget),
        "cost": str(cost_of(facts, job)),
        "unit_price": str(policy.unit_price) if policy else None,
        "segments": job.manifest.segments if job.manifest else None,
        "places": _places(job),
    }


def _places(job: JobFacts) -> int | None:
    """For how many more workers the budget has room; None if it is not known here."""
    if job.followed is None:
        return None
    return max(0, min(job.followed.terms.room, MAX_ROSTER) - len(job.followed.standing.roster))


def _state(job: JobFacts) -> str:
    if job.on_chain.certified >= job.on_chain.end or (job.followed and job.followed.standing.done):
        return "done"
    return "running" if job.on_chain.committee else "open"


def _phase(job: JobFacts) -> str:
    if job.followed is None or _state(job) != "running":
        return ""
    return PHASE_WORDS.get(job.followed.phase, "waiting")


def cost_of(facts: Snapshot, job: JobFacts) -> int:
    """What the certified rounds cost so far, posted or not, in base units."""
    posted = facts.book.totals.jobs.get(job.id)
    waiting = range(facts.book.settled_rounds(job.id), len(job.finished))
    return (posted.total if posted else 0) + sum(
        one.amount for number in waiting for one in facts.book.receipts(job.id, number)
    )


# One job
def job_page(facts: Snapshot, path: Mapping[str, str]) -> Json:
    """`/jobs/{job}`: its curve, its rounds, what it costs, and the chain of certificates."""
    job = find_job(facts, path["job"])
    rounds = [_round_row(facts, job, one) for one in job.finished[-SHOWN_ROUNDS:]]
    return {
        **brief(facts, job),
        "manifest": _manifest(job),
        "data": _data(job),
        "escrow": {
            "funded": str(job.on_chain.funded or job.on_chain.budget),
            "drawn": str(job.on_chain.drawn),
            "refunded": str(job.on_chain.refunded),
        },
        "own": job.on_chain.developer == facts.place.account,
        "started": job.followed.started if job.followed else None,
        "now": _now(facts, job),
        "committee": [facts.named(account) for account in _committee(job)],
        "roster": [facts.named(account) for account in (job.followed.standing.roster if job.followed else ())],
        "model": hexed(job.followed.model) if job.followed and job.followed.model else "",
        "curve": _curve(job),
        "history": rounds,
    }


def find_job(facts: Snapshot, text: str) -> JobFacts:
    """The job that an address names; raises Missing."""
    job = facts.jobs.get(unhexed(text, 32, "job"))
    if job is None:
        raise Missing(f"No job {text[:80]} is on this network's chain.")
    return job


def _committee(job: JobFacts) -> Sequence[bytes]:
    return job.followed.standing.committee if job.followed else job.on_chain.committee


def _curve(job: JobFacts) -> list[Json]:
    """Loss and metrics by round; at most CHARTED points, evenly taken from longer histories."""
    known = [{"round": number, **found} for number, found in sorted(job.scores.items())]
    step = -(-len(known) // CHARTED) or 1
    return known[::-1][::step][::-1]


def _manifest(job: JobFacts) -> Json:
    if job.manifest is None:
        return None
    manifest, policy = job.manifest, job.manifest.policy
    return {
        "id": hexed(job.on_chain.manifest),
        "parameters": manifest.vector_length,
        "model_bytes": manifest.model_bytes,
        "update_bytes": manifest.update_bytes,
        "unit_samples": manifest.steps * manifest.batch,
        "unit_bytes": manifest.model_bytes + manifest.update_bytes + manifest.steps * manifest.batch * _sample(job),
        "steps": manifest.steps,
        "batch": manifest.batch,
        "segments": manifest.segments,
        "learning_rate": manifest.hyper.learning_rate,
        "input": {"shape": list(manifest.input.shape), "dtype": manifest.input.dtype},
        "metrics": list(manifest.metrics),
        "step": manifest.step,
        "evaluate": manifest.evaluate,
        "predict": manifest.predict,
        "params": manifest.params,
        "initial": manifest.initial,
        "aggregation": policy.aggregation,
        "audit_floor": policy.audit_rate_floor / 10_000,
        "epoch_rounds": policy.epoch_rounds,
        "prices": {
            "unit": str(policy.unit_price),
            "audit": str(policy.audit_price),
            "validator": str(policy.validator_price),
        },
    }


def _sample(job: JobFacts) -> int:
    return job.manifest.sample_bytes if job.manifest else 0


def _data(job: JobFacts) -> Json:
    if job.manifest is None:
        return None
    data, card = job.manifest.data, job.card
    about = {"name": card.name, "licence": card.licence, "origin": card.origin} if card else {}
    return {
        "card": data.card,
        "root": data.root,
        "count": data.count,
        "held_out": data.held_out_count,
        "partition": data.partition,
        **{"name": "", "licence": "", "origin": "", **about},
    }


def _round_row(facts: Snapshot, job: JobFacts, one: Finished) -> Json:
    """One certified round as the table and the chart show it."""
    certificate, number = one.certificate, one.round
    units = [row for row in certificate.verdicts if row.kind == UNIT]
    return {
        "round": number,
        "accepted": sum(row.reason == Reason.OK for row in units),
        "units": len(units),
        "audits": sum(row.kind == AUDIT for row in certificate.verdicts),
        "replicas": sum(row.kind == REPLICA for row in certificate.verdicts),
        "paid": str(sum(receipt.amount for receipt in facts.book.receipts(job.id, number))),
        "accuracy": job.scores.get(number, {}).get("accuracy"),
        "loss": job.scores.get(number, {}).get("loss"),
        "model": hexed(certificate.model),
        "lock_root": hexed(certificate.lock_root),
        "signatures": len(one.signatures),
        "on_chain": number < job.on_chain.certified,
    }


def _now(facts: Snapshot, job: JobFacts) -> Json:
    """How far the round under way is."""
    now = job.followed.now if job.followed else None
    if now is None:
        return None
    return {
        "round": now.number,
        "phase": now.phase,
        "words": PHASE_WORDS.get(now.phase, "waiting"),
        "leader": facts.named(now.leader),
        "units": len(now.units),
        "committed": len(now.committed),
        "revealed": len(now.revealed),
        "audits": len(now.audits),
        "disputes": len(now.disputes),
        "steps": [
            {"phase": phase, "words": PHASE_WORDS[phase], "state": _step(phase, now.phase)} for phase in ROUND_PHASES
        ],
    }


def _step(phase: str, present: str) -> str:
    if present not in ROUND_PHASES:
        return "ahead"
    place, at = ROUND_PHASES.index(phase), ROUND_PHASES.index(present)
    return "done" if place < at else "now" if place == at else "ahead"


# One round
def round_page(facts: Snapshot, path: Mapping[str, str]) -> Json:
    """`/jobs/{job}/rounds/{round}`: who did what, the verdicts with their reasons, and every hash."""
    job, number = find_job(facts, path["job"]), counted(path["round"], "round")
    head = {"job": hexed(job.id), "name": job.name, "round": number}
    now = job.followed.now if job.followed else None
    if number < len(job.finished) and job.followed is not None:
        return {**head, "state": "certified", **_certified(facts, job, job.followed, number)}
    if now is not None and now.number == number:
        return {**head, "state": "under way", **_under_way(facts, job, now)}
    raise Missing(f"Round {number} of this job is not known here: {len(job.finished)} rounds are certified so far.")


def _certified(facts: Snapshot, job: JobFacts, followed: Followed, number: int) -> Json:
    one = job.finished[number]
    certificate, before = one.certificate, standing_before(followed, number)
    context = context_of(followed.terms, before, followed.enlisted, rates={})
    return {
        "last_round": len(job.finished) - 1 + (followed.now is not None),
        "score": dict(job.scores.get(number, {})),
        "on_chain": number < job.on_chain.certified,
        "units": _work(facts, job, one, {unit.id: unit for unit in context.units}),
        "committee": [
            {
                **facts.named(account),
                "paid": any(r.kind == VALIDATION and r.account == account for r in certificate.verdicts),
            }
            for account in before.committee
        ],
        "signatures": [hexed(signature) for signature in one.signatures],
        "needed": quorum(len(before.committee)),
        "hashes": _hashes(before, certificate, context.place),
        "next_roster": len(certificate.roster),
        "progress": None,
    }


def standing_before(followed: Followed, number: int) -> Standing:
    """Where the job stood when round `number` began: from the certificate before it, or from its start."""
    if number == 0:
        return begin(followed.terms, followed.enlisted)
    terms, last = followed.terms, followed.finished[number - 1].certificate
    place = Place(terms.domain, terms.jobs_contract, terms.job, number - 1, ())
    return Standing(number, last.model, next_beacon(place, last), last.roster, last.committee, {})


def _work(facts: Snapshot, job: JobFacts, one: Finished, units: Mapping[bytes, UnitSpec]) -> list[Json]:
    """Each unit with its verdict, and with what its auditor and the replicas said."""
    receipts = facts.book.receipts(job.id, one.round)
    paid = {(receipt.kind, receipt.unit, receipt.account): receipt.amount for receipt in receipts}
    rows = sorted(one.certificate.verdicts, key=lambda row: (row.kind != UNIT, row.unit, row.account))
    checks: defaultdict[tuple[int, bytes], list[Row]] = defaultdict(list)
    for row in rows:
        checks[row.kind, row.unit].append(row)

    def line(row: Row) -> Json:
        amount = paid.get((Kind(row.kind), row.unit, row.account), 0)
        return {**facts.named(row.account), "reason": row.reason, "amount": str(amount)}

    found = {
        row.unit: {
            "unit": hexed(row.unit),
            "index": units[row.unit].index if row.unit in units else None,
            "shard": units[row.unit].shard if row.unit in units else None,
            "worker": line(row),
            "audits": [line(r) for r in checks[AUDIT, row.unit]],
            "replicas": [line(r) for r in checks[REPLICA, row.unit]],
        }
        for row in rows
        if row.kind == UNIT
    }
    return sorted(found.values(), key=lambda unit: (unit["index"] is None, unit["index"]))


def _hashes(before: Standing, certificate: CertifyPayload, place: Place) -> list[Json]:
    named = (
        ("Model before", before.model),
        ("Model after", certificate.model),
        ("Assignment beacon", before.beacon),
        ("Root of the locked commits", certificate.lock_root),
        ("Root of the verdicts", verdict_root(certificate.verdicts)),
        ("Job", place.job),
    )
    return [{"name": name, "value": hexed(value)} for name, value in named]


def _under_way(facts: Snapshot, job: JobFacts, now: RoundNow) -> Json:
    units = [
        {
            "unit": hexed(unit.id),
            "index": unit.index,
            "shard": unit.shard,
            "worker": {**facts.named(unit.account), "reason": None, "amount": "0"},
            "state": "revealed" if unit.id in now.revealed else "committed" if unit.id in now.committed else "training",
            "audits": [facts.named(now.audits[unit.id])] if unit.id in now.audits else [],
            "replicas": [facts.named(account) for account in now.disputes.get(unit.id, ())],
        }
        for unit in now.units
    ]
    return {
        "last_round": now.number,
        "score": {},
        "on_chain": False,
        "units": units,
        "committee": [{**facts.named(account), "paid": False} for account in now.committee],
        "signatures": [],
        "needed": quorum(len(now.committee)),
        "hashes": [
            {"name": "Model before", "value": hexed(now.model)},
            {"name": "Assignment beacon", "value": hexed(now.beacon)},
            {"name": "Job", "value": hexed(job.id)},
        ],
        "next_roster": 0,
        "progress": _now(facts, job),
    }
