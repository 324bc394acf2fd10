"""A gateway with its tabs' relay on loopback, around a simulated network: real sockets, real rounds, no chain.

The simulated nodes agree on rounds as always; the accounts of browser tabs are nodes without a core, whose messages go
to the gateway's observer and whose blobs are those that the gateway keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from atoll.config import Settings
from atoll.errors import Unreachable
from atoll.gateway.guard import Guard
from atoll.gateway.tabs.relay import Relay
from atoll.gateway.tabs.web import routes
from atoll.graph.manifest import Manifest
from atoll.ledger import events
from atoll.ledger.records import Addresses
from atoll.ledger.rewards import Prices
from atoll.node.book import Book, JobAccount
from atoll.node.daemon import Node
from atoll.node.job import Job
from atoll.node.journal import Journal
from atoll.node.material import Library, Material
from atoll.node.peers import Directory
from atoll.node.view import View
from atoll.sim.faults import Faults
from atoll.sim.network import DOMAIN, JOBS_CONTRACT, Network, Options, SimNode
from atoll.sim.scenario import material as sim_material
from atoll.training.context import GATEWAY, WORKER, Member, light_accounts
from atoll.training.data import bundled_mnist
from atoll.training.events import Finished
from atoll.transfer.blobs import BlobStore
from atoll.wire.eip712 import Verifier
from atoll.wire.hashing import blob_id, keccak
from atoll.wire.identity import AccountKey, EndpointKey, make_binding

ME = AccountKey(keccak(b"gateway"))
DOOR = EndpointKey(keccak(b"door"))
SETTLEMENT = b"\x33" * 20
HINTS = "127.0.0.1:4242"
NODES = 4
SIMULATED_STEP = 0.01  # every 5 ms: a network that is twice as fast as a real one


class TabNode(SimNode):
    """The account of a tab, as the simulated network sees it: its gateway."""

    house: House

    def start(self) -> None:
        """Follow the job without taking part; one observer does for all tabs of a gateway."""
        self.alive = True
        if self.house.observer is self:
            member = Member(ME.address, ME.sign_digest, keccak(b"none"), keccak(b"none"), self.network.terms.rounds)
            self.job = Job(self.network.terms, self.network.enlisted, member, self.network.clock.now)
            self.life += 1
            self._tick(self.life)

    def receive(self, raw: bytes) -> None:
        """Messages for any tab arrive at the gateway."""
        if self.house.observer is self:
            super().receive(raw)
        else:
            self.house.observer.receive(raw)

    def serves(self, name: bytes) -> bool:
        """The gateway serves what its tabs uploaded."""
        if self.house.blobs.has(name):
            self.blobs[name] = self.house.blobs.get(name)
        return self.alive and name in self.blobs

    async def fetch(self, name: bytes, sources: Sequence[bytes]) -> bytes:
        """Nobody works here but the tab itself."""
        raise Unreachable("a tab fetches through its gateway")


@dataclass
class House:
    """What the relay needs of a node. `said` counts what it sends to each account, by envelope."""

    home: Path
    tabs: int = 1
    rounds: int = 2
    max_tabs: int = 64
    said: list[tuple[bytes, bytes]] = field(default_factory=list)
    simulated: float = 0.0
    deaf: bool = False

    def __post_init__(self) -> None:
        self.material = sim_material("softmax", self.rounds)
        kinds: dict[int, type[SimNode]] = dict.fromkeys(range(NODES, NODES + self.tabs), TabNode)
        options = Options(committee_size=NODES, kinds=kinds)
        self.network = Network(self.material, NODES + self.tabs, Faults(), 1, options)
        self.tab_nodes = [cast(TabNode, node) for node in self.network.by_index[NODES:]]
        for node in self.tab_nodes:
            node.house = self
            entry = self.network.enlisted[node.account]
            self.network.enlisted[node.account] = replace(entry, roles=WORKER)
        founders = tuple(sorted(node.account for node in self.network.by_index[:NODES]))
        self.network.terms = replace(self.network.terms, committee=founders)
        self.observer = self.tab_nodes[0]
        self.network.nodes[ME.address] = self.observer
        self.manifest: Manifest = self.material.manifest
        self._parts()
        self._facts()

    def _parts(self) -> None:
        self.blobs = BlobStore(self.home / "blobs", 1 << 28, sync=False)
        self.journal = Journal.open(self.home / "node")
        self.library = Library(self.blobs, self.home / "samples", self._ask, ME.address)
        self.library.share(bundled_mnist()[0])
        encoded = self.manifest.to_bytes()
        self.manifest_id = self.blobs.put(encoded)
        self.blobs.put(self.material.step_graph)
        self.blobs.put(self.material.initial)
        assert blob_id(self.material.initial).hex() == self.manifest.initial

    def _facts(self) -> None:
        job = self.network.terms.job
        self.view, self.domain, self.account = View(), DOMAIN, ME.address
        self.keys = SimpleNamespace(account=ME, endpoint=DOOR)
        self.settings = replace(Settings(), max_tabs=self.max_tabs, advertise=(HINTS,))
        self.directory = Directory(DOMAIN)
        self.enter(ME, GATEWAY)
        for node in self.tab_nodes:
            self.enter(node.key, WORKER)
        opened = events.Opened(job, ME.address, self.manifest_id, 10**24, self.rounds, 9**9, ME.address)
        self.view.fold([opened])
        self.runner = SimpleNamespace(id=job)
        known = Material(self.manifest, self.material.step_graph, b"", b"", b"", None)
        self.jobs = SimpleNamespace(runners=[self.runner], materials={job: known}, finished={job: []})
        policy = self.manifest.policy
        prices = Prices(policy.unit_price, policy.audit_price, policy.validator_price, self.manifest.segments)
        book = Book()
        book.open_job(job, JobAccount(prices, self.rounds, policy.epoch_rounds, 10**24))
        self.settler = SimpleNamespace(book=book)
        addresses = Addresses(DOMAIN.chain_id, DOMAIN.registry, b"\x44" * 20, JOBS_CONTRACT, SETTLEMENT, b"\x55" * 20)
        self.chain = SimpleNamespace(
            addresses=addresses, verifier=lambda name: Verifier(DOMAIN.chain_id, getattr(addresses, name))
        )
        self.reader = SimpleNamespace(registration_nonce=lambda account: int(account in self.view.nodes))
        self.courier = SimpleNamespace(send=self.send)
        self.network_ask = self._ask

    def enter(self, key: AccountKey, roles: int) -> None:
        """Register an account with the gateway's endpoint."""
        binding = make_binding(DOMAIN, key, DOOR).endpoint_signature
        self.view.fold([events.Registered(key.address, DOOR.public, roles, HINTS, binding)])
        self.directory.registered(key.address, DOOR.public, roles, HINTS, binding)

    # -- what a node does ------------------------------------------------------------------------------------------
    async def _ask(self, account: bytes, alpn: bytes, payload: bytes) -> bytes:
        raise Unreachable("in this house everything is here")

    def send(self, account: bytes, raw: bytes) -> None:
        """Deliver an envelope to a simulated node; while this house is `deaf`, it is lost."""
        self.said.append((account, raw))
        if not self.deaf:
            self.network.deliver(self.observer, account, raw)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    # -- life ------------------------------------------------------------------------------------------------------
    def _advance(self) -> None:
        """A little simulated time passes; the gateway takes in what its observer found."""
        self.simulated += SIMULATED_STEP
        self.network.play(self.simulated)
        job, core = self.runner.id, self.observer.job
        assert core is not None
        finished: list[Finished] = self.jobs.finished[job]
        while len(finished) < len(core.certificates):
            one = self.network.history[len(finished)]
            self.settler.book.certified(job, one.round, one.certificate, light_accounts(self.network.enlisted))
            finished.append(one)
        if core.standing.model not in self.blobs.ids():
            for node in self.network.by_index[:NODES]:
                if core.standing.model in node.blobs:
                    self.blobs.put(node.blobs[core.standing.model])

    def go(self) -> None:
        """From here on the network goes on by itself."""
        self.spawn(self._live())

    async def until(self, condition: Callable[[], object]) -> None:
        """Let time pass until something is true; the test's own limit ends it if it never is."""
        while not condition():
            await asyncio.sleep(0.005)

    async def _live(self) -> None:
        while True:
            self._advance()
            await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def open(self, more: Sequence[BaseRoute] = ()) -> AsyncIterator[str]:
        """Serve on a free port, with more routes, behind the gateway's guard; yields "host:port"."""
        self.tasks: list[asyncio.Future[None]] = []
        self.network._begin()
        self.runner.job = self.observer.job
        self.relay = Relay(cast(Node, self))
        self.spawn(self.relay.run())
        app = Starlette(routes=[*routes(self.relay), *more], middleware=[Middleware(Guard)])
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            app, log_config=None, log_level="critical", access_log=False, lifespan="off", server_header=False,
            ws="websockets-sansio", ws_max_size=64 * 1024, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = _Server(config)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.sleep(0)
            yield f"127.0.0.1:{port}"
            for task in self.tasks:
                if task.done():
                    task.result()
        finally:
            server.should_exit = True
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(serving, *self.tasks, return_exceptions=True)
            listener.close()
            self.journal.close()
            self.library.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
