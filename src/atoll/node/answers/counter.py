"""What a node's owner asks other nodes through it, over the control channel, and the deposit that pays for it.

A text is collected in parts: `chat` opens a talk, `more` tells what came since, `leave` ends it. A talk that nobody
collects ends by itself, so that nobody pays for words that no one reads.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import time
from collections import Counter as Count
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from atoll.errors import AtollError, BadInput, ChainError, NoFunds, Refused, UnknownModel, Unreachable
from atoll.inference import catalog
from atoll.inference.answers import Message, ModelInfo, Sampling, Served, Stream
from atoll.inference.messages import MAX_RANK
from atoll.ledger.receipts import TOKEN, amount_text
from atoll.node.answers import questions
from atoll.node.control import ControlHandler
from atoll.wire.reasons import Reason

if TYPE_CHECKING:
    from atoll.node.answers.serving import Serving
    from atoll.node.daemon import Node

Json = Any
Params = dict[str, Json]
_Kind = TypeVar("_Kind")

MAX_TALKS = 16
WAIT_SECONDS = 5.0
"""How long `more` waits for the next words."""
IDLE_SECONDS = 30.0
"""A talk that nobody collects ends after this time."""
FOLD_SECONDS = 20.0
"""How long a change of the deposit may take until this node has seen it on the chain."""


class _About(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class _Classify(_About):
    inputs: str  # base64 of the bytes, little-endian, C order
    dtype: Literal["uint8", "float32", "int64"]
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], msgspec.Meta(min_length=1, max_length=MAX_RANK + 1)]


class _Embed(_About):
    texts: list[str]


class _Chat(_About):
    turns: list[tuple[str, str]]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] = 256
    temperature: float = 0.8
    seed: int | None = None


class _More(msgspec.Struct):
    talk: str
    seen: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Amount(msgspec.Struct):
    amount: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,39}$")] = "0"  # base units


@dataclass
class _Talk:
    """A text that a server makes for the owner."""

    stream: Stream
    text: str = ""
    finish: str = ""
    over: bool = False
    error: AtollError | None = None
    touched: float = field(default_factory=time.monotonic)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Counter:
    """Where the owner of a node asks, and pays."""

    def __init__(self, node: Node, serving: Serving) -> None:
        self._node, self._serving = node, serving
        self._talks: dict[str, _Talk] = {}

    def handlers(self) -> dict[str, ControlHandler]:
        """Methods of the control channel by name."""
        return {
            "offered": self.offered,
            "classify": self.classify,
            "embed": self.embed,
            "chat": self.chat,
            "more": self.more,
            "leave": self.leave,
            "deposit": self.deposit,
            "withdraw": self.withdraw,
            "redeem": self.redeem,
        }

    # -- questions -----------------------------------------------------------------------------------------------
    async def offered(self, params: Params) -> Json:
        """Which model a name stands for, as servers offer it now, and how many do; raises UnknownModel."""
        found, servers = await self._find(_read(params, _About).model)
        card = {name: found.card[name] for name in ("name", "input", "output") if name in found.card}
        told = {"id": found.id, "kind": found.kind, "blob": found.blob, "context": found.context, "card": card}
        return told | {"servers": servers}

    async def _find(self, model: str) -> tuple[ModelInfo, int]:
        """The model and the number of its servers; what this device knows of it goes before what others say."""
        serving = self._serving
        await serving.answers.refresh()
        entry = catalog.known(model)
        here = [entry.info] if entry is not None else serving.local.models()
        own = next((info for info in here if model in (info.id, info.blob)), None)
        records = serving.payments.records
        known = [
            offer
            for server, offering in serving.answers.offerings.items()
            if server not in records or not records[server].lied
            for offer in offering.models
        ]
        if own is not None and own.blob:
            found = [offer for offer in known if offer.blob.hex() == own.blob]
        else:
            found = [offer for offer in known if model in (offer.id, offer.blob.hex())]
        if not found:
            names = sorted({offer.id for offer in known})[:10]
            others = f"offered are {', '.join(names)}" if names else "no server offers anything"
            raise UnknownModel(f"No server of this network offers {model} now: {others}.")
        told = Count((offer.id, offer.kind, offer.blob, offer.form) for offer in found).most_common(1)[0][0]
        common = next(offer for offer in found if (offer.id, offer.kind, offer.blob, offer.form) == told)
        return own or questions.info_of(common), len(found)

    async def classify(self, params: Params) -> Json:
        """Scores of a classifier at a server: `inputs` in base64, their `dtype` and `shape` [n, ...]."""
        asked = _read(params, _Classify)
        try:
            data = base64.b64decode(asked.inputs, validate=True)
            x = np.frombuffer(data, np.dtype(asked.dtype).newbyteorder("<")).reshape(asked.shape).astype(asked.dtype)
        except (binascii.Error, ValueError) as error:
            raise BadInput(f"The inputs are not {asked.shape} of {asked.dtype}, in base64 ({error}).") from None
        with _told_of_money():
            scores, served = await self._serving.answers.remotely().classify(asked.model, x)
        return {"scores": scores.tolist(), **_served(served)}

    async def embed(self, params: Params) -> Json:
        """Vectors of `texts` by an embedding model at a server."""
        asked = _read(params, _Embed)
        if not asked.texts:
            raise BadInput("There is no text to embed: expected one or more.")
        with _told_of_money():
            found = await self._serving.answers.remotely().embed(asked.model, asked.texts)
        return {"vectors": found.vectors.tolist(), "tokens": found.tokens, **_served(found.served)}

    async def chat(self, params: Params) -> Json:
        """Let a server's language model answer a conversation, `turns` of [role, text]; `more` collects the text."""
        asked = _read(params, _Chat)
        if len(self._talks) >= MAX_TALKS:
            raise Refused(Reason.BUSY, f"{MAX_TALKS} texts are being made for programs of this device already")
        sampling = Sampling(max_tokens=asked.max_tokens, temperature=asked.temperature, seed=asked.seed)
        turns = [Message(role, text) for role, text in asked.turns]
        name, talk = os.urandom(16).hex(), _Talk(self._serving.answers.remotely().chat(asked.model, turns, sampling))
        talk.work = asyncio.create_task(_collect(talk))
        self._talks[name] = talk
        return {"talk": name}

    async def more(self, params: Params) -> Json:
        """The text of a `talk` after the first `seen` letters; waits a while for it. At its end, who made it."""
        asked = _read(params, _More)
        talk = self._talks.get(asked.talk)
        if talk is None:
            raise Refused(Reason.NOT_FOUND, "this talk has ended; ask again")
        talk.touched = time.monotonic()
        if len(talk.text) <= asked.seen and not talk.over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(talk.changed.wait(), WAIT_SECONDS)
        talk.touched = time.monotonic()
        told: Json = {"text": talk.text[asked.seen :], "end": None}
        if talk.over:
            if talk.error is not None and not told["text"]:
                raise talk.error
            if talk.error is None:
                made = talk.stream
                counts = {"prompt_tokens": made.prompt_tokens, "completion_tokens": made.completion_tokens}
                told["end"] = {"finish": talk.finish, **counts, **_served(made.served)}
        return told

    async def leave(self, params: Params) -> Json:
        """End a `talk`: its server stops, and what it made so far is paid. Tells what it cost."""
        talk = self._talks.pop(_read(params, _More).talk, None)
        if talk is None:
            return {"left": False}
        await _end(talk)
        return {"left": True, **_served(talk.stream.served)}

    def sweep(self) -> None:
        """End what nobody collects; called again and again."""
        late = time.monotonic() - IDLE_SECONDS
        for name in [name for name, talk in self._talks.items() if talk.touched < late]:
            self._node.spawn(_end(self._talks.pop(name)))

    async def close(self) -> None:
        """End all talks."""
        await asyncio.gather(*(_end(talk) for talk in self._talks.values()))
        self._talks.clear()

    # -- money ---------------------------------------------------------------------------------------------------
    def sums(self) -> dict[str, str]:
        """What answers cost and earned here, in base units: for `status`."""
        me, view, payments = self._node.account, self._node.view, self._serving.payments
        dues = {server: purse.due for server, purse in payments.purses.items()}
        told = {
            "deposit": view.deposits.get(me, 0),
            "free": self._serving.asker.free(),
            "paid": sum(dues.values()),
            "owed": sum(max(0, due - view.redeemed.get((me, server), 0)) for server, due in dues.items()),
            "earned": sum(till.best for till in payments.tills.values()),
            "waiting": sum(self._waiting().values()),
        }
        return {name: str(amount) for name, amount in told.items()}

    def _waiting(self) -> dict[bytes, int]:
        """What each payer's newest voucher adds to what was redeemed."""
        me, view = self._node.account, self._node.view
        found = {
            payer: till.paid_out(view.redeemed.get((payer, me), 0)).waiting
            for payer, till in self._serving.payments.tills.items()
        }
        return {payer: amount for payer, amount in found.items() if amount}

    async def deposit(self, params: Params) -> Json:
        """Put `amount` (base units) into the deposit that pays answers; without it, tell what is there."""
        amount, node = int(_read(params, _Amount).amount), self._node
        if amount:
            balance = node.view.balances.get(node.account, 0)
            if balance < amount:
                raise NoFunds(
                    f"This node's account has {_atl(balance)}: too little to deposit {_atl(amount)}. It earns by "
                    "working for jobs (`atoll claim` brings what it has earned), or send it tokens."
                )
            await self._serving.deposit(amount)
            await self._folded()
        return await self._account(amount)

    async def withdraw(self, params: Params) -> Json:
        """Ask for `amount` (base units) of the deposit back; without it, receive what was asked for before."""
        amount, node = int(_read(params, _Amount).amount), self._node
        record = await node.read(node.chain.deposit_record, node.account)
        if amount:
            if record.amount < amount:
                raise NoFunds(f"The deposit holds {_atl(record.amount)}: too little to ask {_atl(amount)} back.")
            await node.send(node.chain.request_withdrawal, amount)
        elif record.leaving and record.withdrawable_at <= time.time():
            await node.send(node.chain.withdraw_deposit)
            await self._folded()
            return await self._account(record.leaving) | {"received": True}
        if amount:
            await self._folded()
        return await self._account(amount) | {"received": False}

    async def redeem(self, _: Params) -> Json:
        """Collect what others owe for answers: bring their newest vouchers to the chain."""
        waiting = self._waiting()
        brought = await self._serving.answering.redeem(list(waiting))
        rest = sum(waiting.values()) - brought
        if waiting and not brought:
            raise ChainError("The chain took no voucher now: the payers' deposits may be empty; see the node's log.")
        return {"redeemed": str(brought), "waiting": str(rest), "payers": len(waiting)}

    async def _account(self, amount: int) -> Params:
        node = self._node
        record = await node.read(node.chain.deposit_record, node.account)
        told = {"amount": str(amount), **self.sums(), "deposit": str(record.amount), "leaving": str(record.leaving)}
        balance = str(node.view.balances.get(node.account, 0))
        return told | {"withdrawable_at": record.withdrawable_at, "balance": balance}

    async def _folded(self) -> None:
        """Wait until this node has seen on the chain what it sent, so that it can spend it, and tells it right."""
        node, end = self._node, time.monotonic() + FOLD_SECONDS
        record = await node.read(node.chain.deposit_record, node.account)
        while node.view.deposits.get(node.account, 0) != record.amount and time.monotonic() < end:
            await asyncio.sleep(0.1)


async def _collect(talk: _Talk) -> None:
    try:
        with _told_of_money():
            async for piece in talk.stream:
                talk.text += piece.text
                talk.finish = piece.finish or talk.finish
                talk.tell()
    except AtollError as error:
        talk.error = error
    finally:
        if not talk.finish and talk.error is None:
            talk.error = Unreachable("The answer broke off before its end: ask again.")
        talk.over = True
        talk.tell()


async def _end(talk: _Talk) -> None:
    if talk.work is not None:
        talk.work.cancel()
        await asyncio.gather(talk.work, return_exceptions=True)
    with contextlib.suppress(AtollError):
        await talk.stream.aclose()


def _read(params: Params, kind: type[_Kind]) -> _Kind:
    """The parameters of a method; raises BadInput that names what is wrong."""
    try:
        return msgspec.convert(params, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"The parameters do not fit: {error}.") from None


def _served(served: Served) -> dict[str, str]:
    return {"answered_by": served.node, "cost": str(served.cost), "checked": served.checked}


@contextlib.contextmanager
def _told_of_money() -> Iterator[None]:
    """A refusal for want of money says how to put more in."""
    try:
        yield
    except Refused as error:
        if error.reason != Reason.OVER_BUDGET:
            raise
        raise Refused(Reason.OVER_BUDGET, f"{error.detail}: `atoll deposit AMOUNT` puts more in") from error


def _atl(amount: int) -> str:
    return f"{amount_text(amount)} {TOKEN}"
