"""Vouchers and both sides' accounts: refusals, by-hand sums, and that no crash can lose or double anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from atoll.errors import InternalError, Refused
from atoll.inference.messages import Voucher, amount, amount_bytes
from atoll.inference.vouchers import (
    MAX_OPEN,
    Price,
    Purse,
    Till,
    check_voucher,
    credit_of,
    sign_voucher,
    token_bound,
)
from atoll.wire.eip712 import Verifier
from atoll.wire.identity import AccountKey, format_account
from atoll.wire.reasons import Reason

VERIFIER = Verifier(77, b"\x25" * 20)
PAYER, STRANGER = AccountKey(b"\x01" * 32), AccountKey(b"\x02" * 32)
PAYEE = b"\x0b" * 20
ONE, TWO, THREE = (bytes([number]) * 16 for number in (1, 2, 3))
PLENTY = 10**24


def refused(reason: Reason, work: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        work()
    assert caught.value.reason == reason


# -- vouchers ----------------------------------------------------------------------------------------------------------
def test_a_voucher_is_what_other_libraries_sign() -> None:
    voucher = sign_voucher(VERIFIER, PAYER, PAYEE, 10**20)
    message = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Voucher": [
                {"name": "payer", "type": "address"},
                {"name": "payee", "type": "address"},
                {"name": "cumulative", "type": "uint256"},
            ],
        },
        "primaryType": "Voucher",
        "domain": {"name": "Atoll", "version": "1", "chainId": 77, "verifyingContract": "0x" + "25" * 20},
        "message": {"payer": format_account(PAYER.address), "payee": "0x" + "0b" * 20, "cumulative": 10**20},
    }
    other = Account.sign_message(encode_typed_data(full_message=message), PAYER.private)
    assert voucher == Voucher((10**20).to_bytes(9, "big"), bytes(other.signature))
    assert check_voucher(VERIFIER, PAYER.address, PAYEE, voucher) == 10**20


def test_a_voucher_of_another_is_refused() -> None:
    voucher = sign_voucher(VERIFIER, PAYER, PAYEE, 500)
    for payer, payee, forged in (
        (STRANGER.address, PAYEE, voucher),
        (PAYER.address, b"\x0c" * 20, voucher),
        (PAYER.address, PAYEE, Voucher(amount_bytes(501), voucher.signature)),
        (PAYER.address, PAYEE, Voucher(amount_bytes(500), b"\x00" * 65)),
        (PAYER.address, PAYEE, Voucher(amount_bytes(500), b"")),
    ):
        refused(Reason.VOUCHER_FOREIGN, lambda p=payer, q=payee, f=forged: check_voucher(VERIFIER, p, q, f))
    elsewhere = Verifier(78, VERIFIER.address)
    refused(Reason.VOUCHER_FOREIGN, lambda: check_voucher(elsewhere, PAYER.address, PAYEE, voucher))


def test_nothing_owed_needs_no_signature() -> None:
    assert sign_voucher(VERIFIER, PAYER, PAYEE, 0) == Voucher()


@given(st.integers(0, (1 << 128) - 1))
def test_amounts_travel_exactly(value: int) -> None:
    data = amount_bytes(value)
    assert amount(data) == value
    assert len(data) <= 16 and not data.startswith(b"\x00")


def test_bounds_and_credit_by_hand() -> None:
    assert token_bound(["abc", "ä"]) == 3 + 64 + 2 + 64
    assert credit_of([Price(5, 0), Price(1, 1_000)]) == 3 * (1 + 2_048)
    assert credit_of([]) == 0


# -- the payer ---------------------------------------------------------------------------------------------------------
def test_a_purse_by_hand() -> None:
    purse = Purse().ask(ONE, 50).ask(TWO, 60)
    assert (purse.due, purse.at_risk) == (0, 110)
    purse = purse.receive(ONE, 45)
    assert (purse.due, purse.signed, purse.at_risk) == (45, 0, 60)
    assert purse.sign().signed == 45
    assert purse.drop(TWO) == Purse(45, 0, {})


def test_a_purse_pays_once_and_no_more_than_agreed() -> None:
    purse = Purse().ask(ONE, 50)
    refused(Reason.OVER_CEILING, lambda: purse.receive(ONE, 51))
    refused(Reason.OVER_CEILING, lambda: purse.receive(ONE, -1))
    refused(Reason.DUPLICATE, lambda: purse.ask(ONE, 1))
    paid = purse.receive(ONE, 50)
    refused(Reason.NOT_FOUND, lambda: paid.receive(ONE, 50))
    refused(Reason.NOT_FOUND, lambda: paid.receive(TWO, 0))
    full = Purse(pending={bytes([number]) * 16: 1 for number in range(MAX_OPEN)})
    refused(Reason.BUSY, lambda: full.ask(b"\xff" * 16, 1))


# -- the server --------------------------------------------------------------------------------------------------------
def test_a_till_by_hand() -> None:
    till = Till().charge(ONE, 40).charge(TWO, 60)
    assert (till.charged, till.owed, till.waiting) == (100, 100, 0)
    assert till.kept == ((ONE, 40), (TWO, 100))
    till = till.take(99, b"s" * 65, PLENTY)
    assert (till.owed, till.waiting, till.kept) == (1, 99, ((TWO, 100),))
    assert till.take(50, b"t" * 65, PLENTY) == till  # an older voucher changes nothing
    till = till.take(120, b"u" * 65, 120)
    assert (till.owed, till.kept, till.signature) == (0, (), b"u" * 65)
    assert till.charge(THREE, 20).kept == ()  # paid in advance
    assert till.paid_out(99).waiting == 21
    with pytest.raises(InternalError):
        Till().charge(ONE, 1).charge(ONE, 1)


def test_what_a_till_refuses() -> None:
    refused(Reason.OVER_DEPOSIT, lambda: Till().take(101, b"s" * 65, 100))
    Till().admit(ceiling=100, cover=100, running=0, credit=300)
    refused(Reason.OVER_DEPOSIT, lambda: Till().admit(100, 99, 0, 300))
    refused(Reason.OVER_DEPOSIT, lambda: Till(charged=50, best=60).admit(40, 99, 0, 300))
    refused(Reason.VOUCHER_MISSING, lambda: Till(charged=201).admit(100, PLENTY, 0, 300))
    refused(Reason.VOUCHER_MISSING, lambda: Till(charged=1).admit(100, PLENTY, 200, 300))
    refused(Reason.VOUCHER_TOO_SMALL, lambda: Till(charged=301, best=100).admit(100, PLENTY, 0, 300))
    Till(charged=300, best=100).admit(100, PLENTY, 0, 300)
    Till().admit(1_000, PLENTY, 0, 300)  # dearer than the credit: while nothing is unpaid
    refused(Reason.VOUCHER_MISSING, lambda: Till(charged=1).admit(1_000, PLENTY, 0, 300))
    Till(charged=10**9).admit(0, 0, 0, 0)  # what is free is free


def test_when_a_voucher_is_redeemed() -> None:
    till = Till(charged=100, best=100, signature=b"s" * 65, redeemed=40)
    assert till.worth_redeeming(threshold=60, cover=PLENTY, leaving=False)
    assert not till.worth_redeeming(threshold=61, cover=PLENTY, leaving=False)
    assert till.worth_redeeming(threshold=600, cover=PLENTY, leaving=True)
    assert till.worth_redeeming(threshold=600, cover=40 + 119, leaving=False)  # 2 * 60 > 119
    assert not till.worth_redeeming(threshold=600, cover=40 + 120, leaving=False)
    assert not till.worth_redeeming(threshold=601, cover=40, leaving=True)  # nobody is made to pay for dust
    assert not Till(charged=100).worth_redeeming(0, PLENTY, leaving=True)


# -- both, with crashes ------------------------------------------------------------------------------------------------
class Trade(RuleBasedStateMachine):
    """A payer and a server that trade, lose messages and are killed between any two steps.

    Each step is what the shells do as one: write, then send. A kill loses what was on its way and all that was only in
    memory (`answers` at work); what was written stays, since it is written before anything leaves.
    """

    @initialize(deposit=st.integers(0, 2_000))
    def begin(self, deposit: int) -> None:
        self.deposit, self.paid_out = deposit, 0
        self.purse, self.till = Purse(), Till()
        self.at_work: dict[bytes, int] = {}  # the server's memory
        self.kept: dict[bytes, int] = {}  # the server's disk: answers that are not paid
        self.received: dict[bytes, int] = {}
        self.voucher = 0  # the newest that may arrive
        self.number = 0

    def cover(self) -> int:
        return self.deposit + self.paid_out

    @rule(ceiling=st.integers(0, 300))
    def ask(self, ceiling: int) -> None:
        self.number += 1
        nonce = self.number.to_bytes(16, "big")
        if len(self.purse.pending) >= MAX_OPEN or self.purse.due + self.purse.at_risk + ceiling > self.cover():
            return
        self.purse = self.purse.ask(nonce, ceiling)
        try:
            self.till.admit(ceiling, self.cover(), sum(self.at_work.values()), credit=600)
        except Refused:
            self.purse = self.purse.drop(nonce)
            return
        self.at_work[nonce] = ceiling

    @rule(share=st.integers(0, 100))
    def answer(self, share: int) -> None:
        if self.at_work:
            nonce, ceiling = self.at_work.popitem()
            price = ceiling * share // 100
            self.till = self.till.charge(nonce, price)
            self.kept[nonce] = price

    @rule()
    def collect(self) -> None:
        """The payer fetches an answer that is there; what the server does not know any more is dropped."""
        for nonce in list(self.purse.pending):
            if nonce in self.kept:
                self.purse = self.purse.receive(nonce, self.kept[nonce]).sign()
                self.received[nonce] = self.kept[nonce]
                self.voucher = self.purse.signed
            elif nonce not in self.at_work:
                self.purse = self.purse.drop(nonce)

    @rule(old=st.booleans())
    def pay(self, old: bool) -> None:
        cumulative = self.voucher // 2 if old else self.voucher
        try:
            self.till = self.till.take(cumulative, b"s", self.cover())
        except Refused:
            raise AssertionError("an honest payer stays within its deposit") from None

    @rule()
    def redeem(self) -> None:
        amount_now = self.till.best - self.paid_out
        assert amount_now <= self.deposit
        self.paid_out, self.deposit = self.till.best, self.deposit - amount_now
        self.till = self.till.paid_out(self.paid_out)

    @rule()
    def kill_the_server(self) -> None:
        self.at_work.clear()

    @rule()
    def kill_the_payer(self) -> None:
        self.voucher = self.purse.signed  # all it can send again is what it wrote down

    @invariant()
    def nobody_is_cheated(self) -> None:
        if not hasattr(self, "purse"):
            return
        assert self.purse.due == sum(self.received.values()) == self.purse.signed
        assert self.till.redeemed == self.paid_out <= self.till.best <= self.purse.signed <= self.till.charged
        assert self.till.charged == sum(self.kept.values())
        assert {nonce for nonce, _ in self.till.kept} <= set(self.kept)
        assert self.till.owed <= 600  # the credit

    def teardown(self) -> None:
        """When both are up again and talk, they agree to the last base unit."""
        if not hasattr(self, "purse"):
            return
        self.at_work.clear()
        self.collect()
        self.pay(old=False)
        assert self.till.best == self.till.charged == self.purse.due
        assert not self.purse.pending and self.till.kept == ()


test_trade = Trade.TestCase
