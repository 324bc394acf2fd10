"""`atoll train`: post a job on the network at hand, watch it, and take the trained model home."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from atoll.cli import homes, keys
from atoll.cli.commands import AsJson, Home, tell
from atoll.cli.developer import Developer
from atoll.cli.jobfiles import JobArgument, Rule, open_job
from atoll.cli.plan import JobPlan, Seats, plan_job
from atoll.cli.result import write_result
from atoll.errors import AtollError, BadInput, BadSetting, MachineError, NotRunning
from atoll.gateway import figures
from atoll.graph.archive import unpack_model
from atoll.graph.manifest import Aggregation
from atoll.ledger.receipts import TOKEN, amount_text
from atoll.node.control import ControlClient
from atoll.training.data import load
from atoll.training.data.kept import names_in, place_of
from atoll.training.data.named import MNIST
from atoll.training.verdict import GUILTY
from atoll.wire.identity import AccountKey
from atoll.wire.reasons import Reason

Json = Any

POLL_SECONDS = 0.5
STORE_SECONDS = 180.0
SEEDS = 2  # nodes of this device that publish the job's parts and its data
FOLDER, NOTE = "train", "current.json"
_TARGET = re.compile(r"([a-z][a-z0-9_]{0,31})([<>]?=)([0-9.eE+-]+)")


@dataclass(frozen=True)
class Target:
    """Training may stop when a metric is at least (or, for losses and errors, at most) `value`."""

    metric: str
    value: float
    at_most: bool

    def reached(self, scores: Mapping[str, float]) -> bool:
        """Whether a round's scores are good enough."""
        found = scores.get(self.metric)
        return found is not None and (found <= self.value if self.at_most else found >= self.value)


@dataclass(frozen=True)
class Wanted:
    """What `atoll train` was asked for."""

    file: Path
    data: str
    rounds: int
    budget: str | None
    aggregation: Aggregation
    target: Target | None
    out: Path
    home: Path
    key: AccountKey | None
    resume: bool


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down about a job under way, so that `--resume` finds it again."""

    job: str
    manifest: str
    file: str
    data: str
    card: str


def train(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    file: JobArgument,
    data: Annotated[str, typer.Option(metavar="NAME", help="A data set of `atoll data list`, or a folder.")] = "mnist",
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Rounds of training.")] = 12,
    budget: Annotated[
        str | None, typer.Option(metavar="TOKENS", help="What the job may cost in all. Default: what it needs.")
    ] = None,
    target: Annotated[str, typer.Option(metavar="METRIC=VALUE", help="Stop early: accuracy=0.97, or loss<=0.3.")] = "",
    aggregation: Annotated[
        Rule, typer.Option(help="How updates become one: robust against liars, or their plain mean.")
    ] = Rule.robust,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Default: the job's name.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the job that was interrupted.")] = False,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Private key, in hex, of the account that pays.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> int:
    """Train a job file on the network at hand, pay for it, and write the trained model to a folder.

    Needs a running node or `atoll up` on this device. What is not spent comes back.
    """
    job = open_job(file)
    goal = _target(target, job.spec.metrics) if target else None
    folder = (out or Path(job.spec.name)).expanduser().absolute()
    owner = None if key is None else keys.read_account_key(key)
    wanted = Wanted(file, data, rounds, budget, aggregation.value, goal, folder, homes.base(home), owner, resume)
    found = asyncio.run(Training(wanted).run())
    scores = ", ".join(f"{name} {value:.4f}" for name, value in found["scores"].items())
    text = f"{scores}\ncost {amount_text(int(found['cost']))} {TOKEN}; the model and its card are in {folder}"
    tell(as_json, found, text)
    return 0


def _target(text: str, metrics: tuple[str, ...]) -> Target:
    match = _TARGET.fullmatch(text.replace(" ", ""))
    known = ("loss", *metrics)
    try:
        name, sign, number = match.groups() if match else ("", "", "")
        value = float(number)
    except ValueError:
        name, sign, value = "", "", 0.0
    if name not in known:
        raise BadSetting(f"--target {text}: expected METRIC=VALUE with a metric of the job: {', '.join(known)}.")
    falling = sign == "<=" or (sign == "=" and (name == "loss" or name.endswith(("error", "loss"))))
    return Target(name, value, falling)


def resolve(data: str, home: Path) -> str:
    """What a node on this device finds the data set under: "mnist", or the folder where it lies; raises BadInput."""
    if data == MNIST:
        return data
    if data in names_in(home):
        return str(place_of(home, data))
    folder = Path(data).expanduser().absolute()
    if not folder.is_dir():
        known = ", ".join((MNIST, *names_in(home)))
        raise BadInput(f"--data {data}: expected one of {known}, or a folder with IDX files or a kept data set.")
    return str(folder)


class Training:
    """One run of `atoll train`."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.folder = wanted.home / FOLDER
        self.nodes: list[Path] = []
        self.developer: Developer
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f} of {task.total:.0f} rounds"),
            TextColumn("{task.fields[scores]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    async def run(self) -> dict[str, Json]:
        """Post (or find again), watch, settle, write; returns the card's facts."""
        states = await self._states()
        if not states:
            raise homes.nothing_runs(self.wanted.home)
        network = states[0]["network"]
        self.developer = await Developer.open(self.folder, network, self.wanted.key)
        note = self._note()
        if note is None:
            note = await self._post(states)
        status = await self._watch(note)
        archive = await self._fetch(status["model"])
        self._say("the last epoch is being settled")
        await self.developer.settle(note.job, lambda: self._last)
        (self.folder / NOTE).unlink(missing_ok=True)
        record = await self.developer.call(self.developer.chain.job, bytes.fromhex(note.job[2:]))
        model = unpack_model(archive)
        card = _card(note, status, model.manifest, record.drawn)
        write_result(self.wanted.out, archive, model, card)
        return {**card, "folder": str(self.wanted.out)}

    # -- the job ---------------------------------------------------------------------------------------------------
    def _note(self) -> Note | None:
        """The job under way in this home; raises BadInput where --resume and what is there do not agree."""
        try:
            note = msgspec.json.decode((self.folder / NOTE).read_bytes(), type=Note)
        except (OSError, msgspec.DecodeError):
            note = None
        if note is None and self.wanted.resume:
            raise BadInput("There is no job to go on with here: leave out --resume to post a new one.")
        if note is not None and not self.wanted.resume:
            raise BadInput(f"Job {note.job} of {note.file} is not finished: add --resume to go on with it.")
        return note

    async def _post(self, states: list[dict[str, Json]]) -> Note:
        wanted = self.wanted
        source = load(wanted.data, wanted.home)
        count = max(int(state["peers"]) for state in states) + 1
        job = open_job(wanted.file)
        plan: JobPlan = plan_job(job, source, wanted.rounds, wanted.budget, Seats(count), wanted.aggregation)
        if plan.manifest.rounds < wanted.rounds:
            self._say(f"the budget pays for {plan.manifest.rounds} of {wanted.rounds} rounds")
        parts = [str(path) for path in self.developer.write_parts(plan)]
        for home in self.nodes[:SEEDS]:
            await ControlClient(home).call("share", timeout=120, data=source.where, files=parts)
        name = await self.developer.post(plan, states[0]["account"])
        card = json.loads(source.card_bytes)
        note = Note(
            job=name, manifest=plan.manifest.id.hex(), file=str(wanted.file), data=wanted.data, card=json.dumps(card)
        )
        (self.folder / NOTE).write_bytes(msgspec.json.encode(note))
        self._say(f"job {name[:10]} is open, {amount_text(plan.budget)} {TOKEN} in escrow")
        return note

    async def _watch(self, note: Note) -> dict[str, Json]:
        """Until the last round is certified and the model is stored; returns the job as the nodes see it."""
        record = await self.developer.call(self.developer.chain.job, bytes.fromhex(note.job[2:]))
        if not record.started_at:
            count = max(int(state["peers"]) for state in await self._states()) + 1
            await self.developer.start_when(note.job, count, self._say)
        stored_by = 0.0
        with self._bar:
            task = self._bar.add_task("training", total=record.rounds, scores="")
            while True:
                status = self._job(await self._states(), note.job)
                self._show(task, status)
                if status.get("done") and status.get("model"):
                    return status
                if status.get("done"):
                    stored_by = stored_by or time.monotonic() + STORE_SECONDS
                    if time.monotonic() > stored_by:
                        raise MachineError("The trained model was not stored in time: try again with --resume.")
                await self._stop_early(note, status)
                await asyncio.sleep(POLL_SECONDS)

    def _show(self, task: TaskID, status: Mapping[str, Json]) -> None:
        scores = status.get("scores") or {}
        latest = scores[max(scores, key=int)] if scores else {}
        told = "  ".join(f"{name} {value:.4f}" for name, value in latest.items())
        self._bar.update(task, completed=status.get("round", 0), total=status.get("rounds"), scores=told)

    async def _stop_early(self, note: Note, status: Mapping[str, Json]) -> None:
        """Shorten the job once a round's scores reach the target."""
        target = self.wanted.target
        if target is None or self._stopped or status.get("done"):
            return
        reached = [int(number) for number, found in (status.get("scores") or {}).items() if target.reached(found)]
        if reached:
            self._stopped = True
            rounds = await self.developer.shorten(note.job, int(status["round"]))
            if rounds:
                self._say(f"round {min(reached)} reached {target.metric} {target.value:g}: ends after {rounds} rounds")

    _stopped = False

    async def _fetch(self, model: str) -> bytes:
        """The model file from the network, by way of a node of this device."""
        path = self.folder / "model.part"
        _, answer = await self._first("get", blob=model, out=str(path))
        del answer
        data = path.read_bytes()
        path.unlink()
        return data

    # -- the nodes of this device ------------------------------------------------------------------------------------
    async def _states(self) -> list[dict[str, Json]]:
        """What the running nodes of this home say about themselves."""
        self.nodes, states = [], []
        for home in homes.nodes_in(self.wanted.home):
            try:
                states.append(await ControlClient(home).call("status", timeout=10))
                self.nodes.append(home)
            except NotRunning:
                continue
            except AtollError:  # busy for a moment
                continue
        self._last = states or self._last
        return states

    _last: list[dict[str, Json]] = []  # noqa: RUF012 - replaced, never changed

    async def _first(self, method: str, **params: Json) -> tuple[Path, Json]:
        """The answer of the first node that has one."""
        failure: AtollError = homes.nothing_runs(self.wanted.home)
        for home in self.nodes:
            try:
                return home, await ControlClient(home).call(method, timeout=300, **params)
            except AtollError as error:
                failure = error
        raise failure

    def _job(self, states: list[dict[str, Json]], name: str) -> dict[str, Json]:
        """The job as the node sees it that is furthest, with the scores and the model that any node knows."""
        jobs = [job for state in states for job in state["jobs"] if job["job"] == name]
        if not jobs:
            return {}
        best = dict(max(jobs, key=lambda job: (job["done"], job["round"])))
        best["scores"] = {number: found for job in jobs for number, found in job["scores"].items()}
        best["model"] = next((job["model"] for job in jobs if job["model"]), "")
        return best

    def _say(self, line: str) -> None:
        sys.stderr.write(f"atoll: {line}\n") if not self._bar.live.is_started else self._bar.console.print(line)


def _card(note: Note, status: Mapping[str, Json], manifest: Any, cost: int) -> dict[str, Json]:
    """What the model card says."""
    refused = Counter(one["reason"] for one in status["rejected"])
    last = max(status["scores"], key=int, default="")
    return {
        "name": manifest.name,
        "job": note.job,
        "job_file": manifest.spec.id.hex(),
        "manifest": note.manifest,
        "model": status["model"],
        "rounds": status["round"],
        "workers": status["roster"],
        "steps": manifest.steps,
        "batch": manifest.batch,
        "scores": status["scores"].get(last, {}),
        "by_round": {number: status["scores"][number] for number in sorted(status["scores"], key=int)},
        "verdicts": {
            "accepted": sum(status["accepted"]),
            "refused": dict(sorted(refused.items())),
            "meaning": {Reason(code).name: Reason(code).sentence for code in sorted(GUILTY)},
        },
        "data": {
            key: value
            for key, value in json.loads(note.card).items()
            if key in ("name", "count", "held_out_count", "licence", "origin", "root", "held_out_root")
        },
        "privacy": "public lane: samples were readable by the nodes; no differential privacy",
        "cost": str(cost),
        "size": figures.size(4 * manifest.vector_length),
    }
