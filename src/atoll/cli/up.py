"""`atoll up`: a whole network on this machine: chain, nodes, a job, its payment, its result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from atoll.cli import external
from atoll.cli.answers import served_facts
from atoll.cli.developer import Developer
from atoll.cli.live import LiveView, PlainView
from atoll.cli.plan import JobPlan, Seats, plan_job, train_alone
from atoll.cli.processes import Supervisor, Worker
from atoll.cli.remote import NodeAnswers
from atoll.cli.report import summarise
from atoll.cli.run import top_of
from atoll.cli.summary import print_summary
from atoll.errors import AtollError, BadSetting, MachineError, UserError, WrongChain
from atoll.gateway.facts import Facts, NodeFacts
from atoll.gateway.server import listen, page_url
from atoll.graph.archive import JobFile
from atoll.graph.manifest import Aggregation
from atoll.ledger.funding import endow
from atoll.ledger.records import GasUse
from atoll.logs import say_error
from atoll.node.control import ControlClient
from atoll.node.journal import HomeLock
from atoll.training.data import load
from atoll.training.opponents import ATTACKS
from atoll.wire.identity import format_account, parse_account

POLL_SECONDS = 0.4
READY_SECONDS = 90.0
EXTERNAL_READY_SECONDS = 600.0  # each node sends three transactions, and blocks may be 12 seconds apart
QUESTION_SECONDS = 20.0  # other nodes hear of a new model one by one
NOTABLE_WINDOW = 60
KEPT_LINES = 200
MAX_NODES = 64
GATEWAY = "gateway"


@dataclass(frozen=True)
class UpOptions:
    """What `atoll up` was asked for."""

    nodes: int
    rounds: int
    dishonest: int
    attack: str
    job: JobFile
    data: str
    aggregation: Aggregation
    budget: str | None
    home: Path
    host: str
    port: int
    seats: int
    chain: external.Wanted | None  # None: a chain of its own
    exit: bool
    json: Path | None
    plain: bool


def run_up(options: UpOptions) -> int:
    """Run the network until the job is paid (`exit`) or until Ctrl-C; returns the exit code."""
    try:
        _check(options)
        with _lock(options.home):
            return asyncio.run(Up(options).run())
    except AtollError as error:
        return say_error(error)


def _check(options: UpOptions) -> None:
    if not 1 <= options.nodes <= MAX_NODES:
        raise BadSetting(f"--nodes is {options.nodes}: expected 1 to {MAX_NODES} (5 or more to settle disputes).")
    if not 0 <= options.dishonest < options.nodes:
        raise BadSetting(f"--dishonest is {options.dishonest}: expected fewer than the {options.nodes} nodes.")
    if options.rounds < 1:
        raise BadSetting(f"--rounds is {options.rounds}: expected 1 or more.")
    if options.attack not in ATTACKS:
        raise BadSetting(f"--attack is {options.attack!r}: expected one of {', '.join(ATTACKS)}.")
    if options.chain is None and external.remembered(options.home) is not None:
        raise WrongChain(
            f"{options.home} belongs to a network on another chain: give --rpc URL and --key FILE again, or another "
            f"--home for a network with a chain of its own."
        )


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[None]:
    """One `atoll up` a home."""
    lock = HomeLock(home)
    try:
        yield
    finally:
        _notice(home).unlink(missing_ok=True)
        lock.release()


def _notice(home: Path) -> Path:
    """Where `atoll stop` finds this run: its process id and those of its children."""
    return home / "up.json"


class Up:
    """One run of `atoll up`."""

    def __init__(self, options: UpOptions) -> None:
        self.options = options
        self.started = time.time()
        self.phase = "starting"
        self.seconds: dict[str, float] = {}
        self.network: dict[str, Any] = {}
        self.deployment: dict[str, GasUse] = {}
        self.lines: list[str] = []
        self.statuses: dict[int, dict[str, Any] | None] = {}
        self.job = ""
        self.supervisor = Supervisor(self.say, self._note_processes)
        self.nodes: list[Worker] = []
        self.page = ""
        self._port = 0
        self._phase_since = time.time()
        self._stop = asyncio.Event()

    # -- the story -----------------------------------------------------------------------------------------------
    async def run(self) -> int:
        """Everything, in order; what was started is ended whatever happens."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        with listen(self.options.host, self.options.port) as free:  # told now, not after the chain has started
            self._port = int(free.getsockname()[1])
        with ExitStack() as views:
            view = PlainView if self.options.plain or not sys.stdout.isatty() else LiveView
            views.enter_context(view(self.facts))
            try:
                summary = await self._until_stopped(self._story())
                if summary is not None:
                    views.close()
                    self._show(summary)
                    if not self.options.exit:
                        await self._until_stopped(self._stay())
                    return 0
            finally:
                await self.supervisor.stop()
        return 130

    async def _until_stopped(self, work: Any) -> Any:
        """The result of `work`; None if Ctrl-C came first. A worker that keeps dying ends it as well."""
        story = asyncio.ensure_future(work)
        helpers = [asyncio.ensure_future(one) for one in (self._stop.wait(), self.supervisor.watch(), self._poll())]
        try:
            await asyncio.wait([story, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for helper in helpers[1:]:
                if helper.done():
                    helper.result()
            return story.result() if story.done() else None
        finally:
            for task in (story, *helpers):
                task.cancel()
            await asyncio.gather(story, *helpers, return_exceptions=True)

    async def _stay(self) -> None:
        sys.stdout.write(f"The network keeps running; its dashboard is {self.page}. Ctrl-C ends it.\n")
        await asyncio.Event().wait()

    async def _story(self) -> dict[str, Any]:
        options = self.options
        count = self._node_count()
        source = load(options.data, options.home)
        seats = Seats(count, options.seats)
        plan = plan_job(options.job, source, options.rounds, options.budget, seats, options.aggregation)
        if plan.manifest.rounds < options.rounds:
            self.say(f"the budget pays for {plan.manifest.rounds} of {options.rounds} rounds")
        await self._start_chain()
        await self._start_nodes(count)
        await self._start_gateway()
        key = options.chain.key if options.chain is not None else None
        developer = await Developer.open(options.home / "developer", self.network, key)
        await self._endow(developer)
        await self._all_ready()
        self._enter("enlisting")
        self.job = await developer.find_unfinished() or await self._post(developer, plan)
        self._enter("training")
        await self._wait(lambda: bool(self.job_status().get("done")), None, "the last round")
        self.say("the last round is certified; the model is being stored, the last epoch posted")
        if developer.window > NOTABLE_WINDOW:
            self.say(
                f"everybody is paid when the last epoch has been open for {developer.window} seconds; this can be "
                f"stopped until then, and the same command goes on"
            )
        self._enter("settling")
        baseline = await train_alone(plan, count)
        await self._wait(lambda: bool(self.job_status().get("model")), 120, "the model to be stored")
        await developer.settle(self.job, self._states)
        await self._poll_once()
        answer = await self._question(plan)
        self._enter("done")
        return await summarise(self, developer, answer, baseline)

    async def _post(self, developer: Developer, plan: JobPlan) -> str:
        """Publish a job's parts on two nodes, pay its budget in, and start it when everybody has enlisted."""
        parts = [str(path) for path in developer.write_parts(plan)]
        for node in self.nodes[:2]:
            await self.client_of(node.name).call("share", data=self.options.data, files=parts)
        seed = (self.statuses[1] or {})["account"]
        job = await developer.post(plan, seed)
        self.say(f"job {job[:10]} is open, its budget in escrow")
        await developer.start_when(job, len(self.nodes), self.say)
        return job

    # -- the parts -------------------------------------------------------------------------------------------------
    async def _start_chain(self) -> None:
        options, home = self.options, self.options.home
        if options.chain is not None:
            await self._open_external(options.chain)
        else:
            remembered = home / "chain" / "port"
            port = remembered.read_text() if remembered.exists() else "0"
            chain = Worker("chain", self._chain_arguments(port), home)
            await self.supervisor.add(chain)
            found = await chain.first_line()
            remembered.write_text(found["rpc"].rpartition(":")[2])
            chain.arguments = self._chain_arguments(remembered.read_text())
            place = external.Place(found["chain_id"], parse_account(found["registry"]))
            self.network = {**found, "kind": "embedded", "first_block": 0}
            self.network["join"] = external.join_command(found["rpc"], place)
        if options.host in ("127.0.0.1", "localhost"):
            self.network["join_hint"] = "start with --host 0.0.0.0 to let other machines in"
        self.say(f"the chain answers at {self.network['rpc']}")

    async def _open_external(self, wanted: external.Wanted) -> None:
        found = await asyncio.to_thread(external.open_network, self.options.home, wanted, self.say)
        self.deployment = found.gas
        place = found.place
        self.network = {
            "kind": "external",
            "rpc": wanted.rpc,
            "registry": format_account(place.registry),
            "chain_id": place.chain_id,
            "first_block": place.first_block,
            "join": external.join_command(wanted.rpc, place),
        }

    def _chain_arguments(self, port: str) -> list[str]:
        place = ["--home", str(self.options.home / "chain"), "--host", self.options.host, "--port", port]
        return ["atoll.ledger.devnet", *place]

    def _node_count(self) -> int:
        """As many nodes as were asked for, and at least those that the home has."""
        kept = sum(1 for path in self.options.home.glob("node-*") if path.is_dir())
        if kept > self.options.nodes:
            self.say(f"this home has {kept} nodes: all of them are started")
        return max(kept, self.options.nodes)

    async def _start_nodes(self, count: int) -> None:
        home, options = self.options.home, self.options
        honest = count - options.dishonest
        for index in range(1, count + 1):
            arguments = self._node_arguments("atoll.node", f"node-{index}")
            if index > honest:
                arguments += ["--opponent", options.attack]
            node = Worker(f"node-{index}", arguments, home)
            await self.supervisor.add(node)
            self.nodes.append(node)

    async def _start_gateway(self) -> None:
        """The node that shows the network to people and lets browser tabs in; it takes no units."""
        host = self.options.host
        http = f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"
        arguments = self._node_arguments("atoll.gateway", GATEWAY, roles="gateway", http=http)
        await self.supervisor.add(Worker(GATEWAY, arguments, self.options.home))
        self.page = page_url(host, self._port)
        if host in ("127.0.0.1", "localhost", "::1"):
            return
        addresses = (await self._gateway_status())["addresses"]
        outside = [one.rpartition(":")[0].strip("[]") for one in addresses if not one.startswith(("127.", "[::1]"))]
        if outside:
            self.network["phone"] = page_url(outside[0], self._port) + "join"
            near = f"//[{outside[0]}]:" if ":" in outside[0] else f"//{outside[0]}:"
            self.network["join"] = self.network["join"].replace("//127.0.0.1:", near)
            self.say(f"a phone in the same network can help: open {self.network['phone']}")

    def _node_arguments(self, module: str, name: str, **more: str) -> list[str]:
        settings = {
            "rpc": self.network["rpc"],
            "registry": self.network["registry"],
            "chain_id": self.network["chain_id"],
            "first_block": self.network["first_block"],
            "listen": f"{self.options.host}:0",
            "poll_seconds": "0.4",
            "name": name,
            **more,
        }
        arguments = [module, "--home", str(self.options.home / name)]
        for setting, value in settings.items():
            arguments += ["--set", f"{setting}={value}"]
        return arguments

    async def _endow(self, developer: Developer) -> None:
        """On a chain without a faucet, give the nodes what they need to take part."""
        if await developer.call(developer.chain.has_faucet):
            return
        await self._wait(lambda: len(self._states()) == len(self.nodes), READY_SECONDS, "all nodes to start")
        states = [*self._states(), await self._gateway_status()]
        accounts = [parse_account(state["account"]) for state in states]
        given = await developer.call(endow, developer.chain, accounts)
        if given:
            self.say(f"{given} nodes have received coins for transactions, and tokens for stake and bonds")

    async def _all_ready(self) -> None:
        def ready() -> bool:
            return all((self.statuses.get(i + 1) or {}).get("validator") for i in range(len(self.nodes)))

        limit = READY_SECONDS if self.options.chain is None else EXTERNAL_READY_SECONDS
        await self._wait(ready, limit, "all nodes to register")
        self.say(f"{len(self.nodes)} nodes are registered and staked")

    async def _question(self, plan: JobPlan) -> dict[str, Any]:
        """Ask the network something that it has not seen: a held-out picture, answered by a serving node."""
        form, held_out = plan.job.spec.input, plan.source.held_out
        if form.dtype != "uint8" or len(form.shape) != 3 or form.shape[0] not in (1, 3):
            return {}  # people are shown a picture
        picture = self.options.home / "question.png"
        label = int(held_out.y[0])
        pixels = held_out.x[0].reshape(form.shape).transpose(1, 2, 0)
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(picture)
        told = {"picture": str(picture), "label": label}
        asker = NodeAnswers(self.options.home / self.nodes[-1].name)
        try:
            info = await asker.offered(self.job_status()["model"], QUESTION_SECONDS)
            scores, served = await asker.classify(info.id, held_out.x[:1].reshape(1, *form.shape))
        except AtollError as error:
            return {**told, "error": str(error)}
        return {**told, **top_of(scores), **served_facts(served)}

    async def _gateway_status(self) -> dict[str, Any]:
        """The gateway's own state, as soon as it answers."""
        while True:
            try:
                return dict(await self.client_of(GATEWAY).call("status", timeout=3))
            except AtollError:
                await asyncio.sleep(POLL_SECONDS)

    def _states(self) -> list[dict[str, Any]]:
        """What the nodes that answer say about themselves."""
        return [status for status in list(self.statuses.values()) if status]

    # -- watching --------------------------------------------------------------------------------------------------
    def client_of(self, name: str) -> ControlClient:
        """The control channel of a node."""
        return ControlClient(self.options.home / name)

    async def _poll(self) -> None:
        while True:
            await self._poll_once()
            await asyncio.sleep(POLL_SECONDS)

    async def _poll_once(self) -> None:
        async def one(index: int, node: Worker) -> None:
            try:
                self.statuses[index] = await self.client_of(node.name).call("status", timeout=3)
            except AtollError:
                if not node.alive:
                    self.statuses[index] = None

        await asyncio.gather(*(one(index + 1, node) for index, node in enumerate(self.nodes)))

    async def _wait(self, condition: Callable[[], bool], limit: float | None, what: str) -> None:
        end = None if limit is None else time.monotonic() + limit
        while not condition():
            if end is not None and time.monotonic() > end:
                logs = f"{self.options.home}/node-*/log.txt"
                raise MachineError(f"Waited {limit:g} s for {what} in vain; see the logs in {logs}.")
            await asyncio.sleep(0.1)

    def _jobs(self) -> list[dict[str, Any]]:
        """What each node says about the job of this run."""
        found = []
        for status in list(self.statuses.values()):  # a view reads this from its own thread
            found += [job for job in (status or {}).get("jobs", ()) if not self.job or job["job"] == self.job]
        return found

    def job_status(self) -> dict[str, Any]:
        """The job as the node sees it that is furthest, with the accuracies and the model that any node knows."""
        jobs = self._jobs()
        if not jobs:
            return {}
        best = dict(max(jobs, key=lambda job: (job["round"], job["done"])))
        for key in ("accuracy", "scores"):
            best[key] = {number: value for job in jobs for number, value in job[key].items()}
        best["model"] = next((job["model"] for job in jobs if job["model"]), "")
        return best

    def facts(self) -> Facts:
        """The network now, for the views."""
        job = self.job_status()
        dishonest = len(self.nodes) - self.options.dishonest
        nodes = [
            NodeFacts(i + 1, node.name, node.pid, node.alive, i >= dishonest, self.statuses.get(i + 1))
            for i, node in enumerate(self.nodes)
        ]
        accuracy = {int(number): value for number, value in job.get("accuracy", {}).items()}
        running = {**self.seconds, self.phase: time.time() - self._phase_since}
        return Facts(
            phase=self.phase,
            started=self.started,
            seconds=running,
            network=self.network,
            nodes=nodes,
            job=job or None,
            accuracy=dict(sorted(accuracy.items())),
            rejected=job.get("rejected", []),
            lines=self.lines[-KEPT_LINES:],
            page=self.page,
        )

    def _note_processes(self, processes: dict[str, int | None]) -> None:
        _notice(self.options.home).write_text(json.dumps({"pid": os.getpid(), "processes": processes}))

    def say(self, line: str) -> None:
        """Tell the person something."""
        self.lines.append(f"{time.time() - self.started:6.1f} s  {line}")

    def _enter(self, phase: str) -> None:
        now = time.time()
        self.seconds[self.phase] = round(now - self._phase_since, 2)
        self.phase, self._phase_since = phase, now

    def _show(self, summary: dict[str, Any]) -> None:
        if self.options.json is not None:
            try:
                self.options.json.write_text(json.dumps(summary, indent=2) + "\n")
            except OSError as error:
                raise UserError(f"The summary cannot be written to {self.options.json} ({error.strerror}).") from error
        print_summary(summary, running=not self.options.exit)
