"""Answers of models on this device: what the process of its own costs, against the runtimes called directly.

python bench/serve.py [--json FILE] [--turns 400]     (needs the extras `llm` and `embeddings`)

`atoll run smollm2-135m hi` brings the language model. In each turn every contestant answers the same request once, in
rotating order, so that a busy machine burdens all alike; a ratio or a difference is taken within a turn. CPU time is
that of this process and of all that it started, Atoll's HTTP endpoint among them. One thread everywhere. `--json FILE`
writes every single time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn
from batches import batches

from atoll.graph.archive import ModelFile, pack_model
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.session import open_session
from atoll.graph.zoo import load_zoo
from atoll.inference import catalog
from atoll.inference.answers import Sampling
from atoll.inference.local.device import LocalAnswers
from atoll.inference.local.shelf import FOLDER, Shelf
from atoll.inference.local.wordpiece import WordPiece

HASH = "ab" * 32
PROMPT = "The sea covers most of the Earth, and what lives in it"
TOKENS = 64
HEADINGS = (
    *("model", "called how", "requests/s", "p50, ms", "p99, ms", "first piece, ms"),
    *("more than direct, ms", "time / direct", "CPU time / direct"),
)
TEXTS = ("A cat sits on the mat.", "The committee of a round certifies the sum of all updates that were accepted.")


@dataclass
class Lap:
    """The times of one contestant, seconds: whole requests, to the first piece of an answer, and CPU time."""

    whole: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


Ask = Callable[[], Awaitable[float]]
"""Answers one request; returns when its first piece came (perf_counter), 0 if it comes in one piece."""


def cpu_below() -> float:
    """CPU time of the processes below this one in seconds, all threads, as Linux's scheduler counts it."""
    tasks = (path for pid in below(os.getpid()) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in tasks) / 1e9


def below(pid: int) -> list[int]:
    """The processes that this one has started, and those that they have started."""
    lists = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    children = [int(child) for one in lists for child in one]
    return [*children, *(pid for child in children for pid in below(child))]


async def race(name: str, contestants: dict[str, Ask], turns: int) -> dict[str, Lap]:
    """Let all answer in turns; the first two turns warm up."""
    laps = {each: Lap() for each in contestants}
    names = list(contestants)
    for turn in range(turns + 2):
        for each in names[turn % len(names) :] + names[: turn % len(names)]:
            spent = -(cpu_below() + time.process_time())
            start = time.perf_counter()
            first = await contestants[each]()
            end = time.perf_counter()
            spent += time.process_time() + cpu_below()
            if turn >= 2:
                laps[each].cpu.append(spent)
                laps[each].whole.append(end - start)
                laps[each].first.append((first or end) - start)
    report(name, laps)
    return laps


def report(name: str, laps: dict[str, Lap]) -> None:
    """A row of the table for each contestant; the first one is what the others are compared with."""
    leader = next(iter(laps.values()))
    base, base_cpu = np.array(leader.whole), np.array(leader.cpu)
    for each, lap in laps.items():
        whole, first = np.array(lap.whole), np.array(lap.first)
        ratio, extra, cpu = whole / base, whole - base, np.array(lap.cpu) / base_cpu
        extras = _spread(extra * 1e3, "{:.2f}"), _spread(ratio, "{:.2f}"), _spread(cpu, "{:.2f}")
        print(
            f"| {name} | {each} | {len(whole) / whole.sum():.1f} | {_ms(whole, 50)} | {_ms(whole, 99)} "
            f"| {_ms(first, 50)} | {' | '.join(extras)} |"
        )


def _ms(seconds: np.ndarray, percentile: int) -> str:
    return f"{np.percentile(seconds, percentile) * 1e3:.2f}"


def _spread(values: np.ndarray, form: str) -> str:
    low, middle, high = np.percentile(values, (10, 50, 90))
    return f"{form.format(middle)} ({form.format(low)} to {form.format(high)})"


# -- classifiers -------------------------------------------------------------------------------------------------------
def model_file(name: str) -> ModelFile:
    """A job of the zoo with its first values, as a trained model would be packed."""
    job = load_zoo(name)
    data = Data(root="0x" + HASH, count=1, held_out_root="0x" + HASH, held_out_count=1, card=HASH)
    policy = Policy(unit_price=1, audit_price=1, validator_price=1)
    return ModelFile({"name": name}, job.predict, job.model, Manifest.post(job.spec, data, 1, policy))


async def classifiers(device: LocalAnswers, turns: int) -> dict[str, dict[str, Lap]]:
    """One input at a time, as a person asks."""
    found = {}
    for name in ("mlp", "cnn"):
        file = model_file(name)
        info = await device.add(pack_model(file))
        x = batches(load_zoo(name).spec, 1)[0][0][:1]
        session = open_session(file.predict, 1)
        tensors = dict(file.tensors)

        async def direct(session: Any = session, x: Any = x, tensors: Any = tensors) -> float:
            session.run(["scores"], {"x": x, **tensors})
            return 0.0

        async def ours(info: Any = info, x: Any = x) -> float:
            await device.classify(info.id, x)
            return 0.0

        scores, _ = await device.classify(info.id, x)
        assert np.array_equal(scores, session.run(["scores"], {"x": x, **tensors})[0])
        found[name] = await race(f"classifier {name}", {"ONNX Runtime, direct": direct, "Atoll": ours}, turns)
    return found


# -- embeddings --------------------------------------------------------------------------------------------------------
async def embeddings(device: LocalAnswers, turns: int, endpoint: str) -> dict[str, dict[str, Lap]]:
    """Two short sentences a request."""
    entry = catalog.known("minilm-l6")
    path = device.shelf.find(entry) if entry else None
    assert path is not None, "atoll run minilm-l6 brings it"
    session = open_session(path.read_bytes(), 1)
    words = resources.files("atoll.inference.local").joinpath("vocab.txt").read_text("utf-8").splitlines()
    pieces = WordPiece(words)

    async def direct() -> float:
        rows = [pieces.encode(text, 256) for text in TEXTS]
        tokens = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(tokens)
        for row, ids in enumerate(rows):
            tokens[row, : len(ids)], mask[row, : len(ids)] = ids, 1
        feed = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        said = session.run(None, feed)[0]
        mean = (said * mask[..., None]).sum(1) / mask.sum(1)[:, None]
        np.testing.assert_allclose(np.linalg.norm(mean, axis=1) > 0, True)
        return 0.0

    async def ours() -> float:
        await device.embed("minilm-l6", TEXTS)
        return 0.0

    contestants: dict[str, Ask] = {"ONNX Runtime, direct": direct, "Atoll": ours}
    if endpoint:
        ask = {"model": "minilm-l6", "input": list(TEXTS)}
        contestants["Atoll, over HTTP"] = lambda: _over_http(endpoint, "/v1/embeddings", ask)
    return {"minilm-l6": await race("embedding minilm-l6", contestants, turns)}


# -- language ----------------------------------------------------------------------------------------------------------
async def language(device: LocalAnswers, turns: int, endpoint: str) -> dict[str, dict[str, Lap]]:
    """A prompt of a dozen tokens, 64 greedy tokens of answer, streamed."""
    import xllamacpp

    entry = catalog.known("smollm2-135m")
    path = device.shelf.find(entry) if entry else None
    assert path is not None, "atoll run smollm2-135m hi brings it"
    wanted = xllamacpp.CommonParams()
    wanted.model.path, wanted.n_ctx, wanted.n_parallel, wanted.verbosity = str(path), 4096, 1, -1
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 1
    engine = xllamacpp.Server(wanted)
    asked = {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "stream": True, "cache_prompt": False}
    texts: dict[str, str] = {}

    async def direct() -> float:
        first, parts = 0.0, []

        def heard(event: Any) -> None:
            nonlocal first
            first = first or time.perf_counter()
            parts.append(event["choices"][0]["text"] if event["choices"] else "")

        engine.handle_completions(asked, heard)
        texts["direct"] = "".join(parts)
        return first

    async def ours() -> float:
        first, parts = 0.0, []
        async for piece in device.complete("smollm2-135m", PROMPT, Sampling(TOKENS, 0.0)):
            first = first or time.perf_counter()
            parts.append(piece.text)
        texts["ours"] = "".join(parts)
        return first

    server = engine.listening_address.removeprefix("http://")
    contestants: dict[str, Ask] = {
        "xllamacpp, direct": direct,
        "Atoll": ours,
        "xllamacpp's server": lambda: _over_http(server, "/v1/completions", asked | {"model": "any"}),
    }
    if endpoint:
        ask = {"model": "smollm2-135m", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "stream": True}
        contestants["Atoll, over HTTP"] = lambda: _over_http(endpoint, "/v1/completions", ask)
    laps = await race("language smollm2-135m", contestants, turns)
    assert texts["ours"] == texts["direct"], "greedy answers differ"
    return {"smollm2-135m": laps}


async def _over_http(address: str, path: str, body: dict[str, Any]) -> float:
    """A request over HTTP by the plainest client that there is; when the first event of a streamed answer came."""
    connection = http.client.HTTPConnection(address, timeout=120)
    headers = {"Content-Type": "application/json"}
    await asyncio.to_thread(connection.request, "POST", path, json.dumps(body), headers)

    def read() -> float:
        answer, first = connection.getresponse(), 0.0
        assert answer.status == 200, answer.read()
        while line := answer.readline():
            if line.startswith(b"data:") and not first:
                first = time.perf_counter()
        return first

    first = await asyncio.to_thread(read)
    connection.close()
    return first


# -- the endpoint ------------------------------------------------------------------------------------------------------
async def be_endpoint(home: Path) -> None:
    """Atoll's HTTP endpoint on the models of this device, until the standard input ends; tells its address."""
    from starlette.applications import Starlette

    from atoll.gateway.openai.api import make_routes
    from atoll.gateway.openai.keys import Keys

    device = LocalAnswers(Shelf(home / FOLDER))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    with tempfile.TemporaryDirectory() as folder:
        app = Starlette(routes=make_routes(device, Keys(Path(folder))))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        print(f"127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await serving
    await device.close()


@contextlib.contextmanager
def endpoint(home: Path) -> Iterator[str]:
    """The address of an endpoint in a process of its own."""
    command = (sys.executable, __file__, "--be-endpoint", "--home", str(home))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


async def measure(wish: argparse.Namespace) -> dict[str, dict[str, Lap]]:
    """All parts, one after another."""
    device = LocalAnswers(Shelf(wish.home / FOLDER))
    try:
        with endpoint(wish.home) as address:
            found = await classifiers(device, wish.turns)
            found |= await embeddings(device, max(10, wish.turns // 2), address)
            return found | await language(device, max(10, wish.turns // 10), address)
    finally:
        await device.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=400, help="of classifiers; embeddings take half, language a tenth")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("ATOLL_HOME") or "~/.atoll").expanduser())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--be-endpoint", action="store_true", help=argparse.SUPPRESS)
    wish = parser.parse_args()
    if wish.be_endpoint:
        asyncio.run(be_endpoint(wish.home))
        return
    print(f"load before: {os.getloadavg()[0]:.1f}\n")
    print("| " + " | ".join(HEADINGS) + " |")
    print("|---" * len(HEADINGS) + "|")
    found = asyncio.run(measure(wish))
    print(f"\nload after: {os.getloadavg()[0]:.1f}")
    if wish.json:
        wish.json.write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
