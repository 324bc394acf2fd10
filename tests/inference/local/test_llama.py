"""Language models on this device: the same words as llama.cpp called directly, and processes that obey."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from blake3 import blake3

from atoll.errors import BadInput, EngineFailed, Refused
from atoll.inference.answers import LOCAL, Message, Piece, Sampling, Stream
from atoll.inference.local.child import Child, ChildLimits
from atoll.inference.local.device import DeviceLimits, LocalAnswers
from atoll.inference.local.shelf import Shelf
from atoll.wire.reasons import Reason

from .files import catalogue_file, entry

Result = TypeVar("Result")
MODEL = "smollm2-135m"
PROMPT = "The capital of France is"
QUESTION = "Write one sentence about the sea."
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
CHATML = SYSTEM + "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
GREEDY = Sampling(max_tokens=12, temperature=0)
LONG = Sampling(max_tokens=3_000, temperature=0)


@pytest.fixture(scope="module")
def model() -> Path:
    return catalogue_file(MODEL)


@pytest.fixture(scope="module")
def direct(model: Path) -> list[dict[str, Any]]:
    """Answers of llama.cpp without Atoll."""
    plain = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "n_probs": 3}
    chat = {"prompt": CHATML.format(QUESTION), "max_tokens": 12, "temperature": 0}
    command = (sys.executable, str(Path(__file__).with_name("direct_llama.py")), str(model), json.dumps([plain, chat]))
    return list(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout))


def on_device(
    work: Callable[[LocalAnswers], Awaitable[Result]], folder: Path, limits: ChildLimits | None = None
) -> Result:
    async def main() -> Result:
        device = LocalAnswers(Shelf(folder), limits=DeviceLimits(child=limits or ChildLimits()))
        try:
            return await work(device)
        finally:
            await device.close()
            assert device.pids == []

    return asyncio.run(main())


async def heard(stream: Stream) -> tuple[str, list[Piece]]:
    pieces = [piece async for piece in stream]
    return "".join(piece.text for piece in pieces), pieces


def test_greedy_text_and_logprobs_are_those_of_llama(model: Path, direct: list[dict[str, Any]], tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        stream = device.complete(MODEL, PROMPT, Sampling(max_tokens=12, temperature=0, top_logprobs=3))
        text, pieces = await heard(stream)
        expected = direct[0]["choices"][0]
        assert text == expected["text"] and "Paris" in text
        assert stream.prompt_tokens == direct[0]["usage"]["prompt_tokens"] and stream.completion_tokens == 12
        assert stream.served == LOCAL
        assert [piece.finish for piece in pieces] == [""] * (len(pieces) - 1) + ["length"]
        found = [one for piece in pieces for one in piece.logprobs or ()]
        wanted = expected["logprobs"]["content"]
        assert [one.taken.token for one in found] == [one["id"] for one in wanted]
        for ours, theirs in zip(found, wanted, strict=True):
            assert [one.token for one in ours.top] == [one["id"] for one in theirs["top_logprobs"]]
            assert ours.taken.logprob == pytest.approx(theirs["logprob"], abs=1e-4)
            assert ours.taken == ours.top[0]
            assert sum(math.exp(one.logprob) for one in ours.top) <= 1 + 1e-6

    on_device(work, tmp_path)


def test_a_conversation_is_put_into_the_models_form(model: Path, direct: list[dict[str, Any]], tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        text, _ = await heard(device.chat(MODEL, [Message("user", QUESTION)], GREEDY))
        assert text == direct[1]["choices"][0]["text"]
        other, _ = await heard(
            device.chat(MODEL, [Message("system", "Answer in French."), Message("user", QUESTION)], GREEDY)
        )
        assert other != text

    on_device(work, tmp_path)


def test_seeds_and_temperatures(model: Path, tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        async def said(seed: int, temperature: float) -> str:
            sampling = Sampling(max_tokens=24, temperature=temperature, seed=seed)
            return (await heard(device.complete(MODEL, "Once upon a time", sampling)))[0]

        assert await said(1, 0.9) == await said(1, 0.9)
        assert await said(1, 0.9) != await said(2, 0.9)
        assert await said(1, 0.0) == await said(2, 0.0)

    on_device(work, tmp_path)


def test_stop_strings_end_the_text_before_them(model: Path, tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        whole, _ = await heard(device.complete(MODEL, PROMPT, GREEDY))
        word = whole.split()[3]
        sampling = Sampling(max_tokens=12, temperature=0, stop=(word, "never said"))
        text, pieces = await heard(device.complete(MODEL, PROMPT, sampling))
        assert text == whole[: whole.index(word)] and pieces[-1].finish == "stop"

    on_device(work, tmp_path)


def test_what_cannot_be_asked(model: Path, tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        async def wrong(sampling: Sampling = GREEDY, prompt: str = PROMPT) -> str:
            with pytest.raises(BadInput) as error:
                await heard(device.complete(MODEL, prompt, sampling))
            return str(error.value)

        assert "4096" in await wrong(prompt="word " * 5_000)
        pid = device.pids
        assert "empty" in await wrong(prompt="")
        assert "max_tokens" in await wrong(Sampling(max_tokens=0))
        assert "temperature" in await wrong(Sampling(temperature=float("nan")))
        assert "top_p" in await wrong(Sampling(top_p=0))
        assert "log-probabilities" in await wrong(Sampling(top_logprobs=21))
        assert "stop strings" in await wrong(Sampling(stop=("",)))
        with pytest.raises(BadInput, match="role 'tool'"):
            await heard(device.chat(MODEL, [Message("tool", "x")], GREEDY))
        with pytest.raises(BadInput, match="surrogates"):
            await heard(device.complete(MODEL, "\ud800", GREEDY))
        with pytest.raises(BadInput, match="no embedding model"):
            await device.embed(MODEL, ["x"])
        assert (await heard(device.complete(MODEL, PROMPT, GREEDY)))[0] and device.pids == pid

    on_device(work, tmp_path)


def test_cancellation_frees_the_process(model: Path, tmp_path: Path) -> None:
    """Closed after a few pieces, or cancelled as a task, a long answer ends at once and the same process goes on."""

    async def work(device: LocalAnswers) -> None:
        loop = asyncio.get_running_loop()
        await heard(device.complete(MODEL, PROMPT, GREEDY))
        pids = device.pids
        stream = device.complete(MODEL, "1 2 3 4", LONG)
        count = 0
        async for _ in stream:
            count += 1
            if count == 3:
                break
        begun = loop.time()
        await stream.aclose()
        await stream.aclose()
        assert loop.time() - begun < 1.5

        began = asyncio.Event()

        async def listen() -> None:
            async for _ in device.complete(MODEL, "1 2 3 4", LONG):
                began.set()

        task = asyncio.create_task(listen())
        await began.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert (await heard(device.complete(MODEL, PROMPT, GREEDY)))[0]
        assert device.pids == pids

    on_device(work, tmp_path)


def test_a_process_that_does_not_stop_is_ended(model: Path, tmp_path: Path) -> None:
    """With no patience at all every cancelled answer costs its process, and the next one gets another."""

    async def work(device: LocalAnswers) -> None:
        stream = device.complete(MODEL, "1 2 3 4", LONG)
        async for _ in stream:
            break
        (pid,) = device.pids
        await stream.aclose()
        assert device.pids == []
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert (await heard(device.complete(MODEL, PROMPT, GREEDY)))[0]

    on_device(work, tmp_path, ChildLimits(stop_seconds=0))


def test_a_killed_process_is_an_error_and_the_next_request_works(model: Path, tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        stream = device.complete(MODEL, "1 2 3 4", LONG)
        with pytest.raises(EngineFailed, match="ended"):
            async for _ in stream:
                for pid in device.pids:
                    os.kill(pid, 9)
        assert (await heard(device.complete(MODEL, PROMPT, GREEDY)))[0]

    on_device(work, tmp_path)


def test_an_idle_process_ends(model: Path, tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        await heard(device.complete(MODEL, PROMPT, GREEDY))
        async with asyncio.timeout(20):
            while device.pids:
                await asyncio.sleep(0)
        assert (await heard(device.complete(MODEL, PROMPT, GREEDY)))[0]

    on_device(work, tmp_path, ChildLimits(idle_seconds=0.05))


def test_requests_wait_their_turn_up_to_a_bound(model: Path, tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        asked = [heard(device.complete(MODEL, PROMPT, GREEDY)) for _ in range(4)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        texts = {one[0] for one in found if isinstance(one, tuple)}
        refused = [one for one in found if isinstance(one, Refused)]
        assert len(texts) == 1 and [one.reason for one in refused] == [Reason.BUSY]

    on_device(work, tmp_path, ChildLimits(waiting=2))


def gguf(name: str, model: Path) -> bytes:
    """A file that begins like a model and is none."""
    with model.open("rb") as file:
        good = file.read(200_000)
    return {
        "magic only": b"GGUF",
        "truncated": good,
        "header only": good[:24],
        "endless counts": b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16 + good[24:4096],
        "endless string": good[:24] + b"\xff" * 8 + good[32:4096],
        "unknown version": b"GGUF" + (77).to_bytes(4, "little") + good[8:],
        "noise": b"GGUF" + bytes(range(256)) * 64,
    }[name]


@pytest.mark.parametrize(
    "name", ["magic only", "truncated", "header only", "endless counts", "endless string", "unknown version", "noise"]
)
def test_malformed_files_fail_cleanly(name: str, model: Path, tmp_path: Path) -> None:
    data = gguf(name, model)
    blob = blake3(data).hexdigest()

    async def work(device: LocalAnswers) -> None:
        info = await device.open_blob(blob, data)
        assert info.kind == "language"
        with pytest.raises(BadInput, match="cannot be loaded"):
            await heard(device.complete(blob, PROMPT, GREEDY))

    on_device(work, tmp_path)


def test_another_file_under_the_name_is_refused(model: Path, tmp_path: Path) -> None:
    """A shelf whose copy was changed by one byte."""
    wanted = entry(MODEL)
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    Shelf(tmp_path).path(wanted.info.blob, wanted.suffix).write_bytes(data)

    async def work(device: LocalAnswers) -> None:
        with pytest.raises(Refused) as refused:
            await heard(device.complete(MODEL, PROMPT, GREEDY))
        assert refused.value.reason == Reason.WRONG_HASH and device.pids == []

    on_device(work, tmp_path)


def test_too_little_memory_is_told(model: Path, tmp_path: Path) -> None:
    async def work(device: LocalAnswers) -> None:
        with pytest.raises((BadInput, EngineFailed)):
            await heard(device.complete(MODEL, PROMPT, GREEDY))

    on_device(work, tmp_path, ChildLimits(memory_bytes=16 << 20))


def test_the_private_folder_goes_with_the_process(model: Path, tmp_path: Path) -> None:
    from atoll.inference.local import pipe

    async def main() -> None:
        child = Child("atoll.inference.local.llama", pipe.Load(str(model), 512), "m", ChildLimits())
        request = pipe.Generate(1, PROMPT, (), 2, 0.0, 1.0, 1, (), 0, False)
        async for _ in child.stream(lambda _: request):
            pass
        folder = Path(child.folder)
        assert folder.is_dir() and not list(folder.iterdir())  # nobody can connect to llama.cpp's own server
        await child.close()
        assert not folder.exists()

    asyncio.run(main())
