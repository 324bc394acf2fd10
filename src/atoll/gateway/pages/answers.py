"""The page of answers: servers that this gateway has asked, what they offer and are paid, and who pays this one. Pure.

What the function returns is the page's JSON twin, and all that its template knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.gateway.pages.facts import Answered, Snapshot, hexed
from atoll.inference.messages import ModelOffer, amount
from atoll.wire.identity import parse_account

Json = Any
SUMS = ("deposit", "free", "paid", "owed", "earned", "waiting")
SHOWN = 80
"""Rows of each table that are shown."""


def answers_page(facts: Snapshot, _: Mapping[str, str]) -> Json:
    """`/answers`: records of servers, the models that they offer, deposits and vouchers."""
    answered = facts.answered()
    sums = answered.record.get("sums", {})
    servers, models = _servers(facts, answered), _models(facts, answered)
    payers = [_payer(facts, row) for row in answered.record.get("payers", ())]
    return {
        "sums": {name: str(sums.get(name, "0")) for name in SUMS},
        "count": {"servers": len(servers), "models": len(models), "payers": len(payers)},
        "servers": servers[:SHOWN],
        "models": models[:SHOWN],
        "payers": payers[:SHOWN],
    }


def _who(facts: Snapshot, account: bytes) -> dict[str, str]:
    return {"account": hexed(account), "name": facts.name(account)}


def _servers(facts: Snapshot, answered: Answered) -> list[Json]:
    """Every server that was asked or offers something: those with most answers first."""
    known = {parse_account(row["server"]): row for row in answered.record.get("servers", ())}
    rows = [
        _server(facts, account, known.get(account, {}), answered)
        for account in {**known, **dict.fromkeys(answered.offers)}
    ]
    return sorted(rows, key=lambda row: (-row["answers"], row["account"]))


def _server(facts: Snapshot, account: bytes, row: Mapping[str, Json], answered: Answered) -> Json:
    offering = answered.offers.get(account)
    counts = {name: int(row.get(name, 0)) for name in ("answers", "refusals", "timeouts", "doubts", "checked")}
    return {
        **_who(facts, account),
        **counts,
        "first": float(row.get("first", 0.0)),
        "per_token": float(row.get("per_token", 0.0)),
        "paid": str(row.get("paid", "0")),
        "refused": bool(row.get("refused")),
        "why": str(row.get("lied", "")),
        "evidence": int(row.get("evidence", 0)),
        "offers": len(offering.models) if offering else 0,
        "load": offering.load if offering else None,
    }


def _models(facts: Snapshot, answered: Answered) -> list[Json]:
    """Every model that is offered, with the price of each server, cheapest first."""
    found: dict[tuple[str, str, bytes], list[tuple[bytes, ModelOffer]]] = {}
    for account, offering in answered.offers.items():
        for offer in offering.models:
            found.setdefault((offer.kind, offer.id, offer.blob), []).append((account, offer))
    here = {job.followed.model for job in facts.jobs.values() if job.followed and job.followed.model}
    return [
        {
            "id": name,
            "kind": kind,
            "blob": blob.hex() if any(blob) else "",
            "link": f"/models/{blob.hex()}" if blob in here else "",
            "context": max(offer.context for _, offer in offers),
            "prices": sorted(
                (
                    {
                        **_who(facts, account),
                        "per_input": str(amount(offer.per_input)),
                        "per_1000": str(amount(offer.per_1000)),
                    }
                    for account, offer in offers
                ),
                key=lambda row: (int(row["per_input"]) + int(row["per_1000"]), row["account"]),
            )[:SHOWN],
        }
        for (kind, name, blob), offers in sorted(found.items())
    ]


def _payer(facts: Snapshot, row: Mapping[str, str]) -> Json:
    sums = {name: str(row.get(name, "0")) for name in ("charged", "vouchers", "redeemed", "owed")}
    return {**_who(facts, parse_account(row["payer"])), **sums}
