"""The contracts of a new network: their order, what each is given, and deploying them over JSON-RPC with a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from atoll.errors import ChainDown, WrongChain
from atoll.ledger import abi
from atoll.ledger.funding import check_coins
from atoll.ledger.link import Link
from atoll.ledger.records import Addresses, GasUse, Terms
from atoll.ledger.wallet import Call, Wallet
from atoll.wire.identity import AccountKey

COIN = 10**18
SUPPLY = 10**9 * COIN
DAY = 24 * 3600
GAS = 11_000_000
"""What all transactions of a deployment take together, with a margin (8.8 million measured)."""

# Until an epoch's window is over nobody is paid, but nobody can be cheated either: a day is enough for one honest
# validator to look. Stake stays longer than any window, and a job's budget longer than its last epoch needs.
# A day is also enough to redeem a voucher whose payer leaves.
TERMS = Terms(100 * COIN, unstake_delay=7 * DAY, bond=50 * COIN, window=DAY, grace=7 * DAY, deposit_delay=DAY)
"""What a network on a chain of its own choosing is set up with, unless somebody says otherwise."""

Send = Callable[[str, bytes, bytes], bytes]
"""Sends a transaction (name, to, data) and returns the address of the contract that it makes, if `to` is empty."""


@dataclass(frozen=True)
class Deployed:
    """A new network: its addresses, the block from which on its events can be read, and what it took."""

    addresses: Addresses
    first_block: int
    gas_by_call: dict[str, GasUse]


def build(send: Send, owner: bytes, terms: Terms, supply: int = SUPPLY) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Deploy the contracts in order and wire them; `owner` receives the whole supply of tokens, in base units.

    Returns the addresses of registry, token, jobs, settlement and deposits (as `Addresses` has them).
    """
    token = send("Token", b"", abi.deployment("Token", _hex(owner), supply))
    registry = send("Registry", b"", abi.deployment("Registry", _hex(token), terms.min_stake, terms.unstake_delay))
    jobs = send("Jobs", b"", abi.deployment("Jobs", _hex(token), _hex(registry), terms.grace))
    settlement = send(
        "Settlement", b"", abi.deployment("Settlement", _hex(registry), _hex(jobs), terms.bond, terms.window)
    )
    deposits = send("Deposits", b"", abi.deployment("Deposits", _hex(token), terms.deposit_delay))
    wired = _hex(jobs), _hex(settlement), _hex(deposits)
    send("Registry.wire", registry, abi.call_data("Registry", "wire", *wired))
    return registry, token, jobs, settlement, deposits


def deploy(link: Link, key: AccountKey, terms: Terms = TERMS, supply: int = SUPPLY) -> Deployed:
    """Deploy a network with an account's key; the account receives all tokens.

    Each contract waits until the one before it is mined: its address is taken from the receipt, never guessed.
    Raises NoFunds if the account cannot pay, ChainDown, TransactionFailed. What was mined before a failure is lost.
    """
    chain_id = link.chain_id()
    check_coins(link, key.address, GAS, 0, "to deploy the contracts")
    head = link.block("latest")
    if head is None:
        raise ChainDown("the endpoint knows no latest block")
    wallet = Wallet(link, key, chain_id)

    def send(name: str, to: bytes, data: bytes) -> bytes:
        receipt = wallet.send(Call(f"deploy {name}" if not to else name, to, data))[0]
        if not to and (receipt.contract is None or not link.code(receipt.contract)):
            raise WrongChain(f"chain {chain_id} took the contract {name} and made none: it cannot run this network")
        return receipt.contract or b""

    parts = build(send, key.address, terms, supply)
    return Deployed(Addresses(chain_id, *parts), head.number, wallet.gas_by_call)


def _hex(address: bytes) -> str:
    return "0x" + address.hex()
