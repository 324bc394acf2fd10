"""Deposits, vouchers, and what an account signs for others to bring: on a real EVM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atoll.errors import TransactionFailed
from atoll.ledger import events
from atoll.ledger.chain import Chain
from atoll.ledger.records import DepositRecord
from atoll.node.view import View
from atoll.wire.eip712 import ENLIST, REGISTRATION, VOUCHER, Struct, Value
from atoll.wire.hashing import ZERO_HASH, keccak
from atoll.wire.identity import AccountKey
from tests.ledger.local_network import COIN, NO_BINDING, LocalNetwork, account_of, key_of, open_job, sign, typed

REGISTRATION_TYPE = [
    ("address", "account"),
    ("bytes32", "endpointId"),
    ("uint8", "roles"),
    ("bytes32", "hints"),
    ("uint256", "nonce"),
]
ENLIST_TYPE = [("bytes32", "job"), ("address", "account"), ("bytes32", "tip")]
VOUCHER_TYPE = [("address", "payer"), ("address", "payee"), ("uint256", "cumulative")]
ENDPOINT = keccak(b"the endpoint of a gateway")
HINTS = "10.0.0.1:4433"
PAYEE = b"\x77" * 20


def refused(reason: str) -> Any:
    """Expect a transaction to be refused by this error of a contract."""
    return pytest.raises(TransactionFailed, match=rf"\b{reason}\(")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    net = LocalNetwork(tmp_path_factory.mktemp("chain"))
    yield net
    net.devnet.close()


@pytest.fixture(scope="module")
def gateway(network: LocalNetwork) -> Chain:
    """An account that pays for what others signed."""
    chain = network.newcomer("gateway")
    chain.register(ENDPOINT, 16, HINTS, NO_BINDING)
    return chain


@pytest.fixture
def tab(request: pytest.FixtureRequest) -> AccountKey:
    """An account without a single coin, another one in every test."""
    return AccountKey(keccak(request.node.name.encode()))


@pytest.fixture
def payer(network: LocalNetwork, request: pytest.FixtureRequest) -> Chain:
    return network.newcomer(f"payer of {request.node.name}")


def registration(gateway: Chain, key: AccountKey, **changes: Any) -> bytes:
    """An account's signature under its registration through a gateway, with its present nonce unless told."""
    said: dict[str, Any] = {
        "account": key.address,
        "endpointId": ENDPOINT,
        "roles": 33,
        "hints": keccak(HINTS.encode()),
        "nonce": gateway.registration_nonce(key.address),
    }
    return key.sign_digest(REGISTRATION.digest(gateway.verifier("registry"), said | changes))


def voucher(payer: Chain, payee: bytes, cumulative: int) -> bytes:
    values: dict[str, Value] = {"payer": account_of(payer), "payee": payee, "cumulative": cumulative}
    return key_of(payer).sign_digest(VOUCHER.digest(payer.verifier("deposits"), values))


def bring(gateway: Chain, said: list[Any], signature: bytes) -> None:
    """Bring a registration (account, endpoint, roles, hints) that was signed."""
    gateway.transact("Registry", "registerFor", *said, NO_BINDING, signature)


# Statements


def test_the_types_agree_with_an_independent_encoder(gateway: Chain) -> None:
    where, key = gateway.addresses, key_of(gateway)
    hints, job, tip = keccak(b"hints"), keccak(b"job"), keccak(b"tip")
    account = "0x" + key.address.hex()
    rows: tuple[tuple[Struct, list[tuple[str, str]], str, tuple[Any, ...], dict[str, Value]], ...] = (
        (
            REGISTRATION,
            REGISTRATION_TYPE,
            "registry",
            (account, ENDPOINT, 33, hints, 7),
            {"account": key.address, "endpointId": ENDPOINT, "roles": 33, "hints": hints, "nonce": 7},
        ),
        (ENLIST, ENLIST_TYPE, "jobs", (job, account, tip), {"job": job, "account": key.address, "tip": tip}),
        (
            VOUCHER,
            VOUCHER_TYPE,
            "deposits",
            (account, "0x" + PAYEE.hex(), 2**255 + 1),
            {"payer": key.address, "payee": PAYEE, "cumulative": 2**255 + 1},
        ),
    )
    for struct, fields, contract, values, ours in rows:
        message = typed(struct.name, fields, values, where.chain_id, getattr(where, contract))
        digest = keccak(b"\x19" + message.version + message.header + message.body)
        assert struct.digest(gateway.verifier(contract), ours) == digest
        assert key.sign_digest(digest) == sign(gateway, message)
    assert gateway.read("Deposits", "digest", account, PAYEE, 2**255 + 1) == digest


# Registration by signature


def test_an_account_without_coins_is_registered_by_another(gateway: Chain, tab: AccountKey) -> None:
    binding = bytes(range(64))
    signature = registration(gateway, tab)
    tx = gateway.register_for(tab.address, ENDPOINT, 33, HINTS, binding, signature)
    assert tx.events == (events.Registered(tab.address, ENDPOINT, 33, HINTS, binding),)
    entry = gateway.node(tab.address)
    assert (entry.endpoint_id, entry.roles, entry.active, entry.hints, entry.binding) == (
        ENDPOINT,
        33,
        True,
        HINTS,
        binding,
    )
    assert entry.registered_at > 0
    assert gateway.coins(tab.address) == 0
    assert gateway.registration_nonce(tab.address) == 1
    assert gateway.node(account_of(gateway)).endpoint_id == ENDPOINT  # several accounts behind one endpoint


def test_a_signed_registration_counts_once(gateway: Chain, tab: AccountKey) -> None:
    signature = registration(gateway, tab)
    gateway.register_for(tab.address, ENDPOINT, 33, HINTS, NO_BINDING, signature)
    with refused("WrongAccount"):
        gateway.register_for(tab.address, ENDPOINT, 33, HINTS, NO_BINDING, signature)
    again = registration(gateway, tab, roles=1)
    gateway.register_for(tab.address, ENDPOINT, 1, HINTS, NO_BINDING, again)
    assert gateway.node(tab.address).roles == 1
    assert gateway.registration_nonce(tab.address) == 2


def test_an_account_that_registers_itself_voids_what_it_signed_before(network: LocalNetwork, gateway: Chain) -> None:
    node = network.newcomer("changed its mind")
    old = registration(gateway, key_of(node))
    node.register(keccak(b"own endpoint"), 1, "", NO_BINDING)
    with refused("WrongAccount"):
        gateway.register_for(account_of(node), ENDPOINT, 33, HINTS, NO_BINDING, old)
    assert gateway.node(account_of(node)).endpoint_id == keccak(b"own endpoint")


def test_nothing_that_was_signed_can_be_changed(gateway: Chain, tab: AccountKey) -> None:
    stranger = AccountKey(keccak(b"stranger"))
    good = registration(gateway, tab)
    values: list[Any] = [tab.address, ENDPOINT, 33, HINTS]
    for place, other in ((0, stranger.address), (1, keccak(b"elsewhere")), (2, 35), (3, "10.0.0.2:4433")):
        changed = [*values]
        changed[place] = other
        with refused("WrongAccount"):
            bring(gateway, changed, good)
    wrong = [
        registration(gateway, tab, nonce=1),
        registration(gateway, tab, hints=keccak(b"")),
        registration(gateway, stranger, account=tab.address),
    ]
    for signature in wrong:
        with refused("WrongAccount"):
            bring(gateway, values, signature)
    with refused("ECDSAInvalidSignatureLength"):
        bring(gateway, values, good[:64])
    with refused("ECDSAInvalidSignature"):
        bring(gateway, values, bytes(65))
    assert gateway.node(tab.address).registered_at == 0
    assert gateway.registration_nonce(tab.address) == 0


def test_a_registration_for_another_contract_does_not_count(gateway: Chain, tab: AccountKey) -> None:
    said: dict[str, Any] = {
        "account": tab.address,
        "endpointId": ENDPOINT,
        "roles": 33,
        "hints": keccak(HINTS.encode()),
        "nonce": 0,
    }
    signature = tab.sign_digest(REGISTRATION.digest(gateway.verifier("jobs"), said))
    with refused("WrongAccount"):
        gateway.register_for(tab.address, ENDPOINT, 33, HINTS, NO_BINDING, signature)


def test_what_an_entry_must_have_holds_for_signed_ones_too(gateway: Chain, tab: AccountKey) -> None:
    for changes, arguments, reason in (
        ({"endpointId": ZERO_HASH}, (ZERO_HASH, 33, HINTS, NO_BINDING), "NoEndpoint"),
        ({"roles": 0}, (ENDPOINT, 0, HINTS, NO_BINDING), "NoRoles"),
        ({"hints": keccak(b"a" * 257)}, (ENDPOINT, 33, "a" * 257, NO_BINDING), "HintsTooLong"),
        ({}, (ENDPOINT, 33, HINTS, bytes(63)), "BadBinding"),
    ):
        with refused(reason):
            gateway.register_for(tab.address, *arguments, registration(gateway, tab, **changes))
    assert gateway.registration_nonce(tab.address) == 0  # a refusal spends nothing


def test_a_signed_registration_changes_the_signers_standing_only(network: LocalNetwork, gateway: Chain) -> None:
    validator = network.validator("gives up its role by signature")
    account = account_of(validator)
    before = validator.validator_count()
    signature = registration(gateway, key_of(validator), roles=1)
    tx = gateway.register_for(account, ENDPOINT, 1, HINTS, NO_BINDING, signature)
    assert tx.events[1] == events.ValidatorSet(account, False, before - 1)
    assert not validator.is_validator(account)
    back = registration(gateway, key_of(validator), roles=3)
    gateway.register_for(account, ENDPOINT, 3, HINTS, NO_BINDING, back)
    assert validator.is_validator(account)
    assert validator.validator_count() == before
    assert not gateway.is_validator(account_of(gateway))


# Enlistment by signature


def test_an_account_without_coins_is_enlisted_by_another(
    network: LocalNetwork, gateway: Chain, tab: AccountKey
) -> None:
    first = network.validator("validator of the job")
    job = open_job(gateway, [first])
    tip = keccak(b"tip of a tab")
    said: dict[str, Value] = {"job": job, "account": tab.address, "tip": tip}
    signature = tab.sign_digest(ENLIST.digest(gateway.verifier("jobs"), said))
    with refused("NotANode"):
        gateway.enlist_for(job, tab.address, tip, signature)
    gateway.register_for(tab.address, ENDPOINT, 35, HINTS, NO_BINDING, registration(gateway, tab, roles=35))
    other = AccountKey(keccak(b"another signer"))
    for arguments, signed in (
        ((job, tab.address, keccak(b"another tip")), signature),
        ((open_job(gateway, [first]), tab.address, tip), signature),
        ((job, account_of(gateway), tip), signature),
        ((job, tab.address, tip), other.sign_digest(ENLIST.digest(gateway.verifier("jobs"), said))),
        ((job, tab.address, tip), tab.sign_digest(ENLIST.digest(gateway.verifier("registry"), said))),
    ):
        with refused("WrongAccount"):
            gateway.enlist_for(*arguments, signed)
    tx = gateway.enlist_for(job, tab.address, tip, signature)
    assert tx.events == (events.Enlisted(job, tab.address, tip, 33),)  # no stake: the validator's flag does not count
    assert gateway.enlistment(job, tab.address).place == 2
    with refused("AlreadyEnlisted"):
        gateway.enlist_for(job, tab.address, tip, signature)
    empty: dict[str, Value] = {"job": job, "account": account_of(gateway), "tip": ZERO_HASH}
    with refused("NoTip"):
        signed = key_of(gateway).sign_digest(ENLIST.digest(gateway.verifier("jobs"), empty))
        first.enlist_for(job, account_of(gateway), ZERO_HASH, signed)


# Deposits


def test_a_voucher_is_paid_once_and_to_the_payee(gateway: Chain, payer: Chain) -> None:
    wealth, account = payer.balance(account_of(payer)), account_of(payer)
    payer.deposit(100)
    assert payer.balance(account) == wealth - 100
    payee = keccak(b"payee")[:20]
    first = voucher(payer, payee, 30)
    tx = gateway.redeem(account, payee, 30, first)
    assert tx.events[-1] == events.Transfer(payer.addresses.deposits, payee, 30)
    assert tx.events[0] == events.Redeemed(account, payee, 30, 30, 70)
    with refused("NothingToRedeem"):
        gateway.redeem(account, payee, 30, first)
    with refused("NothingToRedeem"):
        gateway.redeem(account, payee, 29, voucher(payer, payee, 29))
    gateway.redeem(account, payee, 42, voucher(payer, payee, 42))
    assert payer.balance(payee) == 42 == payer.redeemed(account, payee)
    assert payer.deposit_of(account) == 58
    assert payer.balance(account) == wealth - 100


def test_only_the_payer_can_sign(gateway: Chain, payer: Chain) -> None:
    payer.deposit(100)
    account, where = account_of(payer), payer.verifier("deposits")
    good = voucher(payer, PAYEE, 9)
    said: dict[str, Value] = {"payer": account, "payee": PAYEE, "cumulative": 9}
    elsewhere = key_of(payer).sign_digest(VOUCHER.digest(payer.verifier("jobs"), said))
    forged = key_of(gateway).sign_digest(VOUCHER.digest(where, said))
    for arguments in (
        (account, PAYEE, 10, good),
        (account, account_of(gateway), 9, good),
        (account_of(gateway), PAYEE, 9, good),
        (account, PAYEE, 9, elsewhere),
        (account, PAYEE, 9, forged),
    ):
        with refused("WrongPayer"):
            gateway.redeem(*arguments)
    with refused("ECDSAInvalidSignatureLength"):
        gateway.redeem(account, PAYEE, 9, good[:64])
    assert payer.deposit_of(account) == 100


def test_a_voucher_over_the_deposit_pays_what_is_there_and_the_rest_later(gateway: Chain, payer: Chain) -> None:
    account, payee = account_of(payer), keccak(b"over")[:20]
    with refused("NothingDeposited"):
        gateway.redeem(account, payee, 150, voucher(payer, payee, 150))
    payer.deposit(100)
    tx = gateway.redeem(account, payee, 150, voucher(payer, payee, 150))
    assert tx.events[0] == events.Redeemed(account, payee, 100, 100, 0)
    with refused("NothingDeposited"):
        gateway.redeem(account, payee, 150, voucher(payer, payee, 150))
    payer.deposit(80)
    gateway.redeem(account, payee, 150, voucher(payer, payee, 150))
    assert payer.balance(payee) == 150
    assert payer.deposit_of(account) == 30


def test_a_huge_voucher_takes_no_more_than_the_deposit(gateway: Chain, payer: Chain) -> None:
    other = gateway.read("Deposits", "depositOf", account_of(gateway))[0]
    assert other == 0
    gateway.deposit(COIN)
    payer.deposit(5)
    payee, most = keccak(b"greedy")[:20], 2**256 - 1
    gateway.redeem(account_of(payer), payee, most, voucher(payer, payee, most))
    assert payer.balance(payee) == 5
    assert gateway.deposit_of(account_of(gateway)) == COIN


def test_a_withdrawal_waits_and_can_be_redeemed_meanwhile(network: LocalNetwork, gateway: Chain, payer: Chain) -> None:
    account, payee = account_of(payer), keccak(b"meanwhile")[:20]
    wealth, delay = payer.balance(account), network.terms.deposit_delay
    with refused("NoWithdrawal"):
        payer.withdraw_deposit()
    with refused("ZeroAmount"):
        payer.request_withdrawal(0)
    payer.deposit(100)
    with refused("DepositTooSmall"):
        payer.request_withdrawal(101)
    payer.request_withdrawal(60)
    assert payer.deposit_of(account) == 40
    with refused("DepositLocked"):
        payer.withdraw_deposit()
    gateway.redeem(account, payee, 25, voucher(payer, payee, 25))  # of what is on its way out first
    record = payer.deposit_record(account)
    assert (record.amount, record.leaving) == (40, 35)
    gateway.redeem(account, payee, 65, voucher(payer, payee, 65))
    assert payer.deposit_record(account) == DepositRecord(35, 0, record.withdrawable_at)
    with refused("NoWithdrawal"):
        payer.withdraw_deposit()
    payer.request_withdrawal(20)
    network.later(delay)
    payer.request_withdrawal(5)  # the delay starts anew for all of it
    with refused("DepositLocked"):
        payer.withdraw_deposit()
    network.later(delay)
    tx = payer.withdraw_deposit()
    assert tx.events[0] == events.DepositWithdrawn(account, 25)
    assert payer.deposit_of(account) == 10
    assert payer.balance(account) == wealth - 100 + 25


def test_a_deposit_needs_tokens_and_a_permit_of_its_owner(gateway: Chain, payer: Chain) -> None:
    with refused("ERC20InsufficientAllowance"):
        payer.transact("Deposits", "deposit", 5)
    with refused("ZeroAmount"):
        payer.deposit(0)
    with refused("ERC20InsufficientBalance"):
        payer.deposit(payer.balance(account_of(payer)) + 1)
    permit = payer._permit(payer.addresses.deposits, 70)
    with refused("ERC20InsufficientAllowance"):
        gateway.transact("Deposits", "depositWithPermit", 70, permit)
    gateway.transact("Token", "permit", account_of(payer), payer.addresses.deposits, *permit)
    payer.transact("Deposits", "depositWithPermit", 70, permit)  # somebody else used it first: the allowance stands
    assert payer.deposit_of(account_of(payer)) == 70


class Money(RuleBasedStateMachine):
    """A Python twin of the deposits of two payers and three payees follows random moves on the EVM."""

    home: Path
    runs = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.network = LocalNetwork(self.home / str(self.runs))
        self.payers = [self.network.newcomer(f"payer {number}") for number in range(2)]
        names = [account_of(one) for one in self.payers]
        self.payees = [b"\x51" * 20, b"\x52" * 20, names[1]]
        self.start = {name: self.payers[0].balance(name) for name in [*names, *self.payees]}
        self.amount, self.leaving = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        self.free_at = dict.fromkeys(names, 0)
        self.paid: dict[tuple[bytes, bytes], int] = {}
        self.change = dict.fromkeys(self.start, 0)
        self.view = View()

    def follow(self, tx: Any) -> None:
        self.view.fold(tx.events)

    @rule(who=st.integers(0, 1), amount=st.integers(1, 50))
    def deposit(self, who: int, amount: int) -> None:
        payer = self.payers[who]
        self.follow(payer.deposit(amount))
        self.amount[account_of(payer)] += amount
        self.change[account_of(payer)] -= amount

    @rule(who=st.integers(0, 1), amount=st.integers(1, 60))
    def ask_back(self, who: int, amount: int) -> None:
        payer, name = self.payers[who], account_of(self.payers[who])
        if amount > self.amount[name]:
            with refused("DepositTooSmall"):
                payer.request_withdrawal(amount)
            return
        tx = payer.request_withdrawal(amount)
        self.follow(tx)
        self.amount[name] -= amount
        self.leaving[name] += amount
        self.free_at[name] = payer.head().timestamp + self.network.terms.deposit_delay

    @rule(who=st.integers(0, 1))
    def withdraw(self, who: int) -> None:
        payer, name = self.payers[who], account_of(self.payers[who])
        if not self.leaving[name]:
            with refused("NoWithdrawal"):
                payer.withdraw_deposit()
        elif self.network.clock.now < self.free_at[name]:
            with refused("DepositLocked"):
                payer.withdraw_deposit()
        else:
            self.follow(payer.withdraw_deposit())
            self.change[name] += self.leaving[name]
            self.leaving[name] = 0

    @rule(who=st.integers(0, 1), to=st.integers(0, 2), cumulative=st.integers(1, 90))
    def redeem(self, who: int, to: int, cumulative: int) -> None:
        payer, name, payee = self.payers[who], account_of(self.payers[who]), self.payees[to]
        before, held = self.paid.get((name, payee), 0), self.amount[name] + self.leaving[name]
        signature = voucher(payer, payee, cumulative)
        if cumulative <= before or held == 0:
            with refused("NothingToRedeem" if cumulative <= before else "NothingDeposited"):
                self.payers[0].redeem(name, payee, cumulative, signature)
            return
        self.follow(self.payers[0].redeem(name, payee, cumulative, signature))
        paid = min(cumulative - before, held)
        first = min(paid, self.leaving[name])
        self.leaving[name] -= first
        self.amount[name] -= paid - first
        self.paid[name, payee] = before + paid
        self.change[payee] += paid

    @precondition(lambda self: any(self.leaving.values()))
    @rule(seconds=st.sampled_from([10, 60]))
    def wait(self, seconds: int) -> None:
        self.network.later(seconds)

    @invariant()
    def every_token_is_accounted_for(self) -> None:
        chain = self.payers[0]
        for name, start in self.start.items():
            assert chain.balance(name) == start + self.change[name]
        for name, amount in self.amount.items():
            record = chain.deposit_record(name)
            assert (record.amount, record.leaving) == (amount, self.leaving[name])
            assert self.view.deposits.get(name, 0) == amount
        held = sum(self.amount.values()) + sum(self.leaving.values())
        assert chain.balance(chain.addresses.deposits) == held
        assert self.view.redeemed == self.paid

    def teardown(self) -> None:
        self.network.devnet.close()


def test_every_deposited_token_is_accounted_for(tmp_path: Path) -> None:
    kind = type("MoneyHere", (Money,), {"home": tmp_path})
    case = kind.TestCase  # type: ignore[attr-defined]
    case.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
    case("runTest").runTest()
