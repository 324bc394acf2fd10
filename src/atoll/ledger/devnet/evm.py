"""A small Ethereum chain for one machine: py-evm, a queue of pending transactions, and an index, in one SQLite file.

Blocks are made when there are transactions, at most one a second, and carry the time of the clock that is passed in:
block timestamps never run ahead of it. There is one producer and no reorganisation, so the latest block is final.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eth.chains.base import MiningChain
from eth.exceptions import HeaderNotFound, Revert
from eth.vm.forks import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_utils.exceptions import ValidationError

from atoll.ledger.devnet import describe
from atoll.ledger.devnet.store import Store

GAS_LIMIT = 30_000_000
MAX_PENDING = 5_000
MAX_NONCE_GAP = 128
REPLACEMENT_BUMP = 110  # per cent of the fee that a replacement must offer, as in geth
_ACCEPTED_TYPES = (0, 1, 2)  # legacy, access list, dynamic fee: no blobs, no delegated code


Topics = Sequence[Sequence[bytes] | None]
"""A filter: for each place the topics that match, None for any."""


class Rejected(Exception):
    """A transaction or a call that the chain does not take; the message is what JSON-RPC answers."""


class Reverted(Exception):
    """A call that failed in the EVM; `data` is what the contract returned (ABI-encoded error)."""

    def __init__(self, message: str, data: bytes) -> None:
        self.data = data
        super().__init__(message)


@dataclass(frozen=True)
class Message:
    """A call: who asks, which contract (empty to deploy one), the call's data, wei sent along, and a gas limit."""

    sender: bytes
    to: bytes
    data: bytes
    value: int = 0
    gas: int = GAS_LIMIT


class Pending:
    """Transactions that wait for a block: by sender and nonce, in order of arrival."""

    def __init__(self) -> None:
        self._by_sender: dict[bytes, dict[int, Any]] = {}
        self._arrival: dict[bytes, None] = {}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._by_sender.values())

    def find(self, transaction_hash: bytes) -> Any | None:
        """The transaction of this hash, if it waits."""
        for queue in self._by_sender.values():
            for transaction in queue.values():
                if transaction.hash == transaction_hash:
                    return transaction
        return None

    def put(self, sender: bytes, transaction: Any) -> None:
        """Queue a transaction; one with the same nonce is replaced if the new one pays clearly more."""
        queue = self._by_sender.setdefault(sender, {})
        old = queue.get(transaction.nonce)
        if old is not None and transaction.max_fee_per_gas * 100 < old.max_fee_per_gas * REPLACEMENT_BUMP:
            raise Rejected("replacement transaction underpriced")
        if old is None and len(self) >= MAX_PENDING:
            raise Rejected("the queue of pending transactions is full")
        queue[transaction.nonce] = transaction
        self._arrival.setdefault(sender)

    def next_nonce(self, sender: bytes, nonce: int) -> int:
        """The first nonce from `nonce` on that no waiting transaction has."""
        queue = self._by_sender.get(sender, {})
        while nonce in queue:
            nonce += 1
        return nonce

    def ready(self, nonce_of: Callable[[bytes], int]) -> Iterator[tuple[bytes, Any]]:
        """Transactions in the order in which a block can take them; those with stale nonces are dropped."""
        for sender in list(self._arrival):
            nonce = nonce_of(sender)
            queue = self._by_sender[sender]
            for stale in [n for n in queue if n < nonce]:
                del queue[stale]
            while nonce in queue:
                yield sender, queue[nonce]
                nonce += 1

    def drop(self, sender: bytes, nonce: int) -> None:
        """Forget a transaction, because it was mined or can never be."""
        queue = self._by_sender.get(sender, {})
        queue.pop(nonce, None)
        if not queue:
            self._by_sender.pop(sender, None)
            self._arrival.pop(sender, None)


class Evm:
    """The chain itself. Not safe for threads: the caller holds a lock.

    `clock` returns Unix seconds; `genesis` maps accounts (20 bytes) to their first balance in wei, for a new chain.
    """

    def __init__(self, store: Store, chain_id: int, clock: Callable[[], float], genesis: dict[bytes, int]) -> None:
        self._store = store
        self._clock = clock
        self.chain_id = chain_id
        self.pending = Pending()
        self._class: Any = type(
            "DevChain", (MiningChain,), {"chain_id": chain_id, "vm_configuration": ((0, PragueVM),)}
        )
        self._offset = int(store.get("offset") or 0)
        if store.get("chain_id") is None:
            with store.transaction():
                self._create(genesis)
        self._chain = self._class(store.kv)
        # A clock that was set back must not stop the chain: its own time goes on from the last block.
        self._offset = max(self._offset, self.head.timestamp - int(clock()))

    def _create(self, genesis: dict[bytes, int]) -> None:
        state = {
            account: {"balance": balance, "nonce": 0, "code": b"", "storage": {}}
            for account, balance in genesis.items()
        }
        chain = self._class.from_genesis(
            self._store.kv, {"gas_limit": GAS_LIMIT, "timestamp": int(self._clock()), "difficulty": 0}, state
        )
        self._store.put("chain_id", str(self.chain_id))
        self._index(chain.get_canonical_block_by_number(0), [], [])

    @property
    def head(self) -> Any:
        """Header of the latest block."""
        return self._chain.get_canonical_head()

    def now(self) -> int:
        """The chain's time in Unix seconds: the clock's, plus what tests added."""
        return int(self._clock()) + self._offset

    def shift_clock(self, seconds: int) -> int:
        """Move the chain's time forward, for tests; returns the whole offset."""
        if seconds < 0:
            raise Rejected("time cannot go backwards")
        self._offset += seconds
        self._store.put("offset", str(self._offset))
        return self._offset

    # Transactions

    def submit(self, raw: bytes) -> bytes:
        """Queue a signed transaction and return its hash; raises Rejected when no block could take it."""
        transaction, sender = self._decode(raw)
        if self.pending.find(transaction.hash) is not None or self.receipt(transaction.hash) is not None:
            return bytes(transaction.hash)
        state = self._state()
        nonce = state.get_nonce(sender)
        if transaction.nonce < nonce:
            raise Rejected(f"nonce too low: next nonce {nonce}, tx nonce {transaction.nonce}")
        if transaction.nonce > nonce + MAX_NONCE_GAP:
            raise Rejected(f"nonce too high: next nonce {nonce}, tx nonce {transaction.nonce}")
        if transaction.gas > GAS_LIMIT:
            raise Rejected("exceeds block gas limit")
        if transaction.gas < transaction.intrinsic_gas:
            raise Rejected("intrinsic gas too low")
        if state.get_balance(sender) < transaction.gas * transaction.max_fee_per_gas + transaction.value:
            raise Rejected("insufficient funds for gas * price + value")
        self.pending.put(sender, transaction)
        return bytes(transaction.hash)

    def _decode(self, raw: bytes) -> tuple[Any, bytes]:
        if not raw or (raw[0] < 0x80 and raw[0] not in _ACCEPTED_TYPES):
            raise Rejected("transaction type not supported")
        try:
            transaction = PragueVM.get_transaction_builder().decode(raw)
            transaction.validate()
            sender = bytes(transaction.sender)
        except Exception as error:  # rlp, eth_keys and py-evm each raise errors of their own for bad bytes
            raise Rejected(f"the transaction cannot be decoded: {error}") from error
        if transaction.chain_id not in (None, self.chain_id):
            raise Rejected(f"invalid chain id: have {transaction.chain_id}, want {self.chain_id}")
        return transaction, sender

    def ready(self) -> bool:
        """Whether a block can be made now: something can be mined, and the last block is at least a second old."""
        return self.now() > self.head.timestamp and self.waiting()

    def waiting(self) -> bool:
        """Whether something can be mined."""
        if not len(self.pending):
            return False
        return next(self.pending.ready(self._state().get_nonce), None) is not None

    def mine(self) -> int:
        """Make a block of what is pending, even if that is nothing, and return its number.

        Its time is `now`, or one second after the last block if that is later.
        """
        parent = self.head
        timestamp = max(self.now(), parent.timestamp + 1)
        header = self._chain.create_header_from_parent(parent, timestamp=timestamp, gas_limit=parent.gas_limit)
        with self._store.transaction():
            vm = self._chain.get_vm(header)
            header, taken, receipts = self._apply(vm, header)
            vm.state.persist()
            header = header.copy(state_root=vm.state.state_root)
            filled = vm.set_block_transactions_and_withdrawals(
                vm.get_block(), header, [transaction for _, transaction in taken], receipts
            )
            block = vm.mine_block(filled).block
            self._chain.chaindb.persist_block(block)
            self._index(block, taken, receipts)
        for sender, transaction in taken:
            self.pending.drop(sender, transaction.nonce)
        return int(block.number)

    def _apply(self, vm: Any, header: Any) -> tuple[Any, list[tuple[bytes, Any]], list[Any]]:
        taken: list[tuple[bytes, Any]] = []
        receipts: list[Any] = []
        for sender, transaction in list(self.pending.ready(vm.state.get_nonce)):
            if header.gas_used + transaction.gas > header.gas_limit:
                continue
            try:
                receipt, _ = vm.apply_transaction(header, transaction)
            except ValidationError:
                self.pending.drop(sender, transaction.nonce)  # its balance went to an earlier transaction
                continue
            header = vm.add_receipt_to_header(header, receipt)
            taken.append((sender, transaction))
            receipts.append(receipt)
        return header, taken, receipts

    def _index(self, block: Any, taken: Sequence[tuple[bytes, Any]], receipts: Sequence[Any]) -> None:
        run = self._store.connection.execute
        rows = describe.block_rows(block, taken, receipts)
        run("insert into blocks values(?,?,?)", (block.number, block.hash, json.dumps(rows.block)))
        for transaction, receipt in zip(rows.transactions, rows.receipts, strict=True):
            name = bytes.fromhex(transaction["hash"][2:])
            row = (name, block.number, json.dumps(transaction), json.dumps(receipt))
            run("insert into transactions values(?,?,?,?)", row)
            for log in receipt["logs"]:
                address, topics = bytes.fromhex(log["address"][2:]), "".join(t[2:] for t in log["topics"])
                place = block.number, int(log["logIndex"], 16)
                run("insert into logs values(?,?,?,?,?)", (*place, address, bytes.fromhex(topics), json.dumps(log)))

    # Reading

    def block(self, number: int | None = None, block_hash: bytes | None = None) -> dict[str, Any] | None:
        """A block as JSON-RPC shows it, with transaction hashes."""
        if block_hash is not None:
            query, key = "select body from blocks where hash=?", block_hash
        else:
            query, key = "select body from blocks where number=?", number  # type: ignore[assignment]
        row = self._store.connection.execute(query, (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def transaction(self, transaction_hash: bytes) -> dict[str, Any] | None:
        """A transaction as JSON-RPC shows it, mined or pending."""
        row = self._store.connection.execute(
            "select body from transactions where hash=?", (transaction_hash,)
        ).fetchone()
        if row is not None:
            return json.loads(row[0])  # type: ignore[no-any-return]
        waiting = self.pending.find(transaction_hash)
        return None if waiting is None else describe.transaction(waiting, bytes(waiting.sender), None)

    def receipt(self, transaction_hash: bytes) -> dict[str, Any] | None:
        """The receipt of a mined transaction as JSON-RPC shows it."""
        row = self._store.connection.execute(
            "select receipt from transactions where hash=?", (transaction_hash,)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def logs(self, first: int, last: int, addresses: Sequence[bytes], topics: Topics) -> list[Any]:
        """Logs of blocks `first` to `last` from one of the addresses (all if none is named) that match the topics."""
        rows = self._store.connection.execute(
            "select address, topics, body from logs where number between ? and ? order by number, log_index",
            (first, last),
        )
        wanted = set(addresses)
        return [
            json.loads(body)
            for address, packed, body in rows
            if (not wanted or address in wanted) and _topics_match(packed, topics)
        ]

    def _header(self, number: int | None) -> Any:
        if number is None or number >= self.head.block_number:
            # What a transaction would see now: the latest state, and the time of the block to come.
            head = self.head
            timestamp = max(self.now(), head.timestamp + 1)
            return self._chain.create_header_from_parent(head, timestamp=timestamp, gas_limit=head.gas_limit)
        try:
            return self._chain.get_canonical_block_header_by_number(number)
        except HeaderNotFound as error:
            raise Rejected(f"no block {number}") from error

    def _state(self, number: int | None = None) -> Any:
        return self._chain.get_vm(self._header(number)).state

    def balance(self, account: bytes, number: int | None = None) -> int:
        """Balance in wei."""
        return int(self._state(number).get_balance(account))

    def nonce(self, account: bytes, number: int | None = None, *, pending: bool = False) -> int:
        """The account's next nonce, counting what waits if `pending`."""
        nonce = int(self._state(number).get_nonce(account))
        return self.pending.next_nonce(account, nonce) if pending else nonce

    def code(self, account: bytes, number: int | None = None) -> bytes:
        """A contract's code."""
        return bytes(self._state(number).get_code(account))

    def storage(self, account: bytes, slot: int, number: int | None = None) -> bytes:
        """A word of a contract's storage."""
        return int(self._state(number).get_storage(account, slot)).to_bytes(32, "big")

    def base_fee(self) -> int:
        """Base fee of the block to come, in wei per gas."""
        return int(self._header(None).base_fee_per_gas)

    # Calls

    def call(self, message: Message, number: int | None = None) -> bytes:
        """What a call returns, without changing anything; raises Reverted."""
        return bytes(self._run(message, number).output)

    def estimate(self, message: Message) -> int:
        """Gas that is enough for the call now; raises Reverted if none is.

        What is used is less than what is needed (refunds; the 1/64 that a call keeps back), so a little is added and
        tried, and doubled until it is enough.
        """
        computation = self._run(replace(message, gas=GAS_LIMIT), None)
        limit = (GAS_LIMIT - int(computation.get_gas_remaining())) * 65 // 64 + 100
        while limit < GAS_LIMIT:
            try:
                self._run(replace(message, gas=limit), None)
            except Reverted:
                limit *= 2
            else:
                return limit
        return GAS_LIMIT

    def _run(self, message: Message, number: int | None) -> Any:
        # A call is free: with a base fee of zero nobody needs a balance to look.
        header = self._header(number).copy(base_fee_per_gas=0)
        state = self._chain.get_vm(header).state
        unsigned = self._chain.create_unsigned_transaction(
            nonce=state.get_nonce(message.sender),
            gas_price=0,
            gas=message.gas,
            to=message.to,
            value=message.value,
            data=message.data,
        )
        try:
            computation = state.apply_transaction(SpoofTransaction(unsigned, from_=message.sender))
        except ValidationError as error:
            raise Rejected(str(error)) from error
        if computation.is_error:
            fault = computation.error
            if isinstance(fault, Revert):
                raise Reverted("execution reverted", bytes(computation.output))
            raise Reverted(f"execution failed: {type(fault).__name__}", b"")
        return computation


def _topics_match(packed: bytes, wanted: Topics) -> bool:
    """`packed` is the log's topics of 32 bytes each; every wanted place must hold one of its values, None any."""
    if len(wanted) * 32 > len(packed):
        return False
    return all(values is None or packed[32 * place : 32 * place + 32] in values for place, values in enumerate(wanted))
