"""Whether data and job suit one another, and what the message tells to change."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from atoll.errors import BadInput
from atoll.graph.spec import Input, JobSpec, Output, Target
from atoll.graph.zoo import load_zoo
from atoll.training.data import bundled_source, make_source
from atoll.training.data.card import Source
from atoll.training.data.fit import fit
from atoll.training.data.samples import DataSet

SPEC = msgspec.structs.replace(load_zoo("mlp").spec, batch=4)


def spec(x: Input, y: Target | None = None, output: Output | None = None) -> JobSpec:
    return msgspec.structs.replace(SPEC, input=x, target=y or Target(), output=output or Output(shape=(3,)))


def data(x: np.ndarray, y: np.ndarray) -> Source:
    return make_source("mine", DataSet(x, y), DataSet(x[:1], y[:1]))


PIXELS = np.zeros((5, 2, 6), np.uint8)
TEXT = np.zeros((5, 8), np.int64)
LABELS = np.array([0, 1, 2, 0, 1])
IMAGE, TOKENS = Input(shape=(1, 3, 4), dtype="uint8"), Input(shape=(8,), dtype="int64")
SEQUENCE = Target(shape=(8,))


def test_the_bundled_jobs_fit_the_bundled_data() -> None:
    for name in ("softmax", "mlp", "cnn"):
        fit(load_zoo(name).spec, bundled_source())


def test_samples_of_equal_size_are_reshaped() -> None:
    fit(spec(IMAGE), data(PIXELS, LABELS))
    fit(spec(Input(shape=(12,), dtype="uint8")), data(PIXELS, LABELS))
    fit(spec(IMAGE, Target(shape=(1,))), data(PIXELS, LABELS))
    fit(
        spec(IMAGE, Target(shape=(1,), dtype="float32"), Output(shape=(1,), meaning="values")),
        data(PIXELS, np.zeros(5, np.float32)),
    )
    fit(spec(TOKENS, SEQUENCE, Output(shape=(8, 3))), data(TEXT, TEXT))


def test_fewer_classes_than_outputs_are_fine() -> None:
    fit(spec(IMAGE), data(PIXELS, np.zeros(5, np.int64)))
    fit(spec(IMAGE), data(PIXELS, np.array([0, 1, -100, 0, 1])))
    fit(spec(IMAGE, output=Output(shape=(1,), meaning="values")), data(PIXELS, LABELS))


@pytest.mark.parametrize(
    ("job", "mine", "why"),
    [
        (
            spec(IMAGE),
            data(PIXELS.astype(np.float32), LABELS),
            "are float32; the job 'mlp' takes uint8. Build the job with float32",
        ),
        (
            spec(Input(shape=(12,), dtype="float32")),
            data(PIXELS, LABELS),
            r"are uint8; the job 'mlp' takes float32. Build the job with uint8 examples and convert in the model",
        ),
        (spec(TOKENS), data(PIXELS[:, :, :4], LABELS), "takes int64. Build the job with uint8"),
        (
            spec(IMAGE),
            data(PIXELS[:, :, :5], LABELS),
            r"shape \[2, 5\] \(10 values\); the job 'mlp' takes \[1, 3, 4\] \(12 values\)",
        ),
        (
            spec(TOKENS, SEQUENCE),
            data(TEXT[:, :6], TEXT[:, :6]),
            "sequences of 6; the job 'mlp' takes sequences of 8.*--window 8",
        ),
        (
            spec(IMAGE),
            data(PIXELS, LABELS + 1),
            "has 4 classes; the job 'mlp' tells 3 apart. Give its last layer 4 outputs",
        ),
        (
            spec(IMAGE),
            data(PIXELS, LABELS.astype(np.float32)),
            "are numbers .float32.; the job 'mlp' takes int64. Either",
        ),
        (
            spec(IMAGE, Target(dtype="float32")),
            data(PIXELS, LABELS),
            "are labels .int64.;.*takes float32. Either add the data with --values",
        ),
        (spec(TOKENS, SEQUENCE), data(TEXT, LABELS), r"A target of the data set 'mine' has shape \[\] \(1 values\)"),
        (spec(IMAGE), data(PIXELS[:3], LABELS[:3]), "has 3 train samples, fewer than one batch of the job 'mlp' .4."),
    ],
)
def test_what_does_not_fit_says_what_to_change(job: JobSpec, mine: Source, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        fit(job, mine)


def test_every_pair_of_types_has_its_own_advice() -> None:
    arrays = {"uint8": PIXELS, "float32": PIXELS.astype(np.float32), "int64": PIXELS.astype(np.int64)}
    told = set()
    for found, x in arrays.items():
        for wanted in arrays:
            if found != wanted:
                with pytest.raises(BadInput, match=f"are {found}; the job 'mlp' takes {wanted}. Build") as refusal:
                    fit(spec(Input(shape=(12,), dtype=wanted)), data(x, LABELS))  # type: ignore[arg-type]
                told.add(str(refusal.value))
    assert len(told) == 6
