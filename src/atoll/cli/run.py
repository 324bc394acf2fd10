"""`atoll run`: a model by name, file or id, verified and run on this device, or asked of other nodes (`--remote`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from atoll.cli import answers as views
from atoll.cli import homes
from atoll.cli.commands import LONG_SECONDS, Home, readable, tell, waiting
from atoll.cli.remote import NodeAnswers, free_memory, runs, too_small
from atoll.errors import BadInput, MachineError, MissingExtra, NotRunning
from atoll.graph.spec import Input
from atoll.inference import catalog
from atoll.inference.answers import LOCAL, MEMORY_OF_FILE, Message, ModelInfo, Sampling, Served, Stream
from atoll.inference.local.device import GGUF, LocalAnswers
from atoll.inference.local.shelf import FOLDER, Shelf, need_runtime
from atoll.inference.picture import read_picture

Json = Any
MODEL_SUFFIX = ".model"
MAX_INPUT_BYTES = 64 << 20
TOP = 5
Device = LocalAnswers | NodeAnswers
"""What answers: this device, or others through its node."""


@dataclass(frozen=True)
class Wish:
    """What is asked of the model."""

    inputs: tuple[str, ...]
    sampling: Sampling
    system: str
    invert: bool
    as_json: bool


def run(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    model: Annotated[str, typer.Argument(help="Name of the catalogue, model file, or blob id (64 hex digits).")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT]...", help="Picture or numbers, texts, or a prompt; - reads standard input."),
    ] = None,
    system: Annotated[str, typer.Option(metavar="TEXT", help="What a language model should be.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of a language model's answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="0: always the likeliest word.")] = 0.8,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="For dark ink on light paper.")] = False,
    hash_: Annotated[str, typer.Option("--hash", metavar="HEX", help="BLAKE3 that a GGUF file must have.")] = "",
    remote: Annotated[
        bool, typer.Option("--remote", help="Ask servers of the network, paid out of the node's deposit.")
    ] = False,
    home: Home = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; costs are base units.")] = False,
) -> int:
    """Run a model: a picture's class, the likeness of texts, or a conversation.

    It runs on this device and nothing leaves it, unless you say --remote. A model that is not here yet is downloaded,
    and its hash is checked always. A language model without a prompt starts a conversation.
    """
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed)
    wish = Wish(tuple(inputs or ()), sampling, system, invert, as_json)
    place = homes.base(home)
    if remote:
        asked, offered = NodeAnswers.find(place, model)
        with asyncio.Runner() as runner:
            return _answer(runner, asked, offered, wish)
    shelf = Shelf(place / FOLDER)
    source = _bring_or_tell(shelf, model, hash_, place)
    with asyncio.Runner() as runner:
        device = LocalAnswers(shelf)
        try:
            info = runner.run(_opened(device, model, source))
            return _answer(runner, device, info, wish)
        finally:
            runner.run(device.close())


# -- the model ---------------------------------------------------------------------------------------------------------
def _bring_or_tell(shelf: Shelf, model: str, hash_: str, home: Path) -> tuple[str, bytes] | None:
    """As `_bring`; where this device cannot run the model, the error says how others can be asked."""
    entry, size = catalog.known(model), _size(shelf, model)
    try:
        if too_small(size, free_memory()):
            raise MachineError(f"{model} needs {size * MEMORY_OF_FILE / 1e6:.0f} MB of free memory to run here.")
        return _bring(shelf, model, hash_, home)
    except (MissingExtra, MachineError) as error:
        if (entry is None and not catalog.is_blob_id(model)) or not runs(home):
            raise
        raise type(error)(f"{error} Or let another node answer, for what it asks: add --remote.") from error


def _bring(shelf: Shelf, model: str, hash_: str, home: Path) -> tuple[str, bytes] | None:
    """Blob id and bytes of a model file; None for what the shelf holds by now."""
    entry = catalog.known(model)
    if entry is not None:
        need_runtime(entry.info.kind)
        if shelf.find(entry) is None:
            sys.stderr.write(f"Bringing {entry.info.id} ({entry.info.bytes / 1e6:.0f} MB, {entry.info.licence}).\n")
            shelf.download(entry)
        return None
    path = _file(model)
    if path is not None:
        return _from_file(shelf, Path(readable(path)), hash_.lower().removeprefix("0x"))
    if not catalog.is_blob_id(model):
        raise catalog.unknown(model)
    return _from_network(shelf, model.strip().lower().removeprefix("0x"), home)


def _size(shelf: Shelf, model: str) -> int:
    """Bytes of the model's file, 0 if they are not known yet."""
    entry = catalog.known(model)
    if entry is not None:
        return entry.info.bytes
    kept = shelf.path(model.strip().lower().removeprefix("0x"), ".gguf") if catalog.is_blob_id(model) else None
    return kept.stat().st_size if kept is not None and kept.is_file() else 0


def _file(given: str) -> Path | None:
    """The file of this name, None if there is none (a long list of numbers, for instance, is no name at all)."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path = Path(given).expanduser()
        return path if path.is_file() else None
    return None


def _from_file(shelf: Shelf, path: Path, wanted: str) -> tuple[str, bytes]:
    found = shelf.hash(path)
    with path.open("rb") as file:
        is_language = file.read(len(GGUF)) == GGUF
    if is_language and not wanted:
        raise BadInput(
            f"{path.name} is a GGUF file with the hash {found}: if that is the one its author published, "
            f"add --hash {found}."
        )
    if wanted:
        shelf.verified(path, wanted)
    return found, path.read_bytes()


def _from_network(shelf: Shelf, blob: str, home: Path) -> tuple[str, bytes] | None:
    """A blob that was kept, or that the running node of this home brings together."""
    if shelf.path(blob, ".gguf").is_file():
        return None
    kept = shelf.path(blob, MODEL_SUFFIX)
    if kept.is_file():
        return blob, shelf.verified(kept, blob).read_bytes()
    with tempfile.TemporaryDirectory(prefix="atoll-") as folder, waiting("Collecting pieces from the holders"):
        out = Path(folder) / "blob"
        try:
            homes.ask(home, "get", {"blob": blob, "out": str(out)}, LONG_SECONDS)
        except NotRunning as error:
            raise NotRunning(
                f"The model {blob[:12]}… is not on this device, and no node runs in {home} that could bring it from "
                "the network: start one with `atoll node` or `atoll up`, or name its folder with --home."
            ) from error
        data = out.read_bytes()
    shelf.keep(blob, MODEL_SUFFIX if data[: len(GGUF)] != GGUF else ".gguf", data)
    return blob, data


async def _opened(device: LocalAnswers, model: str, source: tuple[str, bytes] | None) -> ModelInfo:
    if source is None:
        return await device.find(model)
    blob, data = source
    return await device.open_blob(blob, data)


# -- the answer --------------------------------------------------------------------------------------------------------
def _answer(runner: asyncio.Runner, device: Device, info: ModelInfo, wish: Wish) -> int:
    if info.kind == "classifier":
        return runner.run(_classify(device, info, wish))
    if info.kind == "embedding":
        return runner.run(_embed(device, info, wish))
    prompt = _given(wish)
    if prompt or not sys.stdin.isatty() or wish.as_json:
        return runner.run(_speak(device, info, wish, prompt))
    return _converse(runner, device, info, wish)


def _given(wish: Wish) -> str:
    """The prompt: the arguments, or standard input where it is no terminal (or asked for by -)."""
    if wish.inputs and wish.inputs != ("-",):
        return " ".join(wish.inputs)
    return "" if sys.stdin.isatty() and not wish.inputs else _standard_input()


def _standard_input() -> str:
    data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise BadInput(f"The standard input is longer than {MAX_INPUT_BYTES >> 20} MB.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput("The standard input is no UTF-8 text.") from error


async def _classify(device: Device, info: ModelInfo, wish: Wish) -> int:
    form = input_of(info)
    if len(wish.inputs) != 1:
        numbers = np.prod(form.shape)
        raise BadInput(f"Give one input of shape {list(form.shape)}: a picture, or {numbers} numbers as 1,2,3.")
    scores, served = await device.classify(info.id, read_input(wish.inputs[0], form, wish.invert)[None])
    told = views.served_facts(served)
    if info.card["output"]["meaning"] != "probabilities":
        tell(wish.as_json, {"values": scores[0].tolist(), **told}, str(scores[0].tolist()))
    else:
        found = {**top_of(scores), **told}
        tell(wish.as_json, found, views.scores_view(found))
    if not wish.as_json:
        _tell_served(served)
    return 0


def top_of(scores: NDArray[np.float32]) -> dict[str, Json]:
    """The likeliest class of the first input, and the likeliest few with their probabilities; scores [1, ..., c]."""
    flat = scores[0].reshape(-1, scores.shape[-1])[-1]
    order = np.argsort(-flat)[:TOP]
    top = [{"class": int(index), "score": round(float(flat[index]), 4)} for index in order]
    return {"class": int(order[0]), "top": top}


def input_of(info: ModelInfo) -> Input:
    """What a classifier takes, as its card says; raises BadInput where a server does not tell."""
    takes = info.card.get("input")
    if takes is None or "output" not in info.card:
        raise BadInput(f"The servers of {info.id} do not say what it takes: run it here, without --remote.")
    return Input(shape=tuple(takes["shape"]), dtype=takes["dtype"])


def read_input(given: str, form: Input, invert: bool) -> NDArray[Any]:
    """A picture file or numbers apart by commas, as one input of the model; raises BadInput."""
    path = _file(given)
    if path is not None:
        return read_picture(path.read_bytes(), form.shape, invert).astype(form.dtype)
    try:
        numbers = np.array([float(word) for word in given.replace(",", " ").split()])
    except ValueError:
        raise BadInput(f"{given[:80]!r} is neither a file nor numbers apart by commas.") from None
    if numbers.size != np.prod(form.shape) or not np.isfinite(numbers).all():
        raise BadInput(f"{numbers.size} numbers: the model takes {np.prod(form.shape):.0f} of {form.dtype}.")
    return numbers.reshape(form.shape).astype(form.dtype)


async def _embed(device: Device, info: ModelInfo, wish: Wish) -> int:
    texts = list(wish.inputs)
    if not texts or texts == ["-"]:
        if sys.stdin.isatty():
            raise BadInput(f"Give texts: atoll run {info.id} 'a first text' 'a second one'.")
        texts = [line for line in _standard_input().splitlines() if line.strip()]
    found = await device.embed(info.id, texts)
    likeness = found.vectors @ found.vectors.T
    if wish.as_json:
        rows = [[round(float(value), 6) for value in row] for row in likeness]
        vectors = [[float(value) for value in row] for row in found.vectors]
        told = {"model": info.id, "tokens": found.tokens, "similarity": rows, "embeddings": vectors}
        told |= views.served_facts(found.served)
        sys.stdout.write(json.dumps(told) + "\n")
    elif len(texts) == 1:
        size = found.vectors.shape[1]
        sys.stdout.write(
            f"A vector of {size} numbers, {found.tokens} tokens: --json prints it; give more texts to compare.\n"
        )
    else:
        Console(highlight=False).print(_likeness_view(texts, likeness))
    if not wish.as_json:
        _tell_served(found.served)
    return 0


def _likeness_view(texts: Sequence[str], likeness: NDArray[np.float32]) -> Table:
    """How alike each pair of texts is, from -1 to 1."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("likeness")
    for index in range(len(texts)):
        table.add_column(str(index + 1), justify="right")
    for index, text in enumerate(texts):
        row = [f"{value:.2f}" for value in likeness[index]]
        table.add_row(Text(f"{index + 1}  {text[:48]}"), *row)
    return table


async def _speak(device: Device, info: ModelInfo, wish: Wish, prompt: str) -> int:
    if not prompt.strip():
        raise BadInput(f"Give a prompt: atoll run {info.id} 'Why is the sky blue?'")
    started = time.monotonic()
    stream = device.chat(info.id, [*_system(wish), Message("user", prompt)], wish.sampling)
    parts, finish = [], ""
    async with contextlib.aclosing(_pieces(stream)) as pieces:
        async for text, end in pieces:
            parts.append(text)
            finish = end or finish
            if not wish.as_json:
                _say(text)
    seconds = time.monotonic() - started
    if wish.as_json:
        told = {"model": info.id, "text": "".join(parts), "finish": finish, "prompt_tokens": stream.prompt_tokens}
        told |= {
            "completion_tokens": stream.completion_tokens,
            "seconds": round(seconds, 3),
            **views.served_facts(stream.served),
        }
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        sys.stdout.write("\n")
        where = " on this device" if stream.served == LOCAL else ""
        _note(f"{stream.completion_tokens} tokens in {seconds:.1f} s{where}{_cut(finish)}")
        _tell_served(stream.served)
    return 0


def _converse(runner: asyncio.Runner, device: Device, info: ModelInfo, wish: Wish) -> int:
    """A conversation at the terminal until Ctrl-D; Ctrl-C ends an answer."""
    where = "on this device" if isinstance(device, LocalAnswers) else "at other nodes, paid out of the deposit"
    _note(f"{info.card.get('name', info.id)} {where}. /new forgets, Ctrl-C ends an answer, Ctrl-D leaves.")
    turns = _system(wish)
    while True:
        try:
            said = input("> ").strip()
        except EOFError:
            sys.stdout.write("\n")
            return 0
        if said == "/new":
            turns = _system(wish)
        if not said or said == "/new":
            continue
        turns = [*turns, Message("user", said)]
        heard: list[str] = []
        try:
            runner.run(_reply(device, info, wish, turns, heard))
        except KeyboardInterrupt:
            pass
        except BadInput as error:
            _note(f"{error} Begin another conversation with /new.")
            turns = turns[:-1]
            continue
        sys.stdout.write("\n")
        turns = [*turns, Message("assistant", "".join(heard))]


async def _reply(device: Device, info: ModelInfo, wish: Wish, turns: list[Message], heard: list[str]) -> None:
    stream = device.chat(info.id, turns, wish.sampling)
    async with contextlib.aclosing(_pieces(stream)) as pieces:
        async for text, finish in pieces:
            heard.append(text)
            _say(text)
            if finish == "length":
                _note(_cut(finish).lstrip(", "))
    if stream.served != LOCAL:
        sys.stdout.write("\n")
    _tell_served(stream.served)


async def _pieces(stream: Stream) -> AsyncGenerator[tuple[str, str], None]:
    """Text and finish of each piece; the model stops when this is closed."""
    try:
        async for piece in stream:
            yield piece.text, piece.finish
    finally:
        await stream.aclose()


def _system(wish: Wish) -> list[Message]:
    return [Message("system", wish.system)] if wish.system else []


def _say(text: str) -> None:
    """Print a part of an answer at once; nothing that a terminal would obey."""
    sys.stdout.write("".join(one for one in text if one.isprintable() or one in "\n\t"))
    sys.stdout.flush()


def _note(text: str) -> None:
    Console(stderr=True, highlight=False).print(Text(text, style="dim"), soft_wrap=True)


def _tell_served(served: Served) -> None:
    """Who answered and for how much, where it was not this device."""
    if served != LOCAL:
        _note(views.served_sentence(served))


def _cut(finish: str) -> str:
    return ", cut at --max-tokens or the model's context" if finish == "length" else ""
