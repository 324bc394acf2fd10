"""A small network in simulated time, as a gateway sees it: real rounds, receipts, epochs; only the chain is events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from threading import Thread
from typing import Any
from weakref import finalize

import msgspec
import numpy as np
import uvicorn
from starlette.applications import Starlette

from atoll.gateway.guard import Guard
from atoll.gateway.pages.actions import Actions
from atoll.gateway.pages.facts import Followed, Held, JobFacts, Missing, ModelFacts, Place, Snapshot
from atoll.gateway.pages.reading import round_now
from atoll.gateway.pages.site import Site, not_found
from atoll.graph.archive import ModelFile, pack_model
from atoll.graph.fixed import decode_model
from atoll.graph.session import LocalEngine
from atoll.graph.zoo import load_zoo
from atoll.ledger import events
from atoll.ledger.epoch import encode_epoch, post_of
from atoll.ledger.rewards import Prices, budget_per_round
from atoll.node.book import Book, JobAccount
from atoll.node.survey import About
from atoll.node.view import View
from atoll.sim.faults import Faults
from atoll.sim.network import DOMAIN, JOBS_CONTRACT, ROLES, Network
from atoll.sim.scenario import material
from atoll.training.data import bundled_source
from atoll.wire.eip712 import Verifier
from atoll.wire.hashing import blob_id
from atoll.wire.identity import AccountKey

SETTLEMENT, TOKEN_CONTRACT = b"\x33" * 20, b"\x44" * 20
VERIFIER = Verifier(DOMAIN.chain_id, SETTLEMENT)
GATEWAY = AccountKey(b"\x77" * 32).address
NOW = 1_790_000_000.0
EPOCH_ROUNDS = 2
OWNER = "owner-token-of-the-tests"


class Town:
    """Six nodes, one of which lies, and a gateway; `step` plays on, `snapshot` is what the pages are made from."""

    def __init__(self, nodes: int = 6, rounds: int = 6, liar: str = "random", names: tuple[str, ...] = ()) -> None:
        self.source, self.material = bundled_source(), material("softmax", rounds)
        manifest = self.material.manifest
        data = msgspec.structs.replace(manifest.data, card=blob_id(self.source.card_bytes).hex())
        policy = msgspec.structs.replace(manifest.policy, epoch_rounds=EPOCH_ROUNDS, audit_rate_floor=5_000)
        self.manifest = msgspec.structs.replace(manifest, data=data, policy=policy)
        self.material = replace(self.material, manifest=self.manifest)
        faults = Faults(liars={str(nodes - 1): liar} if liar else {})
        self.network = Network(self.material, nodes, faults, seed=3)
        self.job, self.now, self.clock = self.network.terms.job, NOW, 0.0
        self.view, self.book = View(), Book()
        self.scores: dict[int, dict[str, float]] = {}
        self.posted_at: dict[int, float] = {}
        self.blobs: dict[bytes, bytes] = {}
        self.model_blob = b""
        self._folder = Path(mkdtemp())
        finalize(self, rmtree, self._folder, ignore_errors=True)
        accounts = self.network.by_index
        self.about = {
            node.account: About(
                name=names[node.index] if node.index < len(names) else f"node-{node.index + 1}",
                version="0.1.0", roles=ROLES, cpu_threads=2, memory_mb=1024, disk_mb=2048,
                stored_blobs=3_400_000 + node.index, stored_pieces=1_200_000, samples=0,
                up=20_000_000, down=18_000_000, uptime=420, paused=False, graded={}, models={},
            )
            for node in accounts
        }  # fmt: skip
        self._open()

    def _open(self) -> None:
        terms, policy = self.network.terms, self.manifest.policy
        prices = Prices(policy.unit_price, policy.audit_price, policy.validator_price)
        nodes = len(self.network.nodes)
        self.budget = terms.rounds * budget_per_round(prices, nodes, nodes, 3 * nodes, nodes)
        for node in self.network.by_index:
            self.view.fold([
                events.Registered(node.account, node.account + b"\x01" * 12, ROLES, f"10.0.{node.index}.7:4100", b""),
                events.Staked(node.account, 100 * 10**18, 100 * 10**18),
                events.ValidatorSet(node.account, True, node.index + 1),
            ])  # fmt: skip
        self.view.fold([events.Registered(GATEWAY, b"\x09" * 32, 16, "", b"")])
        opened = events.Opened(self.job, GATEWAY, self.manifest.id, self.budget, terms.rounds, 0, terms.committee[0])
        self.view.fold([opened])
        self.view.fold(events.Enlisted(self.job, account, b"\x05" * 32, ROLES) for account in terms.roster)
        self.view.fold([events.Started(self.job, terms.committee, 0)])
        self.book.open_job(self.job, JobAccount(prices, terms.rounds, EPOCH_ROUNDS, self.budget))

    # -- time --------------------------------------------------------------------------------------------------------
    def step(self, seconds: float = 0.5) -> None:
        """Play on for so many simulated seconds."""
        known = len(self.network.history)
        self.clock, self.now = self.clock + seconds, self.now + seconds
        self.network.play(self.clock)
        for number in range(known, len(self.network.history)):
            self._certified(number)

    def finish(self) -> Town:
        """Play to the end."""
        while len(self.network.history) < self.network.terms.rounds:
            self.step(5.0)
        return self

    def _certified(self, number: int) -> None:
        one = self.network.history[number]
        certificate = one.certificate
        self.book.certified(self.job, number, certificate)
        self.view.fold([
            events.Certified(self.job, number, 0, certificate.lock_root, b"\x00" * 32, certificate.model,
                             certificate.committee, certificate.committee[0]),
        ])  # fmt: skip
        self.scores[number] = self._score(certificate.model)
        spans = self.book.due({self.job: number + 1})
        if spans:
            self._post(spans)
        if number + 1 == self.network.terms.rounds:
            self._store(certificate.model)

    def _post(self, spans: Any) -> None:
        epoch = self.book.draft(len(self.book.epochs), spans)
        data = encode_epoch(epoch)
        name, post = blob_id(data), post_of(epoch, VERIFIER)
        self.blobs[name] = data
        drawn = sum(receipt.amount for receipt in epoch.receipts)
        self.view.fold(events.TotalPosted(epoch.number, total.job, total.total, total.settled) for total in epoch.jobs)
        poster = self.network.by_index[epoch.number % len(self.network.by_index)].account
        sums = (len(epoch.accounts), len(epoch.receipts), drawn)
        self.view.fold([events.Posted(epoch.number, poster, post.root, post.receipts_root, *sums, name.hex())])
        self.book.posted(epoch)
        self.posted_at[epoch.number] = self.now
        account, cumulative = epoch.accounts[0]
        paid = cumulative - self.view.claimed.get(account, 0)
        self.view.fold([events.Claimed(epoch.number, account, paid, cumulative)])
        self.view.fold([events.Transfer(SETTLEMENT, account, paid)])

    def _score(self, model: bytes) -> dict[str, float]:
        data = next(node.blobs[model] for node in self.network.by_index if model in node.blobs)
        held_out, zoo = self.source.held_out, load_zoo("softmax")
        x = held_out.x[:512].reshape(-1, *self.manifest.input.shape)
        tensors = decode_model(self.manifest, data)
        found = LocalEngine().evaluate(zoo.evaluate, tensors, x, np.asarray(held_out.y[:512]), 64)
        return {"loss": found.loss, **found.metrics}

    def _store(self, model: bytes) -> None:
        data = next(node.blobs[model] for node in self.network.by_index if model in node.blobs)
        card = {"name": self.manifest.name, "rounds": self.manifest.rounds, "lane": "public"}
        bundle = pack_model(ModelFile(card, load_zoo("softmax").predict, data, self.manifest))
        self.model_blob = blob_id(bundle)
        self.blobs[self.model_blob] = bundle

    # -- what the pages read -----------------------------------------------------------------------------------------
    def snapshot(self) -> Snapshot:
        """Everything at this moment."""
        followed = None
        core = self.network.by_index[0].job
        if core is not None:
            followed = Followed(
                terms=core.terms, standing=core.standing, enlisted=core.enlisted,
                finished=tuple(self.network.history[n] for n in range(len(self.network.history))),
                scores=self.scores, phase="done" if core.round is None else core.round.ballot.phase.name.lower(),
                end=core.end, started=NOW, now=round_now(core.round) if core.round else None, model=self.model_blob,
            )  # fmt: skip
        place = Place(
            account=GATEWAY, name="gateway", version="0.1.0", rpc="http://127.0.0.1:8545", registry=DOMAIN.registry,
            chain_id=DOMAIN.chain_id, first_block=0, jobs=JOBS_CONTRACT, settlement=SETTLEMENT, token=TOKEN_CONTRACT,
            addresses=("192.168.1.7:4100",), url="http://127.0.0.1:8470/", lan=True,
        )  # fmt: skip
        return Snapshot(
            now=self.now, place=place, view=self.view, book=self.book,
            jobs={self.job: JobFacts(self.view.jobs[self.job], self.manifest, self.source.card, followed)},
            about=self.about, heard=dict.fromkeys(self.about, self.now), posted_at=self.posted_at,
            held=lambda: [Held(name, len(data), True) for name, data in self.blobs.items()], disk_limit=1 << 30,
        )  # fmt: skip

    async def model(self, blob: bytes) -> ModelFacts:
        """The trained model."""
        data = (await self.model_file(blob)).read_bytes()
        card = {"name": self.manifest.name, "rounds": self.manifest.rounds, "lane": "public"}
        return ModelFacts(blob, len(data), card, self.manifest)

    async def model_file(self, blob: bytes) -> Path:
        """Its file."""
        if blob != self.model_blob or not blob:
            raise Missing(f"{blob.hex()} is no trained model that this network stores.")
        path = self._folder / blob.hex()
        path.write_bytes(self.blobs[blob])
        return path

    def published(self, blob: bytes) -> bytes:
        """An epoch's blob."""
        if blob not in self.blobs:
            raise Missing("What was published for this epoch has not arrived here yet.")
        return self.blobs[blob]


def app_of(source: Any, node: Any = None) -> Guard:
    """The dashboard over these facts, behind its guard; `node` is what actions act upon."""
    site = Site(source, Actions(node, OWNER))
    return Guard(Starlette(routes=site.routes(), exception_handlers={404: not_found}))


@contextmanager
def served(app: Any, port: int = 0) -> Iterator[str]:
    """The app over a real socket; its address."""
    settings = uvicorn.Config(app, port=port, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    listener = settings.bind_socket()
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
