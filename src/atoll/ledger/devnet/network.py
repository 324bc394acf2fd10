"""A network of one machine: the chain, the contracts on it, and a faucet for newcomers."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from atoll.errors import Corrupt, InternalError, WrongChain
from atoll.ledger import abi, records
from atoll.ledger.deploy import SUPPLY, build
from atoll.ledger.devnet.describe import contract_address
from atoll.ledger.devnet.evm import Evm
from atoll.ledger.devnet.rpc import TIP, Rpc
from atoll.ledger.devnet.store import Store

COIN = 10**18
_TREASURY = 10**9 * COIN
_DEPLOY_GAS = 6_000_000


@dataclass(frozen=True)
class Terms:
    """What a new network is set up with; amounts in base units, times in seconds."""

    chain_id: int = 31337
    supply: int = SUPPLY
    min_stake: int = 100 * COIN
    unstake_delay: int = 60
    bond: int = 50 * COIN
    window: int = 3  # in which an epoch can be challenged
    grace: int = 60  # after a job's deadline
    deposit_delay: int = 60  # until what a payer asks back is paid out
    gift_tokens: int = 100_000 * COIN
    gift_wei: int = COIN

    def of_contracts(self) -> records.Terms:
        """Those that the contracts are deployed with."""
        return records.Terms(self.min_stake, self.unstake_delay, self.bond, self.window, self.grace, self.deposit_delay)


@dataclass(frozen=True)
class Network:
    """Where a network is: the chain and the contracts, addresses as 0x-prefixed hex."""

    chain_id: int
    registry: str
    token: str
    jobs: str
    settlement: str
    deposits: str
    deployer: str


class Devnet:
    """Opens or creates the chain of a home directory. `clock` returns Unix seconds; see `Rpc` for `test_methods`.

    Raises Corrupt when a part of the home is damaged or missing, WrongChain when the home holds another chain id.
    """

    def __init__(self, home: Path, terms: Terms, clock: Callable[[], float], test_methods: bool = False) -> None:
        self._terms = terms
        home.mkdir(parents=True, exist_ok=True)
        database = home / "chain.sqlite"
        fresh = not database.exists()
        if fresh and (home / "network.json").exists():
            raise Corrupt(
                f"{home / 'network.json'} describes a chain whose database {database} is missing; put a backup of it "
                f"back, or delete network.json to start a new chain without the old balances"
            )
        self._deployer = _key(home / "deployer.key", fresh)
        self._store = Store(database)
        self._check_chain_id()
        if not fresh:
            self._store.backup()
        account = bytes.fromhex(self._deployer.address[2:])
        self.evm = Evm(self._store, terms.chain_id, clock, {account: _TREASURY})
        self.network = _network(terms.chain_id, account)
        if self.evm.nonce(account) == 0:
            self._deploy(account)
        self._write(home / "network.json")
        self.rpc = Rpc(self.evm, self.fund, test_methods)

    def _check_chain_id(self) -> None:
        stored = self._store.get("chain_id")
        if stored is not None and int(stored) != self._terms.chain_id:
            self._store.close()
            raise WrongChain(
                f"the home directory holds chain {stored}, but chain {self._terms.chain_id} was asked for; "
                f"use --chain-id {stored} or another home directory"
            )

    def _deploy(self, account: bytes) -> None:
        sent: list[bytes] = []

        def send(_: str, to: bytes, data: bytes) -> bytes:
            nonce = self.evm.nonce(account, pending=True)
            sent.append(self._send("0x" + to.hex(), data, gas=_DEPLOY_GAS))
            return contract_address(account, nonce)

        build(send, account, self._terms.of_contracts(), self._terms.supply)
        self.evm.mine()
        receipts = [self.evm.receipt(name) for name in sent]
        if any(receipt is None or receipt["status"] != "0x1" for receipt in receipts):
            raise InternalError("the contracts could not be deployed on the new chain")

    def _send(self, to: str, data: bytes, *, gas: int, value: int = 0) -> bytes:
        account = bytes.fromhex(self._deployer.address[2:])
        transaction: dict[str, Any] = {
            "type": 2,
            "chainId": self._terms.chain_id,
            "nonce": self.evm.nonce(account, pending=True),
            "to": bytes.fromhex(to[2:]),
            "value": value,
            "data": data,
            "gas": gas,
            "maxFeePerGas": 2 * self.evm.base_fee() + TIP,
            "maxPriorityFeePerGas": TIP,
        }
        return self.evm.submit(bytes(self._deployer.sign_transaction(transaction).raw_transaction))

    def _write(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        body = asdict(self.network) | {"schema": 1, "terms": {k: str(v) for k, v in asdict(self._terms).items()}}
        partial.write_text(json.dumps(body, indent=2) + "\n", "utf-8")
        partial.replace(path)

    def fund(self, account: bytes) -> list[bytes]:
        """Queue the gift of coins and tokens for an account, once; a repetition answers with the same transactions."""
        row = self._store.connection.execute("select transactions from funded where account=?", (account,)).fetchone()
        if row is not None:
            given = [bytes.fromhex(name) for name in json.loads(row[0])]
            if all(self.evm.transaction(name) is not None for name in given):
                return given  # otherwise the process died before they were mined
        to = "0x" + account.hex()
        gift = abi.call_data("Token", "transfer", to, self._terms.gift_tokens)
        names = [
            self._send(to, b"", gas=21_000, value=self._terms.gift_wei),
            self._send(self.network.token, gift, gas=100_000),
        ]
        with self._store.transaction() as connection:
            listed = json.dumps([name.hex() for name in names])
            connection.execute("insert or replace into funded values(?,?)", (account, listed))
        return names

    def close(self) -> None:
        """Close the database."""
        self._store.close()


def _network(chain_id: int, deployer: bytes) -> Network:
    token, registry, jobs, settlement, deposits = ("0x" + contract_address(deployer, nonce).hex() for nonce in range(5))
    return Network(chain_id, registry, token, jobs, settlement, deposits, "0x" + deployer.hex())


def _key(path: Path, fresh: bool) -> LocalAccount:
    if not path.exists():
        if not fresh:
            raise Corrupt(f"the key of the faucet, {path}, is missing; put a backup of it back")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
    text: Any = path.read_text("ascii", errors="replace").strip()
    try:
        account: LocalAccount = Account.from_key(bytes.fromhex(text))
    except ValueError as error:
        raise Corrupt(f"the key of the faucet, {path}, is damaged; put a backup of it back") from error
    return account
