"""Weights that come back into the model: all of them, or nothing and a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="jobs are written in PyTorch")
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

import atoll  # noqa: E402
from atoll.errors import BadInput  # noqa: E402


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def trained() -> dict[str, torch.Tensor]:
    """As `atoll train` writes them: names that begin with a digit get a prefix, counters are left out."""
    torch.manual_seed(1)
    values = {name: torch.randn(value.shape) for name, value in model().state_dict().items() if value.dim()}
    return {f"layer.{name}": value for name, value in values.items()}


def test_all_weights_and_statistics_find_their_places(tmp_path: Path) -> None:
    values, target = trained(), model()
    save_file(values, tmp_path / "model.safetensors")
    atoll.load_weights(target, tmp_path)  # the folder
    found = target.state_dict()
    assert len(values) == 8  # two layers of weight and bias, a norm of weight, bias, mean and variance
    assert all(torch.equal(found[name.removeprefix("layer.")], value) for name, value in values.items())
    atoll.load_weights(model(), tmp_path / "model.safetensors")  # the file


def test_another_model_is_refused_and_nothing_changed(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    target = model()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    full = trained()
    lacking = {name: value for name, value in full.items() if name != "layer.2.bias"}
    wrong = {**full, "layer.2.bias": torch.zeros(3)}
    for values, told in ((lacking, "layer.2.bias"), ({**full, "extra": torch.zeros(1)}, "extra"), (wrong, r"\[3\]")):
        save_file(values, file)
        with pytest.raises(BadInput, match=told):
            atoll.load_weights(target, file)
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(BadInput, match="cannot be read"):
            atoll.load_weights(target, path)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
