"""The summary of a run of `atoll up`: plain values, the same for people and for machines."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.cli.developer import Developer
from atoll.errors import AtollError, InternalError
from atoll.ledger import events
from atoll.ledger.chain import Chain
from atoll.ledger.index import EventIndex
from atoll.wire.identity import format_account

if TYPE_CHECKING:
    from atoll.cli.up import Up

EXPLAIN_SECONDS = 20.0


async def summarise(up: Up, developer: Developer, answer: dict[str, Any], baseline: dict[str, float]) -> dict[str, Any]:
    """All facts of a finished job; raises InternalError if the sums do not match to the last unit."""
    job = up.job_status()
    record = await developer.call(developer.chain.job, bytes.fromhex(up.job[2:]))
    path = up.options.home / "developer" / "index.sqlite"
    found = await developer.call(_events, developer.chain, path, up.network["first_block"])
    paid = await _paid(up, developer)
    names = {status["account"]: f"node-{index}" for index, status in up.statuses.items() if status}
    rejected = [{**one, "node": names.get(one["node"], one["node"]), "account": one["node"]} for one in job["rejected"]]
    traffic = [status["bytes"] for status in up.statuses.values() if status]
    if record.budget != record.drawn + record.refunded or sum(paid.values()) != record.drawn:
        raise InternalError(
            f"the sums do not match: in {record.budget}, out {record.drawn}, refunded {record.refunded}, paid "
            f"{sum(paid.values())}; please report this with {up.options.home}"
        )
    return {
        "nodes": len(up.nodes),
        "accounts": {name: account for account, name in names.items()},
        "rounds": job["rounds"],
        "accuracy": [job["accuracy"].get(str(number)) for number in range(job["rounds"])],
        "scores": [job["scores"].get(str(number)) for number in range(job["rounds"])],
        "baseline_accuracy": baseline.get("accuracy"),
        "baseline": baseline,
        "rejected": rejected,
        "paid": {account: str(amount) for account, amount in sorted(paid.items())},
        "escrow_in": str(record.budget),
        "escrow_out": str(record.drawn),
        "refunded": str(record.refunded),
        "claims": len(
            {
                event.account
                for event in found
                if isinstance(event, events.Claimed) and event.epoch >= developer.first_epoch
            }
        ),
        "explain": await _explain(up),
        "bytes_up": sum(one["up"] for one in traffic),
        "bytes_down": sum(one["down"] for one in traffic),
        "seconds": {**up.seconds, **job["seconds"], "total": round(time.time() - up.started, 2)},
        "model": job["model"],
        "job": up.job,
        "answer": answer,
        "chain": _chain(up, developer, found),
        "page": up.page,
        "join": up.network["join"],
        "home": str(up.options.home),
    }


def _events(chain: Chain, path: Path, first_block: int) -> list[events.Event]:
    index = EventIndex(chain, path, first_block)
    index.poll()
    found = [one.event for one in index.indexed()]
    index.close()
    return found


async def _paid(up: Up, developer: Developer) -> dict[str, int]:
    """What each account was paid for this job, those of other devices included, from the published receipts."""
    enlisted = await developer.call(developer.chain.enlisted, bytes.fromhex(up.job[2:]))
    states = {status["account"]: status["name"] for status in up.statuses.values() if status}
    accounts = [*states, *(account for one in enlisted if (account := format_account(one.account)) not in states)]
    paid: dict[str, int] = {}
    for account in accounts:
        name = states.get(account, "node-1")
        lines = (await up.client_of(name).call("statement", account=account))["lines"]
        paid[account] = sum(int(line["amount"]) for line in lines if line["job"] == up.job)
    return paid


async def _explain(up: Up) -> str:
    """ "match" if a node's offline recomputation agrees with the chain, else the first difference."""
    end = time.monotonic() + EXPLAIN_SECONDS
    while True:
        try:
            found = await up.client_of("node-1").call("explain")
            if found["explain"] == "match" or time.monotonic() > end:
                return str(found["explain"] if found["explain"] == "match" else found["first_difference"])
        except AtollError as error:
            if time.monotonic() > end:
                return str(error)
        await asyncio.sleep(0.5)


def _chain(up: Up, developer: Developer, found: list[events.Event]) -> dict[str, Any]:
    """Where the chain is, and the gas of every kind of call by all nodes and the developer."""
    gas: dict[str, list[int]] = {}
    sent = {**up.deployment, **developer.chain.gas_by_call}
    own = {name: [use.calls, use.total] for name, use in sent.items()}
    for spent in [own, *(status["gas"] for status in up.statuses.values() if status)]:
        for name, (calls, total) in spent.items():
            sums = gas.setdefault(name, [0, 0])
            sums[0] += calls
            sums[1] += total
    at = developer.chain.addresses
    return {
        "kind": up.network["kind"],
        "rpc": up.network["rpc"],
        "chain_id": at.chain_id,
        "contracts": {
            name: "0x" + getattr(at, name).hex() for name in ("registry", "token", "jobs", "settlement", "deposits")
        },
        "gas": {name: {"calls": calls, "mean": total // calls} for name, (calls, total) in sorted(gas.items())},
        "claimed": str(sum(event.amount for event in found if isinstance(event, events.Claimed))),
    }
