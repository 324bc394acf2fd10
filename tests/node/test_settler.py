"""Epochs between validators: what is signed, what is posted, what is taken in. The chain is a list of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eth_abi import encode as abi_encode
from eth_account import Account
from eth_utils import keccak as oracle_keccak

from atoll.errors import BadInput, Refused, TransactionFailed, Unreachable
from atoll.ledger import events
from atoll.ledger.chain import Chain
from atoll.ledger.epoch import JobTotal, PublishedEpoch, decode_epoch, encode_epoch, post_of
from atoll.ledger.link import Link
from atoll.ledger.records import Addresses
from atoll.ledger.rewards import Prices
from atoll.node.book import JobAccount
from atoll.node.material import Library
from atoll.node.settler import PEER_ALPN, Settler, SignPost
from atoll.node.view import View
from atoll.training.committee import UNIT, CertifyPayload, Row
from atoll.transfer.blobs import BlobStore
from atoll.transfer.service import TransferService
from atoll.wire.eip712 import Verifier
from atoll.wire.hashing import ZERO_HASH
from atoll.wire.identity import AccountKey, recover
from atoll.wire.merkle import MerkleTree
from atoll.wire.reasons import Reason
from atoll.wire.rpc import decode_body, encode_ok, encode_refusal
from tests.ledger.local_network import POST_TYPE, typed

REGISTRY, TOKEN, JOBS, SETTLEMENT, DEPOSITS = (bytes([number]) * 20 for number in range(0x21, 0x26))
ADDRESSES = Addresses(77, REGISTRY, TOKEN, JOBS, SETTLEMENT, DEPOSITS)
JOB, UNIT_0, UNIT_1 = b"\x0a" * 32, b"\x51" * 32, b"\x52" * 32
KEYS = sorted((AccountKey(bytes([number]) * 32) for number in range(1, 5)), key=lambda key: key.address)
FIRST, SECOND = KEYS[0].address, KEYS[1].address
VERIFIER = Verifier(77, SETTLEMENT)
ACCOUNT = JobAccount(Prices(100, 7, 3), rounds=4, epoch_rounds=1, budget=1000)


def no_chain(method: str, _: list[Any]) -> Any:
    raise AssertionError(f"{method} was asked of the chain")


def certificate(unit: bytes, account: bytes) -> CertifyPayload:
    return CertifyPayload(
        replays=(),
        present=(),
        links=(),
        verdicts=(Row(UNIT, unit, account, 0),),
        model=ZERO_HASH,
        roster=(),
        committee=(),
        lock_root=ZERO_HASH,
        last=False,
    )


class Network:
    """Four validators with a settler each, and one chain: `calls` is what was sent to it."""

    def __init__(self, folder: Path, rounds_on_chain: int = 1) -> None:
        self.view = View()
        self.view.fold([events.ValidatorSet(key.address, True, 4) for key in KEYS])
        self.view.fold([events.Registered(key.address, key.address[:1] * 32, 3, "", b"") for key in KEYS])
        self.view.fold([events.Opened(JOB, FIRST, ZERO_HASH, 1000, 4, 9, ZERO_HASH)])
        self.certify(rounds_on_chain)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.final = True
        self.reverts: set[str] = set()
        self.answers: dict[bytes, bytes | Exception] = {}
        self.stores = {key.address: BlobStore(folder / key.address.hex(), 1 << 24, sync=False) for key in KEYS}
        self.settlers = {key.address: self._settler(key, folder) for key in KEYS}

    def _settler(self, key: AccountKey, folder: Path) -> Settler:
        library = Library(self.stores[key.address], folder, self.ask, key.address)
        settler = Settler(Chain(Link(no_chain), ADDRESSES), self.send, key, lambda: self.view, library, self.ask)
        settler.book.open_job(JOB, ACCOUNT)
        settler.book.certified(JOB, 0, certificate(UNIT_0, FIRST))
        settler.book.certified(JOB, 1, certificate(UNIT_1, SECOND))
        return settler

    def certify(self, rounds: int) -> None:
        for number in range(self.view.jobs[JOB].certified, rounds):
            self.view.fold([events.Certified(JOB, number, 0, ZERO_HASH, ZERO_HASH, ZERO_HASH, (), FIRST)])

    async def send(self, work: Callable[..., Any], *arguments: Any) -> Any:
        self.calls.append((work.__name__, arguments))
        if work.__name__ in self.reverts:
            raise TransactionFailed("WrongEpoch", "WrongEpoch")
        return self.final if work.__name__ == "is_final" else None

    async def ask(self, account: bytes, alpn: bytes, payload: bytes) -> bytes:
        if alpn != PEER_ALPN:
            return TransferService(self.stores[account]).handle(payload)
        answer = self.answers.get(account)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        try:
            return encode_ok(self.settlers[account].sign(decode_body(SignPost, payload)))
        except Refused as refusal:
            return encode_refusal(refusal.reason, refusal.detail)

    def step(self, account: bytes = FIRST) -> list[tuple[str, tuple[Any, ...]]]:
        """One pass of a node over what is due; the calls that it made."""
        self.calls.clear()
        asyncio.run(self.settlers[account].step([]))
        return self.calls

    def posted(self, published: PublishedEpoch, uri: str | None = None, poster: bytes = FIRST, **changes: Any) -> None:
        """The chain accepts an epoch."""
        post = post_of(published, VERIFIER)
        blob = self.stores[poster].put(encode_epoch(published)).hex()
        fields = {"root": post.root, "receipts_root": post.receipts_root, "epoch": post.epoch, **changes}
        for total in published.jobs:
            self.view.fold([events.TotalPosted(post.epoch, total.job, total.total, total.settled)])
        self.view.fold(
            [
                events.Posted(
                    poster=poster, accounts=post.accounts, receipts=post.receipts, drawn=0, uri=uri or blob, **fields
                )
            ]
        )

    def draft(self, end: int = 1, account: bytes = FIRST) -> PublishedEpoch:
        book = self.settlers[account].book
        return book.draft(len(book.epochs), [(JOB, end)])


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


def refusal(settler: Settler, number: int, *spans: tuple[bytes, int]) -> Reason:
    with pytest.raises(Refused) as caught:
        settler.sign(SignPost(number, spans))
    return Reason(caught.value.reason)


# Signing
def test_the_signature_is_over_exactly_the_drafted_epoch(network: Network) -> None:
    signature = network.settlers[SECOND].sign(SignPost(0, ((JOB, 1),)))
    epoch = network.draft()
    assert epoch.accounts == ((FIRST, 100),)
    assert epoch.jobs == (JobTotal(JOB, 100, False),)
    # The same statement, put together by Ethereum's own libraries.
    leaf = abi_encode(["address", "uint256"], ["0x" + FIRST.hex(), 100])
    totals = oracle_keccak(abi_encode(["(bytes32,uint256,bool)[]"], [[(JOB, 100, False)]]))
    receipt_type = [("uint8", "kind"), ("bytes32", "job"), ("uint32", "round"), ("bytes32", "unit")]
    receipt_type += [("address", "account"), ("uint16", "reason"), ("uint256", "amount")]
    work = (1, JOB, 0, UNIT_0, "0x" + FIRST.hex(), 0, 100)
    receipt = typed("Receipt", receipt_type, work, 77, SETTLEMENT)
    digest = oracle_keccak(b"\x19" + receipt.version + receipt.header + receipt.body)
    values = (0, MerkleTree([leaf]).root, MerkleTree([digest]).root, 1, 1, totals)
    message = typed("Post", POST_TYPE, values, 77, SETTLEMENT)
    assert bytes.fromhex(Account.recover_message(message, signature=signature)[2:]) == SECOND
    assert recover(post_of(epoch, VERIFIER).digest(VERIFIER), signature) == SECOND


def test_all_validators_sign_the_same(network: Network) -> None:
    request = SignPost(0, ((JOB, 1),))
    digest = post_of(network.draft(), VERIFIER).digest(VERIFIER)
    signatures = [settler.sign(request) for settler in network.settlers.values()]
    assert {recover(digest, signature) for signature in signatures} == {key.address for key in KEYS}
    assert network.settlers[SECOND].sign(request) in signatures  # the same bytes again


def test_rounds_that_are_not_certified_on_the_chain_are_not_signed(network: Network) -> None:
    settler = network.settlers[FIRST]
    assert settler.book.certified_rounds(JOB) == 2  # known here, but the chain has one
    assert refusal(settler, 0, (JOB, 2)) == Reason.NOT_FOUND
    network.certify(2)
    settler.sign(SignPost(0, ((JOB, 2),)))
    network.certify(3)  # on the chain, but unknown here
    assert refusal(settler, 0, (JOB, 3)) == Reason.NOT_FOUND


def test_a_rollback_of_the_chain_counts(network: Network) -> None:
    settler = network.settlers[FIRST]
    settler.sign(SignPost(0, ((JOB, 1),)))
    network.view = View()
    assert refusal(settler, 0, (JOB, 1)) == Reason.NOT_FOUND


def test_other_requests_that_are_not_signed(network: Network) -> None:
    settler = network.settlers[FIRST]
    assert refusal(settler, 1, (JOB, 1)) == Reason.STALE
    assert refusal(settler, 0, (b"\x0b" * 32, 1)) == Reason.NOT_FOUND
    assert refusal(settler, 0, (b"\x0b" * 32, 0)) == Reason.NOT_FOUND
    assert refusal(settler, 0, (JOB, 0)) == Reason.NOT_FOUND
    assert refusal(settler, 0, (JOB, -1)) == Reason.NOT_FOUND
    assert refusal(settler, 0, (JOB, 1), (JOB, 1)) == Reason.DUPLICATE
    settler.book.open_job(JOB, JobAccount(ACCOUNT.prices, 4, 1, budget=99))
    assert refusal(settler, 0, (JOB, 1)) == Reason.OVER_BUDGET


# Posting
def test_the_first_in_rank_posts_with_everybodys_signatures(network: Network) -> None:
    epoch = network.draft()
    ((name, (post, jobs, uri, signatures)),) = network.step()
    assert name == "post"
    assert post == post_of(epoch, VERIFIER)
    assert jobs == (JobTotal(JOB, 100, False),)
    assert {account: recover(post.digest(VERIFIER), signature) for account, signature in signatures.items()} == {
        key.address: key.address for key in KEYS
    }
    blob = bytes.fromhex(uri)
    assert decode_epoch(network.stores[FIRST].get(blob)) == epoch
    assert network.stores[FIRST].pinned(blob)


def test_others_wait_for_their_turn(network: Network) -> None:
    assert network.step(SECOND) == []


def test_nothing_is_posted_before_it_is_due(tmp_path: Path) -> None:
    assert Network(tmp_path, rounds_on_chain=0).step() == []


def test_only_validators_post(network: Network) -> None:
    network.view.fold([events.ValidatorSet(FIRST, False, 3)])
    assert network.step() == []


def test_no_post_without_a_quorum(network: Network) -> None:
    network.answers[KEYS[1].address] = Unreachable("no answer")
    assert [name for name, _ in network.step()] == ["post"]  # 3 of 4
    network.answers[KEYS[2].address] = encode_refusal(Reason.NOT_FOUND, "not yet")
    assert network.step() == []


def test_signatures_of_something_else_do_not_count(network: Network) -> None:
    other = KEYS[1].sign_digest(bytes(32))
    borrowed = network.settlers[KEYS[3].address].sign(SignPost(0, ((JOB, 1),)))
    network.answers = {
        KEYS[1].address: encode_ok(other),
        KEYS[2].address: encode_ok(borrowed),
    }
    assert network.step() == []
    network.answers[KEYS[2].address] = b"\xc1"
    assert network.step() == []
    del network.answers[KEYS[2].address]
    ((_, (*_, signatures)),) = network.step()
    assert set(signatures) == {KEYS[0].address, KEYS[2].address, KEYS[3].address}


def test_a_post_that_fails_is_tried_again(network: Network) -> None:
    network.reverts.add("post")
    assert [name for name, _ in network.step()] == ["post"]
    assert [name for name, _ in network.step()] == ["post"]


# Taking in and claiming
def test_epochs_are_taken_in_and_claimed(network: Network) -> None:
    epoch = network.draft()
    network.posted(epoch, poster=SECOND)
    settler = network.settlers[FIRST]
    calls = network.step()
    assert settler.book.epochs == [epoch]
    assert set(settler.posted_at) == {0}
    assert network.stores[FIRST].pinned(bytes.fromhex(network.view.epochs[0].epoch.uri))
    assert [name for name, _ in calls] == ["is_final", "claim_many"]
    ((claim,),) = calls[1][1]
    assert (claim.account, claim.cumulative, claim.index, claim.epoch) == (FIRST, 100, 0, 0)
    assert settler.unclaimed(FIRST) == 100
    network.view.fold([events.Claimed(0, FIRST, 100, 100)])
    assert settler.unclaimed(FIRST) == 0
    assert network.step() == []


def test_nothing_is_claimed_before_the_window_is_over(network: Network) -> None:
    network.posted(network.draft())
    network.final = False
    assert [name for name, _ in network.step()] == ["is_final"]
    network.final = True
    assert [name for name, _ in network.step()] == ["is_final", "claim_many"]
    assert [name for name, _ in network.step()] == ["claim_many"]  # what is final stays so


def test_what_waits_is_collected_once_it_is_final(network: Network) -> None:
    network.posted(network.draft())
    network.final = False
    network.step()
    settler = network.settlers[FIRST]
    with pytest.raises(BadInput, match="can still be challenged"):
        asyncio.run(settler.collect(FIRST))
    network.final = True
    assert asyncio.run(settler.collect(FIRST)) == 100
    assert asyncio.run(settler.collect(KEYS[3].address)) == 0


def test_who_earned_nothing_claims_nothing(network: Network) -> None:
    network.posted(network.draft())
    assert network.step(KEYS[3].address) == []
    assert len(network.settlers[KEYS[3].address].book.epochs) == 1


@pytest.mark.parametrize("field", ["root", "receipts_root"])
def test_a_publication_that_is_not_what_was_posted(network: Network, field: str) -> None:
    network.posted(network.draft(), **{field: b"\x66" * 32})
    network.step()
    assert network.settlers[FIRST].book.epochs == []
    assert network.settlers[FIRST].book.totals.accounts == {}


def test_a_publication_of_another_epoch(network: Network) -> None:
    epoch = network.draft()
    other = PublishedEpoch(1, epoch.receipts, epoch.accounts, epoch.jobs)
    network.posted(other, epoch=0)
    network.step()
    assert network.settlers[FIRST].book.epochs == []


@pytest.mark.parametrize("uri", ["https://example.org/epoch", " ", "ab", "00" * 32])
def test_a_publication_that_cannot_be_had(network: Network, uri: str) -> None:
    network.posted(network.draft(), uri=uri)
    assert network.step() == []  # and no epoch of our own on top of what is not known
    assert network.settlers[FIRST].book.epochs == []


def test_the_turn_moves_on_with_every_epoch(network: Network) -> None:
    network.posted(network.draft())
    network.certify(2)
    for key in KEYS:
        network.view.fold([events.Claimed(0, key.address, 0, 10**9)])  # nothing to claim
    assert network.step(FIRST) == []  # takes in epoch 0; epoch 1 is the second's
    for key in KEYS[2:]:
        network.step(key.address)
    ((name, (post, *_)),) = network.step(SECOND)
    assert (name, post.epoch) == ("post", 1)
    assert network.draft(2, SECOND).accounts == tuple(sorted({FIRST: 100, SECOND: 100}.items()))
