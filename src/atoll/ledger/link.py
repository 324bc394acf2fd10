"""A line to a chain: Ethereum JSON-RPC through a web3 provider, with our errors.

Every request is tried again while the endpoint is down, for `patience` seconds; every method used here either reads or
can be repeated without harm.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from atoll.errors import BadInput, ChainDown, RpcRefused, TransactionFailed, WrongChain
from atoll.ledger import abi

Json = dict[str, Any]
Requester = Callable[[str, list[Any]], Json]

REQUEST_SECONDS = 20.0
INVALID_PARAMS = -32602  # JSON-RPC's number for a method that exists and was given the wrong parameters
TRY_AGAIN = (408, 429)  # HTTP statuses of an endpoint that is only busy
_importing = threading.Lock()


@dataclass(frozen=True)
class Block:
    """A block's header as far as we use it; `timestamp` in Unix seconds."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int


@dataclass(frozen=True)
class Log:
    """A log entry; (`transaction`, `index`) names it for good, `index` counts within its block."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block: int
    block_hash: bytes
    transaction: bytes
    index: int


@dataclass(frozen=True)
class Receipt:
    """What became of a transaction."""

    transaction: bytes
    succeeded: bool
    gas_used: int
    block: int
    block_hash: bytes
    logs: tuple[Log, ...]
    contract: bytes | None = None


@contextmanager
def usual_recursion_limit() -> Iterator[None]:
    """Keeps Python's recursion limit as it is while one of the chain's libraries is imported.

    web3 and eth_account bring py_ecc, whose import raises the limit to 100,000, with which nested input overflows the
    C stack and ends the process. Every import of such a library stands inside this.
    """
    with _importing:  # or a second thread would take the raised limit for the usual one
        limit = sys.getrecursionlimit()
        try:
            yield
        finally:
            sys.setrecursionlimit(limit)


def over_http(url: str) -> Requester:
    """Requests to an HTTP(S) endpoint; raises BadInput if the URL is of another kind.

    Errors name only the host: the rest of the URL may be a secret of whoever pays for the endpoint.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{url!r} is not the URL of a chain; expected http://HOST:PORT or https://HOST")
    import requests

    with usual_recursion_limit():
        from web3 import HTTPProvider

    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    session = requests.Session()
    # A proxy that the environment names cannot reach a chain on this machine.
    session.trust_env = parts.hostname not in ("127.0.0.1", "localhost", "::1")
    provider = HTTPProvider(url, {"timeout": REQUEST_SECONDS}, session=session, exception_retry_configuration=None)

    def request(method: str, params: list[Any]) -> Json:
        try:
            return dict(provider.make_request(method, params))  # type: ignore[arg-type,unused-ignore]  # web3's own name type
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; bad JSON is a ValueError
            response = error.response if isinstance(error, requests.RequestException) else None
            status = 0 if response is None else response.status_code
            if 400 <= status < 500 and status not in TRY_AGAIN:
                raise RpcRefused(
                    f"the endpoint at {where} refuses {method} (HTTP {status}); check its URL, and the key in it if "
                    f"it needs one"
                ) from error
            raise ChainDown(
                f"the chain at {where} does not answer ({type(error).__name__}); check that it runs and that the "
                f"address is right"
            ) from error

    return request


class Link:
    """JSON-RPC with typed answers. Raises ChainDown when the endpoint stays down, RpcRefused when it says no."""

    def __init__(
        self,
        request: Requester,
        patience: float = 20.0,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request = request
        self.patience = patience
        self.sleep = sleep
        self.now = now

    def ask(self, method: str, *params: Any) -> Any:
        """The result of one request."""
        end = self.now() + self.patience
        pause = 0.1
        while True:
            try:
                answer = self._request(method, list(params))
                break
            except ChainDown:
                if self.now() + pause > end:
                    raise
            self.sleep(pause)
            pause = min(2 * pause, 2.0)
        error = answer.get("error")
        if error is not None:
            raise _refused(error)
        return answer.get("result")

    def chain_id(self) -> int:
        """The chain's id; raises WrongChain if the endpoint is not one of an Ethereum chain."""
        found = self.ask("eth_chainId")
        if not isinstance(found, str) or not found.startswith("0x"):
            raise WrongChain("the endpoint answers, but not as an Ethereum JSON-RPC endpoint does; check --rpc")
        return int(found, 16)

    def block(self, tag: int | str = "latest") -> Block | None:
        """A block by number or tag (latest, finalized); None if there is none."""
        try:
            found = self.ask("eth_getBlockByNumber", hex(tag) if isinstance(tag, int) else tag, False)
        except RpcRefused:
            if isinstance(tag, str):  # nodes answer with an error while nothing is finalized, or know no such tag
                return None
            raise
        if found is None:
            return None
        return Block(_int(found["number"]), _hex(found["hash"]), _hex(found["parentHash"]), _int(found["timestamp"]))

    def balance(self, account: bytes) -> int:
        """Balance in wei."""
        return _int(self.ask("eth_getBalance", "0x" + account.hex(), "latest"))

    def nonce(self, account: bytes, *, pending: bool = False) -> int:
        """The account's next nonce, counting transactions that wait if `pending`."""
        return _int(self.ask("eth_getTransactionCount", "0x" + account.hex(), "pending" if pending else "latest"))

    def code(self, account: bytes) -> bytes:
        """The code at an address; empty if there is no contract."""
        return _hex(self.ask("eth_getCode", "0x" + account.hex(), "latest"))

    def offers(self, method: str) -> bool:
        """Whether the endpoint has a method that takes parameters: it is asked without them, which changes nothing."""
        try:
            self.ask(method)
        except RpcRefused as error:
            return error.rpc_code == INVALID_PARAMS
        return True

    def call(self, to: bytes, data: bytes, *, sender: bytes | None = None, block: int | str = "latest") -> bytes:
        """What a call returns; raises TransactionFailed with the contract's reason."""
        message = _message(to, data, sender)
        try:
            return _hex(self.ask("eth_call", message, hex(block) if isinstance(block, int) else block))
        except RpcRefused as error:
            raise failure("the call", error) from error

    def estimate(self, to: bytes, data: bytes, sender: bytes, value: int = 0) -> int:
        """Gas that a transaction needs now; raises TransactionFailed with the contract's reason."""
        try:
            return _int(self.ask("eth_estimateGas", _message(to, data, sender) | {"value": hex(value)}))
        except RpcRefused as error:
            raise failure("the transaction", error) from error

    def fees(self) -> tuple[int, int]:
        """(base fee of the latest block, tip that is customary), in wei per gas."""
        block = self.ask("eth_getBlockByNumber", "latest", False)
        base = _int(block.get("baseFeePerGas") or "0x0")
        try:
            return base, _int(self.ask("eth_maxPriorityFeePerGas"))
        except RpcRefused:  # not every endpoint has the method
            return base, max(_int(self.ask("eth_gasPrice")) - base, 0)

    def broadcast(self, raw: bytes) -> None:
        """Hand in a signed transaction; one that the endpoint has already is no error."""
        try:
            self.ask("eth_sendRawTransaction", "0x" + raw.hex())
        except RpcRefused as error:
            if not any(phrase in str(error).lower() for phrase in ("already known", "already imported")):
                raise

    def receipt(self, transaction: bytes) -> Receipt | None:
        """The receipt of a mined transaction, or None."""
        found = self.ask("eth_getTransactionReceipt", "0x" + transaction.hex())
        if found is None or found.get("blockNumber") is None:
            return None
        return Receipt(
            _hex(found["transactionHash"]),
            _int(found["status"]) == 1,
            _int(found["gasUsed"]),
            _int(found["blockNumber"]),
            _hex(found["blockHash"]),
            tuple(_log(one) for one in found["logs"]),
            _hex(found["contractAddress"]) if found.get("contractAddress") else None,
        )

    def logs(self, first: int, last: int, addresses: Sequence[bytes]) -> list[Log]:
        """Logs of these contracts in blocks `first` to `last`; RpcRefused when that is too much for the endpoint."""
        query = {"fromBlock": hex(first), "toBlock": hex(last), "address": ["0x" + one.hex() for one in addresses]}
        return [_log(one) for one in self.ask("eth_getLogs", query) if not one.get("removed")]


def failure(what: str, error: RpcRefused) -> TransactionFailed:
    """What the endpoint or a contract said, as the error that users see."""
    reason = abi.contract_error(error.data)
    if reason is None:
        return TransactionFailed(f"{what} was not taken: {error}")
    return TransactionFailed(f"{what} was refused by the contract: {reason}", reason.name)


def _refused(error: Any) -> RpcRefused:
    if not isinstance(error, dict):
        return RpcRefused(str(error))
    data = error.get("data")
    if isinstance(data, dict):  # some nodes wrap it
        data = data.get("data") or data.get("result")
    code = error.get("code")
    message = f"the chain's endpoint refused the request: {error.get('message')}"
    return RpcRefused(message, code if isinstance(code, int) else 0, _revert_data(data))


def _revert_data(data: Any) -> bytes:
    if not isinstance(data, str):
        return b""
    start = data.find("0x")  # some nodes write "Reverted 0x..."
    try:
        return bytes.fromhex(data[start + 2 :]) if start >= 0 else b""
    except ValueError:
        return b""


def _message(to: bytes, data: bytes, sender: bytes | None) -> Json:
    message = {"data": "0x" + data.hex()}
    if to:  # without, the data is that of a new contract
        message["to"] = "0x" + to.hex()
    return message if sender is None else message | {"from": "0x" + sender.hex()}


def _log(found: Json) -> Log:
    return Log(
        _hex(found["address"]),
        tuple(_hex(topic) for topic in found["topics"]),
        _hex(found["data"]),
        _int(found["blockNumber"]),
        _hex(found["blockHash"]),
        _hex(found["transactionHash"]),
        _int(found["logIndex"]),
    )


def _int(value: Any) -> int:
    return value if isinstance(value, int) else int(value, 16)


def _hex(value: str) -> bytes:
    return bytes.fromhex(value[2:])
