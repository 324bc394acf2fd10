"""Brings to the chain what tabs have signed, at the gateway's cost: a tab has no coins. Everything is checked before.

Registrations and enlistments are limited by number, and one waits for the other, so that the node's own transactions
are never behind more than one of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from atoll.errors import AtollError, Refused
from atoll.gateway.guard import Buckets, Limits
from atoll.gateway.tabs.frames import Enlist, Register
from atoll.gateway.tabs.limits import (
    SPONSORED_BURST,
    SPONSORED_EACH_BURST,
    SPONSORED_EACH_PER_SECOND,
    SPONSORED_PER_SECOND,
)
from atoll.gateway.tabs.telling import Standing
from atoll.ledger.chain import CLAIMS_PER_CALL
from atoll.wire.eip712 import ENLIST, REGISTRATION
from atoll.wire.hashing import ZERO_HASH, keccak
from atoll.wire.identity import binding_digest, recover
from atoll.wire.reasons import Reason

if TYPE_CHECKING:
    from atoll.node.daemon import Node

log = logging.getLogger(__name__)

CLAIM_SECONDS = 10.0


class Sponsor:
    """The chain's side of all tabs of one gateway."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._all = Buckets(Limits(SPONSORED_BURST, SPONSORED_PER_SECOND))
        self._each = Buckets(Limits(SPONSORED_EACH_BURST, SPONSORED_EACH_PER_SECOND))
        self._one = asyncio.Lock()
        self._registered: set[bytes] = set()  # by this gateway, maybe before the node has seen it on the chain
        self._claimed: dict[bytes, int] = {}
        self._claim_at = 0.0
        self._claiming = False

    # -- what the chain knows --------------------------------------------------------------------------------------
    def hints(self) -> str:
        """Where this gateway is, as tabs sign it: its own registration says the same."""
        return ",".join(self._node.settings.advertise or self._node.transport.addresses())[:256]

    def is_ours(self, account: bytes) -> bool:
        """Whether an account is registered with this gateway's endpoint key."""
        entry = self._node.view.nodes.get(account)
        return entry is not None and entry.endpoint_id == self._node.keys.endpoint.public

    async def nonce(self, account: bytes) -> int:
        """The nonce of the account's next registration; raises ChainError. The chain is not asked about newcomers."""
        if account not in self._node.view.nodes and account not in self._registered:
            return 0
        return await self._node.read(self._node.reader.registration_nonce, account)

    def standing(self, account: bytes, nonce: int, hints: str) -> Standing:
        """How an account stands in this node's view of the chain; `hints` are those of now."""
        view, book = self._node.view, self._node.settler.book
        entry = view.nodes.get(account)
        return Standing(
            registered=self.is_ours(account),
            nonce=nonce,
            roles=entry.roles if entry is not None else 0,
            hints=hints,
            earned=book.totals.accounts.get(account, 0),
            claimed=view.claimed.get(account, 0),
            balance=view.balances.get(account, 0),
        )

    # -- transactions ----------------------------------------------------------------------------------------------
    def _afford(self, address: str) -> None:
        now = time.monotonic()
        wait = self._each.take(address, 1.0, now) or self._all.take("all", 1.0, now)
        if wait:
            raise Refused(Reason.BUSY, f"this gateway pays for no more registrations now; ask again in {wait:.0f} s")

    async def register(self, account: bytes, address: str, frame: Register) -> None:
        """Register an account with this gateway's endpoint; raises Refused or ChainError."""
        node, endpoint = self._node, self._node.keys.endpoint
        entry = node.view.nodes.get(account)
        if entry is not None and self.is_ours(account) and entry.roles == frame.roles:
            return
        hints, signature = self.hints(), bytes.fromhex(frame.signature)
        async with self._one:
            nonce = await node.read(node.reader.registration_nonce, account)
            digest = REGISTRATION.digest(
                node.chain.verifier("registry"),
                {
                    "account": account,
                    "endpointId": endpoint.public,
                    "roles": frame.roles,
                    "hints": keccak(hints.encode()),
                    "nonce": nonce,
                },
            )
            _check_signer(digest, signature, account)
            self._afford(address)
            binding = endpoint.sign(binding_digest(node.domain, account, endpoint.public))
            await node.send(node.chain.register_for, account, endpoint.public, frame.roles, hints, binding, signature)
        self._registered.add(account)
        log.info("registered browser tab 0x%s", account.hex())

    async def enlist(self, account: bytes, address: str, frame: Enlist) -> None:
        """Offer an account to a job; raises Refused or ChainError."""
        node, job, tip = self._node, bytes.fromhex(frame.job), bytes.fromhex(frame.tip)
        known = node.view.jobs.get(job)
        if known is None or tip == ZERO_HASH:
            raise Refused(Reason.NOT_FOUND, f"there is no job 0x{frame.job[:8]} to enlist in with that tip")
        if account in known.enlisted:
            return
        if known.certified >= known.end:
            raise Refused(Reason.STALE, "the job is over")
        if not self.is_ours(account) and account not in self._registered:
            raise Refused(Reason.UNKNOWN_ACCOUNT, "the account must be registered here before it enlists")
        signature = bytes.fromhex(frame.signature)
        digest = ENLIST.digest(node.chain.verifier("jobs"), {"job": job, "account": account, "tip": tip})
        _check_signer(digest, signature, account)
        self._afford(address)
        async with self._one:
            await node.send(node.chain.enlist_for, job, account, tip, signature)
        log.info("enlisted browser tab 0x%s in job %s", account.hex(), frame.job[:8])

    # -- claims ----------------------------------------------------------------------------------------------------
    def claim_soon(self, account: bytes) -> None:
        """Claim for all tabs at the next step; raises Refused when nothing is waiting for this account."""
        if not self.is_ours(account) or self._waiting(account) <= 0:
            raise Refused(Reason.NOT_FOUND, "nothing is waiting: all that was posted for this account is claimed")
        self._claim_at = min(self._claim_at, time.monotonic() + 1.0)

    def _waiting(self, account: bytes) -> int:
        total = self._node.settler.book.totals.accounts.get(account, 0)
        return total - max(self._node.view.claimed.get(account, 0), self._claimed.get(account, 0))

    def step(self, now: float) -> None:
        """Begin a batch of claims when it is time."""
        if now >= self._claim_at and not self._claiming:
            self._claim_at = now + CLAIM_SECONDS
            due = [account for account in self._node.view.nodes if self._is_due(account)][:CLAIMS_PER_CALL]
            if due:
                self._claiming = True
                self._node.spawn(self._claim(due))

    def _is_due(self, account: bytes) -> bool:
        return account != self._node.account and self.is_ours(account) and self._waiting(account) > 0

    async def _claim(self, accounts: list[bytes]) -> None:
        settler = self._node.settler
        totals = dict(settler.book.totals.accounts)
        try:
            if await settler.is_final():
                async with self._one:
                    await settler.claim(accounts)
                self._claimed.update({account: totals[account] for account in accounts})
        except AtollError as error:
            log.info("claims for browser tabs wait: %s", error)
        finally:
            self._claiming = False


def _check_signer(digest: bytes, signature: bytes, account: bytes) -> None:
    if recover(digest, signature) != account:
        raise Refused(Reason.BAD_SIGNATURE, "the account did not sign this, or signed it for another network or nonce")
