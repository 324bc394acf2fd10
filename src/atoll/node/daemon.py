"""The node: one process with its own home, keys and roles, that puts all rooms together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from atoll import __version__
from atoll.config import Settings
from atoll.errors import AtollError, ChainError, InternalError, Refused
from atoll.graph.engine import Engine, EngineLimits
from atoll.inference import messages as inference
from atoll.ledger.chain import Chain
from atoll.ledger.funding import Dues, check_ready, dues
from atoll.ledger.index import EventIndex
from atoll.node import courier as couriers
from atoll.node.answers.serving import Serving
from atoll.node.control import ControlServer
from atoll.node.courier import Courier
from atoll.node.desk import Desk
from atoll.node.journal import Journal
from atoll.node.material import Library
from atoll.node.member import Jobs
from atoll.node.network import Answer, Network
from atoll.node.peers import Directory
from atoll.node.server import Server
from atoll.node.settler import PEER_ALPN, Settler
from atoll.node.survey import About, Survey
from atoll.node.transport import Limits as TransportLimits
from atoll.node.transport import Transport
from atoll.node.view import View
from atoll.storage import messages as storage
from atoll.storage.pieces import PieceStore
from atoll.storage.service import StorageService
from atoll.training.context import GATEWAY, HOLDER, SERVER, VALIDATOR, WORKER
from atoll.transfer import messages as transfer
from atoll.transfer.blobs import BlobStore
from atoll.transfer.service import TransferService
from atoll.wire import messages
from atoll.wire.hashing import Domain
from atoll.wire.identity import PeerRecord, make_binding, parse_account, sign_record
from atoll.wire.keystore import create_keys, has_keys, load_keys

log = logging.getLogger(__name__)

ROLE_FLAGS = {"worker": WORKER, "validator": VALIDATOR, "holder": HOLDER, "server": SERVER, "gateway": GATEWAY}
MEGABYTE = 1 << 20
Result = TypeVar("Result")


@dataclass(frozen=True)
class Options:
    """How a node is started, beside its settings; `opponent` makes it a dishonest worker, to show that it is caught."""

    fresh_journal: bool = False
    opponent: str = ""
    passphrase: str | None = None
    beside: Callable[[Node], AbstractAsyncContextManager[object]] | None = None  # what runs as long as the node does


class Node:
    """A running node. `run` returns when `stop` was called."""

    def __init__(self, home: Path, settings: Settings, options: Options) -> None:
        self.home, self.settings, self.options = home, settings, options
        self.started = time.time()
        self.page = ""  # where its dashboard is, if it has one
        self.paused = False
        self.roles = sum(ROLE_FLAGS[role] for role in settings.roles)
        self.view = View()
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="chain-read")
        self._sending = ThreadPoolExecutor(1, thread_name_prefix="chain-send")
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life ----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Start everything, serve until `stop`, and put everything away. Raises AtollError if it cannot start."""
        self.journal = Journal.open(self.home, fresh=self.options.fresh_journal)
        try:
            await self._open()
            control = await ControlServer.start(self.home, Desk(self).handlers(), self.settings.control_port)
            try:
                self.spawn(self._join())
                self.spawn(self._follow_chain())
                async with self.options.beside(self) if self.options.beside else contextlib.nullcontext():
                    await self._stopping.wait()
                if self._failure is not None:
                    raise InternalError(
                        f"The node stopped because of a mistake of its own ({self._failure!r}). Nothing is lost: start "
                        f"it again, and please report the last lines of {self.home / 'log.txt'}."
                    ) from self._failure
            finally:
                await control.close()
        finally:
            await self._close()

    def stop(self) -> None:
        """End the node after what it is doing now."""
        self._stopping.set()

    async def _open(self) -> None:
        settings = self.settings
        if not has_keys(self.home):
            create_keys(self.home, self.options.passphrase)
        self.keys, warnings = load_keys(self.home, self.options.passphrase)
        for warning in warnings:
            log.warning("%s", warning)
        self.account = self.keys.account.address
        registry, chain_id = parse_account(settings.registry), settings.chain_id or None
        self.chain = await self.send(Chain.connect, settings.rpc, registry, chain_id, self.keys.account)
        self.reader = await self.read(Chain.connect, settings.rpc, registry, chain_id)
        self.index = await self.read(EventIndex, self.reader, self.home / "index.sqlite", settings.first_block)
        self.domain = Domain(self.chain.addresses.chain_id, registry)
        self.directory = Directory(self.domain)
        self.engine = Engine(
            EngineLimits(
                memory_bytes=settings.memory_mb * MEGABYTE,
                cpu_seconds=settings.max_train_seconds,
                wall_seconds=settings.max_train_seconds,
                threads=settings.cpu_threads,
            )
        )
        half = settings.disk_mb * MEGABYTE // 2
        self.blobs = BlobStore(self.home / "blobs", half, sync=False)
        self.pieces = PieceStore(self.home / "pieces", half)
        await self._open_network()

    async def _open_network(self) -> None:
        handlers = self._handlers()
        self.network = Network(self.account, self.directory, handlers)
        self.library = Library(self.blobs, self.home / "samples", self.network.ask, self.account)
        self.courier = Courier(self.network.ask)
        self.settler = Settler(
            self.chain, self.send, self.keys.account, lambda: self.view, self.library, self.network.ask
        )
        self.jobs = Jobs(self)
        self.jobs.share_again()
        self.server = Server(self)
        self.serving = Serving(self)
        self.answers = self.serving.answers
        self._survey = Survey(self)
        if self.roles & GATEWAY:
            self.spawn(self._survey.run())
        limits = TransportLimits(
            request_bytes=4 * MEGABYTE,
            request_bytes_of={messages.ALPN: couriers.MAX_REQUEST, inference.ALPN: inference.MAX_REQUEST_BYTES + 1024},
            handlers=self.settings.requests_at_once,
        )
        self.transport = await self._bind(handlers, limits)
        self.network.attach(self.transport)

    async def _bind(self, handlers: Mapping[bytes, Answer], limits: TransportLimits) -> Transport:
        """Listen where peers found this node last time, if that port is still free."""
        host, _, port = self.settings.listen.rpartition(":")
        remembered = self.journal.get_snapshot("port")
        key = self.keys.endpoint.private
        counted = {alpn: self._counted(alpn, answer) for alpn, answer in handlers.items()}
        if port == "0" and remembered is not None:
            with contextlib.suppress(AtollError):
                return await Transport.start(key, f"{host}:{remembered.decode()}", counted, limits)
        transport = await Transport.start(key, self.settings.listen, counted, limits)
        bound = transport.addresses()[0].rpartition(":")[2]
        self.journal.put_snapshot("port", bound.encode())
        return transport

    def _handlers(self) -> dict[bytes, Answer]:
        """What this node answers, by protocol."""

        async def training(_: bytes, payload: bytes) -> bytes:
            return couriers.receive(payload, self.jobs.receive)

        async def blobs(_: bytes, payload: bytes) -> bytes:
            return self._transfer.handle(payload)

        async def pieces(_: bytes, payload: bytes) -> bytes:
            return self._storage.handle(payload)

        async def peers(_: bytes, payload: bytes) -> bytes:
            return self.server.peer(payload)

        async def answers(peer: bytes, payload: bytes) -> bytes:
            return await self.serving.handle(peer, payload)

        handlers: dict[bytes, Answer] = {messages.ALPN: training, transfer.ALPN: blobs, PEER_ALPN: peers}
        if self.roles & HOLDER:
            handlers[storage.ALPN] = pieces
        if self.roles & SERVER:
            handlers[inference.ALPN] = answers
        self._transfer = TransferService(self.blobs, self._proven, self._damaged)
        self._storage = StorageService(self.pieces, self._damaged)
        return handlers

    def _proven(self, root: bytes, indices: Sequence[int]) -> list[tuple[bytes, Sequence[bytes]]]:
        return self.library.proven(root, indices)

    def _damaged(self, damage: AtollError) -> None:
        log.error("%s", damage)

    def _counted(self, alpn: bytes, answer: Answer) -> Answer:
        async def counted(peer: bytes, payload: bytes) -> bytes:
            response = await answer(peer, payload)
            self.network.served(peer, alpn, len(payload), len(response))
            return response

        return counted

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "serving"):
            await self.serving.close()
        if hasattr(self, "jobs"):
            await self.jobs.close()
            await self.courier.close()
            self.library.close()
        if hasattr(self, "transport"):
            await self.transport.close()
        if hasattr(self, "engine"):
            await self.engine.close()
        for executor in (self._reading, self._sending):
            executor.shutdown(wait=False, cancel_futures=True)
        self.journal.close()

    @property
    def about(self) -> Mapping[bytes, About]:
        """What others tell of themselves, by account: at a gateway only."""
        return self._survey.about

    @property
    def heard(self) -> Mapping[bytes, float]:
        """When each of them answered last, in seconds since 1970: at a gateway only."""
        return self._survey.heard

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the rest. An error that is not one of ours ends the node: half a node helps nobody."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task ended: %s", task.exception(), exc_info=task.exception())
            self._failure = task.exception()
            self.stop()

    # -- the chain -------------------------------------------------------------------------------------------------
    async def read(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run a reading function of the chain in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, lambda: work(*arguments))

    async def send(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run a sending function of the chain in its thread: one after the other, so that nonces stay in order."""
        return await asyncio.get_running_loop().run_in_executor(self._sending, lambda: work(*arguments))

    async def _join(self) -> None:
        """Register, stake and deposit what the roles need; tried until the chain takes it, and told once why not."""
        told = ""
        while True:
            try:
                await self.send(self._enrol)
                return
            except AtollError as error:
                if str(error) != told:
                    log.warning("not registered yet: %s", error)
                told = str(error)
                await asyncio.sleep(3)

    def _enrol(self) -> None:
        """In the sending thread: everything that the registry should know about this node."""
        chain, me = self.chain, self.account
        if chain.coins(me) == 0 and chain.has_faucet():
            chain.fund(me)
        found, due = chain.node(me), Dues(0, 0)
        if self.roles & VALIDATOR:
            due = dues(found, chain.bond(me), chain.terms())
        check_ready(chain, me, due)
        hints = ",".join(self.settings.advertise or self.transport.addresses())[:256]
        if (found.endpoint_id, found.roles, found.hints) != (self.transport.endpoint_id, self.roles, hints):
            binding = make_binding(self.domain, self.keys.account, self.keys.endpoint)
            chain.register(self.transport.endpoint_id, self.roles, hints, binding.endpoint_signature)
        if due.stake:
            chain.stake(due.stake)
        if due.bond:
            chain.deposit_bond(due.bond)
        log.info("registered as 0x%s", me.hex())

    async def _follow_chain(self) -> None:
        """Look at the chain again and again: fold what is new, then do what it asks for."""
        self.view.fold(one.event for one in await self.read(self.index.indexed))
        self._list_peers()
        down = False
        greeted = 0.0
        while True:
            try:
                changes = await self.read(self.index.poll)
                if changes.rolled_back:
                    self.view = View()
                    self.view.fold(one.event for one in await self.read(self.index.indexed))
                else:
                    self.view.fold(one.event for one in changes.new)
                if changes.new or changes.rolled_back:
                    self._list_peers()
                await self.jobs.follow()
                await self.settler.step([one for one in self.jobs.runners if self.jobs.takes_part(one.id)])
                await self.serving.step()
                if time.time() > greeted + 10:
                    greeted = time.time()
                    self.spawn(self._greet())
                if down:
                    log.info("the chain answers again")
                down = False
            except ChainError as error:
                if not down:
                    log.warning("the chain is away, rounds go on: %s", error)
                down = True
            except AtollError as error:
                log.warning("%s", error)
            await asyncio.sleep(self.settings.poll_seconds)

    def _list_peers(self) -> None:
        for account, entry in self.view.nodes.items():
            if not self.directory.registered(account, entry.endpoint_id, entry.roles, entry.hints, entry.binding):
                log.warning("0x%s is registered with an endpoint key that did not sign it; ignored", account.hex())

    def record(self) -> bytes:
        """Where this node can be reached, signed."""
        addresses = tuple(self.settings.advertise or self.transport.addresses())[:8]
        unsigned = PeerRecord(
            self.account, self.transport.endpoint_id, addresses, self.roles, __version__, int(time.time())
        )
        return sign_record(self.domain, self.keys.account, unsigned).encode()

    async def _greet(self) -> None:
        """Tell peers where this node is, and learn where they are."""
        record = self.record()
        others = [account for account in self.directory.reached() if account != self.account]
        for account in others[:32]:
            with contextlib.suppress(AtollError):
                await self.server.greet(account, record)

    def learn(self, records: list[bytes]) -> None:
        """Take in peer records; those that are not right are left out."""
        for data in records:
            with contextlib.suppress(Refused):
                self.directory.learn(data)
