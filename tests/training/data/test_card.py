"""Data cards: what they say, and cards of strangers that are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from atoll.errors import BadInput, Refused
from atoll.training.data.add import READERS
from atoll.training.data.card import About, Card, Column, Group, Groups, Schema, Source, X, Y, make_source
from atoll.training.data.samples import DataSet, Form
from atoll.wire.reasons import Reason
from tests.training.data.sets import small


def table() -> Source:
    """Three rows of two columns, two groups."""
    train = DataSet(np.array([[1, 0], [2, 1], [3, 0]], np.float32), np.array([0, 1, 0]))
    held_out = DataSet(np.array([[4, 1]], np.float32), np.array([1]))
    columns = (Column(name="age"), Column(name="colour", categories=("blue", "red")))
    groups = {"by": "who", "groups": ["a", "a", "b"], "group_count": 3}
    return make_source("t", train, held_out, About("CC0-1.0", "made é", columns, 0, ("no", "yes"), **groups))  # type: ignore[arg-type]


def test_what_a_card_says() -> None:
    source = table()
    card = source.card
    assert (card.count, card.held_out_count, source.partition) == (3, 1, "ordered")
    assert card.groups == Groups(by="who", count=3, train=(Group(name="a", count=2), Group(name="b", count=1)))
    assert card.form == Form("float32", (2,))
    assert (card.schema.y.classes, card.schema.y.names) == (2, ("no", "yes"))
    assert card.root == "0x" + source.train.root.hex()
    assert card.held_out_root == "0x" + source.held_out.root.hex()


def test_bytes_are_canonical_json() -> None:
    data = table().card_bytes
    plain = json.loads(data)
    assert data == json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert plain["origin"] == "made é"
    assert Card.from_bytes(data) == table().card


def test_what_is_not_said_is_not_known() -> None:
    card = make_source("pictures", small(), small(3)).card
    assert (card.licence, card.origin, card.partition, card.groups) == ("not stated", "not stated", "shuffled", None)
    assert card.schema.y.classes == max(small().classes, small(3).classes)
    values = make_source("v", *[DataSet(small().x, np.zeros(5, np.float32))] * 2).card
    assert (values.schema.y.dtype, values.schema.y.classes) == ("float32", 0)


def test_too_many_groups_are_counted_but_not_named() -> None:
    data = DataSet(np.zeros((10_001, 1), np.uint8), np.zeros(10_001, np.int64))
    names = [str(i) for i in range(10_001)]
    card = make_source("many", data, small_like(data), About(by="who", groups=names, group_count=10_001)).card
    assert card.groups == Groups(by="who", count=10_001)


def small_like(data: DataSet) -> DataSet:
    return data.take([0])


@pytest.mark.parametrize(
    ("name", "held_out", "about", "why"),
    [
        ("Big", small(), About(), "name must be 1-64"),
        ("a/b", small(), About(), "name must be 1-64"),
        ("a", DataSet(small().x[:, :2], small().y), About(), "expected samples of one kind"),
        ("a", DataSet(small().x[:0], small().y[:0]), About(), "held-out samples, expected at least 1"),
        ("a", small(), About(licence=""), "licence and origin must have 1 to 2000"),
        ("a", small(), About(licence="x" * 2_001), "licence and origin must have 1 to 2000"),
        ("a", small(), About(columns=(Column(name="one"),)), "1 columns for x of shape"),
        ("a", small(), About(names=(*map(str, range(11)), "1")), "a name is given twice"),
    ],
)
def test_cards_that_cannot_be_written(name: str, held_out: DataSet, about: About, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        make_source(name, small(), held_out, about)


def _set(*path: Any) -> Callable[[Any], None]:
    *way, key, value = path

    def change(plain: Any) -> None:
        for step in way:
            plain = plain[step]
        plain[key] = value

    return change


CHANGES = {
    "another version": _set("version", 2),
    "an unknown field": _set("extra", 1),
    "no name": _set("name", ""),
    "a name with a path": _set("name", "../../etc"),
    "no sample": _set("count", 0),
    "samples below zero": _set("count", -3),
    "too many samples": _set("held_out_count", 1 << 40),
    "counts as text": _set("count", "3"),
    "a root that is none": _set("root", "0x12"),
    "an unknown type": _set("schema", "x", "dtype", "object"),
    "labels of bytes": _set("schema", "y", "dtype", "uint8"),
    "a negative shape": _set("schema", "x", "shape", [-2]),
    "a shape that overflows": _set("schema", "x", "shape", [1 << 20, 1 << 20]),
    "many dimensions": _set("schema", "x", "shape", [1] * 9),
    "columns that are not there": _set("schema", "x", "shape", [3]),
    "a column twice": _set("schema", "x", "columns", 1, "name", "age"),
    "a column without a name": _set("schema", "x", "columns", 0, "name", ""),
    "a long name": _set("schema", "x", "columns", 0, "name", "x" * 129),
    "a category twice": _set("schema", "x", "columns", 1, "categories", ["red", "red"]),
    "many categories": _set("schema", "x", "columns", 1, "categories", [str(i) for i in range(10_001)]),
    "more names than classes": _set("schema", "y", "classes", 1),
    "classes of quantities": _set("schema", "y", "dtype", "float32"),
    "groups of other sizes": _set("groups", "train", 0, "count", 7),
    "an empty group": _set("groups", "train", 0, "count", 0),
    "fewer groups than named": _set("groups", "count", 1),
    "a group twice": _set("groups", "train", 1, "name", "a"),
    "groups without an order": _set("partition", "shuffled"),
    "an order without groups": _set("groups", None),
    "an unknown partition": _set("partition", "sorted"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_strangers_card_outside_its_limits(change: Callable[[Any], None]) -> None:
    plain = json.loads(table().card_bytes)
    change(plain)
    with pytest.raises(Refused) as refusal:
        Card.from_bytes(msgspec.json.encode(plain, order="sorted"))
    assert refusal.value.reason == Reason.MALFORMED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 30 + b"1" + b"}" * 30,
        table().card_bytes + b" ",
        table().card_bytes.replace(b'"count":3', b'"count": 3'),
        table().card_bytes.replace(b'"count":3', b'"count":3,"count":3'),
        table().card_bytes.replace("é".encode(), b"\\u00e9"),
        b'{"name":"' + b"x" * (1 << 20) + b'"}',
    ],
)
def test_bytes_that_are_no_card(data: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        Card.from_bytes(data)
    assert refusal.value.reason == Reason.MALFORMED


def test_the_guide_names_every_field_and_every_format() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")
    for kind in (Card, Schema, X, Y, Groups):
        for name in kind.__struct_fields__:
            assert f"`{name}`" in text, name
    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == list(READERS)
