"""A whole network in this process: the embedded chain with a clock of our own, and accounts that are ready to act."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data

from atoll.ledger.chain import Chain
from atoll.ledger.devnet.network import Devnet, Terms
from atoll.ledger.records import Certificate
from atoll.wire.hashing import keccak
from atoll.wire.identity import AccountKey

COIN = 10**18
NO_BINDING = bytes(64)
START = 1_900_000_000.0


class Clock:
    """Time that only tests move."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@dataclass
class LocalNetwork:
    """The chain, its clock, and one `Chain` for each of some accounts; every transaction gets a block at once."""

    home: Path
    terms: Terms = field(default_factory=Terms)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.devnet = Devnet(self.home, self.terms, self.clock, test_methods=True)
        self.registry = bytes.fromhex(self.devnet.network.registry[2:])

    def request(self, method: str, params: list[Any]) -> dict[str, Any]:
        answer = self.devnet.rpc.answer({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        if method in ("eth_sendRawTransaction", "atoll_fund"):
            self.clock.now = max(self.clock.now, self.devnet.evm.head.timestamp) + 1
            while self.devnet.evm.waiting():
                self.devnet.evm.mine()
        return answer

    def newcomer(self, name: str) -> Chain:
        """An account with the faucet's gift."""
        key = AccountKey(keccak(name.encode()))
        chain = Chain.connect(self.request, self.registry, self.terms.chain_id, key)
        chain.fund(key.address)
        return chain

    def validator(self, name: str) -> Chain:
        """A registered validator with stake and bond."""
        chain = self.newcomer(name)
        chain.register(keccak(b"endpoint" + name.encode()), 15, "127.0.0.1:1", NO_BINDING)
        chain.stake(self.terms.min_stake)
        chain.deposit_bond(20 * self.terms.bond)
        return chain

    def later(self, seconds: float) -> None:
        self.clock.now += seconds


def key_of(chain: Chain) -> AccountKey:
    """The key behind a chain of ours."""
    assert chain._key is not None
    return chain._key


def account_of(chain: Chain) -> bytes:
    assert chain.account is not None
    return chain.account


def open_job(developer: Chain, members: list[Chain], budget: int = 100 * COIN, rounds: int = 3) -> bytes:
    """A started job in which everybody enlisted; the members are the committee, in this order."""
    deadline = developer.head().timestamp + 100_000
    job, _ = developer.open(keccak(b"manifest"), budget, rounds, deadline, account_of(developer))
    for member in members:
        member.enlist(job, keccak(b"tip" + account_of(member)))
    developer.start(job, [account_of(member) for member in members])
    return job


def certificate(job: bytes, members: list[Chain], round_: int = 0, last: bool = False, **changes: Any) -> Certificate:
    """A certificate by these members, who go on as the next committee."""
    committee = tuple(account_of(member) for member in members)
    fields: dict[str, Any] = {
        "job": job,
        "round": round_,
        "attempt": 0,
        "lock_root": keccak(b"lock%d" % round_),
        "verdict_root": keccak(b"verdict%d" % round_),
        "model_root": keccak(b"model%d" % round_),
        "committee": committee,
        "next_committee": committee,
        "last": last,
    }
    return Certificate(**(fields | changes))


CERTIFICATE_TYPE = [
    ("bytes32", "job"),
    ("uint32", "round"),
    ("uint32", "attempt"),
    ("bytes32", "lockRoot"),
    ("bytes32", "verdictRoot"),
    ("bytes32", "modelRoot"),
    ("bytes32", "committee"),
    ("bytes32", "nextCommittee"),
    ("bool", "last"),
]
POST_TYPE = [
    ("uint64", "epoch"),
    ("bytes32", "root"),
    ("bytes32", "receiptsRoot"),
    ("uint64", "accounts"),
    ("uint64", "receipts"),
    ("bytes32", "totals"),
]


def typed(name: str, fields: list[tuple[str, str]], values: tuple[Any, ...], chain_id: int, contract: bytes) -> Any:
    """A statement as eth_account's own EIP-712 encoder understands it."""
    return encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "chainId", "type": "uint256"},
                    {"name": "verifyingContract", "type": "address"},
                ],
                name: [{"name": field_name, "type": kind} for kind, field_name in fields],
            },
            "primaryType": name,
            "domain": {
                "name": "Atoll",
                "version": "1",
                "chainId": chain_id,
                "verifyingContract": "0x" + contract.hex(),
            },
            "message": {field_name: value for (_, field_name), value in zip(fields, values, strict=True)},
        }
    )


def sign(chain: Chain, message: Any) -> bytes:
    """A signature by eth_account, not by our own code."""
    return bytes(Account.sign_message(message, key_of(chain).private).signature)


def signed(certificate_: Certificate, signers: list[Chain]) -> dict[bytes, bytes]:
    """The signers' signatures under a certificate for the network that they are on."""
    where = signers[0].addresses
    message = typed("Certificate", CERTIFICATE_TYPE, certificate_.values(), where.chain_id, where.jobs)
    return {account_of(signer): sign(signer, message) for signer in signers}
