"""The pages of money: an account's statement, and the epochs that the chain holds. Pure.

What a function returns is the page's JSON twin, and all that its template knows. The statement's numbers are those of
the published epochs; the browser recomputes them from the published bytes and what the chain holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from atoll.gateway.pages.facts import Missing, Snapshot, counted, hexed, unhexed
from atoll.ledger.receipts import Kind
from atoll.ledger.statement import statement
from atoll.node.view import PostedEpoch
from atoll.wire.hashing import ZERO_HASH

Json = Any
Item = TypeVar("Item")
LINES = 40
EPOCHS = 30
ACCOUNTS = 100


def account_page(facts: Snapshot, path: Mapping[str, str]) -> Json:
    """`/accounts/{account}?page=N`: what it earned, receipt by receipt, newest first."""
    account = unhexed(path["account"], 20, "account")
    found = statement(account, facts.book.epochs)
    known = account in facts.view.nodes or account in facts.view.balances
    if not (known or found.lines):
        raise Missing(f"The account {hexed(account)} has never been seen on this network.")
    lines, page, pages = _page(found.lines[::-1], path.get("page", "1"), LINES)
    claimed = facts.view.claimed.get(account, 0)
    return {
        **facts.named(account),
        "is_node": account in facts.view.nodes,
        "balance": str(facts.view.balances.get(account, 0)),
        "earned": str(found.earned),
        "claimed": str(claimed),
        "unclaimed": str(found.earned - claimed),
        "refused": found.refused,
        "receipts": len(found.lines),
        "by_kind": [
            {"kind": kind.label, "receipts": len(amounts), "amount": str(sum(amounts))}
            for kind in Kind
            if (amounts := [line.amount for line in found.lines if line.kind == kind])
        ],
        "epochs": [{"epoch": number, "earned": str(amount)} for number, amount in found.by_epoch][-ACCOUNTS:],
        "lines": [
            {
                "epoch": line.epoch,
                "job": hexed(line.job),
                "job_name": facts.label(line.job),
                "round": line.round,
                "unit": hexed(line.unit) if line.unit != ZERO_HASH else "",
                "kind": int(line.kind),
                "work": line.kind.label,
                "amount": str(line.amount),
                "reason": int(line.reason),
                "sentence": line.sentence,
            }
            for line in lines
        ],
        "page": page,
        "pages": pages,
        "chain": {"chain_id": facts.place.chain_id, "settlement": hexed(facts.place.settlement)},
    }


def _page(items: Sequence[Item], asked: str, size: int) -> tuple[Sequence[Item], int, int]:
    """The items of a page (numbered from 1), which page that is, and how many there are."""
    pages = max(1, -(-len(items) // size))
    number = min(max(1, counted(asked, "page")), pages)
    return items[(number - 1) * size : number * size], number, pages


def settlement_page(facts: Snapshot, path: Mapping[str, str]) -> Json:
    """`/settlement?page=N`: epochs with their roots and totals, newest first, and what accounts may claim."""
    epochs, page, pages = _page(facts.view.epochs[::-1], path.get("page", "1"), EPOCHS)
    granted = facts.book.totals.accounts
    claims = sorted(granted, key=lambda account: (-(granted[account] - facts.view.claimed.get(account, 0)), account))
    return {
        "epochs": [_epoch_row(facts, posted) for posted in epochs],
        "page": page,
        "pages": pages,
        "totals": {
            "epochs": len(facts.view.epochs),
            "receipts": sum(posted.epoch.receipts for posted in facts.view.epochs),
            "granted": str(sum(granted.values())),
            "claimed": str(sum(facts.view.claimed.values())),
            "accounts": len(granted),
        },
        "accounts": [
            {
                **facts.named(account),
                "granted": str(granted[account]),
                "claimed": str(facts.view.claimed.get(account, 0)),
                "unclaimed": str(granted[account] - facts.view.claimed.get(account, 0)),
            }
            for account in claims[:ACCOUNTS]
        ],
        "own": {
            "account": hexed(facts.place.account),
            "unclaimed": str(granted.get(facts.place.account, 0) - facts.view.claimed.get(facts.place.account, 0)),
        },
        "validators": len(facts.view.validators),
    }


def _epoch_row(facts: Snapshot, posted: PostedEpoch) -> Json:
    epoch = posted.epoch
    return {
        "epoch": epoch.epoch,
        "poster": facts.named(epoch.poster),
        "root": hexed(epoch.root),
        "receipts_root": hexed(epoch.receipts_root),
        "accounts": epoch.accounts,
        "receipts": epoch.receipts,
        "drawn": str(epoch.drawn),
        "blob": epoch.uri,
        "posted_at": facts.posted_at.get(epoch.epoch),
    }


def epoch_page(facts: Snapshot, path: Mapping[str, str]) -> Json:
    """`/settlement/{epoch}`: one post as the chain holds it, with the totals of its jobs and its biggest accounts."""
    posted = _posted(facts, path["epoch"])
    number, book = posted.epoch.epoch, facts.book.epochs
    paid: dict[bytes, int] = {}
    for receipt in book[number].receipts if number < len(book) else ():
        paid[receipt.account] = paid.get(receipt.account, 0) + receipt.amount
    settled_in = {
        total.job: posted.epoch.epoch for posted in facts.view.epochs for total in posted.totals if total.settled
    }
    top = sorted(paid, key=lambda account: (-paid[account], account))[:ACCOUNTS]
    return {
        **_epoch_row(facts, posted),
        "totals": [
            {
                "job": hexed(total.job),
                "name": facts.label(total.job),
                "total": str(total.total),
                "settled": total.settled,
                "settled_in": settled_in.get(total.job),
            }
            for total in posted.totals
        ],
        "paid": [{**facts.named(a), "amount": str(paid[a])} for a in top],
        "chain": {
            "chain_id": facts.place.chain_id,
            "settlement": hexed(facts.place.settlement),
            "epochs": len(facts.view.epochs),
        },
    }


def epoch_blob(facts: Snapshot, path: Mapping[str, str]) -> bytes:
    """The id of the blob that an epoch is published under; raises Missing."""
    return unhexed(_posted(facts, path["epoch"]).epoch.uri, 32, "blob id")


def _posted(facts: Snapshot, text: str) -> PostedEpoch:
    """The epoch that an address names; raises Missing."""
    number = counted(text, "epoch")
    if number >= len(facts.view.epochs):
        raise Missing(f"Epoch {number} is not posted: there are {len(facts.view.epochs)} so far.")
    return facts.view.epochs[number]
