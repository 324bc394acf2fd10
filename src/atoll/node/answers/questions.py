"""Questions and answers between the interface `Answers` and the wire: what is asked, answered, and may be charged."""

from __future__ import annotations

import math
from typing import Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput, Refused
from atoll.graph.spec import MAX_RANK
from atoll.inference import messages as wire
from atoll.inference.answers import (
    Answers,
    Candidate,
    Floats,
    Kind,
    Message,
    ModelInfo,
    Piece,
    Sampling,
    Stream,
    TokenLogprob,
)
from atoll.inference.messages import Chunk, Likely, Position, Question, Scores
from atoll.inference.router import Candidate as RoutedTo
from atoll.inference.router import Wanted
from atoll.inference.vouchers import Price, token_bound
from atoll.wire import rpc
from atoll.wire.hashing import Domain
from atoll.wire.identity import recover
from atoll.wire.reasons import Reason

KIND: dict[type, Kind] = {
    wire.Classify: "classifier",
    wire.Embed: "embedding",
    wire.Chat: "language",
    wire.Complete: "language",
}
REQUESTS = {
    rpc.number_of(kind): kind for kind in (wire.Offers, *get_args(wire.Question), wire.Next, wire.Stop, wire.Pay)
}

AnyRequest = wire.Offers | Question | wire.Next | wire.Stop | wire.Pay


def decode_request(payload: bytes) -> AnyRequest:
    """A request of the inference protocol; raises Refused TOO_LARGE, MALFORMED, UNKNOWN_MESSAGE."""
    if len(payload) > wire.MAX_REQUEST_BYTES + 1024:
        raise Refused(Reason.TOO_LARGE, f"{len(payload)} bytes")
    number = rpc.leading_number(payload)
    kind = REQUESTS.get(-1 if number is None else number)
    if kind is None:
        raise Refused(Reason.UNKNOWN_MESSAGE, f"message {number}, expected one of {sorted(REQUESTS)}")
    request: AnyRequest = rpc.decode_body(kind, payload)
    return request


def wanted(question: Question) -> Wanted:
    """What a question asks for, as its price is reckoned."""
    match question:
        case wire.Classify():
            return Wanted(question.count, 0, 0)
        case wire.Embed():
            return Wanted(len(question.texts), token_bound(question.texts), 0)
        case wire.Chat():
            texts = [turn.content for turn in question.turns]
            return Wanted(1, token_bound([*texts, ""]), question.picking.max_tokens)
        case wire.Complete():
            return Wanted(1, token_bound([question.prompt]), question.picking.max_tokens)


def offer_of(info: ModelInfo, price: Price) -> wire.ModelOffer:
    """A model and its price as they are told to others."""
    amounts = wire.amount_bytes(price.per_input), wire.amount_bytes(price.per_1000)
    return wire.ModelOffer(info.id, info.kind, wire.blob_of(info.blob), info.context, *amounts, _form(info))


def _form(info: ModelInfo) -> wire.Form | None:
    """What a classifier takes and gives, as its card says."""
    takes, gives = info.card.get("input"), info.card.get("output")
    if info.kind != "classifier" or not isinstance(takes, dict) or not isinstance(gives, dict):
        return None
    try:
        row = [takes.get("dtype"), takes.get("shape"), gives.get("meaning")]
        return msgspec.convert(row, wire.Form)
    except msgspec.ValidationError:
        return None


def info_of(offer: wire.ModelOffer) -> ModelInfo:
    """What is known here of a model that others offer."""
    blob, form = offer.blob.hex() if any(offer.blob) else "", offer.form
    card: dict[str, Any] = {}
    if form is not None:
        card = {"input": {"shape": list(form.shape), "dtype": form.dtype}, "output": {"meaning": form.meaning}}
    return ModelInfo(offer.id, offer.kind, blob, 0, "", card, offer.context)


# -- what is asked -----------------------------------------------------------------------------------------------------
def seed_of(question: Question) -> int:
    """The seed of a question to a language model, 0 for others."""
    return question.picking.seed if isinstance(question, wire.Chat | wire.Complete) else 0


def picking_of(sampling: Sampling, seed: int) -> wire.Picking:
    """How tokens are picked, as it travels; raises BadInput for what no server takes."""
    seed = (sampling.seed if sampling.seed is not None else seed) % (1 << 32)
    values = (float(sampling.temperature), float(sampling.top_p), seed, tuple(sampling.stop), sampling.top_logprobs)
    picking = wire.Picking(min(sampling.max_tokens, wire.MAX_TOKENS), *values)
    try:
        return msgspec.convert(msgspec.to_builtins(picking), wire.Picking)
    except msgspec.ValidationError as error:
        raise BadInput(f"Other nodes do not take these settings: {error}.") from None


def sampling_of(picking: wire.Picking, top: int) -> Sampling:
    """How tokens are picked, as the runtimes take it."""
    return Sampling(picking.max_tokens, picking.temperature, picking.top_p, picking.seed, picking.stop, top)


def turns_of(conversation: Any) -> tuple[wire.Turn, ...]:
    """A conversation as it travels; raises BadInput for other roles, or texts that are too long."""
    rows = [[one.role, one.content] for one in conversation]
    try:
        return msgspec.convert(rows, tuple[wire.Turn, ...])
    except msgspec.ValidationError as error:
        raise BadInput(f"Other nodes do not take this conversation: {error}.") from None


def start(answers: Answers, model: str, question: wire.Chat | wire.Complete, sampling: Sampling) -> Stream:
    """Let `answers` answer a question to a language model."""
    if isinstance(question, wire.Chat):
        return answers.chat(model, [Message(one.role, one.content) for one in question.turns], sampling)
    return answers.complete(model, question.prompt, sampling)


def inputs_of(question: wire.Classify, info: ModelInfo) -> NDArray[Any]:
    """A classifier's inputs [count, ...] as the model takes them; raises Refused(MALFORMED) for another length."""
    form = info.card.get("input", {})
    try:
        dtype, shape = np.dtype(str(form["dtype"])).newbyteorder("<"), tuple(int(size) for size in form["shape"])
    except (KeyError, TypeError, ValueError):
        raise Refused(Reason.NOT_FOUND, "the model does not say what its inputs are") from None
    expected = question.count * dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(question.inputs) != expected:
        raise Refused(Reason.MALFORMED, f"{len(question.inputs)} bytes of inputs, expected {expected}")
    return np.frombuffer(question.inputs, dtype).reshape(question.count, *shape)


# -- what is answered --------------------------------------------------------------------------------------------------
def encode_array(values: NDArray[Any]) -> bytes:
    """float32 [n, ...] as it travels: the shape of one row, and the numbers."""
    return rpc.encode_body(Scores(values.shape[1:], np.ascontiguousarray(values, "<f4").tobytes()))


def decode_array(result: bytes, count: int) -> Floats:
    """float32 [count, ...]; raises Refused(MALFORMED) unless it is so many finite numbers."""
    form = rpc.decode_body(Scores, result)
    size = int(np.prod(form.shape, dtype=object))
    if len(form.shape) > MAX_RANK or len(form.values) != 4 * size * count:
        raise Refused(Reason.MALFORMED, f"{len(form.values)} bytes of numbers for {count} inputs")
    values = np.frombuffer(form.values, "<f4").reshape(count, *form.shape)
    if not np.isfinite(values).all():
        raise Refused(Reason.MALFORMED, "the numbers are not finite")
    return values


def position_of(told: TokenLogprob) -> Position:
    """A token and its rivals as they travel."""
    return Position(_likely(told.taken), tuple(_likely(one) for one in told.top[: wire.MAX_TOP]))


def _likely(one: Candidate) -> Likely:
    return Likely(one.token, one.text[:256], max(-1e9, float(one.logprob)))


def piece_of(chunk: Chunk, top: int) -> Piece:
    """A chunk as the interface tells it, with at most `top` rivals of each token (none if they were not asked for)."""
    logprobs = tuple(
        TokenLogprob(Candidate(*_fields(one.taken)), tuple(Candidate(*_fields(rival)) for rival in one.top[:top]))
        for one in chunk.positions
    )
    return Piece(chunk.text, chunk.tokens, logprobs if top else None, chunk.finish)


def _fields(one: Likely) -> tuple[int, str, float]:
    return one.token, one.text, one.logprob


def check_answer(
    domain: Domain, payer: bytes, candidate: RoutedTo, question: Question, chunks: tuple[Chunk, ...], done: wire.Done
) -> int:
    """The price of an answer, in base units, if its statement is right; raises Refused(BAD_STATEMENT) otherwise.

    Right is: signed by the server, about this question and this very answer, by the model that was offered, with the
    tokens that are there, at the price that was agreed for them.
    """
    said, work = done.statement, wanted(question)
    expected = wire.Statement(
        server=candidate.server,
        payer=payer,
        nonce=question.order.nonce,
        request=wire.question_id(domain, candidate.server, payer, question),
        model=candidate.offer.blob,
        result=wire.result_id(chunks, done.result),
        seed=seed_of(question),
        prompt_tokens=min(said.prompt_tokens, work.question_tokens),
        tokens=min(sum(len(one.tokens) for one in chunks), work.new_tokens),
        price=b"",
    )
    price = candidate.price.of(work.inputs, expected.prompt_tokens + expected.tokens)
    expected = msgspec.structs.replace(expected, price=wire.amount_bytes(price), signature=said.signature)
    for name in expected.__struct_fields__:
        if getattr(said, name) != getattr(expected, name):
            raise Refused(Reason.BAD_STATEMENT, f"the field {name} of the server's statement is not what it should be")
    if not is_signed(domain, said):
        raise Refused(Reason.BAD_STATEMENT, "the server did not sign its statement")
    return price


def is_signed(domain: Domain, said: wire.Statement) -> bool:
    """Whether the server that a statement names signed it."""
    try:
        return recover(said.digest(domain), said.signature) == said.server
    except Refused:
        return False


def check_chunks(question: Question, before: int, chunks: tuple[Chunk, ...]) -> None:
    """What arrives while an answer is made: no more than was asked for, and real numbers; Refused(BAD_STATEMENT)."""
    if before + len(chunks) > wanted(question).new_tokens + 1:
        raise Refused(Reason.BAD_STATEMENT, f"{before + len(chunks)} parts of a text came, more than were asked for")
    told = (one for chunk in chunks for position in chunk.positions for one in (position.taken, *position.top))
    if not all(math.isfinite(one.logprob) for one in told):
        raise Refused(Reason.BAD_STATEMENT, "a log-probability is no number")


def signed(statement: wire.Statement, signature: bytes) -> wire.Statement:
    """The statement with its signature."""
    return msgspec.structs.replace(statement, signature=signature)
