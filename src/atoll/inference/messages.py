"""The inference protocol `/atoll/inference/1`: what servers offer, what they are asked, how they answer and are paid.

A question (Classify, Embed, Chat, Complete) opens a *session* named by its nonce; the answer is collected with Next, as
much as there is each time, until it is done. One request has one response on this transport, and a session lets the
first words arrive before the last are made, lets a broken connection be taken up again where it stopped, and ends by
itself when nobody collects. The last response carries the server's signed statement (`Statement`).

Amounts are base units, big-endian, without leading zeros (b"" is zero); text is UTF-8; arrays little-endian, C order.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from atoll.wire.hashing import HASH_BYTES, ZERO_HASH, Domain, Tag, blob_id, tagged
from atoll.wire.identity import ACCOUNT_BYTES
from atoll.wire.rpc import Hash, Request, encode_body

ALPN = b"/atoll/inference/1"
MAX_REQUEST_BYTES = 8 << 20
MAX_INPUTS = 64
MAX_TEXTS = 256
MAX_TEXT_CHARS = 1 << 18
MAX_TURNS = 256
MAX_TOKENS = 4096
MAX_STOPS = 4
MAX_OFFERS = 64
MAX_TOP = 20
MAX_RANK = 8
NONCE_BYTES = 16

Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Account = Annotated[bytes, msgspec.Meta(min_length=ACCOUNT_BYTES, max_length=ACCOUNT_BYTES)]
Amount = Annotated[bytes, msgspec.Meta(max_length=16)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
Token = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of what stands inside requests and answers: an array of its fields."""


class Voucher(Part, frozen=True):
    """The payer's word for all that it owes this server: amount in all, signature of 65 bytes (both empty: none)."""

    cumulative: Amount = b""
    signature: Annotated[bytes, msgspec.Meta(max_length=65)] = b""


NO_VOUCHER = Voucher()


class Order(Part, frozen=True):
    """What every paid question begins with: its session, the model, the most that it may cost, and a payment.

    `nonce` is drawn by the asker and never used twice.
    """

    nonce: Nonce
    model: Name
    ceiling: Amount
    voucher: Voucher = NO_VOUCHER


class Picking(Part, frozen=True):
    """How a language model picks its tokens; `seed` always given, so that the answer can be made again."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)]
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)]
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    stop: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...], msgspec.Meta(max_length=4)]
    top: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP)]


class Turn(Part, frozen=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


# Number 1 asked without paying (`Predict`); it is retired and never given to another request.
class Offers(Request, frozen=True, tag=2):
    """Which models this server answers with, at what price, and how busy it is (the body is an `Offering`)."""


class Classify(Request, frozen=True, tag=3):
    """Scores of a classifier for `count` inputs: their bytes, C order, in the model's dtype."""

    order: Order
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_INPUTS)]
    inputs: Annotated[bytes, msgspec.Meta(max_length=MAX_REQUEST_BYTES)]


class Embed(Request, frozen=True, tag=4):
    """Vectors of texts."""

    order: Order
    texts: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=MAX_TEXTS)]


class Chat(Request, frozen=True, tag=5):
    """The next turn of a conversation."""

    order: Order
    picking: Picking
    turns: Annotated[tuple[Turn, ...], msgspec.Meta(min_length=1, max_length=MAX_TURNS)]


class Complete(Request, frozen=True, tag=6):
    """What comes after a text."""

    order: Order
    picking: Picking
    prompt: Text


class Next(Request, frozen=True, tag=7):
    """More of a session's answer: what comes after the first `seen` chunks; waits a while if there is nothing yet."""

    nonce: Nonce
    seen: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS + 1)]


class Stop(Request, frozen=True, tag=8):
    """Make no more of this answer; what was made is charged and can be collected."""

    nonce: Nonce


class Pay(Request, frozen=True, tag=9):
    """A voucher by itself, for answers that were received; the body is empty."""

    voucher: Voucher


Question = Classify | Embed | Chat | Complete


class Scores(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer: float32 little-endian [count, *shape], C order."""

    shape: tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 20)], ...]
    values: bytes


class Form(Part, frozen=True):
    """What a classifier takes and gives: type and shape of one input, and what its scores are."""

    dtype: Literal["uint8", "float32", "int64"]
    shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 20)], ...], msgspec.Meta(max_length=MAX_RANK)]
    meaning: Literal["probabilities", "values"]


class ModelOffer(Part, frozen=True):
    """One model and its price: base units for each input (classifiers) or text, and for each 1,000 tokens read or made.

    `blob` is the BLAKE3 of the model's file, by which askers know that two servers mean the same model; `form` is told
    of classifiers only.
    """

    id: Name
    kind: Literal["classifier", "embedding", "language"]
    blob: Hash
    context: Count
    per_input: Amount
    per_1000: Amount
    form: Form | None = None


class Offering(Part, frozen=True):
    """What a server offers. `load` is 0 to 1,000: the part of its sessions that are taken."""

    models: Annotated[tuple[ModelOffer, ...], msgspec.Meta(max_length=MAX_OFFERS)]
    load: Annotated[int, msgspec.Meta(ge=0, le=1000)]


class Likely(Part, frozen=True):
    """A token that could stand here and its log-probability (natural, at temperature 1)."""

    token: Token
    text: Annotated[str, msgspec.Meta(max_length=256)]
    logprob: float


class Position(Part, frozen=True):
    """The token that was taken, and the likeliest ones in its place, likeliest first."""

    taken: Likely
    top: Annotated[tuple[Likely, ...], msgspec.Meta(max_length=MAX_TOP)]


class Chunk(Part, frozen=True):
    """A part of a text: whole characters, the numbers of its tokens, one position for each. The last has a `finish`."""

    text: Annotated[str, msgspec.Meta(max_length=4096)]
    tokens: Annotated[tuple[Token, ...], msgspec.Meta(max_length=MAX_TOKENS)]
    positions: Annotated[tuple[Position, ...], msgspec.Meta(max_length=MAX_TOKENS)]
    finish: Literal["", "stop", "length"] = ""


class Statement(Part, frozen=True):
    """The server's word for an answer: who asked what, which model answered what, and the price. Signed.

    `request` names the question (`question_id`), `result` the answer (`result_id`), `model` the model's blob (zeros if
    it has none). Whoever is shown the question, the answer and this can run the question again and see a lie.
    """

    server: Account
    payer: Account
    nonce: Nonce
    request: Hash
    model: Hash
    result: Hash
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    prompt_tokens: Count
    tokens: Count
    price: Amount
    signature: Annotated[bytes, msgspec.Meta(max_length=65)] = b""

    def digest(self, domain: Domain) -> bytes:
        """What the server's account signs, 32 bytes: all fields but the signature, as a msgpack array."""
        unsigned = msgspec.structs.replace(self, signature=b"")
        return tagged(Tag.ANSWER, domain.encode(), encode_body(unsigned))


class Done(Part, frozen=True):
    """The end of an answer: the numbers of a classifier or an embedding model (b"" for text), and the statement."""

    result: bytes
    statement: Statement


class Progress(Part, frozen=True):
    """The response to a question and to Next: chunks after those that were seen, and the end when it is reached.

    `prompt_tokens` is 0 until it is known.
    """

    chunks: Annotated[tuple[Chunk, ...], msgspec.Meta(max_length=MAX_TOKENS + 1)]
    prompt_tokens: Count
    done: Done | None


def question_id(domain: Domain, server: bytes, payer: bytes, question: Question) -> bytes:
    """The name of a question, 32 bytes; the voucher that came with it is no part of it."""
    order = msgspec.structs.replace(question.order, voucher=NO_VOUCHER)
    plain = msgspec.structs.replace(question, order=order)
    return tagged(Tag.QUESTION, domain.encode(), server, payer, encode_body(plain))


def result_id(chunks: tuple[Chunk, ...], result: bytes) -> bytes:
    """The name of an answer, 32 bytes: BLAKE3 over all its chunks and its numbers."""
    return blob_id(encode_body((chunks, result)))


def amount(data: bytes) -> int:
    """The integer in an `Amount`."""
    return int.from_bytes(data, "big")


def amount_bytes(value: int) -> bytes:
    """An amount as it travels, at most 16 bytes."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def blob_of(text: str) -> bytes:
    """A blob id of 64 hexadecimal digits as 32 bytes; zeros for anything else."""
    try:
        data = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        return ZERO_HASH
    return data if len(data) == HASH_BYTES else ZERO_HASH
