"""Sending transactions until they are mined: signing, nonces, rebroadcast, and what they cost.

A transaction that was broadcast may be lost (the embedded chain forgets what waits when it is killed), replaced by
another process that uses the same account, or stuck because fees rose. The wallet keeps at it: it polls for the
receipt, hands the same signed bytes in again, offers more for the same nonce after a while, and signs anew with a
fresh nonce only when the old one was taken by something else, so that nothing can happen twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atoll.errors import ChainDown, RpcRefused, TransactionFailed
from atoll.ledger.link import Link, Receipt, failure, usual_recursion_limit
from atoll.ledger.records import GasUse
from atoll.wire.identity import AccountKey

FIRST_POLL = 0.05  # seconds
LONGEST_POLL = 1.0
REBROADCAST_SECONDS = 3.0
RAISE_FEE_SECONDS = 30.0
SEND_SECONDS = 180.0
OVERTAKEN_CHECKS = 4  # rebroadcasts that must find the nonce used, and no receipt, before a new one is taken


@dataclass(frozen=True)
class Call:
    """A transaction to be sent; without `to`, `data` is that of a new contract.

    `gas` is a limit for calls that cannot be estimated before an earlier one is mined.
    """

    name: str
    to: bytes
    data: bytes
    value: int = 0
    gas: int | None = None


@dataclass
class _Sent:
    """A call under way: its nonce, and every version that was signed for that nonce (hash -> bytes)."""

    call: Call
    nonce: int
    gas: int
    fees: tuple[int, int]
    signed_at: float
    versions: dict[bytes, bytes] = field(default_factory=dict)
    overtaken: int = 0


class Wallet:
    """Sends transactions of one account, in order. For one thread.

    Raises TransactionFailed with the contract's reason, ChainDown when the chain stays away.
    """

    def __init__(self, link: Link, key: AccountKey, chain_id: int) -> None:
        self.account = key.address
        self.gas_by_call: dict[str, GasUse] = {}
        self._link = link
        self._key = key
        self._chain_id = chain_id

    def send(self, *calls: Call) -> list[Receipt]:
        """Send calls with consecutive nonces and wait until all are mined; receipts in the same order.

        If one fails, those after it may still be mined; the first failure is raised.
        """
        under_way: list[_Sent] = []
        for call in calls:
            under_way.append(self._start(call, under_way[-1].nonce + 1 if under_way else 0))
        receipts = [self._finish(sent) for sent in under_way]
        for sent, receipt in zip(under_way, receipts, strict=True):
            if not receipt.succeeded:
                raise self._failure(sent, receipt)
        return receipts

    def _start(self, call: Call, least_nonce: int) -> _Sent:
        if call.gas is None:
            gas = self._link.estimate(call.to, call.data, self.account, call.value) * 5 // 4
        else:
            gas = call.gas
        base, tip = self._link.fees()
        nonce = max(self._link.nonce(self.account, pending=True), least_nonce)
        sent = _Sent(call, nonce, gas, (2 * base + tip, tip), self._link.now())
        self._sign(sent)
        self._broadcast(sent)
        return sent

    def _sign(self, sent: _Sent) -> None:
        with usual_recursion_limit():
            from eth_account import Account

        signed = Account.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain_id,
                "nonce": sent.nonce,
                "to": sent.call.to,
                "value": sent.call.value,
                "data": sent.call.data,
                "gas": sent.gas,
                "maxFeePerGas": sent.fees[0],
                "maxPriorityFeePerGas": sent.fees[1],
            },
            self._key.private,
        )
        sent.versions[bytes(signed.hash)] = bytes(signed.raw_transaction)
        sent.signed_at = self._link.now()

    def _broadcast(self, sent: _Sent) -> None:
        """Hand in the latest version; refusals over its nonce mean that something with that nonce is there already."""
        raw = list(sent.versions.values())[-1]
        try:
            self._link.broadcast(raw)
        except RpcRefused as error:
            if not any(word in str(error).lower() for word in ("nonce", "underpriced")):
                raise failure(f"the transaction {sent.call.name}", error) from error

    def _finish(self, sent: _Sent) -> Receipt:
        link = self._link
        end = link.now() + SEND_SECONDS
        again = link.now() + REBROADCAST_SECONDS
        pause = FIRST_POLL
        while link.now() < end:
            for name in sent.versions:
                receipt = link.receipt(name)
                if receipt is not None:
                    self._book(sent.call.name, receipt.gas_used)
                    return receipt
            if link.now() >= again:
                again = link.now() + REBROADCAST_SECONDS
                self._push(sent)
            link.sleep(pause)
            pause = min(1.5 * pause, LONGEST_POLL)
        raise ChainDown(
            f"the transaction {sent.call.name} was not mined within {SEND_SECONDS:.0f} seconds; "
            f"check that the chain makes blocks, then try again"
        )

    def _push(self, sent: _Sent) -> None:
        """Bring a transaction on that was not mined yet."""
        if self._link.nonce(self.account) > sent.nonce:
            # The nonce is used. If not by one of ours, whose receipt an endpoint with several servers may show late,
            # none of our versions can ever be mined.
            sent.overtaken += 1
            if sent.overtaken < OVERTAKEN_CHECKS:
                return
            sent.overtaken = 0
            sent.nonce = self._link.nonce(self.account, pending=True)
            sent.versions.clear()
            self._sign(sent)
        elif self._link.now() - sent.signed_at >= RAISE_FEE_SECONDS:
            base, tip = self._link.fees()
            offered = sent.fees[0] * 5 // 4, sent.fees[1] * 5 // 4
            sent.fees = max(offered[0], 2 * base + tip), max(offered[1], tip)
            self._sign(sent)
        self._broadcast(sent)

    def _book(self, name: str, gas: int) -> None:
        self.gas_by_call[name] = self.gas_by_call.get(name, GasUse(0, 0, 0)).plus(gas)

    def _failure(self, sent: _Sent, receipt: Receipt) -> TransactionFailed:
        """Why a mined transaction failed: the same call on the state before its block usually fails the same way."""
        what = f"the transaction {sent.call.name} (0x{receipt.transaction.hex()})"
        for block in (receipt.block - 1, receipt.block):
            try:
                self._link.call(sent.call.to, sent.call.data, sender=self.account, block=block)
            except TransactionFailed as error:
                return TransactionFailed(f"{what} failed: {error}", error.reason)
        if receipt.gas_used >= sent.gas * 63 // 64:
            return TransactionFailed(f"{what} ran out of gas at {sent.gas}")
        return TransactionFailed(f"{what} failed; the same call now succeeds, so it can be tried again")
