"""A local Atoll network for measurements: the embedded chain, nodes as processes, and one job after another."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from empty_job import EmptyJob

from atoll.cli.processes import Worker
from atoll.errors import AtollError
from atoll.ledger.chain import Chain
from atoll.node.control import ControlClient
from atoll.wire.identity import AccountKey, parse_account

POLL_SECONDS = 0.02
READY_SECONDS = 90.0
BUDGET = 4_000 * 10**18
COMMITTEE = 7
UNIT, AUDIT = 1, 2  # kinds of receipts


@dataclass
class NodeWorker(Worker):
    """A worker that runs in an environment of its own choice."""

    python: str = sys.executable

    async def start(self) -> None:
        """Start the process in a group of its own; its output goes to HOME/NAME.out."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if self.python != sys.executable:
            environment.pop("PYTHONPATH", None)  # it would bring the packages of another environment
        with (self.home / f"{self.name}.out").open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                *(self.python, "-m", *self.arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=environment,
            )


class Network:
    """The chain and `count` nodes in a folder; `settings` are those of `atoll up` unless given."""

    def __init__(self, home: Path, count: int, python: str = sys.executable, **settings: str) -> None:
        self.home, self.count, self.python = home, count, python
        self.settings = {"listen": "127.0.0.1:0", "poll_seconds": "0.4", **settings}
        place = ["--home", str(home / "chain"), "--port", "0"]
        self.chain_process = Worker("chain", ["atoll.ledger.devnet", *place], home)
        self.nodes: list[Worker] = []
        self.chain: Chain

    async def start(self) -> None:
        """Start everything and wait until all nodes are registered and staked."""
        await self.chain_process.start()
        found = await self.chain_process.first_line()
        fixed = {"rpc": found["rpc"], "registry": found["registry"], **self.settings}
        for index in range(1, self.count + 1):
            arguments = ["atoll.node", "--home", str(self.home / f"node-{index}")]
            for name, value in fixed.items():
                arguments += ["--set", f"{name}={value}"]
            self.nodes.append(NodeWorker(f"node-{index}", arguments, self.home, python=self.python))
            await self.nodes[-1].start()
        await wait(self._ready, READY_SECONDS, "all nodes to register")
        key, registry = AccountKey(os.urandom(32)), parse_account(found["registry"])
        self.chain = await asyncio.to_thread(Chain.connect, found["rpc"], registry, None, key)
        await asyncio.to_thread(self.chain.fund, key.address)

    async def _ready(self) -> bool:
        try:
            statuses = await asyncio.gather(*(self.client(index).call("status") for index in range(1, self.count + 1)))
        except AtollError:
            return False
        return all(one["validator"] and one["peers"] == self.count - 1 for one in statuses)

    def client(self, index: int) -> ControlClient:
        """The control channel of a node, counted from 1."""
        return ControlClient(self.home / f"node-{index}")

    async def stop(self) -> None:
        """End all processes; the chain last."""
        await asyncio.gather(*(node.end() for node in self.nodes))
        await self.chain_process.end()

    async def open(self, job: EmptyJob, data: Path) -> bytes:
        """Publish a job on two nodes (or the only one), pay for it, wait until all have enlisted; returns its id."""
        for index in range(1, min(2, self.count) + 1):
            await self.client(index).call("share", data=str(data), files=job.write(self.home))
        seed = parse_account((await self.client(1).call("status"))["account"])
        terms = (job.manifest.id, BUDGET, job.manifest.rounds, int(time.time()) + 86_400, seed)
        name, _ = await asyncio.to_thread(self.chain.open, *terms)

        async def enlisted() -> bool:
            return len(await asyncio.to_thread(self.chain.enlisted, name)) >= self.count

        await wait(enlisted, READY_SECONDS, "all nodes to enlist")
        return name

    async def start_job(self, job: bytes) -> None:
        """Start a job with all nodes in its first committee (at most seven)."""
        members = [one.account for one in await asyncio.to_thread(self.chain.enlisted, job)]
        await asyncio.to_thread(self.chain.start, job, members[:COMMITTEE])


@dataclass
class Course:
    """When one node saw a job get to each round (Unix seconds): certified by a quorum, and on the chain."""

    begun: float = 0.0
    certified: list[float] = field(default_factory=list)
    on_chain: list[float] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> list[float]:
        """Seconds of each round, from one certificate to the next; the first from the job's start."""
        times = [self.begun, *self.certified]
        return [end - begin for begin, end in itertools.pairwise(times)]

    @property
    def delays(self) -> list[float]:
        """Seconds between a quorum's certificate and its event on the chain, by round."""
        return [late - early for early, late in zip(self.certified, self.on_chain, strict=True)]


async def follow(client: ControlClient, job: bytes, rounds: int, limit: float) -> Course:
    """Ask one node for its state every 20 ms over one connection, until the last round is on the chain."""
    notice = json.loads((client.home / "control.json").read_text())
    reader, writer = await asyncio.open_connection("127.0.0.1", notice["port"], limit=1 << 24)
    question = json.dumps({"token": notice["token"], "method": "status", "params": {}}).encode() + b"\n"
    course, end = Course(), time.monotonic() + limit
    try:
        while len(course.on_chain) < rounds:
            if time.monotonic() > end:
                raise RuntimeError(f"{len(course.on_chain)} of {rounds} rounds after {limit:g} s: {course.status}")
            writer.write(question)
            now, answer = time.time(), json.loads(await reader.readline())["result"]
            _note(course, next((one for one in answer["jobs"] if one["job"] == "0x" + job.hex()), None), now)
            await asyncio.sleep(POLL_SECONDS)
    finally:
        writer.close()
    return course


def _note(course: Course, status: dict[str, Any] | None, now: float) -> None:
    if status is None:
        return
    course.status = status
    course.begun = course.begun or now
    course.certified += [now] * (status["round"] - len(course.certified))
    course.on_chain += [now] * (status["certified"] - len(course.on_chain))


async def wait(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Until the condition holds; raises RuntimeError after so many seconds."""
    end = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {seconds:g} s for {what} in vain")
        await asyncio.sleep(0.1)


async def audits_by_round(network: Network, job: bytes, rounds: int) -> list[int]:
    """Audits that were paid in each round of a job, from the nodes' statements once all rounds are posted."""
    counts: list[int] = []

    async def posted() -> bool:
        lines = await _lines(network, job)
        counts[:] = [sum(of == number and kind == AUDIT for of, kind in lines) for number in range(rounds)]
        return sum(of == rounds - 1 and kind == UNIT for of, kind in lines) == network.count

    await wait(posted, READY_SECONDS, "the last receipts")
    return counts


async def _lines(network: Network, job: bytes) -> list[tuple[int, int]]:
    """(round, kind) of each receipt of a job."""
    found = []
    for index in range(1, network.count + 1):
        client = network.client(index)
        account = (await client.call("status"))["account"]
        lines = (await client.call("statement", account=account))["lines"]
        found += [(line["round"], line["kind"]) for line in lines if line["job"] == "0x" + job.hex()]
    return found
