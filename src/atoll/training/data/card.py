"""Data cards: what a data set publishes about itself, in one canonical JSON document that a manifest names by its hash.

Cards come from strangers: whatever is read goes through `Card.from_bytes`, which refuses anything that is not exactly
the canonical encoding of a card within the limits below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from atoll.errors import BadInput, Refused
from atoll.graph.manifest import Partition
from atoll.graph.spec import MAX_ELEMENTS, MAX_RANK, DType
from atoll.training.data.samples import DataSet, Form
from atoll.wire.canonical import read_canonical
from atoll.wire.reasons import Reason

SCHEMA = 1
MAX_CARD_BYTES = 1 << 20
MAX_COLUMNS = 4_096
MAX_NAMED = 10_000  # classes, groups, or categories of a column that a card names; above, it only counts them
MAX_SAMPLES = 1 << 31
MAX_NAME = 128  # characters of the name of a column, class, category or group
MAX_TEXT = 2_000  # characters of licence and origin

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ROOT = re.compile(r"0x[0-9a-f]{64}")


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A column of a table: numbers, or categories that stand in the samples as their place in `categories`."""

    name: str
    categories: tuple[str, ...] = ()


class X(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a sample's x is: element type, shape, and for tables the columns in order."""

    dtype: DType
    shape: tuple[int, ...]
    columns: tuple[Column, ...] = ()


class Y(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a sample's y is: element type and shape; for labels how many classes there are, and their names if any."""

    dtype: Literal["int64", "float32"]
    shape: tuple[int, ...] = ()
    classes: int = 0
    names: tuple[str, ...] = ()


class Schema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one sample is."""

    x: X
    y: Y


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Neighbouring samples that belong together, such as those of one speaker: name and number of samples."""

    name: str
    count: int


class Groups(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """By what the samples are sorted, how many groups there are in both parts, and the train part's groups in order.

    `train` is empty where there are too many groups to name.
    """

    by: str
    count: int
    train: tuple[Group, ...] = ()


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a data set says about itself: name, schema, counts, licence, origin, Merkle roots (0x hex), partition."""

    version: int = SCHEMA
    name: str
    schema: Schema
    count: int
    held_out_count: int
    root: str
    held_out_root: str
    partition: Partition = "shuffled"
    groups: Groups | None = None
    licence: str
    origin: str

    @property
    def form(self) -> Form:
        """What one sample looks like."""
        return Form(self.schema.x.dtype, self.schema.x.shape, self.schema.y.dtype, self.schema.y.shape)

    def to_bytes(self) -> bytes:
        """Canonical bytes: JSON, UTF-8, keys sorted, no spaces. Raises Refused(MALFORMED) outside the limits."""
        _check(self)
        data = msgspec.json.encode(self, order="sorted")
        _need(len(data) <= MAX_CARD_BYTES, f"{len(data)} bytes, at most {MAX_CARD_BYTES}")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Card:
        """Read a card; raises Refused(MALFORMED) unless `data` is the canonical encoding of a valid one."""
        return read_canonical(data, MAX_CARD_BYTES, msgspec.json.Decoder(cls).decode, Reason.MALFORMED)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set to train on: its samples, those that are held out to grade models, and its card.

    `where` is what any node of this device finds it by: "mnist", or the absolute path of a folder.
    """

    train: DataSet
    held_out: DataSet
    card: Card
    where: str = ""

    @property
    def card_bytes(self) -> bytes:
        """The card's canonical bytes; their blob id names it in a manifest."""
        return self.card.to_bytes()

    @property
    def partition(self) -> Partition:
        """Whether shards are alike (`shuffled`) or natural parts of the data (`ordered`)."""
        return self.card.partition


@dataclass(frozen=True)
class About:
    """What is known of a data set besides its samples.

    `columns`, `classes` and `names` as in `X` and `Y` (the samples may show more classes); `by` is what the samples are
    sorted by (empty: nothing), `groups` the group of each train sample in order, `group_count` the number of groups in
    both parts.
    """

    licence: str = "not stated"
    origin: str = "not stated"
    columns: tuple[Column, ...] = ()
    classes: int = 0
    names: tuple[str, ...] = ()
    by: str = ""
    groups: Sequence[str] = ()
    group_count: int = 0


def make_source(name: str, train: DataSet, held_out: DataSet, about: About | None = None) -> Source:
    """A data set with its card. Raises BadInput when its card would lie outside the limits."""
    about = about or About()
    form = train.form
    if held_out.form != form:
        raise BadInput(f"The train samples are {form}, the held-out ones {held_out.form}: expected samples of one kind")
    classes = max(about.classes, len(about.names), train.classes, held_out.classes)
    names = about.names if classes == len(about.names) <= MAX_NAMED else ()
    card = Card(
        name=name,
        schema=Schema(
            x=X(dtype=form.x_dtype, shape=form.x_shape, columns=about.columns),  # type: ignore[arg-type]
            y=Y(dtype=form.y_dtype, shape=form.y_shape, classes=classes, names=names),  # type: ignore[arg-type]
        ),
        count=len(train),
        held_out_count=len(held_out),
        root="0x" + train.root.hex(),
        held_out_root="0x" + held_out.root.hex(),
        partition="ordered" if about.by else "shuffled",
        groups=_groups(about) if about.by else None,
        licence=about.licence,
        origin=about.origin,
    )
    try:
        card.to_bytes()
    except Refused as error:
        raise BadInput(f"The card of the data set {name!r} cannot be written: {error.detail}") from error
    return Source(train, held_out, card)


def _groups(about: About) -> Groups:
    counts: dict[str, int] = {}
    for name in about.groups:
        counts[name] = counts.get(name, 0) + 1
    named = tuple(Group(name=name, count=count) for name, count in counts.items())
    return Groups(by=about.by, count=about.group_count, train=named if about.group_count <= MAX_NAMED else ())


def _need(condition: bool, detail: str) -> None:
    if not condition:
        raise Refused(Reason.MALFORMED, f"data card: {detail}")


def _check(card: Card) -> None:
    _need(card.version == SCHEMA, f"version {card.version}, this version reads {SCHEMA}")
    _need(bool(NAME.fullmatch(card.name)), "name must be 1-64 of a-z 0-9 . _ -")
    _need(1 <= card.count <= MAX_SAMPLES, f"{card.count} samples, expected 1 to {MAX_SAMPLES}")
    _need(1 <= card.held_out_count <= MAX_SAMPLES, f"{card.held_out_count} held-out samples, expected at least 1")
    for root in (card.root, card.held_out_root):
        _need(bool(_ROOT.fullmatch(root)), "roots must be 0x and 64 lowercase hex digits")
    for text in (card.licence, card.origin):
        _need(1 <= len(text) <= MAX_TEXT, f"licence and origin must have 1 to {MAX_TEXT} characters")
    _check_x(card.schema.x)
    _check_y(card.schema.y)
    if card.groups is None:
        _need(card.partition == "shuffled", "an ordered data set says what it is ordered by")
    else:
        _need(card.partition == "ordered", "a data set with groups is ordered by them")
        _check_groups(card.groups, card.count)


def _check_x(x: X) -> None:
    _check_shape(x.shape)
    _need(len(x.columns) in (0, math.prod(x.shape)), f"{len(x.columns)} columns for x of shape {list(x.shape)}")
    _need(len(x.columns) <= MAX_COLUMNS, f"{len(x.columns)} columns, at most {MAX_COLUMNS}")
    _check_names([column.name for column in x.columns])
    for column in x.columns:
        _need(len(column.categories) <= MAX_NAMED, f"more than {MAX_NAMED} categories of column {column.name}")
        _check_names(column.categories)


def _check_y(y: Y) -> None:
    _check_shape(y.shape)
    _need(0 <= y.classes <= 1 << 31, f"{y.classes} classes")
    _need(y.dtype == "int64" or not y.classes, "only int64 labels have classes")
    _need(len(y.names) <= MAX_NAMED, f"{len(y.names)} names of classes, at most {MAX_NAMED}")
    _need(len(y.names) in (0, y.classes), f"{len(y.names)} names for {y.classes} classes")
    _check_names(y.names)


def _check_groups(groups: Groups, count: int) -> None:
    _check_names([groups.by])
    named = [group.name for group in groups.train]
    _need(max(1, len(named)) <= groups.count <= 2 * MAX_SAMPLES, f"{groups.count} groups")
    _need(len(named) <= MAX_NAMED, f"{len(named)} groups, at most {MAX_NAMED} are named")
    _check_names(named)
    _need(all(group.count > 0 for group in groups.train), "a group without samples")
    _need(not named or sum(group.count for group in groups.train) == count, "groups of other sizes than the data set")


def _check_shape(shape: tuple[int, ...]) -> None:
    _need(len(shape) <= MAX_RANK and all(1 <= length <= MAX_ELEMENTS for length in shape), f"shape {list(shape)[:9]}")
    _need(math.prod(shape) <= MAX_ELEMENTS, f"samples of more than {MAX_ELEMENTS} values")


def _check_names(names: Sequence[str]) -> None:
    _need(all(1 <= len(name) <= MAX_NAME for name in names), f"names must have 1 to {MAX_NAME} characters")
    _need(len(set(names)) == len(names), "a name is given twice")
