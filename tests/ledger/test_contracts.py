"""The contracts' rules on a real EVM: who may do what, what quorums need, and that every token is accounted for."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account

import atoll.contracts
from atoll.errors import TransactionFailed
from atoll.ledger import abi
from atoll.ledger.chain import Chain
from atoll.ledger.devnet.network import Terms
from atoll.ledger.epoch import Claim, JobTotal, Post
from atoll.wire.eip712 import committee_hash
from atoll.wire.hashing import ZERO_HASH, keccak
from atoll.wire.merkle import MerkleTree
from tests.ledger.local_network import (
    CERTIFICATE_TYPE,
    COIN,
    NO_BINDING,
    POST_TYPE,
    LocalNetwork,
    account_of,
    certificate,
    key_of,
    open_job,
    sign,
    signed,
    typed,
)

CONTRACTS = Path(atoll.contracts.__file__).parent
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    net = LocalNetwork(tmp_path_factory.mktemp("chain"))
    yield net
    net.devnet.close()


@pytest.fixture(scope="module")
def validators(network: LocalNetwork) -> list[Chain]:
    """Seven validators, ascending by account."""
    return sorted((network.validator(f"validator {number}") for number in range(7)), key=account_of)


@pytest.fixture(scope="module")
def developer(network: LocalNetwork) -> Chain:
    return network.newcomer("developer")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalNetwork]:
    """A network for tests that change who the validators are."""
    net = LocalNetwork(tmp_path)
    yield net
    net.devnet.close()


def refused(reason: str) -> Any:
    """Expect a transaction to be refused by this error of a contract."""
    return pytest.raises(TransactionFailed, match=rf"\b{reason}\(")


def certify_raw(sender: Chain, cert: Any, signatures: list[bytes], **changes: Any) -> None:
    """Certify with the signatures in exactly this order."""
    lists = {"committee": list(cert.committee), "next": list(cert.next_committee)} | changes
    sender.transact("Jobs", "certify", cert.values(), lists["committee"], lists["next"], signatures)


# Artifacts


def test_artifacts_are_what_the_sources_compile_to(tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node is not installed, so the contracts cannot be compiled here")
    sources = tmp_path / "contracts"
    shutil.copytree(CONTRACTS, sources, ignore=shutil.ignore_patterns("artifacts", "__pycache__"))
    if not (sources / "build" / "node_modules" / "solc").is_dir():
        fetch = [npm, "ci", "--silent", "--no-fund", "--no-audit"]
        if subprocess.run(fetch, cwd=sources / "build", capture_output=True, check=False).returncode:
            pytest.skip("the compiler could not be installed with npm")
    subprocess.run([node, "build.mjs", str(tmp_path / "out")], cwd=sources / "build", check=True, capture_output=True)
    for name in abi.CONTRACTS:
        built = (tmp_path / "out" / f"{name}.json").read_text()
        assert json.loads(built) == abi.artifact(name), f"{name} was changed: run `make contracts`"


def test_sources_do_not_depend_on_what_layer_twos_lack() -> None:
    for source in CONTRACTS.glob("*.sol"):
        for word in ("block.number", "prevrandao", "blockhash", "coinbase", "gasleft"):
            assert word not in source.read_text().lower(), (source.name, word)


def test_every_error_of_ours_has_a_sentence() -> None:
    for name in abi.CONTRACTS:
        undocumented = {
            abi.signature(entry)
            for entry in abi.artifact(name)["abi"]
            if entry["type"] == "error" and abi.signature(entry) not in abi.artifact(name)["errors"]
        }
        # Errors of OpenZeppelin's own contracts are documented with @dev, which is not shown to users.
        assert all(
            error.startswith(("ERC20", "ERC2612", "ECDSA", "Invalid", "SafeERC20", "String")) for error in undocumented
        )


# Trees


@pytest.mark.parametrize("count", range(1, 10))
def test_merkle_proofs_agree_with_python(developer: Chain, count: int) -> None:
    rows = [(bytes([number + 1]) * 20, 10**18 * number + 7) for number in range(count)]
    tree = MerkleTree([encode(["address", "uint256"], row) for row in rows])

    def included(index: int, account: bytes, amount: int, proof: list[bytes], leaves: int = count) -> bool:
        return bool(developer.read("Settlement", "isIncluded", tree.root, leaves, account, amount, index, proof))

    for index, (account, amount) in enumerate(rows):
        proof = tree.prove(index)
        assert included(index, account, amount, proof)
        assert not included(index, account, amount + 1, proof)
        assert not included((index + 1) % (count + 1), account, amount, proof)
        assert not included(index, account, amount, [*proof, ZERO_HASH])
        assert not included(index, account, amount, proof, leaves=count + 1)
        if proof:
            assert not included(index, account, amount, proof[:-1])
    assert not included(0, bytes(20), 0, [], leaves=0)


# Statements


def test_digests_agree_with_an_independent_encoder(developer: Chain, validators: list[Chain]) -> None:
    cert = certificate(keccak(b"job"), validators[:4], 5, True, attempt=2)
    where = developer.addresses
    message = typed("Certificate", CERTIFICATE_TYPE, cert.values(), where.chain_id, where.jobs)
    digest = keccak(b"\x19" + message.version + message.header + message.body)
    assert developer.read("Jobs", "digest", cert.values()) == digest
    assert cert.digest(developer.verifier("jobs")) == digest

    totals = [(keccak(b"a"), 5, False), (keccak(b"b"), 2**200, True)]
    hashed = keccak(encode(["(bytes32,uint256,bool)[]"], [totals]))
    header = (3, keccak(b"root"), keccak(b"receipts"), 7, 99)
    message = typed("Post", POST_TYPE, (*header, hashed), where.chain_id, where.settlement)
    digest = keccak(b"\x19" + message.version + message.header + message.body)
    assert developer.read("Settlement", "digest", header, totals) == digest


def test_committee_hash_is_abi_encoded(validators: list[Chain]) -> None:
    accounts = [account_of(member) for member in validators]
    assert committee_hash(accounts) == keccak(encode(["address[]"], [accounts]))
    assert committee_hash([]) == keccak(encode(["address[]"], [[]]))


# Rounds


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5)])
def test_a_quorum_is_more_than_two_thirds(developer: Chain, validators: list[Chain], size: int, needed: int) -> None:
    members = validators[:size]
    job = open_job(developer, members)
    cert = certificate(job, members)
    if needed > 1:
        with refused("NoQuorum"):
            developer.certify(cert, signed(cert, members[: needed - 1]))
    developer.certify(cert, signed(cert, members[-needed:]))
    assert developer.job(job).certified == 1


def test_each_signature_must_be_of_another_member_in_order(developer: Chain, validators: list[Chain]) -> None:
    members = validators[:4]
    job = open_job(developer, members)
    cert = certificate(job, members)
    a, b, c, d = (signed(cert, [member])[account_of(member)] for member in members)
    outsider = signed(cert, [validators[5]])[account_of(validators[5])]
    for signatures in ([a, b, b], [a, a, a], [a, b, outsider], [c, b, a], [outsider, a, b]):
        with refused("SignerOutOfPlace"):
            certify_raw(developer, cert, signatures)
    r, s, v = c[:32], int.from_bytes(c[32:64], "big"), c[64]
    mirrored = r + (CURVE_ORDER - s).to_bytes(32, "big") + bytes([55 - v])
    with refused("ECDSAInvalidSignatureS"):
        certify_raw(developer, cert, [a, b, mirrored])
    with refused("ECDSAInvalidSignatureLength"):
        certify_raw(developer, cert, [a, b, c[:64]])
    certify_raw(developer, cert, [a, b, c, d])


def test_a_certificate_counts_for_one_job_and_one_round(developer: Chain, validators: list[Chain]) -> None:
    members = validators[:4]
    first, second = open_job(developer, members), open_job(developer, members)
    cert = certificate(first, members)
    signatures = signed(cert, members)
    copied = certificate(second, members)
    with refused("SignerOutOfPlace"):
        developer.certify(copied, signatures)
    developer.certify(cert, signatures)
    with refused("WrongRound"):
        developer.certify(cert, signatures)
    skipping = certificate(first, members, 2, last=True)
    with refused("WrongRound"):
        developer.certify(skipping, signed(skipping, members))


def test_a_certificate_of_another_chain_does_not_count(developer: Chain, validators: list[Chain]) -> None:
    members = validators[:1]
    job = open_job(developer, members)
    cert = certificate(job, members)
    elsewhere = typed("Certificate", CERTIFICATE_TYPE, cert.values(), 1, developer.addresses.jobs)
    with refused("SignerOutOfPlace"):
        developer.certify(cert, {account_of(members[0]): sign(members[0], elsewhere)})


def test_the_committee_is_the_one_that_was_named(developer: Chain, validators: list[Chain]) -> None:
    members, others = validators[:3], validators[3:6]
    job = open_job(developer, members)
    usurped = certificate(job, others)
    with refused("WrongCommittee"):
        developer.certify(usurped, signed(usurped, others))
    cert = certificate(job, members)
    signatures = [signed(cert, [member])[account_of(member)] for member in members]
    with refused("WrongCommittee"):
        certify_raw(developer, cert, signatures, committee=list(reversed(cert.committee)))
    with refused("WrongNextCommittee"):
        certify_raw(developer, cert, signatures, next=[])
    for chosen, reason in (
        ((), "BadCommitteeSize"),
        (cert.committee * 6, "BadCommitteeSize"),
        (cert.committee[:1] * 2, "TwiceInCommittee"),
        ((account_of(others[0]),), "NotEnlisted"),
    ):
        wrong = certificate(job, members, next_committee=chosen)
        with refused(reason):
            developer.certify(wrong, signed(wrong, members))


def test_the_next_committee_takes_over(developer: Chain, validators: list[Chain]) -> None:
    members, others = validators[:3], validators[3:6]
    job = open_job(developer, members, rounds=2)
    for other in others:
        other.enlist(job, keccak(b"tip"))
    successors = tuple(account_of(other) for other in others)
    handing_over = certificate(job, members, next_committee=successors)
    developer.certify(handing_over, signed(handing_over, members))
    late = certificate(job, members, 1, last=True)
    with refused("WrongCommittee"):
        developer.certify(late, signed(late, members))
    closing = certificate(job, others, 1, last=True, next_committee=())
    tx = developer.certify(closing, signed(closing, others))
    assert developer.job(job).finished
    event = tx.events[0]
    assert (event.round, event.next_committee, event.model_root) == (1, (), closing.model_root)  # type: ignore[attr-defined]


def test_a_developer_ends_a_job_early(developer: Chain, validators: list[Chain]) -> None:
    members = validators[:1]
    job = open_job(developer, members, rounds=9)
    for number in range(2):
        cert = certificate(job, members, number)
        developer.certify(cert, signed(cert, members))
    with refused("NotDeveloper"):
        members[0].shorten(job, 5)
    for rounds in (3, 9, 10):  # two more than the two that are certified, and fewer than before
        with refused("CannotShorten"):
            developer.shorten(job, rounds)
    (event,) = developer.shorten(job, 4).events
    assert vars(event) == {"job": job, "rounds": 4}
    assert developer.job(job).rounds == 4
    with refused("CannotShorten"):
        developer.shorten(job, 5)
    third = certificate(job, members, 2)
    developer.certify(third, signed(third, members))
    # The committee did not plan to end here, so the last certificate names a next committee.
    fourth = certificate(job, members, 3)
    developer.certify(fourth, signed(fourth, members))
    assert developer.job(job).finished
    fifth = certificate(job, members, 4)
    with refused("AllCertified"):
        developer.certify(fifth, signed(fifth, members))


def test_last_is_true_in_the_last_round_only(developer: Chain, validators: list[Chain]) -> None:
    members = validators[:1]
    job = open_job(developer, members, rounds=2)
    early = certificate(job, members, 0, last=True)
    with refused("WrongLast"):
        developer.certify(early, signed(early, members))
    first = certificate(job, members, 0)
    developer.certify(first, signed(first, members))
    endless = certificate(job, members, 1, last=False)
    with refused("WrongLast"):
        developer.certify(endless, signed(endless, members))
    second = certificate(job, members, 1, last=True)
    developer.certify(second, signed(second, members))
    third = certificate(job, members, 2, last=True)
    with refused("AllCertified"):
        developer.certify(third, signed(third, members))
    with refused("AllCertified"):
        validators[3].enlist(job, keccak(b"tip"))


def test_a_job_is_started_once_by_its_developer_with_validators(
    network: LocalNetwork, developer: Chain, validators: list[Chain]
) -> None:
    worker = network.newcomer("a worker without stake")
    worker.register(keccak(b"worker"), 1, "", NO_BINDING)
    deadline = developer.head().timestamp + 1000
    job, _ = developer.open(keccak(b"m"), COIN, 1, deadline, account_of(developer))
    place = developer.read("Jobs", "nonces", account_of(developer)) - 1
    assert job == keccak(
        encode(
            ["address", "uint256", "address", "uint256"],
            [developer.addresses.jobs, developer.addresses.chain_id, account_of(developer), place],
        )
    )
    one = certificate(job, validators[:1])
    with refused("NotStarted"):
        developer.certify(one, signed(one, validators[:1]))
    with refused("NotEnlisted"):
        developer.start(job, [account_of(worker)])
    worker.enlist(job, keccak(b"tip"))
    with refused("NotAValidator"):
        developer.start(job, [account_of(worker)])
    validators[0].enlist(job, keccak(b"tip"))
    with refused("NotDeveloper"):
        validators[0].start(job, [account_of(validators[0])])
    developer.start(job, [account_of(validators[0])])
    with refused("AlreadyStarted"):
        developer.start(job, [account_of(validators[0])])


def test_enlisting_is_for_nodes_and_once(network: LocalNetwork, developer: Chain, validators: list[Chain]) -> None:
    deadline = developer.head().timestamp + 1000
    job, _ = developer.open(keccak(b"m"), COIN, 1, deadline, account_of(developer))
    with refused("NotANode"):
        network.newcomer("a stranger").enlist(job, keccak(b"tip"))
    with refused("NoTip"):
        validators[0].enlist(job, ZERO_HASH)
    with refused("UnknownJob"):
        validators[0].enlist(keccak(b"no job"), keccak(b"tip"))
    validators[1].enlist(job, keccak(b"one"))
    validators[0].enlist(job, keccak(b"zero"))
    with refused("AlreadyEnlisted"):
        validators[0].enlist(job, keccak(b"another tip"))
    nobody = developer.enlistment(job, account_of(developer))
    assert (developer.enlistment(job, account_of(validators[0])).place, nobody.place) == (2, 0)
    listed = [(one.account, one.tip, one.place) for one in developer.enlisted(job)]
    assert listed == [
        (account_of(validators[1]), keccak(b"one"), 1),
        (account_of(validators[0]), keccak(b"zero"), 2),
    ]


def test_what_a_job_needs_to_be_opened(developer: Chain) -> None:
    later = developer.head().timestamp + 1000
    with refused("ZeroAmount"):
        developer.open(keccak(b"m"), 0, 1, later, account_of(developer))
    with refused("NoRounds"):
        developer.open(keccak(b"m"), COIN, 0, later, account_of(developer))
    with refused("BadDeadline"):
        developer.open(keccak(b"m"), COIN, 1, later - 5000, account_of(developer))
    with refused("ERC20InsufficientBalance"):
        developer.open(keccak(b"m"), 10**9 * COIN, 1, later, account_of(developer))


# Settlement


class Ledger:
    """Posts epochs of a network: signs with all validators, remembers cumulative amounts."""

    def __init__(self, network: LocalNetwork, validators: list[Chain]) -> None:
        self.network = network
        self.validators = validators

    def post(
        self,
        rows: list[tuple[bytes, int]],
        totals: list[tuple[bytes, int, bool]],
        *,
        signers: list[Chain] | None = None,
        epoch: int | None = None,
        signatures: list[bytes] | None = None,
    ) -> tuple[int, MerkleTree]:
        poster = self.validators[0]
        tree = MerkleTree([encode(["address", "uint256"], row) for row in rows])
        number = poster.next_epoch() if epoch is None else epoch
        header = (number, tree.root, keccak(b"receipts"), len(rows), 3)
        hashed = keccak(encode(["(bytes32,uint256,bool)[]"], [totals]))
        where = poster.addresses
        message = typed("Post", POST_TYPE, (*header, hashed), where.chain_id, where.settlement)
        if signatures is None:
            signing = self.validators if signers is None else signers
            signatures = [sign(signer, message) for signer in sorted(signing, key=account_of)]
        poster.transact("Settlement", "post", header, totals, "blob", signatures)
        return number, tree

    def final(self) -> None:
        self.network.later(self.network.terms.window + 1)


@pytest.fixture
def ledger(network: LocalNetwork, validators: list[Chain]) -> Ledger:
    return Ledger(network, validators)


def payee(name: str) -> bytes:
    return keccak(name.encode())[:20]


def test_a_post_needs_a_quorum_of_distinct_validators(
    network: LocalNetwork, ledger: Ledger, developer: Chain, validators: list[Chain]
) -> None:
    # 7 validators: 5 must sign.
    with refused("NoQuorum"):
        ledger.post([], [], signers=validators[:4])
    with refused("SignerOutOfPlace"):
        ledger.post([], [], signers=[*validators[:4], developer])
    with refused("SignerOutOfPlace"):
        ledger.post([], [], signers=[*validators[:4], validators[0]])
    with refused("WrongEpoch"):
        ledger.post([], [], epoch=developer.next_epoch() + 1)
    ledger.post([], [], signers=validators[2:])
    with refused("NotAValidator"):
        Ledger(network, [developer, *validators]).post([], [])


def test_a_post_cannot_be_replayed(ledger: Ledger, validators: list[Chain]) -> None:
    epoch = validators[0].next_epoch()
    header = (epoch, keccak(b"root"), keccak(b"receipts"), 1, 1)
    hashed = keccak(encode(["(bytes32,uint256,bool)[]"], [[]]))
    where = validators[0].addresses
    message = typed("Post", POST_TYPE, (*header, hashed), where.chain_id, where.settlement)
    signatures = [sign(signer, message) for signer in validators]
    validators[0].transact("Settlement", "post", header, [], "", signatures)
    with refused("WrongEpoch"):
        validators[0].transact("Settlement", "post", header, [], "", signatures)
    with refused("SignerOutOfPlace"):
        validators[0].transact("Settlement", "post", (epoch + 1, *header[1:]), [], "", signatures)


def test_totals_are_part_of_what_is_signed(ledger: Ledger, developer: Chain, validators: list[Chain]) -> None:
    job = open_job(developer, validators[:1])
    epoch = developer.next_epoch()
    header = (epoch, keccak(b"root"), keccak(b"receipts"), 1, 1)
    hashed = keccak(encode(["(bytes32,uint256,bool)[]"], [[(job, COIN, False)]]))
    where = developer.addresses
    message = typed("Post", POST_TYPE, (*header, hashed), where.chain_id, where.settlement)
    signatures = [sign(signer, message) for signer in validators]
    for changed in ([(job, 2 * COIN, False)], [(job, COIN, True)], []):
        with refused("SignerOutOfPlace"):
            validators[0].transact("Settlement", "post", header, changed, "", signatures)
    validators[0].transact("Settlement", "post", header, [(job, COIN, False)], "", signatures)


def test_totals_never_fall_and_never_exceed_the_escrow(
    ledger: Ledger, developer: Chain, validators: list[Chain]
) -> None:
    job = open_job(developer, validators[:1], budget=100 * COIN)
    ledger.post([], [(job, 60 * COIN, False)])
    with refused("TotalFell"):
        ledger.post([], [(job, 60 * COIN - 1, False)])
    with refused("OverBudget"):
        ledger.post([], [(job, 100 * COIN + 1, False)])
    record = developer.job(job)
    assert (record.drawn, record.remaining, developer.total(job)) == (60 * COIN, 40 * COIN, 60 * COIN)
    ledger.post([], [(job, 60 * COIN, False)])
    developer.top_up(job, 5 * COIN)
    ledger.post([], [(job, 105 * COIN, True)])
    assert developer.job(job).remaining == 0
    with refused("AlreadySettled"):
        ledger.post([], [(job, 105 * COIN, True)])
    with refused("UnknownJob"):
        ledger.post([], [(keccak(b"no job"), 0, False)])


def test_jobs_are_listed_once_in_ascending_order(ledger: Ledger, developer: Chain, validators: list[Chain]) -> None:
    low, high = sorted(open_job(developer, validators[:1]) for _ in range(2))
    for totals in ([(high, 1, False), (low, 1, False)], [(low, 1, False), (low, 2, False)]):
        with refused("JobOutOfPlace"):
            ledger.post([], totals)
    ledger.post([], [(low, 1, False), (high, 1, False)])


def test_claims_pay_the_difference_once(ledger: Ledger, developer: Chain, validators: list[Chain]) -> None:
    job = open_job(developer, validators[:1])
    alice, bob = sorted((payee("alice"), payee("bob")))
    first, tree = ledger.post([(alice, 30 * COIN), (bob, 12 * COIN)], [(job, 42 * COIN, False)])
    claim = Claim(first, alice, 30 * COIN, 0, tuple(tree.prove(0)))
    with refused("WindowOpen"):
        developer.claim(claim)
    ledger.final()
    with refused("BadProof"):
        developer.claim(Claim(first, alice, 31 * COIN, 0, claim.proof))
    with refused("BadProof"):
        developer.claim(Claim(first, bob, 30 * COIN, 0, claim.proof))
    with refused("BadProof"):
        developer.claim(Claim(first, alice, 30 * COIN, 1, claim.proof))
    with refused("UnknownEpoch"):
        developer.claim(Claim(first + 1, alice, 30 * COIN, 0, claim.proof))
    developer.claim(claim)
    with refused("NothingToClaim"):
        developer.claim(claim)
    assert developer.balance(alice) == 30 * COIN == developer.claimed(alice)

    second, tree = ledger.post([(alice, 35 * COIN), (bob, 12 * COIN)], [(job, 47 * COIN, False)])
    ledger.final()
    both = [
        Claim(second, alice, 35 * COIN, 0, tuple(tree.prove(0))),
        Claim(second, bob, 12 * COIN, 1, tuple(tree.prove(1))),
    ]
    developer.claim_many(both)
    assert (developer.balance(alice), developer.balance(bob)) == (35 * COIN, 12 * COIN)
    developer.claim_many(both)  # nothing left: passed over
    with refused("NothingToClaim"):
        developer.claim(claim)  # the older epoch grants less than was paid
    assert (developer.balance(alice), developer.balance(bob)) == (35 * COIN, 12 * COIN)


def test_claims_never_touch_bonds_or_other_jobs(ledger: Ledger, developer: Chain, validators: list[Chain]) -> None:
    thief = payee("thief")
    held = developer.balance(developer.addresses.settlement)
    left = developer.unclaimed()
    assert held > left
    epoch, tree = ledger.post([(thief, left + 1)], [])
    ledger.final()
    with refused("ExceedsDrawn"):
        developer.claim(Claim(epoch, thief, left + 1, 0, tuple(tree.prove(0))))


def test_bond_is_held_for_the_window(ledger: Ledger, developer: Chain, validators: list[Chain]) -> None:
    poster, bond = validators[0], ledger.network.terms.bond
    account = account_of(poster)
    before = poster.bond(account)
    epoch, _ = ledger.post([], [])
    assert poster.bond(account) == before - bond
    with refused("WindowOpen"):
        poster.release_bond(epoch)
    with refused("BondTooSmall"):
        poster.withdraw_bond(before)
    ledger.final()
    developer.release_bond(epoch)
    assert poster.bond(account) == before
    developer.release_bond(epoch)
    assert poster.bond(account) == before
    poster.withdraw_bond(before)
    with refused("BondTooSmall"):
        ledger.post([], [])
    poster.deposit_bond(before)


def finish(job: bytes, developer: Chain, members: list[Chain], rounds: int) -> None:
    for number in range(rounds):
        cert = certificate(job, members, number, last=number == rounds - 1)
        developer.certify(cert, signed(cert, members))


def test_refund_waits_for_the_last_settlement_and_is_exact(
    ledger: Ledger, developer: Chain, validators: list[Chain]
) -> None:
    budget, top_up, paid = 100 * COIN + 1, 7, 33 * COIN + 5
    wealth = developer.balance(account_of(developer))
    job = open_job(developer, validators[:1], budget=budget, rounds=2)
    developer.top_up(job, top_up)
    ledger.post([], [(job, 11 * COIN, False)])
    ledger.final()
    with refused("TooEarly"):
        developer.refund(job)
    finish(job, developer, validators[:1], 2)
    with refused("TooEarly"):
        developer.refund(job)
    ledger.post([], [(job, paid, True)])
    with refused("TooEarly"):
        developer.refund(job)
    ledger.final()
    assert developer.is_settled(job)
    validators[3].refund(job)  # anyone may ask; the developer receives
    record = developer.job(job)
    assert record.budget == budget + top_up
    assert (record.drawn, record.refunded, record.remaining) == (paid, budget + top_up - paid, 0)
    assert developer.balance(account_of(developer)) == wealth - paid
    for action in (lambda: developer.refund(job), lambda: developer.top_up(job, 1)):
        with refused("JobClosed"):
            action()


def test_settled_before_the_last_round_is_not_enough(ledger: Ledger, developer: Chain, validators: list[Chain]) -> None:
    job = open_job(developer, validators[:1], rounds=2)
    ledger.post([], [(job, COIN, True)])
    ledger.final()
    with refused("TooEarly"):
        developer.refund(job)


def test_a_dead_job_is_refunded_after_deadline_and_grace(own: LocalNetwork) -> None:
    members = [own.validator("one")]
    developer = own.newcomer("developer")
    ledger = Ledger(own, members)
    job = open_job(developer, members, budget=10 * COIN)
    ledger.post([], [(job, 4 * COIN, False)])
    record = developer.job(job)
    own.clock.now = record.deadline + 1
    cert = certificate(job, members)
    with refused("PastDeadline"):
        developer.certify(cert, signed(cert, members))
    with refused("TooEarly"):
        developer.refund(job)
    ledger.post([], [(job, 5 * COIN, False)])  # what was certified can still be settled
    own.clock.now = record.deadline + own.terms.grace + 1
    developer.refund(job)
    record = developer.job(job)
    assert (record.drawn, record.refunded, record.remaining) == (5 * COIN, 5 * COIN, 0)
    with refused("OverBudget"):
        ledger.post([], [(job, 6 * COIN, False)])


def test_only_the_settlement_draws_and_only_the_deployer_wires(developer: Chain, validators: list[Chain]) -> None:
    job = open_job(developer, validators[:1])
    with refused("NotSettlement"):
        developer.transact("Jobs", "draw", job, 1)
    with refused("NotDeployer"):
        developer.transact("Registry", "wire", *[account_of(developer)] * 3)


def test_every_token_is_accounted_for_after_random_moves(own: LocalNetwork) -> None:
    """A Python twin of the money follows random moves; after each, balances and books agree to the last unit."""
    dice = random.Random(7)
    members = [own.validator("one"), own.validator("two")]
    members.sort(key=account_of)
    developer = own.newcomer("developer")
    ledger = Ledger(own, members)
    names = sorted(payee(name) for name in "abc")
    earned, paid = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    budgets: dict[bytes, int] = {}
    totals: dict[bytes, int] = {}
    trees: list[tuple[int, MerkleTree, dict[bytes, int]]] = []
    bonds = 2 * 20 * own.terms.bond
    for _ in range(60):
        move = dice.choice(["open", "top up", "post", "claim", "later"])
        job = dice.choice(list(budgets)) if budgets else None
        if move == "open" and len(budgets) < 4:
            budget = dice.randrange(1, 50)
            made = open_job(developer, members[:1], budget=budget)
            budgets[made], totals[made] = budget, 0
        elif move == "top up" and job:
            amount = dice.randrange(1, 20)
            developer.top_up(job, amount)
            budgets[job] += amount
        elif move == "post" and job:
            pay = dice.randrange(0, 40)
            row = [(job, totals[job] + pay, False)]
            lucky = dice.choice(names)
            grown = earned | {lucky: earned[lucky] + pay}
            if totals[job] + pay > budgets[job]:
                with refused("OverBudget"):
                    ledger.post(sorted(grown.items()), row)
            else:
                number, tree = ledger.post(sorted(grown.items()), row)
                earned, totals[job] = grown, totals[job] + pay
                trees.append((number, tree, grown))
        elif move == "claim" and trees:
            number, tree, granted = dice.choice(trees)
            who = dice.choice(names)
            claim = Claim(number, who, granted[who], names.index(who), tuple(tree.prove(names.index(who))))
            if not developer.is_final(number):
                with refused("WindowOpen"):
                    developer.claim(claim)
            elif granted[who] <= paid[who]:
                with refused("NothingToClaim"):
                    developer.claim(claim)
            else:
                developer.claim(claim)
                paid[who] = granted[who]
        else:
            own.later(2)
        where = developer.addresses
        escrow, settlement = developer.balance(where.jobs), developer.balance(where.settlement)
        assert escrow == sum(budgets.values()) - sum(totals.values())
        assert settlement == sum(totals.values()) - sum(paid.values()) + bonds
        assert developer.unclaimed() == sum(totals.values()) - sum(paid.values())
        assert {name: developer.balance(name) for name in names} == paid
    assert sum(paid.values()) > 0


# Registry


def test_validators_are_counted_by_role_stake_and_activity(own: LocalNetwork) -> None:
    node = own.newcomer("node")
    account = account_of(node)

    def state() -> tuple[bool, int]:
        return node.is_validator(account), node.validator_count()

    node.stake(own.terms.min_stake)  # before it registers: no role, no validator
    assert state() == (False, 0)
    node.register(keccak(b"e"), 1, "", NO_BINDING)
    assert state() == (False, 0)
    node.register(keccak(b"e"), 3, "", NO_BINDING)
    assert state() == (True, 1)
    node.set_active(False)
    assert state() == (False, 0)
    node.set_active(True)
    assert state() == (True, 1)
    node.request_unstake(1)
    assert state() == (False, 0)
    node.stake(1)
    assert state() == (True, 1)
    node.register(keccak(b"e"), 5, "", NO_BINDING)
    assert state() == (False, 0)


def test_an_entry_is_read_back_and_updated(own: LocalNetwork) -> None:
    node = own.newcomer("node")
    binding = bytes(range(64))
    node.register(keccak(b"one"), 9, "a" * 256, binding)
    first = node.node(account_of(node))
    assert (first.endpoint_id, first.roles, first.active, first.hints, first.binding) == (
        keccak(b"one"),
        9,
        True,
        "a" * 256,
        binding,
    )
    node.register(keccak(b"two"), 255, "", NO_BINDING)
    second = node.node(account_of(node))
    assert (second.endpoint_id, second.roles, second.hints) == (keccak(b"two"), 255, "")
    assert second.registered_at == first.registered_at > 0
    other = own.newcomer("other")
    other.register(keccak(b"three"), 1, "", NO_BINDING)
    assert node.nodes() == [node.node(account_of(node)), node.node(account_of(other))]
    assert node.read("Registry", "nodes", 1, 5)[0] == (account_of(other),)
    assert node.read("Registry", "nodes", 2, 5) == ((), ())
    assert node.node(payee("nobody")).registered_at == 0


def test_many_nodes_are_read_in_pages(own: LocalNetwork) -> None:
    everybody = [own.newcomer(f"node {number}") for number in range(3)]
    assert everybody[0].nodes() == []
    for node in everybody:
        node.register(keccak(account_of(node)), 1, "", NO_BINDING)
    for page in (1, 2, 3, 4, 50):
        assert [one.account for one in everybody[0].nodes(page)] == [account_of(node) for node in everybody]


def test_what_an_entry_must_have(own: LocalNetwork) -> None:
    node = own.newcomer("node")
    with refused("NoEndpoint"):
        node.register(ZERO_HASH, 1, "", NO_BINDING)
    with refused("NoRoles"):
        node.register(keccak(b"e"), 0, "", NO_BINDING)
    with refused("HintsTooLong"):
        node.register(keccak(b"e"), 1, "a" * 257, NO_BINDING)
    with refused("BadBinding"):
        node.register(keccak(b"e"), 1, "", bytes(63))
    with refused("NotRegistered"):
        node.set_active(True)


def test_stake_comes_back_after_the_delay(own: LocalNetwork) -> None:
    node = own.newcomer("node")
    wealth = node.balance(account_of(node))
    node.stake(300)
    with refused("StakeTooSmall"):
        node.request_unstake(301)
    with refused("NothingToWithdraw"):
        node.withdraw_stake()
    node.request_unstake(100)
    own.later(own.terms.unstake_delay - 5)
    node.request_unstake(50)  # the delay starts anew for all of it
    own.later(10)
    with refused("StillLocked"):
        node.withdraw_stake()
    own.later(own.terms.unstake_delay)
    node.withdraw_stake()
    record = node.node(account_of(node))
    assert (record.stake, record.unstaking) == (150, 0)
    assert node.balance(account_of(node)) == wealth - 150


def test_a_permit_that_somebody_else_used_first_does_not_stop_the_stake(own: LocalNetwork) -> None:
    node, rival = own.newcomer("node"), own.newcomer("rival")
    amount, deadline, v, r, s = node._permit(node.addresses.registry, 70)
    rival.transact("Token", "permit", account_of(node), node.addresses.registry, amount, deadline, v, r, s)
    node.transact("Registry", "stakeWithPermit", 70, (amount, deadline, v, r, s))
    assert node.node(account_of(node)).stake == 70
    with refused("ERC20InsufficientAllowance"):
        rival.transact("Registry", "stakeWithPermit", 70, (amount, deadline, v, r, s))


def test_a_permit_is_checked_by_an_independent_encoder(own: LocalNetwork) -> None:
    node = own.newcomer("node")
    spender = node.addresses.registry
    amount, deadline, v, r, s = node._permit(spender, 5)
    fields = [
        ("address", "owner"),
        ("address", "spender"),
        ("uint256", "value"),
        ("uint256", "nonce"),
        ("uint256", "deadline"),
    ]
    values = ("0x" + account_of(node).hex(), "0x" + spender.hex(), amount, 0, deadline)
    message = typed("Permit", fields, values, node.addresses.chain_id, node.addresses.token)
    assert Account.recover_message(message, vrs=(v, r, s)).lower() == values[0]


def test_the_token_has_a_fixed_supply(developer: Chain) -> None:
    assert developer.read("Token", "totalSupply") == Terms().supply
    assert (developer.read("Token", "symbol"), developer.read("Token", "decimals")) == ("ATL", 18)


def test_typed_posts_and_claims_reach_the_chain(
    network: LocalNetwork, developer: Chain, validators: list[Chain]
) -> None:
    """The same flow through the typed methods that nodes use."""
    job = open_job(developer, validators[:1])
    who = payee("typed")
    tree = MerkleTree([encode(["address", "uint256"], (who, 9))])
    totals = [JobTotal(job, 9)]
    hashed = keccak(encode(["(bytes32,uint256,bool)[]"], [[(job, 9, False)]]))
    post = Post(developer.next_epoch(), tree.root, keccak(b"r"), 1, 2, hashed)
    digest = post.digest(developer.verifier("settlement"))
    signatures = {account_of(one): key_of(one).sign_digest(digest) for one in validators[1:6]}
    tx = validators[6].post(post, totals, "uri", signatures)
    record = developer.epoch(post.epoch)
    assert (record.root, record.accounts, record.receipts, record.poster) == (
        tree.root,
        1,
        2,
        account_of(validators[6]),
    )
    assert tx.events[-1].uri == "uri"  # type: ignore[attr-defined]
    network.later(network.terms.window + 1)
    developer.claim(Claim(post.epoch, who, 9, 0, ()))
    assert developer.balance(who) == 9
