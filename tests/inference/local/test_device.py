"""Classifiers and embeddings on this device: the same numbers as ONNX Runtime called directly, and clean refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from blake3 import blake3

from atoll.errors import BadInput, EngineFailed, MissingExtra, Refused, UnknownModel
from atoll.graph.archive import unpack_model
from atoll.inference.answers import LOCAL, ModelInfo, Sampling
from atoll.inference.local.child import ChildLimits
from atoll.inference.local.device import DeviceLimits, LocalAnswers
from atoll.inference.local.shelf import Shelf
from atoll.wire.reasons import Reason

from .files import catalogue_file, entry, model_bytes

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "wordpiece.json").read_text("utf-8"))
Fetch = Callable[[bytes], Awaitable[bytes]]


def on_device(
    work: Callable[[LocalAnswers], Awaitable[None]], folder: Path, fetch: Fetch | None = None, **limits: Any
) -> None:
    async def main() -> None:
        device = LocalAnswers(Shelf(folder), fetch, limits=DeviceLimits(**limits))
        try:
            await work(device)
        finally:
            await device.close()
            assert device.pids == []

    asyncio.run(main())


def direct(data: bytes, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scores by ONNX Runtime with its usual settings, in this process."""
    model = unpack_model(data)
    session = onnxruntime.InferenceSession(model.predict, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["scores"], {"x": x, **model.tensors})[0])


def test_classifiers_give_the_scores_of_onnx_runtime(tmp_path: Path) -> None:
    data = {name: model_bytes(name) for name in ("mlp", "cnn")}
    x = np.random.default_rng(1).integers(0, 256, (5, 1, 28, 28), np.uint8)

    async def work(device: LocalAnswers) -> None:
        infos = {name: await device.add(data[name]) for name in data}
        for name in ("mlp", "cnn", "mlp"):  # the engine keeps the tensors of one model at a time
            info = infos[name]
            assert info.id == info.blob == blake3(data[name]).hexdigest() and info.bytes == len(data[name])
            assert info.card["input"] == {"shape": [1, 28, 28], "dtype": "uint8"}
            for count in (1, 5):
                scores, served = await device.classify(info.id, x[:count])
                np.testing.assert_allclose(scores, direct(data[name], x[:count]), atol=1e-6)
                assert served == LOCAL and scores.shape == (count, 10)
        assert len(device.pids) == 1
        assert {info.blob for info in infos.values()} <= {info.blob for info in device.models()}

    on_device(work, tmp_path)


def test_inputs_must_fit(tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        info = await device.add(model_bytes("mlp"))
        good = np.zeros((1, 1, 28, 28), np.uint8)
        for wrong in (good[0], good[:0], good.astype(np.float32), np.zeros((1, 3, 28, 28), np.uint8)):
            with pytest.raises(BadInput, match="takes"):
                await device.classify(info.id, wrong)
        with pytest.raises(BadInput, match="no language model"):
            async for _ in device.complete(info.id, "x", Sampling()):
                pass
        with pytest.raises(BadInput, match="no classifier model"):
            await device.classify("minilm-l6", good)
        with pytest.raises(UnknownModel, match="No model is called 'mlp'"):
            await device.classify("mlp", good)
        with pytest.raises(UnknownModel):
            await device.classify("ab" * 32, good)

    on_device(work, tmp_path)


def test_models_of_the_network_are_fetched_by_their_id_and_checked(tmp_path: Path) -> None:
    data = model_bytes("mlp")
    asked: list[bytes] = []

    async def fetch(blob: bytes) -> bytes:
        asked.append(blob)
        return data

    async def work(device: LocalAnswers) -> None:
        x = np.zeros((1, 1, 28, 28), np.uint8)
        right = blake3(data).digest()
        for name in (right.hex(), "0x" + right.hex().upper()):
            scores, _ = await device.classify(name, x)
            np.testing.assert_allclose(scores, direct(data, x), atol=1e-6)
        assert asked == [right]
        with pytest.raises(Refused) as refused:
            await device.classify("cd" * 32, x)
        assert refused.value.reason == Reason.WRONG_HASH

    on_device(work, tmp_path, fetch)


def test_an_engine_that_is_idle_ends(tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        info = await device.add(model_bytes("mlp"))
        x = np.zeros((1, 1, 28, 28), np.uint8)
        first, _ = await device.classify(info.id, x)
        async with asyncio.timeout(20):
            while device.pids:
                await asyncio.sleep(0)
        np.testing.assert_array_equal((await device.classify(info.id, x))[0], first)

    on_device(work, tmp_path, child=ChildLimits(idle_seconds=0.05))


def expected_vectors(path: Path) -> np.ndarray[Any, Any]:
    """Vectors of the test vectors' texts, one by one: tokens of the `tokenizers` library, ONNX Runtime's graph."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    found = []
    for case in VECTORS:
        tokens = np.array([case["tokens"]], np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        mean = session.run(None, feed)[0][0].mean(axis=0)
        found.append(mean / np.sqrt((mean**2).sum()))
    return np.stack(found)


def test_embeddings_are_those_of_onnx_runtime(tmp_path: Path) -> None:
    path = catalogue_file("minilm-l6")

    async def work(device: LocalAnswers) -> None:
        texts = [case["text"] for case in VECTORS]
        found = await device.embed("minilm-l6", texts)
        assert found.served == LOCAL and found.tokens == sum(len(case["tokens"]) for case in VECTORS)
        expected = expected_vectors(path)
        assert found.vectors.shape == expected.shape == (len(texts), 384) and found.vectors.dtype == np.float32
        np.testing.assert_allclose((found.vectors * expected).sum(axis=1), 1, atol=1e-5)  # cosines
        np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
        alone = await device.embed("minilm-l6", texts[3:4])
        np.testing.assert_allclose(alone.vectors[0], found.vectors[3], atol=1e-5)

    on_device(work, tmp_path)


def test_sentences_that_mean_the_same_are_close(tmp_path: Path) -> None:
    catalogue_file("minilm-l6")

    async def work(device: LocalAnswers) -> None:
        texts = ("A cat sits on the mat.", "A kitten rests on a rug.", "Stock prices fell.", "word " * 5_000)
        found = await device.embed("minilm-l6", texts)
        likeness = found.vectors @ found.vectors.T
        assert likeness[0, 1] > 0.5 and likeness[0, 2] < 0.2
        assert found.tokens < 400  # the long one is cut at 256
        with pytest.raises(BadInput, match="expected 1 to 2048"):
            await device.embed("minilm-l6", ())
        with pytest.raises(BadInput, match="surrogates"):
            await device.embed("minilm-l6", ["\ud800"])
        assert len(device.pids) == 1
        task = asyncio.create_task(device.embed("minilm-l6", texts * 200))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = await device.embed("minilm-l6", texts[:1])
        np.testing.assert_allclose(again.vectors[0], found.vectors[0], atol=1e-5)

    on_device(work, tmp_path)


def test_what_is_not_here_says_how_it_comes(tmp_path: Path) -> None:
    """Whether or not the packages are installed: a changed copy is refused, a missing one names the command."""
    wanted = entry("minilm-l6")

    async def work(device: LocalAnswers) -> None:
        if device.shelf.find(wanted) is None:
            with pytest.raises(MissingExtra, match="atoll run minilm-l6"):
                await device.embed("minilm-l6", ["x"])
        device.shelf.path(wanted.info.blob, wanted.suffix).write_bytes(b"another file")
        with pytest.raises(Refused) as refused:
            await device.embed("minilm-l6", ["x"])
        assert refused.value.reason == Reason.WRONG_HASH

    on_device(work, tmp_path)


def test_processes_make_room_for_one_another(tmp_path: Path) -> None:
    """With room for one process, another model ends that of the idle one; a file that is none is told."""
    catalogue_file("minilm-l6")
    data = b"GGUF and nothing else"
    blob = blake3(data).hexdigest()

    async def work(device: LocalAnswers) -> None:
        await device.embed("minilm-l6", ["x"])
        assert len(device.pids) == 1
        info: ModelInfo = await device.open_blob(blob, data)
        assert info in device.models()
        with pytest.raises((BadInput, EngineFailed, MissingExtra)):
            async for _ in device.complete(blob, "x", Sampling()):
                pass
        await device.embed("minilm-l6", ["x"])
        assert len(device.pids) == 1

    on_device(work, tmp_path, children=1)
