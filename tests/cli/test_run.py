"""`atoll run`: models by name, file and id, verified and run on this device."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from blake3 import blake3
from PIL import Image

from atoll.graph.archive import unpack_model
from tests.inference.local.files import catalogue_file, model_bytes

Atoll = Callable[..., Any]


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def written(tmp_path: Path, name: str) -> Path:
    path = tmp_path / f"{name}.model"
    path.write_bytes(model_bytes(name))
    return path


def direct(name: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    model = unpack_model(model_bytes(name))
    session = onnxruntime.InferenceSession(model.predict, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["scores"], {"x": x[None], **model.tensors})[0])[0]


def test_a_picture_gets_its_class(atoll: Atoll, tmp_path: Path, digit: Path) -> None:
    path = written(tmp_path, "cnn")
    ran = atoll("run", path, digit, "--json")
    assert ran.code == 0, ran.err
    pixels = np.asarray(Image.open(digit))
    expected = direct("cnn", pixels[None])
    found = json.loads(ran.out)
    assert found["class"] == int(expected.argmax()) and found["answered_by"] == "this device"
    assert found["top"][0]["score"] == pytest.approx(float(expected.max()), abs=1e-4)
    person = atoll("run", path, digit)
    assert f"{found['class']}, says this device" in person.out and "%" in person.out
    inverted = json.loads(atoll("run", path, digit, "--json", "--invert").out)
    assert inverted["class"] == int(direct("cnn", 255 - pixels[None]).argmax())


def test_numbers_are_an_input_too(atoll: Atoll, tmp_path: Path) -> None:
    path = written(tmp_path, "table")
    shape = unpack_model(path.read_bytes()).manifest.input.shape
    x = np.linspace(-1, 1, int(np.prod(shape))).astype(np.float32)
    ran = atoll("run", path, "--json", "--", ",".join(map(str, x)))
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["class"] == int(direct("table", x.reshape(shape)).argmax())
    for wrong, told in (("1,2", "2 numbers"), ("nan," * x.size, "numbers"), ("no.png", "neither a file nor numbers")):
        ran = atoll("run", path, wrong)
        assert ran.code == 2 and told in ran.err
    assert "Give one input" in atoll("run", path).err


def test_a_model_of_the_network_comes_through_the_node_and_is_kept(
    atoll: Atoll, serve: Atoll, tmp_path: Path, digit: Path
) -> None:
    data, home = model_bytes("mlp"), tmp_path / "home"
    blob = blake3(data).hexdigest()

    def get(params: dict[str, Any]) -> dict[str, int]:
        Path(params["out"]).write_bytes(data)
        return {"bytes": len(data)}

    missing = atoll("run", blob, digit, "--home", home)
    assert missing.code == 12 and "no node runs" in missing.err and "atoll node" in missing.err
    node = serve(home, {"get": get})
    ran = atoll("run", "0x" + blob, digit, "--home", home, "--json")
    assert ran.code == 0, ran.err
    assert [method for method, _ in node.asked] == ["get"] and node.asked[0][1]["blob"] == blob
    again = atoll("run", blob, digit, "--home", home, "--json")
    assert again.out == ran.out and len(node.asked) == 1
    wrong = atoll("run", "cd" * 32, digit, "--home", home)
    assert wrong.code == 21 and "WRONG_HASH" in wrong.err
    assert [path.name for path in (home / "models").iterdir()] == [f"{blob}.model"]


def test_what_is_no_model(atoll: Atoll, tmp_path: Path) -> None:
    ran = atoll("run", "smolm2-135m", "hi")
    assert ran.code == 14 and "did you mean smollm2-135m?" in ran.err
    (tmp_path / "noise").write_bytes(b"noise" * 100)
    assert atoll("run", tmp_path / "noise", "x").code == 21


def test_a_gguf_file_needs_its_hash(atoll: Atoll, tmp_path: Path) -> None:
    data = b"GGUF" + bytes(64)
    (tmp_path / "some.gguf").write_bytes(data)
    ran = atoll("run", tmp_path / "some.gguf", "hi")
    assert ran.code == 2 and f"--hash {blake3(data).hexdigest()}" in ran.err
    ran = atoll("run", tmp_path / "some.gguf", "hi", "--hash", "ab" * 32)
    assert ran.code == 21 and "WRONG_HASH" in ran.err


def test_texts_are_compared(atoll: Atoll) -> None:
    catalogue_file("minilm-l6")
    ran = atoll("run", "minilm-l6", "A cat sleeps.", "A kitten naps.", "Taxes rose.", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    vectors = np.array(found["embeddings"])
    np.testing.assert_allclose(vectors @ vectors.T, found["similarity"], atol=1e-5)
    assert found["similarity"][0][1] > found["similarity"][0][2]
    person = atoll("run", "minilm-l6", "A cat sleeps.", "A kitten naps.")
    assert "2  A kitten naps." in person.out and "1.00" in person.out
    assert "384 numbers" in atoll("run", "minilm-l6", "one").out


def test_a_prompt_is_answered(atoll: Atoll) -> None:
    catalogue_file("smollm2-135m")
    question = ("What", "is the capital of France?")
    told = atoll("run", "smollm2-135m", *question, "--temperature", "0", "--max-tokens", "20", "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert "Paris" in found["text"] and found["finish"] == "stop" and 0 < found["completion_tokens"] < 20
    person = atoll("run", "smollm2-135m", *question, "--temperature", "0", "--max-tokens", "20")
    assert person.out == found["text"] + "\n" and "on this device" in person.err
    other = atoll("run", "smollm2-135m", *question, "--max-tokens", "2", "--system", "Be rude.", "--json")
    assert json.loads(other.out)["prompt_tokens"] != found["prompt_tokens"]
    long = atoll("run", "smollm2-135m", "word " * 6_000)
    assert long.code == 2 and "at most 4096" in long.err


def test_a_prompt_through_a_pipe(tmp_path: Path) -> None:
    catalogue_file("smollm2-135m")
    command = (sys.executable, "-m", "atoll", "run", "smollm2-135m", "--temperature", "0", "--max-tokens", "20")
    ran = subprocess.run(command, input=b"What is the capital of France?", capture_output=True, check=True, timeout=120)
    assert b"Paris" in ran.stdout and b"\x1b" not in ran.stdout
    empty = subprocess.run(command, input=b" \n", capture_output=True, check=False, timeout=120)
    assert empty.returncode == 2 and b"Give a prompt" in empty.stderr


def test_a_conversation_at_a_terminal() -> None:
    catalogue_file("smollm2-135m")
    ours, theirs = pty.openpty()
    command = (sys.executable, "-m", "atoll", "run", "smollm2-135m", "--temperature", "0", "--max-tokens", "20")
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    heard = b""

    def until(end: bytes) -> None:
        nonlocal heard
        heard = b""
        while end not in heard:
            heard += os.read(ours, 1024)

    try:
        until(b"> ")
        os.write(ours, b"What is the capital of France?\n")
        until(b"Paris")
        until(b"> ")
        os.write(ours, b"/new\n")
        until(b"> ")
        os.write(ours, b"\x04")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
