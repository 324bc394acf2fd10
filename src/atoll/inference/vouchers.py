"""Paying for answers: one cumulative voucher from payer to server, and what each side keeps of the other. Pure.

A voucher says "I have owed you so much in all", signed by the payer (EIP-712, checked by Deposits.sol). The newest
replaces all before it, so a lost one costs nothing, none can be paid twice, and only the newest is kept.

- The **payer** (`Purse`, one a server) writes down what an answer costs before it signs for it, and never signs for
  more than the answers that it has received.
- The **server** (`Till`, one a payer) writes down what it charges, and the answer, before its end leaves. It lends the
  price of a few answers (`CREDIT`): that is all that a payer who runs away can cost it.

Both are written to disk before anything that follows from them leaves. After a crash the payer asks for what it has
open, the server still has every answer that is not paid, and so both come to the same sum again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from atoll.errors import InternalError, Refused
from atoll.inference.messages import NO_VOUCHER, Voucher, amount, amount_bytes
from atoll.wire.eip712 import VOUCHER, Verifier
from atoll.wire.identity import AccountKey, recover
from atoll.wire.reasons import Reason

CREDIT = 3
"""Full answers that a server gives before it wants to see a payment: their price together is its risk."""
FULL_ANSWER = 2048
"""Tokens of a full answer, question included."""
TURN_TOKENS = 64
"""Tokens that a template may add around one turn of a conversation or one text."""
REDEEM_SHARE = 2
"""Redeem when what is not redeemed yet, times this, exceeds what the payer's deposit still covers."""
FORCED_SHARE = 10
"""A payer that makes a server hurry can make it redeem no less than this part of what is worth a transaction."""
MAX_OPEN = 64
"""Questions to one server whose answers may be outstanding."""


@dataclass(frozen=True)
class Price:
    """Base units for each input or text, and for each 1,000 tokens read or made."""

    per_input: int = 0
    per_1000: int = 0

    def of(self, inputs: int, tokens: int) -> int:
        """What this many inputs and tokens cost: tokens are rounded up to the next base unit."""
        if min(inputs, tokens) < 0:
            raise InternalError(f"a negative amount of work: {inputs=} {tokens=}")
        return self.per_input * inputs + -(-self.per_1000 * tokens // 1000)


def credit_of(prices: Iterable[Price]) -> int:
    """Base units that a server with these prices lends to each payer: CREDIT full answers of its dearest model."""
    return CREDIT * max((price.of(1, FULL_ANSWER) for price in prices), default=0)


def token_bound(texts: Iterable[str]) -> int:
    """The most tokens that texts can have: no token is shorter than a byte, and templates add a few to each text."""
    return sum(len(text.encode()) + TURN_TOKENS for text in texts)


# -- vouchers ----------------------------------------------------------------------------------------------------------
def voucher_digest(verifier: Verifier, payer: bytes, payee: bytes, cumulative: int) -> bytes:
    """What the payer signs, 32 bytes; `verifier` is the Deposits contract."""
    return VOUCHER.digest(verifier, {"payer": payer, "payee": payee, "cumulative": cumulative})


def sign_voucher(verifier: Verifier, key: AccountKey, payee: bytes, cumulative: int) -> Voucher:
    """The voucher for an amount in all; none for zero."""
    if cumulative == 0:
        return NO_VOUCHER
    signature = key.sign_digest(voucher_digest(verifier, key.address, payee, cumulative))
    return Voucher(amount_bytes(cumulative), signature)


def check_voucher(verifier: Verifier, payer: bytes, payee: bytes, voucher: Voucher) -> int:
    """Base units in all that `payer` signed for `payee`; raises Refused(VOUCHER_FOREIGN) for another's signature."""
    cumulative = amount(voucher.cumulative)
    try:
        signer = recover(voucher_digest(verifier, payer, payee, cumulative), voucher.signature)
    except Refused as error:
        raise Refused(Reason.VOUCHER_FOREIGN, error.detail) from error
    if signer != payer:
        raise Refused(Reason.VOUCHER_FOREIGN, f"signed by 0x{signer.hex()}, expected 0x{payer.hex()}")
    return cumulative


# -- the payer's side --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Purse:
    """What a payer owes one server. `due`: prices of all answers received; `signed`: the newest voucher.

    `pending` are questions whose answers are outstanding, by nonce, and the most that each may cost.
    """

    due: int = 0
    signed: int = 0
    pending: dict[bytes, int] = field(default_factory=dict)

    def ask(self, nonce: bytes, ceiling: int) -> Purse:
        """A question leaves; raises Refused(DUPLICATE) for a nonce in use, BUSY when too many are outstanding."""
        if nonce in self.pending:
            raise Refused(Reason.DUPLICATE, f"question {nonce.hex()} is already asked")
        if len(self.pending) >= MAX_OPEN:
            raise Refused(Reason.BUSY, f"{MAX_OPEN} questions to this server are outstanding")
        return replace(self, pending={**self.pending, nonce: ceiling})

    def receive(self, nonce: bytes, price: int) -> Purse:
        """The whole answer is here: its price is due. Raises Refused(OVER_CEILING), or NOT_FOUND if nothing is open."""
        if nonce not in self.pending:
            raise Refused(Reason.NOT_FOUND, f"question {nonce.hex()} is not outstanding")
        if not 0 <= price <= self.pending[nonce]:
            raise Refused(Reason.OVER_CEILING, f"{price} base units, agreed were at most {self.pending[nonce]}")
        return replace(self.drop(nonce), due=self.due + price)

    def drop(self, nonce: bytes) -> Purse:
        """No answer came, or a false one: nothing is due for it."""
        return replace(self, pending={one: ceiling for one, ceiling in self.pending.items() if one != nonce})

    def sign(self) -> Purse:
        """The state to write down before a voucher for `due` leaves."""
        return replace(self, signed=self.due)

    @property
    def at_risk(self) -> int:
        """The most that the open questions can still add to what is due."""
        return sum(self.pending.values())


# -- the server's side -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Till:
    """What a server is owed by one payer. `charged`: prices of all answers given; `best`: the newest voucher's amount
    and `signature`; `redeemed`: what the contract has paid out for it; `kept`: answers that no voucher covers
    yet, by nonce, each with what was charged up to it."""

    charged: int = 0
    best: int = 0
    signature: bytes = b""
    redeemed: int = 0
    kept: tuple[tuple[bytes, int], ...] = ()

    @property
    def owed(self) -> int:
        """Base units charged and not covered by a voucher."""
        return max(0, self.charged - self.best)

    @property
    def waiting(self) -> int:
        """Base units that could be redeemed."""
        return max(0, self.best - self.redeemed)

    def take(self, cumulative: int, signature: bytes, cover: int) -> Till:
        """A voucher arrived. `cover`: the most that the payer's deposit can bring this payee to, in all.

        An older one changes nothing. Raises Refused(OVER_DEPOSIT) for more than the deposit covers.
        """
        if cumulative > cover:
            raise Refused(Reason.OVER_DEPOSIT, f"a voucher of {cumulative} base units, the deposit covers {cover}")
        if cumulative <= self.best:
            return self
        kept = tuple((nonce, up_to) for nonce, up_to in self.kept if up_to > cumulative)
        return replace(self, best=cumulative, signature=signature, kept=kept)

    def admit(self, ceiling: int, cover: int, running: int, credit: int) -> None:
        """Whether a question that may cost `ceiling` is answered while others may still cost `running`.

        `cover` as in `take`, `credit` as in `credit_of`; a question that is dearer than the credit is answered while
        nothing is unpaid. Raises Refused: VOUCHER_MISSING or VOUCHER_TOO_SMALL when more would be unpaid, OVER_DEPOSIT
        when the deposit covers less than what is charged, running and asked for.
        """
        if ceiling == 0:
            return
        if self.owed + running + ceiling > max(credit, ceiling):
            reason = Reason.VOUCHER_TOO_SMALL if self.best else Reason.VOUCHER_MISSING
            raise Refused(reason, f"{self.owed} base units are owed and {running} are being earned, {credit} are lent")
        needed = max(self.charged, self.best) + running + ceiling
        if needed > cover:
            raise Refused(Reason.OVER_DEPOSIT, f"{needed} base units in all are needed, the deposit covers {cover}")

    def charge(self, nonce: bytes, price: int) -> Till:
        """An answer was made; it is kept until a voucher covers it."""
        if price < 0 or any(nonce == known for known, _ in self.kept):
            raise InternalError(f"answer {nonce.hex()} charged twice, or with a price of {price}")
        charged = self.charged + price
        kept = (*self.kept, (nonce, charged)) if charged > self.best else self.kept
        return replace(self, charged=charged, kept=kept)

    def paid_out(self, redeemed: int) -> Till:
        """The contract has paid this much in all."""
        return replace(self, redeemed=max(self.redeemed, redeemed))

    def worth_redeeming(self, threshold: int, cover: int, leaving: bool) -> bool:
        """Whether to redeem now: enough has gathered, or the payer's deposit may soon not cover it any more.

        `threshold` base units pay for a transaction; `cover` as in `take`; `leaving`: the payer has asked for its
        deposit back.
        """
        if self.waiting == 0 or self.waiting * FORCED_SHARE < threshold:
            return False
        rest = cover - self.redeemed
        return leaving or self.waiting >= threshold or self.waiting * REDEEM_SHARE > rest
