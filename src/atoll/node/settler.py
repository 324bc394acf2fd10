"""Brings a node's results to the chain: certificates, epochs, claims. The chain decides which of several came first.

Every validator can do every step; who goes first is a matter of rank, and the others step in after a while. All that
is posted carries a quorum's signatures, so it does not matter who posts it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from atoll.errors import AtollError, BadInput, Refused, TransactionFailed
from atoll.ledger.chain import Chain
from atoll.ledger.epoch import PublishedEpoch, claims_of, decode_epoch, encode_epoch, post_of
from atoll.ledger.records import Certificate, quorum
from atoll.node.book import Book, Span
from atoll.node.material import Library
from atoll.node.runner import Runner
from atoll.node.view import View
from atoll.training.committee import CertifyPayload, Place, decode, statement_digest, verdict_root
from atoll.wire.hashing import Domain
from atoll.wire.identity import AccountKey, recover
from atoll.wire.messages import Phase
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Ask, Hash, Request, decode_response, encode_body

log = logging.getLogger(__name__)

RANK_SECONDS = 4.0
NOTHING_WAITS = "Nothing is waiting: all that was posted for this account is claimed."
PEER_ALPN = b"/atoll/peer/1"
Result = TypeVar("Result")


class SignPost(Request, frozen=True, tag=2):
    """Ask a validator to sign epoch `number`, which includes each job's rounds up to (not including) the given one."""

    number: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    spans: Annotated[tuple[tuple[Hash, int], ...], msgspec.Meta(min_length=1, max_length=1000)]


class OnChain(Protocol):
    """Runs a function of the chain in its own thread."""

    def __call__(self, work: Callable[..., Result], *arguments: Any) -> Awaitable[Result]:
        """Await the function's result."""


class Settler:
    """Posting and claiming of one node. `step` is called after every look at the chain."""

    def __init__(
        self, chain: Chain, send: OnChain, key: AccountKey, view: Callable[[], View], library: Library, ask: Ask
    ) -> None:
        self.book = Book()
        self.posted_at: dict[int, float] = {}
        self._chain, self._send, self._key, self._view, self._library, self._ask = chain, send, key, view, library, ask
        self._since: dict[object, float] = {}
        self._final: set[int] = set()

    async def step(self, runners: Sequence[Runner]) -> None:
        """One pass over everything that may be due; what fails is tried again at the next pass."""
        for work in (self._certify(runners), self._catch_up(), self._post(), self._claim()):
            try:
                await work
            except TransactionFailed as error:
                log.info("the chain did not take it (somebody else may have been first): %s", error)
            except AtollError as error:
                log.warning("settling waits: %s", error)

    def _waited(self, what: object, rank: int) -> bool:
        """Whether this node's turn has come for something that became due when it was first asked about."""
        since = self._since.setdefault(what, time.monotonic())
        return time.monotonic() >= since + rank * RANK_SECONDS

    # Certificates
    async def _certify(self, runners: Sequence[Runner]) -> None:
        for runner in runners:
            known = self._view().jobs.get(runner.id)
            number = known.certified if known is not None else len(runner.job.certificates)
            if number >= len(runner.job.certificates):
                continue
            committee = runner.job.committees[number]
            me = self._key.address
            rank = committee.index(me) if me in committee else len(committee)
            if self._waited((runner.id, number), rank):
                await self._certify_round(runner, number, committee)

    async def _certify_round(self, runner: Runner, number: int, committee: tuple[bytes, ...]) -> None:
        message = runner.job.certificates[number]
        payload = decode(Phase.CERTIFY, message.payload)
        if not isinstance(payload, CertifyPayload):
            return
        addresses = self._chain.addresses
        domain = Domain(addresses.chain_id, addresses.registry)
        place = Place(domain, addresses.jobs, runner.id, number, committee)
        digest = statement_digest(place, Phase.CERTIFY, message.view, message.payload)
        signatures = {recover(digest, signature): signature for signature in message.signatures}
        certificate = Certificate(
            runner.id,
            number,
            message.view,
            payload.lock_root,
            verdict_root(payload.verdicts),
            payload.model,
            committee,
            payload.committee,
            payload.last,
        )
        self._since[runner.id, number] = time.monotonic() + RANK_SECONDS  # time for the index to see it
        await self._send(self._chain.certify, certificate, signatures)
        log.info("round %d of job %s is certified on the chain", number, runner.id.hex()[:8])

    # Epochs
    def sign(self, request: SignPost) -> bytes:
        """The signature of this validator under an epoch that it drafted itself; raises Refused."""
        view = self._view()
        for job, end in request.spans:
            if view.certified().get(job, 0) < end:
                raise Refused(Reason.NOT_FOUND, f"round {end - 1} of job 0x{job.hex()[:8]} is not yet on my chain")
        epoch = self.book.draft(request.number, request.spans)
        return self._sign(epoch)

    def _sign(self, epoch: PublishedEpoch) -> bytes:
        verifier = self._chain.verifier("settlement")
        return self._key.sign_digest(post_of(epoch, verifier).digest(verifier))

    async def _post(self) -> None:
        view, me = self._view(), self._key.address
        spans = self.book.due(view.certified())
        if not spans or me not in view.validators or len(self.book.epochs) != len(view.epochs):
            return
        number = len(self.book.epochs)
        validators = sorted(view.validators)
        rank = (validators.index(me) - number) % len(validators)
        if not self._waited(("epoch", number), rank):
            return
        epoch = self.book.draft(number, spans)
        signatures = await self._collect(epoch, spans, validators)
        needed = quorum(len(validators))
        if len(signatures) < needed:
            log.info("epoch %d has %d of %d signatures", number, len(signatures), needed)
            return
        uri = self._library.keep(encode_epoch(epoch)).hex()
        self._library.blobs.pin(bytes.fromhex(uri))
        post = post_of(epoch, self._chain.verifier("settlement"))
        await self._send(self._chain.post, post, epoch.jobs, uri, signatures)
        log.info("epoch %d is posted: %d receipts", number, len(epoch.receipts))

    async def _collect(
        self, epoch: PublishedEpoch, spans: tuple[Span, ...], validators: Sequence[bytes]
    ) -> dict[bytes, bytes]:
        verifier = self._chain.verifier("settlement")
        digest = post_of(epoch, verifier).digest(verifier)
        request = encode_body(SignPost(epoch.number, spans))

        async def one(account: bytes) -> tuple[bytes, bytes] | None:
            try:
                signature = decode_response(await self._ask(account, PEER_ALPN, request))
                return (account, signature) if recover(digest, signature) == account else None
            except AtollError as error:
                log.info("%s does not sign epoch %d: %s", account.hex()[:8], epoch.number, error)
                return None

        others = [account for account in validators if account != self._key.address]
        answers = await asyncio.gather(*(one(account) for account in others))
        return {self._key.address: self._sign(epoch), **dict(answer for answer in answers if answer is not None)}

    async def _catch_up(self) -> None:
        """Take in epochs that were posted, from whoever publishes them."""
        view = self._view()
        while len(self.book.epochs) < len(view.epochs):
            posted = view.epochs[len(self.book.epochs)].epoch
            sources = [posted.poster, *sorted(view.nodes)]
            data = await self._library.fetch(_blob_of(posted.uri), sources)
            epoch = decode_epoch(data)
            post = post_of(epoch, self._chain.verifier("settlement"))
            if (post.epoch, post.root, post.receipts_root) != (posted.epoch, posted.root, posted.receipts_root):
                raise Refused(Reason.WRONG_HASH, f"what is published for epoch {posted.epoch} is not what was posted")
            self._library.blobs.pin(_blob_of(posted.uri))
            self.book.posted(epoch)
            self.posted_at[posted.epoch] = time.time()

    # Claims
    async def _claim(self) -> None:
        me = self._key.address
        if self.unclaimed(me) > 0 and await self.is_final():
            await self.claim([me])

    def unclaimed(self, account: bytes) -> int:
        """Base units that posted epochs grant an account and that it has not claimed."""
        return self.book.totals.accounts.get(account, 0) - self._view().claimed.get(account, 0)

    async def is_final(self) -> bool:
        """Whether the newest epoch's window is over, so that it can be claimed from."""
        epoch = len(self.book.epochs) - 1
        if epoch >= 0 and epoch not in self._final and await self._send(self._chain.is_final, epoch):
            self._final.add(epoch)
        return epoch in self._final

    async def collect(self, account: bytes) -> int:
        """Claim now what waits for an account: base units, 0 if nothing does. Raises BadInput when it is too early."""
        waiting = self.unclaimed(account)
        if waiting <= 0:
            return 0
        if not await self.is_final():
            raise BadInput("The newest epoch can still be challenged; try again in a moment.")
        await self.claim([account])
        return waiting

    async def claim(self, accounts: Sequence[bytes]) -> None:
        """Claim for accounts what the newest epoch grants them."""
        epoch = self.book.epochs[-1]
        await self._send(self._chain.claim_many, claims_of(epoch, accounts))
        for account in accounts:
            log.info("claimed for 0x%s", account.hex())


def _blob_of(uri: str) -> bytes:
    try:
        return bytes.fromhex(uri)
    except ValueError:
        raise Refused(Reason.MALFORMED, f"an epoch is published at {uri[:80]!r}, which is no blob id") from None
