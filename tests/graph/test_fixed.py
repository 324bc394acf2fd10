"""Fixed-point bytes of models and states, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from atoll.errors import Refused
from atoll.graph import fixed
from atoll.graph.spec import Tensor
from atoll.wire.reasons import Reason

from .test_manifest import example

TENSORS = (Tensor(name="a", shape=(2, 2), role="parameter", bits=2), Tensor(name="b", shape=(), role="parameter"))
VALUES = {
    "a": np.array([[0.125, 0.375], [-0.625, 3.0]], np.float32),  # in quarters: 0.5, 1.5, -2.5, 12
    "b": np.array(-1.0, np.float32),
}


def test_values_are_rounded_half_to_even_on_their_grid() -> None:
    data = fixed.encode_vector(TENSORS, VALUES)
    assert data == np.array([0, 2, -2, 12, -(2**24)], "<i4").tobytes()
    back = fixed.decode_vector(TENSORS, data)
    assert back["a"].tolist() == [[0.0, 0.5], [-0.5, 3.0]]
    assert back["b"].shape == () and back["b"] == -1.0
    assert all(value.dtype == np.float32 for value in back.values())


def test_values_beyond_int32_saturate() -> None:
    data = fixed.encode_vector(TENSORS[1:], {"b": np.array(1e9, np.float32)})
    assert data == (2**31 - 1).to_bytes(4, "little")


def test_encoding_a_decoded_model_changes_nothing() -> None:
    fixed_values = np.random.default_rng(1).integers(-(2**24), 2**24, 601, dtype=np.int64).astype("<i4")
    manifest = example()
    data = fixed_values.tobytes()
    assert fixed.encode_model(manifest, fixed.decode_model(manifest, data)) == data


def test_a_state_is_the_model_and_the_reset_tensors() -> None:
    manifest = example()
    model = np.arange(601, dtype="<i4").tobytes()
    first = fixed.first_state(manifest, model)
    assert first == model + bytes(2400)
    values = fixed.decode_state(manifest, first)
    values["momentum.w"] = np.full((3, 200), 0.1, np.float32)
    state = fixed.encode_state(manifest, values)
    assert state == model + np.full(600, 0.1, "<f4").tobytes()
    assert np.array_equal(fixed.decode_state(manifest, state)["momentum.w"], values["momentum.w"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_are_refused(value: float) -> None:
    manifest = example()
    values = fixed.decode_state(manifest, bytes(manifest.state_bytes))
    for name in ("w", "momentum.w"):
        broken = {**values, name: np.full((3, 200), value, np.float32)}
        with pytest.raises(Refused) as caught:
            fixed.encode_state(manifest, broken)
        assert caught.value.reason == Reason.DIVERGED


def test_wrong_lengths_are_refused() -> None:
    manifest = example()
    for call in (fixed.decode_model, fixed.decode_state, fixed.first_state):
        with pytest.raises(Refused) as caught:
            call(manifest, bytes(7))
        assert caught.value.reason == Reason.MALFORMED
