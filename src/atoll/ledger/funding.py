"""What accounts need before they can take part, and giving it to them on a chain without a faucet.

Coins pay for transactions, in wei; tokens are stake and bond, in base units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.errors import NoFunds
from atoll.ledger.chain import Chain
from atoll.ledger.link import Link
from atoll.ledger.receipts import TOKEN, amount_text
from atoll.ledger.records import NodeRecord, Terms
from atoll.wire.identity import format_account

BONDS = 8
"""Posts whose bond a validator keeps ready."""
NODE_COINS = 5 * 10**16
"""What a node is given to pay its transactions with; half of it spent, it is filled up again."""
TRANSFER_GAS = 60_000
OWN_GAS = 3_000_000
"""What whoever posts a job may need for it."""
AT_ONCE = 16
"""Transactions of one account that endpoints surely keep waiting."""


@dataclass(frozen=True)
class Needs:
    """What an account lacks, in wei and in base units."""

    account: bytes
    coins: int
    tokens: int


@dataclass(frozen=True)
class Dues:
    """What a validator still has to put in, in base units."""

    stake: int
    bond: int


def dues(entry: NodeRecord, bond: int, terms: Terms) -> Dues:
    """What `entry` with the free `bond` lacks to be a validator that can post."""
    return Dues(max(0, terms.min_stake - entry.stake), BONDS * terms.bond if bond < terms.bond else 0)


def needs_of(chain: Chain, account: bytes, terms: Terms) -> Needs:
    """What an account lacks to take part as a validator."""
    due = dues(chain.node(account), chain.bond(account), terms)
    has = chain.coins(account)
    coins = NODE_COINS - has if 2 * has < NODE_COINS else 0
    return Needs(account, coins, max(0, due.stake + due.bond - chain.balance(account)))


def check_coins(link: Link, account: bytes, gas: int, gifts: int, what: str) -> None:
    """Raises NoFunds unless the account can pay `gas` at the present price and give away `gifts` wei."""
    base, tip = link.fees()
    has, needed = link.balance(account), gas * (2 * base + tip) + gifts
    if has < needed:
        raise NoFunds(
            f"{format_account(account)} has {amount_text(has - has % 10**12)} coins on chain {link.chain_id()} and "
            f"needs about {amount_text(_up(needed))} {what}: send it coins, then try again"
        )


def check_tokens(chain: Chain, account: bytes, needed: int, what: str) -> None:
    """Raises NoFunds unless the account has `needed` base units."""
    has = chain.balance(account)
    if has < needed:
        raise NoFunds(
            f"{format_account(account)} has {amount_text(has)} {TOKEN} and needs {amount_text(needed)} {what}: send "
            f"it tokens of the network at {format_account(chain.addresses.registry)}, then try again"
        )


def check_ready(chain: Chain, account: bytes, due: Dues) -> None:
    """Raises NoFunds if a node has nothing to pay transactions with, or too few tokens for what is due."""
    coins, tokens, needed = chain.coins(account), chain.balance(account), due.stake + due.bond
    if coins and tokens >= needed:
        return
    short = f" and {amount_text(needed)} {TOKEN} for stake and bond" if needed else ""
    raise NoFunds(
        f"{format_account(account)} has {amount_text(coins)} coins and {amount_text(tokens)} {TOKEN} on chain "
        f"{chain.addresses.chain_id}, which has no faucet, and needs about {amount_text(NODE_COINS)} coins{short}: "
        f"send them to it, and it goes on by itself"
    )


def endow(chain: Chain, accounts: Sequence[bytes]) -> int:
    """From the chain's own account, give each of `accounts` what it lacks to take part; returns to how many it gave.

    Raises NoFunds, before anything is sent, if the account has too little for that and for a job of its own.
    """
    if chain.account is None:
        raise NoFunds("nothing can be given away: the chain was opened for reading only")
    terms = chain.terms()
    needs = [needs_of(chain, account, terms) for account in accounts]
    coins = {need.account: need.coins for need in needs if need.coins}
    tokens = {need.account: need.tokens for need in needs if need.tokens}
    gas = TRANSFER_GAS * (len(coins) + len(tokens)) + OWN_GAS
    what = f"to set up {len(accounts)} nodes and to pay for its own transactions"
    check_coins(chain.link, chain.account, gas, sum(coins.values()), what)
    check_tokens(chain, chain.account, sum(tokens.values()), f"for the stakes and bonds of {len(tokens)} nodes")
    for gifts in _parts(coins):
        chain.send_coins(gifts)
    for gifts in _parts(tokens):
        chain.send_tokens(gifts)
    return len(coins | tokens)


def _parts(gifts: dict[bytes, int]) -> list[dict[bytes, int]]:
    rows = list(gifts.items())
    return [dict(rows[start : start + AT_ONCE]) for start in range(0, len(rows), AT_ONCE)]


def _up(wei: int) -> int:
    """Rounded up to a thousandth of a coin: an amount for people."""
    return -(-wei // 10**15) * 10**15
