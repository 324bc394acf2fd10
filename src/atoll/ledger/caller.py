"""One network's contracts on an Ethereum JSON-RPC endpoint: opening them, reading any view, sending any call.

What the calls mean is in `atoll.ledger.chain`; accounts and addresses are 20 bytes.
"""

from __future__ import annotations

import time
from typing import Any, Self

from atoll.errors import ChainDown, RpcRefused, TransactionFailed, UserError, WrongChain
from atoll.ledger import abi
from atoll.ledger.events import Event, event_of
from atoll.ledger.link import Block, Link, Log, Receipt, Requester, failure, over_http
from atoll.ledger.records import Addresses, GasUse, Tx
from atoll.ledger.wallet import Call, Wallet
from atoll.wire.eip712 import PERMIT, Value, Verifier
from atoll.wire.identity import AccountKey

PERMIT_SECONDS = 3600
_FOUND = ("token", "jobs", "settlement", "deposits")  # through the registry


class Caller:
    """The contracts of one network, found through the registry. Use `connect`.

    Raises ChainDown when the endpoint stays away, WrongChain when it is not the network that was asked for,
    TransactionFailed (with the name of the contract's error as `reason`) when a contract says no.
    """

    def __init__(self, link: Link, addresses: Addresses, key: AccountKey | None = None) -> None:
        self.link = link
        self.addresses = addresses
        self.account = None if key is None else key.address
        self._key = key
        self._wallet = None if key is None else Wallet(link, key, addresses.chain_id)
        self._names = {getattr(addresses, name.lower()): name for name in abi.CONTRACTS}

    @classmethod
    def connect(
        cls,
        rpc: str | Requester,
        registry: bytes,
        chain_id: int | None = None,
        key: AccountKey | None = None,
        patience: float = 20.0,
    ) -> Self:
        """Open a network: `rpc` is a URL, or a function from (method, parameters) to a JSON-RPC answer.

        `patience`: seconds for which requests are repeated while the endpoint is down (not while connecting). Raises
        ChainDown, or WrongChain if the chain id is another or there is no registry at the address.
        """
        link = Link(over_http(rpc) if isinstance(rpc, str) else rpc, patience=0.0)
        found = link.chain_id()
        if chain_id is not None and found != chain_id:
            raise WrongChain(f"the endpoint serves chain {found}, but the network is on chain {chain_id}; check --rpc")
        try:
            parts = [
                abi.result("Registry", name, link.call(registry, abi.call_data("Registry", name))) for name in _FOUND
            ]
        except (TransactionFailed, abi.BadData) as error:
            raise WrongChain(
                f"there is no Atoll registry at 0x{registry.hex()} on chain {found} that this version knows; check the "
                f"address and the endpoint"
            ) from error
        if not any(parts[1]):
            raise WrongChain(f"the registry at 0x{registry.hex()} was never wired to its contracts")
        link.patience = patience
        return cls(link, Addresses(found, registry, *parts), key)

    # The chain itself

    def head(self) -> Block:
        """The latest block: rounds act on it."""
        block = self.link.block("latest")
        if block is None:
            raise ChainDown("the endpoint knows no latest block")
        return block

    def finalized(self) -> Block:
        """The latest block that cannot be undone: money acts on it. The latest, where a chain has no such tag."""
        return self.link.block("finalized") or self.head()

    def block(self, number: int) -> Block | None:
        """A block by its number."""
        return self.link.block(number)

    def logs(self, first: int, last: int) -> list[Log]:
        """Logs of the network's contracts in blocks `first` to `last`."""
        return self.link.logs(first, last, tuple(self._names))

    def decode(self, log: Log) -> Event | None:
        """The event that a log of one of the contracts means."""
        name = self._names.get(log.address)
        return None if name is None else event_of(abi.raw_event(name, log.topics, log.data))

    @property
    def gas_by_call(self) -> dict[str, GasUse]:
        """Gas of the transactions that were sent from here, by name of the call."""
        return {} if self._wallet is None else dict(self._wallet.gas_by_call)

    def verifier(self, contract: str) -> Verifier:
        """What EIP-712 statements for `registry`, `jobs`, `settlement` or `deposits` are bound to."""
        return Verifier(self.addresses.chain_id, getattr(self.addresses, contract))

    def has_faucet(self) -> bool:
        """Whether the chain gives newcomers coins and tokens: embedded chains do."""
        return self.link.offers("atoll_fund")

    def fund(self, account: bytes) -> None:
        """On an embedded chain: receive the newcomer's gift, once, and wait for it. TransactionFailed elsewhere."""
        try:
            names = self.link.ask("atoll_fund", "0x" + account.hex())
        except RpcRefused as error:
            raise failure("the request for coins", error) from error
        end = self.link.now() + 60.0
        while any(self.link.receipt(bytes.fromhex(name[2:])) is None for name in names):
            if self.link.now() > end:
                raise ChainDown("the chain did not mine the gift of coins within a minute")
            self.link.sleep(0.1)

    # Sending

    def _send(self, *calls: Call) -> list[Tx]:
        if self._wallet is None:
            raise UserError("this needs an account's key: the chain was opened for reading only")
        return [self._tx(call.name, receipt) for call, receipt in zip(calls, self._wallet.send(*calls), strict=True)]

    def transact(self, contract: str, function: str, *arguments: Any) -> Tx:
        """Send any call to a contract; structs are tuples in the order of their fields."""
        return self._send(self._call(contract, function, *arguments))[0]

    def _tx(self, name: str, receipt: Receipt) -> Tx:
        events = [event for event in map(self.decode, receipt.logs) if event is not None]
        return Tx(name, receipt.transaction, receipt.gas_used, receipt.block, receipt.block_hash, tuple(events))

    def _call(self, contract: str, function: str, *arguments: Any) -> Call:
        to = getattr(self.addresses, contract.lower())
        return Call(f"{contract}.{function}", to, abi.call_data(contract, function, *arguments))

    def read(self, contract: str, function: str, *arguments: Any) -> Any:
        """The result of any view of a contract; what has no method of its own is asked this way."""
        call = self._call(contract, function, *arguments)
        answer = self.link.call(call.to, call.data)
        try:
            return abi.result(contract, function, answer)
        except abi.BadData as error:
            raise WrongChain(
                f"0x{call.to.hex()} is not the {contract} contract of this version of Atoll; check the registry address"
            ) from error

    def _permit(self, spender: bytes, amount: int) -> tuple[int, int, int, bytes, bytes]:
        """An EIP-2612 approval by this account, signed: (amount, deadline, v, r, s)."""
        if self._key is None:
            raise UserError("this needs an account's key: the chain was opened for reading only")
        nonce = self.read("Token", "nonces", self._key.address)
        deadline = max(self.head().timestamp, int(time.time())) + PERMIT_SECONDS
        values: dict[str, Value] = {"owner": self._key.address, "spender": spender, "value": amount}
        digest = PERMIT.digest(self.verifier("token"), {**values, "nonce": nonce, "deadline": deadline})
        signature = self._key.sign_digest(digest)
        return amount, deadline, signature[64], signature[:32], signature[32:64]
