"""The front door: what `import atoll` offers, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import atoll

NAMES = [
    "SGD",
    "Adam",
    "AdamW",
    "Job",
    "__version__",
    "accuracy",
    "contrastive",
    "cosine",
    "cross_entropy",
    "freeze",
    "job",
    "linear",
    "load_weights",
    "low_rank",
    "mean_absolute_error",
    "metric",
    "step_decay",
    "top5",
]


def run(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return result.stdout + result.stderr


def test_the_names_are_these() -> None:
    assert sorted(atoll.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(atoll))


def test_every_name_leads_somewhere() -> None:
    pytest.importorskip("torch", reason="the front door needs the extra `torch`")
    for name in NAMES:
        assert getattr(atoll, name) is getattr(atoll, name)


def test_another_name_is_an_attribute_error() -> None:
    assert not hasattr(atoll, "jobs")


def test_importing_atoll_loads_nothing_heavy() -> None:
    assert run("import atoll, sys; print({'torch', 'onnx', 'numpy'} & set(sys.modules))").strip() == "set()"


def test_without_torch_it_says_how_to_install_it() -> None:
    block = "import sys; sys.modules['torch'] = None\n"
    said = run(block + "import atoll\ntry:\n    atoll.job\nexcept atoll.errors.UserError as error:\n    print(error)")
    assert said.strip() == "atoll.job needs PyTorch, which is not installed: pip install 'atoll[torch]'"
