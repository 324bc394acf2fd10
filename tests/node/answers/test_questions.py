"""Between the interface and the wire: what is taken, what an answer must show, what it may cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from atoll.errors import BadInput, Refused
from atoll.inference import messages as wire
from atoll.inference.answers import Message, ModelInfo, Sampling
from atoll.inference.messages import Chunk, Likely, Order, Position, Turn, amount_bytes
from atoll.inference.router import Candidate, Wanted
from atoll.inference.vouchers import Price
from atoll.node.answers import questions
from atoll.wire.hashing import Domain
from atoll.wire.identity import AccountKey
from atoll.wire.reasons import Reason
from atoll.wire.rpc import decode_body, encode_body

DOMAIN = Domain(77, b"\x21" * 20)
SERVER, OTHER = AccountKey(b"\x01" * 32), AccountKey(b"\x02" * 32)
PAYER = b"\x0c" * 20
ORDER = Order(b"\x07" * 16, "parrot", b"\xff")
QUESTION = wire.Complete(ORDER, wire.Picking(4, 0.5, 0.9, 17, (), 0), "hello")
OFFER = wire.ModelOffer("parrot", "language", b"\x05" * 32, 100, amount_bytes(2), amount_bytes(3_000))
CANDIDATE = Candidate(SERVER.address, OFFER, 0)
CHUNKS = (Chunk("a", (1,), ()), Chunk("b", (2,), (), "length"))


def done(key: AccountKey = SERVER, **changes: Any) -> wire.Done:
    plain = wire.Statement(
        server=SERVER.address,
        payer=PAYER,
        nonce=ORDER.nonce,
        request=wire.question_id(DOMAIN, SERVER.address, PAYER, QUESTION),
        model=OFFER.blob,
        result=wire.result_id(CHUNKS, b""),
        seed=17,
        prompt_tokens=5,
        tokens=2,
        price=amount_bytes(2 + 3 * 7),
    )
    changed = replace(plain, **changes)
    return wire.Done(b"", questions.signed(changed, key.sign_digest(changed.digest(DOMAIN))))


def checked(answer: wire.Done, chunks: tuple[Chunk, ...] = CHUNKS) -> int:
    return questions.check_answer(DOMAIN, PAYER, CANDIDATE, QUESTION, chunks, answer)


def test_a_right_statement_names_its_price() -> None:
    assert checked(done()) == 23


@pytest.mark.parametrize(
    "answer",
    [
        done(server=OTHER.address),
        done(payer=OTHER.address),
        done(nonce=b"\x08" * 16),
        done(request=bytes(32)),
        done(model=bytes(32)),
        done(result=bytes(32)),
        done(seed=18),
        done(prompt_tokens=5 + 64 + 1, price=amount_bytes(2 + 3 * 72)),
        done(tokens=3, price=amount_bytes(2 + 3 * 8)),
        done(price=amount_bytes(24)),
        done(price=b"\x00" + amount_bytes(23)),
        done(key=OTHER),
        wire.Done(b"", replace(done().statement, signature=b"")),
        wire.Done(b"more", done().statement),
    ],
)
def test_a_statement_that_is_wrong_anywhere_is_refused(answer: wire.Done) -> None:
    with pytest.raises(Refused) as caught:
        checked(answer)
    assert caught.value.reason == Reason.BAD_STATEMENT


def test_another_text_than_the_signed_one_is_refused() -> None:
    with pytest.raises(Refused):
        checked(done(), (Chunk("x", (1,), ()), CHUNKS[1]))


def test_the_voucher_is_no_part_of_a_question() -> None:
    paid = replace(QUESTION, order=replace(ORDER, voucher=wire.Voucher(b"\x01", b"v" * 65)))
    name = wire.question_id(DOMAIN, SERVER.address, PAYER, QUESTION)
    assert wire.question_id(DOMAIN, SERVER.address, PAYER, paid) == name
    for other in (replace(QUESTION, prompt="x"), replace(QUESTION, order=replace(ORDER, ceiling=b"\xfe"))):
        assert wire.question_id(DOMAIN, SERVER.address, PAYER, other) != name
    assert wire.question_id(Domain(78, DOMAIN.registry), SERVER.address, PAYER, QUESTION) != name


def test_what_is_reckoned_for_each_question() -> None:
    assert questions.wanted(QUESTION) == Wanted(1, 5 + 64, 4)
    assert questions.wanted(wire.Embed(ORDER, ("ab", "c"))) == Wanted(2, 2 + 64 + 1 + 64, 0)
    assert questions.wanted(wire.Classify(ORDER, 3, b"")) == Wanted(3, 0, 0)
    chat = wire.Chat(ORDER, QUESTION.picking, (Turn("user", "abc"),))
    assert questions.wanted(chat) == Wanted(1, 3 + 64 + 64, 4)


def test_parts_of_a_text_are_checked_as_they_come() -> None:
    odd = Position(Likely(1, "", 0.0), (Likely(2, "", math.nan),))
    questions.check_chunks(QUESTION, 3, CHUNKS)
    for before, chunks in ((4, CHUNKS), (0, (Chunk("", (1,), (odd,)),))):
        with pytest.raises(Refused) as caught:
            questions.check_chunks(QUESTION, before, chunks)
        assert caught.value.reason == Reason.BAD_STATEMENT


def test_numbers_travel_exactly_or_are_refused() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(questions.decode_array(questions.encode_array(values), 2), values)
    for data, count in (
        (questions.encode_array(values), 3),
        (questions.encode_array(values * np.float32("nan")), 2),
        (b"", 2),
        (b"\x92\x91\xff\xc4\x00", 2),
    ):
        with pytest.raises(Refused) as caught:
            questions.decode_array(data, count)
        assert caught.value.reason == Reason.MALFORMED


def test_inputs_are_read_in_the_models_own_type() -> None:
    info = ModelInfo("m", "classifier", "", 1, "", {"input": {"dtype": "uint8", "shape": [1, 2]}})
    found = questions.inputs_of(wire.Classify(ORDER, 2, b"\x01\x02\x03\x04"), info)
    assert found.tolist() == [[[1, 2]], [[3, 4]]] and found.dtype == np.uint8
    with pytest.raises(Refused):
        questions.inputs_of(wire.Classify(ORDER, 2, b"\x01\x02\x03"), info)
    with pytest.raises(Refused):
        questions.inputs_of(wire.Classify(ORDER, 1, b"\x01\x02"), ModelInfo("m", "classifier", "", 1, "", {}))


def test_settings_that_no_server_takes_are_the_askers_fault() -> None:
    assert questions.picking_of(Sampling(9_999, 0.5, 0.9, None, (), 3), 7) == wire.Picking(4096, 0.5, 0.9, 7, (), 3)
    assert questions.picking_of(Sampling(seed=-1), 7).seed == 2**32 - 1
    for wrong in (Sampling(temperature=3.0), Sampling(top_p=0.0), Sampling(max_tokens=0), Sampling(stop=("x",) * 5)):
        with pytest.raises(BadInput):
            questions.picking_of(wrong, 0)
    with pytest.raises(BadInput):
        questions.turns_of([Message("tool", "x")])


def test_every_request_is_found_by_its_number() -> None:
    assert sorted(questions.REQUESTS) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_the_retired_number_is_no_request() -> None:
    """Number 1 once asked without paying."""
    with pytest.raises(Refused) as caught:
        questions.decode_request(encode_body([1, bytes(32), 1, b"\x00"]))
    assert caught.value.reason == Reason.UNKNOWN_MESSAGE and 1 not in questions.REQUESTS


def test_numbers_on_the_wire() -> None:
    sent = questions.encode_array(np.array([[1, -2, 0.5]], np.float32))
    assert decode_body(wire.Scores, sent) == wire.Scores((3,), bytes.fromhex("0000803f" + "000000c0" + "0000003f"))
    turned = np.array([[1, 2], [3, 4]], np.float32).T  # not in C order in memory
    assert questions.decode_array(questions.encode_array(turned), 2).tolist() == [[1, 3], [2, 4]]
    plain = np.array([0.5, 2], np.float32)  # one number a sample
    assert questions.decode_array(questions.encode_array(plain), 2).tolist() == [0.5, 2]


@pytest.mark.parametrize(
    ("shape", "values", "count"),
    [
        ((3,), bytes(11), 1),
        ((3,), bytes(13), 1),
        ((3,), bytes(12), 2),
        ((3,), b"", 1),
        ((2, 3), bytes(12), 1),
        ((1,) * 9, bytes(4), 1),
        ((1 << 60,), bytes(12), 1),
        ((2,), bytes(4) + bytes.fromhex("0000c07f"), 1),
        ((2,), bytes(4) + bytes.fromhex("000080ff"), 1),
        ((2,), bytes(4) + bytes.fromhex("0100807f"), 1),
    ],
)
def test_numbers_that_are_too_few_or_none(shape: tuple[int, ...], values: bytes, count: int) -> None:
    with pytest.raises(Refused) as caught:
        questions.decode_array(encode_body(wire.Scores(shape, values)), count)
    assert caught.value.reason == Reason.MALFORMED


def test_an_offer_says_what_a_classifier_takes() -> None:
    card = {
        "input": {"shape": [1, 28, 28], "dtype": "uint8"},
        "output": {"shape": [10], "meaning": "probabilities"},
    }
    info = ModelInfo("ab" * 32, "classifier", "ab" * 32, 7, "", card)
    offer = decode_body(wire.ModelOffer, encode_body(questions.offer_of(info, Price(1, 2))))
    assert offer.form == wire.Form("uint8", (1, 28, 28), "probabilities")
    told = questions.info_of(offer)
    assert told.card == {"input": card["input"], "output": {"meaning": "probabilities"}} and told.blob == info.blob
    for changed in ({}, {"input": {"shape": [0], "dtype": "uint8"}, "output": card["output"]}, {"input": 3}):
        assert questions.offer_of(replace_info(info, changed), Price()).form is None
    assert questions.offer_of(ModelInfo("e", "embedding", "", 0, "", card), Price()).form is None


def replace_info(info: ModelInfo, card: Any) -> ModelInfo:
    return ModelInfo(info.id, info.kind, info.blob, info.bytes, info.licence, card)
