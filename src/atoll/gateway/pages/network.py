"""The pages of the network and of one node: from facts to what is shown. Pure.

What a function returns is the page's JSON twin, and all that its template knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from atoll.gateway.guard import is_loopback
from atoll.gateway.pages.facts import JobFacts, Missing, Snapshot, hexed, unhexed
from atoll.gateway.pages.jobs import brief
from atoll.gateway.pages.words import ROLE_WORDS, roles_of
from atoll.ledger.receipts import Kind, Receipt
from atoll.node.survey import About
from atoll.storage.placement import group_of
from atoll.training.committee import UNIT
from atoll.training.verdict import GUILTY
from atoll.wire.reasons import Reason

Json = Any
SILENT_SECONDS = 20.0
"""A node that has not answered for so long counts as away."""
SHOWN_REFUSALS = 40
SHOWN_EPOCHS = 200
SHOWN_NODES = 120


def network_page(facts: Snapshot, _: Mapping[str, str]) -> Json:
    """`/`: all nodes, what they lend together, the jobs, and how to join."""
    rows = [node_row(facts, account) for account in facts.view.nodes if account not in facts.tabs]
    rows.sort(key=lambda row: (not row["online"], row["name"] or "~", row["account"]))
    online = [row for row in rows if row["online"]]
    tabs = _tabs(facts)
    jobs = sorted(facts.jobs.values(), key=lambda job: job.on_chain.certified < job.on_chain.end, reverse=True)
    return {
        "network": place(facts),
        "phone": phone(facts),
        "totals": {
            "nodes": len(rows),
            "online": len(online),
            "tabs": len(tabs),
            "tabs_before": len(facts.tabs) - len(tabs),
            "jobs": len(facts.jobs),
            "epochs": len(facts.view.epochs),
            "paid": str(sum(facts.book.totals.accounts.values())),
            **{name: sum(row[name] for row in rows) for name in LENT},
        },
        "roles": [
            {"role": role, "does": one if count == 1 else more, "nodes": count}
            for role, (one, more) in ROLE_WORDS.items()
            for count in [sum(role in row["roles"] for row in online)]
        ],
        "places": _counts(row["place"] for row in online),
        "versions": _counts(row["version"] for row in online),
        "nodes": rows[:SHOWN_NODES],
        "tabs": tabs[:SHOWN_NODES],
        "jobs": [brief(facts, job) for job in jobs[:10]],
    }


def _tabs(facts: Snapshot) -> list[Json]:
    """Browser tabs that are at work: on the roster of a job that runs. The others were here before."""
    running = [job for job in facts.jobs.values() if job.followed and not job.followed.standing.done]
    jobs: dict[bytes, list[Json]] = {}
    for job in running:
        for account in job.followed.standing.roster if job.followed else ():
            jobs.setdefault(account, []).append({"job": hexed(job.id), "name": facts.label(job.id)})
    rows = [
        {
            **facts.named(account),
            "light": "light" in roles_of(facts.view.nodes[account].roles),
            "earned": str(facts.book.totals.accounts.get(account, 0)),
            "jobs": jobs[account],
        }
        for account in facts.tabs
        if account in jobs
    ]
    return sorted(rows, key=lambda row: str(row["account"]))


LENT = ("cpu_threads", "memory_mb", "disk_mb", "stored_blobs", "stored_pieces", "up", "down")
"""What nodes lend and have done, as they tell it."""


def _counts(names: Any) -> list[Json]:
    return [
        {"name": name, "nodes": count} for name, count in Counter(name or "not told" for name in names).most_common()
    ]


def place(facts: Snapshot) -> Json:
    """Which network this is and how a machine joins it."""
    at = facts.place
    late = f" --set first_block={at.first_block}" if at.first_block else ""
    return {
        "gateway": hexed(at.account),
        "version": at.version,
        "rpc": at.rpc,
        "chain_id": at.chain_id,
        "registry": hexed(at.registry),
        "settlement": hexed(at.settlement),
        "jobs": hexed(at.jobs),
        "token": hexed(at.token),
        "first_block": at.first_block,
        "join": f"atoll node --rpc {at.rpc} --registry {hexed(at.registry)}{late}",
    }


def join_page(snapshot: Snapshot, _: Mapping[str, str]) -> Json:
    """`/join`: the page itself asks over the socket for everything that changes."""
    return {"socket": "/join/socket", "phone": phone(snapshot)}


def phone(facts: Snapshot) -> Json:
    """Where a phone in the same home finds `/join`; `url` is empty while this gateway answers on this device only."""
    hosts = [address.rpartition(":")[0].strip("[]") for address in facts.place.addresses]
    near = [host for host in hosts if _is_home(host)]
    port = facts.place.url.rstrip("/").rpartition(":")[2]
    if not facts.place.lan or not near or not port:
        return {"url": "", "hint": "Start with --host 0.0.0.0 to open this page on your phone."}
    host = f"[{near[0]}]" if ":" in near[0] else near[0]
    return {"url": f"http://{host}:{port}/join", "hint": "The phone must be in the same network as this device."}


def _is_home(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_private and not address.is_loopback and not address.is_unspecified and not address.is_link_local


def node_row(facts: Snapshot, account: bytes) -> Json:
    """One node as the list shows it; what it has not told is empty or 0."""
    entry, about, peer = facts.view.nodes[account], facts.about.get(account), facts.peers.get(account)
    host = peer.addresses[0].rpartition(":")[0].strip("[]") if peer and peer.addresses else ""
    return {
        **facts.named(account),
        "roles": roles_of(entry.roles),
        "place": _place_of(host),
        "online": _online(facts, account),
        "paused": bool(about and about.paused),
        "active": account not in facts.view.inactive,
        "validator": account in facts.view.validators,
        "tab": account in facts.tabs,
        "version": about.version if about else (peer.version if peer else ""),
        "heard_seconds": round(facts.now - facts.heard[account]) if account in facts.heard else None,
        "uptime": about.uptime if about else 0,
        **_lent(about),
        "stake": str(facts.view.stakes.get(account, 0)),
        "balance": str(facts.view.balances.get(account, 0)),
        "earned": str(facts.book.totals.accounts.get(account, 0)),
        "claimed": str(facts.view.claimed.get(account, 0)),
    }


def _lent(about: About | None) -> dict[str, int]:
    return {name: getattr(about, name) if about else 0 for name in LENT}


def _online(facts: Snapshot, account: bytes) -> bool:
    return account == facts.place.account or facts.now - facts.heard.get(account, 0.0) < SILENT_SECONDS


def _place_of(host: str) -> str:
    return "this device" if is_loopback(host) else group_of(host)


# One node
def node_page(facts: Snapshot, path: Mapping[str, str]) -> Json:
    """`/nodes/{account}`: resources, record, earnings by kind and epoch, refusals and why."""
    account = unhexed(path["account"], 20, "account")
    if account not in facts.view.nodes:
        raise Missing(f"No node with the account {hexed(account)} is registered on this network.")
    entry, peer = facts.view.nodes[account], facts.peers.get(account)
    epochs = facts.book.epochs
    mine = [(epoch.number, [one for one in epoch.receipts if one.account == account]) for epoch in epochs]
    receipts = [one for _, found in mine for one in found]
    return {
        "node": node_row(facts, account),
        "endpoint": hexed(entry.endpoint_id),
        "addresses": list(peer.addresses) if peer else [],
        "hints": entry.hints,
        "record": [_record(facts, job, account) for job in facts.jobs.values() if account in job.on_chain.enlisted],
        "earnings": {
            "kinds": [kind.label for kind in PAID],
            "epochs": _earnings(facts, mine)[-SHOWN_EPOCHS:],
            "total": str(sum(one.amount for one in receipts)),
            "by_kind": {kind.label: str(sum(o.amount for o in receipts if o.kind == kind)) for kind in PAID},
        },
        "refusals": _refusals(facts, account)[:SHOWN_REFUSALS],
    }


PAID = (Kind.TRAINING, Kind.AUDIT, Kind.REPLICA, Kind.VALIDATION)


def _earnings(facts: Snapshot, mine: Sequence[tuple[int, Sequence[Receipt]]]) -> list[Json]:
    """Cumulative base units by kind after each epoch in which the node took part."""
    sums: Counter[Kind] = Counter()
    rows = []
    for number, found in mine:
        for one in found:
            sums[Kind(one.kind)] += one.amount
        if found:
            amounts = {kind.label: str(sums[kind]) for kind in PAID}
            rows.append({"epoch": number, "posted_at": facts.posted_at.get(number), **amounts})
    return rows


def _record(facts: Snapshot, job: JobFacts, account: bytes) -> Json:
    """What became of a node's units in one job."""
    rows = [row for one in job.finished for row in one.certificate.verdicts if row.account == account]
    units = [row for row in rows if row.kind == UNIT]
    streak = job.followed.standing.records.get(account, 0) if job.followed else 0
    return {
        "job": hexed(job.id),
        "name": facts.label(job.id),
        "units": len(units),
        "accepted": sum(row.reason == Reason.OK for row in units),
        "caught": sum(row.reason in GUILTY for row in units),
        "checks": sum(row.kind != UNIT for row in rows),
        "streak": streak,
    }


def _refusals(facts: Snapshot, account: bytes) -> list[Json]:
    """What was not paid and why, latest first."""
    found = [
        {
            "job": hexed(job.id),
            "job_name": facts.label(job.id),
            "round": one.round,
            "kind": Kind(row.kind).label,
            "unit": hexed(row.unit),
            "reason": row.reason,
        }
        for job in facts.jobs.values()
        for one in job.finished
        for row in one.certificate.verdicts
        if row.account == account and row.reason
    ]
    return sorted(found, key=lambda one: -int(one["round"]))
