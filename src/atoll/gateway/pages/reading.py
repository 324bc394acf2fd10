"""From the running node to the facts of the pages: the one file here that knows the node."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path
from typing import TYPE_CHECKING

from atoll import __version__
from atoll.errors import AtollError
from atoll.gateway.pages.facts import Answered, Followed, Held, JobFacts, Missing, ModelFacts, Place, RoundNow, Snapshot
from atoll.graph.archive import ModelFile
from atoll.node.runner import Runner
from atoll.training.data.card import Card
from atoll.training.round import Round
from atoll.wire.messages import Phase

if TYPE_CHECKING:
    from atoll.node.daemon import Node


class Reader:
    """Reads one node for the pages; remembers what never changes."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._cards: dict[bytes, Card] = {}

    def snapshot(self) -> Snapshot:
        """Everything that the node knows now; nothing is copied that does not have to be."""
        node = self._node
        runners = {runner.id: runner for runner in node.jobs.runners}
        return Snapshot(
            now=time.time(),
            place=_place(node),
            view=node.view,
            book=node.settler.book,
            jobs={job: self._job(job, runners.get(job)) for job in node.view.jobs},
            about=node.about,
            heard=node.heard,
            peers={account: node.directory.get(account) for account in node.directory.accounts()},
            posted_at=node.settler.posted_at,
            held=lambda: [
                Held(blob, node.blobs.size(blob), node.blobs.pinned(blob)) for blob in list(node.blobs.ids())
            ],
            layouts=lambda: [layout for blob in node.pieces.blobs() for layout in node.pieces.get_layouts(blob)],
            answered=lambda: Answered(node.serving.record(), dict(node.answers.offerings)),
            disk_limit=node.blobs.limit_bytes,
        )

    def _job(self, job: bytes, runner: Runner | None) -> JobFacts:
        jobs, on_chain = self._node.jobs, self._node.view.jobs[job]
        material = jobs.materials.get(job)
        manifest = material.manifest if material else None
        card = self._card(bytes.fromhex(manifest.data.card)) if manifest else None
        if runner is None:
            return JobFacts(on_chain, manifest, card)
        core = runner.job
        followed = Followed(
            terms=core.terms,
            standing=core.standing,
            enlisted=core.enlisted,
            finished=tuple(jobs.finished[job]),
            scores={number: found for number, found in jobs.scores[job].items() if number < core.end},
            phase="done" if core.round is None else core.round.ballot.phase.name.lower(),
            end=core.end,
            started=runner.progress.started,
            now=round_now(core.round) if core.round else None,
            model=jobs.models.get(job, b""),
        )
        return JobFacts(on_chain, manifest, card, followed)

    def _card(self, name: bytes) -> Card | None:
        """The card of a job's data, if it is here."""
        if name not in self._cards and self._node.blobs.has(name):
            try:
                self._cards[name] = Card.from_bytes(self._node.blobs.get(name))
            except AtollError:
                return None  # damaged, or no card of this version: the page says less
        return self._cards.get(name)

    async def model(self, blob: bytes) -> ModelFacts:
        """A trained model that this network knows, put together from its pieces if need be; raises Missing."""
        found = await self._bring(blob)
        return ModelFacts(blob, self._node.blobs.size(blob), found.card, found.manifest)

    async def model_file(self, blob: bytes) -> Path:
        """The file of a trained model of this network, checked; raises Missing."""
        await self._bring(blob)
        try:
            self._node.blobs.read(blob, 0, 1)  # checks the whole file when it is read for the first time
        except AtollError as error:
            raise _lost(blob, error) from error
        return self._node.blobs.path(blob)

    async def _bring(self, blob: bytes) -> ModelFile:
        """Have the file of a trained model here, so that its pieces are asked for once; raises Missing.

        No other blob is looked for: a visitor cannot make this gateway ask all nodes for what nobody has.
        """
        node = self._node
        if blob not in node.jobs.models.values():
            raise Missing(f"{blob.hex()} is no trained model that this network stores.")
        try:
            found = await node.server.model(blob)
            if not node.blobs.has(blob):
                node.blobs.put(await node.server.stored_blob(blob))
        except AtollError as error:
            raise _lost(blob, error) from error
        return found

    def published(self, blob: bytes) -> bytes:
        """The bytes of an epoch's blob, if they have arrived here; raises Missing."""
        try:
            return self._node.blobs.get(blob)
        except AtollError as error:
            raise Missing(f"What was published for this epoch has not arrived here yet: {error}") from error


def _lost(blob: bytes, error: AtollError) -> Missing:
    return Missing(f"The model {blob.hex()} could not be had: {error}")


def _place(node: Node) -> Place:
    addresses, settings = node.chain.addresses, node.settings
    host = settings.http.rpartition(":")[0].strip("[]")
    return Place(
        account=node.account,
        name=settings.name,
        version=__version__,
        rpc=settings.rpc,
        registry=addresses.registry,
        chain_id=addresses.chain_id,
        first_block=settings.first_block,
        jobs=addresses.jobs,
        settlement=addresses.settlement,
        token=addresses.token,
        addresses=tuple(settings.advertise or node.transport.addresses()),
        url=node.page,
        lan=bool(host) and not ipaddress.ip_address(host).is_loopback,
    )


def round_now(current: Round) -> RoundNow:
    """The round that a job's core is in."""
    return RoundNow(
        number=current.context.place.round,
        phase=current.ballot.phase.name.lower(),
        leader=current.ballot.leader,
        committee=current.context.place.committee,
        beacon=current.context.beacon,
        model=current.context.model,
        units=tuple(current.units.values()),
        committed=frozenset(current.locked) | _arrived(current, Phase.LOCK),
        revealed=frozenset(current.reveals) | _arrived(current, Phase.OPEN),
        audits=current.audits,
        disputes=current.disputes,
    )


def _arrived(current: Round, phase: Phase) -> frozenset[bytes]:
    return frozenset(key for of, key in current.inbox.arrived if of is phase and key in current.units)
