"""The jobs that this node takes part in: found on the chain, enlisted in, run, evaluated, and their result stored."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import AtollError, Refused, TransactionFailed
from atoll.graph.archive import ModelFile, pack_model
from atoll.graph.check import Limits
from atoll.graph.fixed import decode_model
from atoll.graph.signatures import ports_of
from atoll.ledger.rewards import Prices, budget_per_round
from atoll.node.book import JobAccount
from atoll.node.job import Job, Terms
from atoll.node.material import Material, bring
from atoll.node.runner import Runner
from atoll.node.view import JobView
from atoll.storage.client import store_blob
from atoll.storage.layout import Layout
from atoll.storage.placement import Node as Place
from atoll.storage.placement import group_of
from atoll.training.audit import REPLICAS
from atoll.training.beacon import tip
from atoll.training.context import (
    GATEWAY,
    HOLDER,
    MAX_ROSTER,
    VALIDATOR,
    WORKER,
    Enlistment,
    Member,
    Timing,
    light_accounts,
)
from atoll.training.data import DataSet, load
from atoll.training.events import Finished, Received
from atoll.training.workbench import Bench, Workbench
from atoll.wire.hashing import blob_id, keccak
from atoll.wire.messages import unseal
from atoll.wire.reasons import Reason

if TYPE_CHECKING:
    from atoll.node.daemon import Node

log = logging.getLogger(__name__)

STORE_RANK_SECONDS = 5.0
COMMITTEE_SIZE = 7
REFUSED_SECONDS = 30.0
EVALUATED = 4096  # held-out samples that grade a model, evenly spread over all of them


class Jobs:
    """All jobs of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._runners: dict[bytes, Runner] = {}
        self.materials: dict[bytes, Material] = {}
        self.scores: dict[bytes, dict[int, dict[str, float]]] = {}  # job -> round -> loss and metrics
        self.models: dict[bytes, bytes] = {}  # job -> blob id of the stored model
        self.finished: dict[bytes, list[Finished]] = {}
        self._enlisted: dict[bytes, dict[bytes, Enlistment]] = {}
        self._waiting: dict[bytes, float] = {}  # jobs that could not be taken -> when to look again
        self._busy: set[bytes] = set()
        self._held_out: dict[bytes, DataSet] = {}
        self._to_evaluate: asyncio.Queue[tuple[bytes, int, bytes]] = asyncio.Queue()
        node.spawn(self._evaluate())

    @property
    def runners(self) -> list[Runner]:
        """Jobs under way or done."""
        return list(self._runners.values())

    @property
    def _observes(self) -> bool:
        """A gateway follows every job, so that it can show them and relay for browser tabs."""
        return bool(self._node.roles & GATEWAY)

    def takes_part(self, job: bytes) -> bool:
        """Whether this node has enlisted in a job that it follows."""
        return self._node.account in self._enlisted.get(job, ())

    def receive(self, raw: bytes) -> None:
        """An envelope from a peer; raises Refused."""
        signed = unseal(self._node.domain, raw)
        runner = self._runners.get(signed.body.job)
        if runner is None:
            raise Refused(Reason.NOT_FOUND, "this node takes no part in that job")
        if signed.account not in self._node.view.nodes:
            raise Refused(Reason.UNKNOWN_ACCOUNT, "the sender is not registered")
        runner.job.admit(signed)
        runner.submit(Received(signed))

    # -- from the chain --------------------------------------------------------------------------------------------
    async def follow(self) -> None:
        """After a look at the chain: take newcomers in, enlist in open jobs, start those that have begun."""
        for job, known in list(self._node.view.jobs.items()):
            if job in self._enlisted:
                self._enlisted[job].update(known.enlisted)
            if job in self.materials:
                self._open_account(known)  # its budget may have grown
            if job in self._runners:
                self._shorten(job, known.end)
            if job in self._runners or job in self._busy or time.time() < self._waiting.get(job, 0):
                continue
            heard = self._observes or self._node.journal.get_snapshot(f"job/{job.hex()}") is not None
            if known.certified == known.end and not heard:
                continue  # over before this node heard of it
            self._busy.add(job)
            self._node.spawn(self._take(known))

    async def _take(self, known: JobView) -> None:
        """Bring a job here, enlist if it is still open, run it once it has started."""
        job, node = known.job, self._node
        try:
            if job not in self.materials:
                sources = [known.seed, *node.directory.accounts()]
                limits = Limits(memory_bytes=node.settings.memory_mb << 20)
                material = await bring(node.library, known.manifest, sources, lambda: limits)
                if material.manifest.rounds != known.rounds:
                    detail = f"{material.manifest.rounds} rounds, but {known.rounds} were posted on the chain"
                    raise Refused(Reason.BAD_MANIFEST, detail)
                self._room(known, material)
                self.materials[job] = material
                self._open_account(known)
            if node.account not in known.enlisted:
                if not node.roles & (WORKER | VALIDATOR):
                    if self._observes and known.committee:
                        self._start(known)
                    return
                if node.paused:
                    return
                await node.send(node.chain.enlist, job, tip(self._seed(job), known.rounds))
                node.journal.put_snapshot(f"job/{job.hex()}", b"enlisted")
                log.info("enlisted in job %s", job.hex()[:8])
            elif known.committee:
                self._start(known)
        except (Refused, TransactionFailed) as error:
            self._waiting[job] = time.time() + REFUSED_SECONDS
            log.warning("job %s is not taken: %s", job.hex()[:8], error)
        except AtollError as error:
            self._waiting[job] = time.time() + 1
            log.info("job %s waits: %s", job.hex()[:8], error)
        finally:
            self._busy.discard(job)

    def _open_account(self, known: JobView) -> None:
        manifest = self.materials[known.job].manifest
        policy = manifest.policy
        prices = Prices(policy.unit_price, policy.audit_price, policy.validator_price, manifest.segments)
        account = JobAccount(prices, known.end, policy.epoch_rounds, known.budget)
        self._node.settler.book.open_job(known.job, account)

    def _room(self, known: JobView, material: Material) -> int:
        """The largest roster that the budget can pay in the worst case; raises Refused if it cannot pay one node.

        What counts is the budget with which the job started: all nodes must find the same, whenever they look.
        """
        budget = known.funded or known.budget
        policy = material.manifest.policy
        prices = Prices(policy.unit_price, policy.audit_price, policy.validator_price)
        room = 0
        while room < MAX_ROSTER:
            nodes = room + 1
            worst = budget_per_round(prices, nodes, nodes, REPLICAS * nodes, min(nodes, COMMITTEE_SIZE))
            if worst * known.rounds > budget:
                break
            room = nodes
        if not room:
            raise Refused(Reason.OVER_BUDGET, "the budget cannot pay a single node for all rounds")
        return room

    def _seed(self, job: bytes) -> bytes:
        """Start of this node's hash chain for a job: derived from its key, so that a restart finds it again."""
        return keccak(b"atoll/seed/1" + self._node.keys.account.private + self._node.domain.encode() + job)

    def _start(self, known: JobView) -> None:
        node, job = self._node, known.job
        material = self.materials[job]
        manifest = material.manifest
        terms = Terms(
            domain=node.domain,
            jobs_contract=node.chain.addresses.jobs,
            job=job,
            committee=known.committee,
            roster=known.roster,
            model=bytes.fromhex(manifest.initial),
            rounds=known.rounds,
            segments=manifest.segments,
            unit_price=manifest.policy.unit_price,
            audit_floor=manifest.policy.audit_rate_floor,
            room=self._room(known, material),
            committee_size=COMMITTEE_SIZE,
            timing=Timing(train=float(manifest.policy.train_seconds)),
        )
        seed = self._seed(job)
        member = Member(node.account, node.keys.account.sign_digest, seed, keccak(b"atoll/salt/1" + seed), known.rounds)
        self._enlisted[job] = dict(known.enlisted)
        self.finished[job], self.scores[job] = [], {}
        core = Job(terms, self._enlisted[job], member, time.monotonic())
        runner = Runner(
            core,
            self._workbench(known, material),
            node.journal,
            node.courier,
            lambda finished: self._on_round(core, finished),
            node.options.opponent,
        )
        runner.paused = node.paused
        core.shorten(known.end)
        runner.replay()
        stored = node.journal.get_snapshot(f"model/{job.hex()}")
        if stored is not None:
            self.models[job] = stored
        self._runners[job] = runner
        node.spawn(runner.run())
        log.info("job %s runs with %d nodes", job.hex()[:8], len(known.roster))

    def _workbench(self, known: JobView, material: Material) -> Workbench:
        node, manifest = self._node, material.manifest

        async def gather(rows: NDArray[np.int64]) -> tuple[Any, Any]:
            holders = dict.fromkeys((known.seed, *self._enlisted[known.job]))
            return await node.library.gather(manifest, rows, list(holders))

        async def fetch(blob: bytes, sources: Sequence[bytes]) -> bytes:
            return await node.library.fetch(blob, sources, manifest.state_bytes)  # nothing in a round is larger

        shards = max(1, len(known.roster))
        parts = (manifest, material.step, node.engine, fetch, node.library.keep, gather, shards, material.frozen)
        return Workbench(Bench(*parts))

    # -- after a round ---------------------------------------------------------------------------------------------
    def _on_round(self, core: Job, finished: Finished) -> None:
        job = core.terms.job
        self.finished[job].append(finished)
        light = light_accounts(self._enlisted[job])
        self._node.settler.book.certified(job, finished.round, finished.certificate, light)
        self._node.blobs.pin(finished.certificate.model)
        self._to_evaluate.put_nowait((job, finished.round, finished.certificate.model))
        if core.standing.done and finished.round + 1 == core.standing.round and self.takes_part(job):
            self._node.spawn(self._store(job, finished))

    def _shorten(self, job: bytes, end: int) -> None:
        """The developer ended the job early: rounds that this node saw beyond its end do not count."""
        runner = self._runners[job]
        if end >= runner.job.end:
            return
        log.info("job %s ends after %d rounds", job.hex()[:8], end)
        if runner.shorten(end):
            del self.finished[job][end:]
            if self.takes_part(job):
                self._node.spawn(self._store(job, self.finished[job][-1]))

    def share(self, name: str) -> None:
        """Serve a data set (as `atoll.training.data.load` finds it), now and after a restart.

        Its held-out part grades the models. Raises BadInput or Corrupt.
        """
        source = load(name, self._node.home)
        self._node.library.share(source.train)
        self._held_out[source.held_out.root] = source.held_out
        names = sorted({*self._shares(), source.where})
        self._node.journal.put_snapshot("shares", "\n".join(names).encode())

    def _shares(self) -> list[str]:
        return (self._node.journal.get_snapshot("shares") or b"").decode().split("\n")

    def share_again(self) -> None:
        """After a restart: serve what was served before."""
        for name in filter(None, self._shares()):
            try:
                self.share(name)
            except AtollError as error:
                log.warning("data set %s is no longer served: %s", name, error)

    def held_out(self, job: bytes) -> DataSet | None:
        """The held-out samples of a job, if they are here."""
        return self._held_out.get(bytes.fromhex(self.materials[job].manifest.data.held_out_root[2:]))

    async def _evaluate(self) -> None:
        """Tell how good each certified model is, where the held-out data is at hand; reported, never signed."""
        while True:
            job, number, name = await self._to_evaluate.get()
            data = self.held_out(job)
            if data is None:
                continue
            try:
                self.scores[job][number] = await self._scores(job, name, data)
            except AtollError as error:
                log.warning("round %d could not be evaluated: %s", number, error)

    async def _scores(self, job: bytes, name: bytes, data: DataSet) -> dict[str, float]:
        material = self.materials[job]
        model = await self._node.library.fetch(name, list(self._enlisted[job]))
        manifest = material.manifest
        rows = np.linspace(0, len(data), min(len(data), EVALUATED), endpoint=False).astype(np.int64)
        x = data.x[rows].reshape(-1, *manifest.input.shape)
        tensors, batch = decode_model(manifest, model), ports_of(manifest).evaluate_batch
        engine = self._node.engine
        found = await engine.evaluate(material.evaluate, tensors, x, data.y[rows], batch, material.frozen)
        return {"loss": found.loss, **found.metrics}

    # -- the result --------------------------------------------------------------------------------------------------
    def stored(self, job: bytes, blob: bytes) -> None:
        """The model of a job is stored under this id."""
        if job not in self.models:
            self.models[job] = blob
            self._node.journal.put_snapshot(f"model/{job.hex()}", blob)

    async def check_stored(self, job: bytes, blob: bytes) -> None:
        """Somebody says that a job's model is stored: true only if the blob is there and holds the certified model."""
        runner = self._runners.get(job)
        if runner is None or not runner.job.standing.done or job in self.models:
            return
        try:
            model = await self._node.server.model(blob)
        except AtollError as error:
            log.info("the model of job %s is not where a peer says: %s", job.hex()[:8], error)
            return
        if blob_id(model.model) == runner.job.standing.model:
            self.stored(job, blob)

    async def _store(self, job: bytes, finished: Finished) -> None:
        """Cut the trained model into pieces and hand them out; who can tell its accuracy goes first, then by rank."""
        node = self._node
        known = node.journal.get_snapshot(f"model/{job.hex()}")
        if known is not None:
            self.models[job] = known
            return
        order = list(finished.certificate.roster)
        rank = order.index(node.account) if node.account in order else len(order)
        while self.held_out(job) is not None and finished.round not in self.scores[job]:
            await asyncio.sleep(0.1)
        if self.held_out(job) is None:
            await asyncio.sleep((2 + rank) * STORE_RANK_SECONDS)
        while job not in self.models:
            try:
                self.stored(job, await self._hand_out(job, finished))
            except AtollError as error:
                log.warning("the model could not be stored yet: %s", error)
                await asyncio.sleep(2)
        for account in node.directory.accounts():
            if account != node.account:
                node.spawn(self._tell(account, job))

    async def _tell(self, account: bytes, job: bytes) -> None:
        try:
            await self._node.server.tell_stored(account, job, self.models[job])
        except AtollError as error:
            log.info("%s was not told where the model is: %s", account.hex()[:8], error)

    async def _hand_out(self, job: bytes, finished: Finished) -> bytes:
        node, material = self._node, self.materials[job]
        model = await node.library.fetch(finished.certificate.model, list(self._enlisted[job]))
        scores = self.scores[job].get(finished.round, {})
        card = {
            "name": material.manifest.name,
            "job": "0x" + job.hex(),
            "rounds": finished.round + 1,
            "workers": len(finished.certificate.roster),
            "model": finished.certificate.model.hex(),
            "data": material.manifest.data.card,
            "scores": {key: round(value, 6) for key, value in scores.items()},
            "lane": "public",
        }
        params = material.params if material.frozen else b""
        bundle = pack_model(ModelFile(card, material.predict, model, material.manifest, params))
        return (await self.store(bundle)).blob

    async def store(self, data: bytes) -> Layout:
        """Hand out the pieces of a blob to holders that are there; returns the layout."""
        places = []
        for account in self._node.directory.with_role(HOLDER):
            addresses = self._node.directory.get(account).addresses
            host = addresses[0].rpartition(":")[0] if addresses else "127.0.0.1"
            places.append(Place(account, group_of(host)))
        return await store_blob(data, places, self._node.network.ask)

    async def close(self) -> None:
        """Stop all jobs."""
        for runner in self._runners.values():
            await runner.close()
