"""Ethereum JSON-RPC for the devnet: requests in, answers out; no sockets here."""

from __future__ import annotations

import inspect
import json
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from atoll.ledger.devnet.describe import data, quantity
from atoll.ledger.devnet.evm import GAS_LIMIT, Evm, Message, Rejected, Reverted

MAX_BATCH = 100
MAX_BRACKETS = 1_000  # in a request; it bounds the depth, for py-evm raises Python's own limit beyond what C survives
MAX_LOG_RANGE = 10_000
TIP = 10**9  # wei per gas
_NOBODY = bytes(20)

Json = dict[str, Any]


class InvalidParams(Exception):
    """The parameters do not fit the method."""


def _bytes(value: Any, length: int | None = None) -> bytes:
    if not isinstance(value, str) or not value.startswith("0x"):
        raise InvalidParams(f"expected a 0x-prefixed hex string, got {value!r:.80}")
    try:
        out = bytes.fromhex(value[2:])
    except ValueError as error:
        raise InvalidParams(f"not hex: {value!r:.80}") from error
    if length is not None and len(out) != length:
        raise InvalidParams(f"expected {length} bytes, got {len(out)}")
    return out


def _int(value: Any) -> int:
    if isinstance(value, str):
        try:
            value = int(value, 16)
        except ValueError as error:
            raise InvalidParams(f"expected a hex number, got {value!r:.80}") from error
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 256:
        raise InvalidParams(f"expected a number of at most 256 bits, got {value!r:.80}")
    return value


class Rpc:
    """Answers JSON-RPC requests from one `Evm`, one at a time.

    `on_transaction`, which can be set, is called after a transaction was queued. `fund` sends a newcomer its first
    coins and returns the transactions' hashes; it is None on a chain without a faucet. `test_methods` let anybody move
    the chain's time and make blocks.
    """

    def __init__(
        self,
        evm: Evm,
        fund: Callable[[bytes], list[bytes]] | None = None,
        test_methods: bool = False,
    ) -> None:
        self.evm = evm
        self.lock = threading.RLock()
        self.on_transaction: Callable[[], None] = lambda: None
        self._fund = fund
        self._methods: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: "atoll-devnet/1",
            "net_version": lambda: str(evm.chain_id),
            "eth_chainId": lambda: quantity(evm.chain_id),
            "eth_syncing": lambda: False,
            "eth_accounts": lambda: [],
            "eth_blockNumber": lambda: quantity(evm.head.block_number),
            "eth_gasPrice": lambda: quantity(evm.base_fee() + TIP),
            "eth_maxPriorityFeePerGas": lambda: quantity(TIP),
            "eth_feeHistory": self._fee_history,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBalance": lambda account, tag="latest": quantity(evm.balance(_bytes(account, 20), self._at(tag))),
            "eth_getTransactionCount": self._transaction_count,
            "eth_getCode": lambda account, tag="latest": data(evm.code(_bytes(account, 20), self._at(tag))),
            "eth_getStorageAt": lambda account, slot, tag="latest": data(
                evm.storage(_bytes(account, 20), _int(slot), self._at(tag))
            ),
            "eth_getTransactionByHash": lambda name: evm.transaction(_bytes(name, 32)),
            "eth_getTransactionReceipt": lambda name: evm.receipt(_bytes(name, 32)),
            "eth_getLogs": self._logs,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._send_raw,
            "atoll_fund": self._fund_account,
        }
        if test_methods:
            self._methods["evm_increaseTime"] = lambda seconds: quantity(evm.shift_clock(_int(seconds)))
            self._methods["evm_mine"] = lambda *_: quantity(evm.mine())

    def handle(self, body: bytes) -> bytes:
        """Answer the body of a request, single or batch; whatever is wrong with it becomes a JSON-RPC error."""
        if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
            return json.dumps(_error(None, -32600, f"a request has at most {MAX_BRACKETS} brackets")).encode()
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            return json.dumps(_error(None, -32700, "parse error: the body is not JSON")).encode()
        if not isinstance(request, list):
            return json.dumps(self.answer(request)).encode()
        if not 0 < len(request) <= MAX_BATCH:
            return json.dumps(_error(None, -32600, f"a batch has 1 to {MAX_BATCH} requests")).encode()
        return json.dumps([self.answer(one) for one in request]).encode()

    def answer(self, request: Any) -> Json:
        """Answer one request."""
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, -32600, "invalid request: an object with a method is expected")
        name, params = request.get("id"), request.get("params") or []
        method = self._methods.get(request["method"])
        if method is None:
            return _error(name, -32601, f"the method {request['method']:.80} does not exist")
        if not isinstance(params, list):
            return _error(name, -32602, "parameters are expected as a list")
        try:
            inspect.signature(method).bind(*params)
        except TypeError as error:
            return _error(name, -32602, f"invalid parameters: {error}")
        try:
            with self.lock:
                result = method(*params)
        except InvalidParams as error:
            return _error(name, -32602, f"invalid parameters: {error}")
        except Reverted as error:
            return _error(name, 3, str(error), data(error.data))
        except Rejected as error:
            return _error(name, -32000, str(error))
        except Exception as error:  # a fault of ours in one request must not look like a chain that is down
            traceback.print_exc(file=sys.stderr)
            return _error(name, -32603, f"internal error: {type(error).__name__}")
        return {"jsonrpc": "2.0", "id": name, "result": result}

    def _number(self, tag: Any) -> int:
        head = int(self.evm.head.block_number)
        known = {"latest": head, "pending": head, "safe": head, "finalized": head, "earliest": 0}
        return known[tag] if isinstance(tag, str) and tag in known else _int(tag)

    def _at(self, tag: Any) -> int | None:
        """A block number for reading state; None is the present state."""
        number = self._number(tag)
        head = self.evm.head.block_number
        if number > head:
            raise Rejected(f"no block {number}: the latest is {head}")
        return None if number == head else number

    def _block_by_number(self, tag: str, full: bool = False) -> Json | None:
        return self._filled(self.evm.block(number=self._number(tag)), full)

    def _block_by_hash(self, name: str, full: bool = False) -> Json | None:
        return self._filled(self.evm.block(block_hash=_bytes(name, 32)), full)

    def _filled(self, block: Json | None, full: bool) -> Json | None:
        if block is not None and full:
            block["transactions"] = [self.evm.transaction(_bytes(name)) for name in block["transactions"]]
        return block

    def _transaction_count(self, account: str, tag: str = "latest") -> str:
        return quantity(self.evm.nonce(_bytes(account, 20), self._at(tag), pending=tag == "pending"))

    def _fee_history(self, count: Any, tag: str, percentiles: Any = None) -> Json:
        last = min(self._number(tag), self.evm.head.block_number)
        first = max(0, last + 1 - min(max(_int(count), 1), 1024))
        blocks = [self.evm.block(number=number) for number in range(first, last + 1)]
        fees = [block["baseFeePerGas"] for block in blocks if block]
        return {
            "oldestBlock": quantity(first),
            "baseFeePerGas": [*fees, quantity(self.evm.base_fee())],
            "gasUsedRatio": [int(b["gasUsed"], 16) / int(b["gasLimit"], 16) for b in blocks if b],
            "reward": [[quantity(TIP) for _ in percentiles or []] for _ in fees],
        }

    def _logs(self, query: Any) -> list[Json]:
        if not isinstance(query, dict):
            raise InvalidParams("a filter object is expected")
        if "blockHash" in query:
            block = self.evm.block(block_hash=_bytes(query["blockHash"], 32))
            if block is None:
                raise Rejected("unknown block")
            first = last = int(block["number"], 16)
        else:
            first = self._number(query.get("fromBlock") or "latest")
            last = self._number(query.get("toBlock") or "latest")
        if last - first >= MAX_LOG_RANGE:
            raise Rejected(f"query returned too many blocks: at most {MAX_LOG_RANGE}")
        address = query.get("address") or []
        addresses = [_bytes(a, 20) for a in ([address] if isinstance(address, str) else address)]
        return self.evm.logs(first, last, addresses, [_topic(topic) for topic in query.get("topics") or []])

    def _message(self, call: Any) -> Message:
        if not isinstance(call, dict):
            raise InvalidParams("a call object is expected")
        return Message(
            sender=_bytes(call["from"], 20) if call.get("from") else _NOBODY,
            to=_bytes(call["to"], 20) if call.get("to") else b"",
            data=_bytes(call.get("data") or call.get("input") or "0x"),
            value=_int(call.get("value") or 0),
            gas=min(_int(call.get("gas") or GAS_LIMIT), GAS_LIMIT),
        )

    def _call(self, call: Any, tag: str = "latest", _overrides: Any = None) -> str:
        return data(self.evm.call(self._message(call), self._at(tag)))

    def _estimate(self, call: Any, _tag: str = "latest", _overrides: Any = None) -> str:
        return quantity(self.evm.estimate(self._message(call)))

    def _send_raw(self, raw: str) -> str:
        name = self.evm.submit(_bytes(raw))
        self.on_transaction()
        return data(name)

    def _fund_account(self, account: str) -> list[str]:
        if self._fund is None:
            raise Rejected("this chain has no faucet")
        hashes = self._fund(_bytes(account, 20))
        self.on_transaction()
        return [data(name) for name in hashes]


def _topic(topic: Any) -> list[bytes] | None:
    if topic is None:
        return None
    return [_bytes(one, 32) for one in ([topic] if isinstance(topic, str) else topic)]


def _error(name: Any, code: int, message: str, content: str | None = None) -> Json:
    error: Json = {"code": code, "message": message}
    if content is not None:
        error["data"] = content
    return {"jsonrpc": "2.0", "id": name, "error": error}
