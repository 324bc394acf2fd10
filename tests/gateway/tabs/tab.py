"""A browser tab in Python: speaks the protocol of docs/protocol/tabs.md, and trains with the nodes' own code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import connect

from atoll.graph.manifest import Manifest
from atoll.graph.session import LocalEngine
from atoll.training.data.samples import Form, read_sample
from atoll.training.events import Replayed, Rerun, Train, Trained
from atoll.training.unit import UnitSpec, commit_hash, states_root
from atoll.training.workbench import Bench, Workbench
from atoll.wire.eip712 import ENLIST, REGISTRATION, Verifier
from atoll.wire.hashing import Domain, Tag, blob_id, keccak, tagged
from atoll.wire.identity import AccountKey
from atoll.wire.merkle import verify
from atoll.wire.messages import (
    AuditCommit,
    AuditReveal,
    Body,
    Commit,
    Phase,
    Present,
    Quorum,
    Replay,
    Reveal,
    seal,
    unseal,
)

Frame = dict[str, Any]


class _Engine:
    def __init__(self) -> None:
        self._local = LocalEngine()

    async def train(self, *arguments: Any) -> Any:
        return self._local.train(*arguments)


class Tab:
    """One tab. `heard` lists what it was told; `states` are the latest frames of each kind."""

    def __init__(self, key: AccountKey, where: str) -> None:
        self.key, self.where = key, where
        self.heard: list[Frame] = []
        self.states: dict[str, Frame] = {}
        self.token = ""
        self._count = 0
        self._kept: dict[bytes, bytes] = {}
        self.uploaded: set[bytes] = set()
        self.progress: set[str] = set()
        self._results: dict[str, Trained] = {}
        self._reruns: dict[str, Replayed] = {}
        self._said: set[bytes] = set()
        self._bench: Workbench | None = None

    @property
    def verdicts(self) -> list[Frame]:
        return [frame for frame in self.heard if frame["type"] == "verdict"]

    # -- the socket ------------------------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[Tab]:
        """A socket whose hello was taken."""
        async with (
            httpx.AsyncClient(base_url=f"http://{self.where}", timeout=30) as self.web,
            connect(f"ws://{self.where}/join/socket", max_size=1 << 24, **options) as self.socket,
        ):
            welcome = await self.receive()
            self.domain = Domain(welcome["chain_id"], bytes.fromhex(welcome["registry"]))
            self.welcome = welcome
            answer = await self.ask("hello", account=self.key.address.hex(), signature=self.hello().hex())
            assert answer["type"] == "taken", answer
            while not self.token or self.states["account"]["token"] != self.token:
                self.token = (await self.receive_kind("account"))["token"]
            yield self

    def hello(self) -> bytes:
        endpoint, challenge = (bytes.fromhex(self.welcome[key]) for key in ("endpoint", "challenge"))
        digest = tagged(Tag.JOIN, self.domain.encode(), endpoint, challenge, self.key.address)
        return self.key.sign_digest(digest)

    async def receive(self) -> Frame:
        frame: Frame = json.loads(await self.socket.recv())
        self.heard.append(frame)
        self.states[frame["type"]] = frame
        return frame

    async def receive_kind(self, kind: str) -> Frame:
        while (frame := await self.receive())["type"] != kind:
            pass
        return frame

    async def ask(self, kind: str, **fields: Any) -> Frame:
        """Send a frame and wait for its answer."""
        self._count += 1
        name = f"m{self._count}"
        await self.socket.send(json.dumps({"type": kind, "id": name, **fields}))
        while True:
            frame = await self.receive()
            if frame["type"] in ("taken", "refused") and frame["id"] == name:
                return frame

    async def say(self, body: Body) -> Frame:
        signed = seal(self.domain, body, self.key.address, self.key.sign_digest)
        return await self.ask("say", raw=signed.raw.hex())

    # -- joining ---------------------------------------------------------------------------------------------------
    async def register(self, roles: int = 1) -> Frame:
        told = self.states["account"]
        digest = REGISTRATION.digest(
            Verifier(self.domain.chain_id, self.domain.registry),
            {
                "account": self.key.address,
                "endpointId": bytes.fromhex(self.welcome["endpoint"]),
                "roles": roles,
                "hints": keccak(told["hints"].encode()),
                "nonce": told["nonce"],
            },
        )
        return await self.ask("register", roles=roles, signature=self.key.sign_digest(digest).hex())

    async def enlist(self, job: str) -> Frame:
        tip = keccak(b"tip" + self.key.address)
        verifier = Verifier(self.domain.chain_id, bytes.fromhex(self.welcome["jobs"]))
        values = {"job": bytes.fromhex(job), "account": self.key.address, "tip": tip}
        signature = self.key.sign_digest(ENLIST.digest(verifier, values))
        return await self.ask("enlist", job=job, tip=tip.hex(), signature=signature.hex())

    # -- bytes -----------------------------------------------------------------------------------------------------
    async def fetch(self, blob: bytes, _: Sequence[bytes] = ()) -> bytes:
        if blob not in self._kept:
            answer = await self.web.get(f"/join/blob/{blob.hex()}")
            answer.raise_for_status()
            assert blob_id(answer.content) == blob
            self._kept[blob] = answer.content
        return self._kept[blob]

    def keep(self, data: bytes) -> bytes:
        """Keep bytes by their id."""
        blob = blob_id(data)
        self._kept[blob] = data
        return blob

    async def put(self, data: bytes, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return await self.web.put("/join/blob", content=data, headers=headers)

    async def upload(self, blobs: Sequence[bytes]) -> None:
        for blob in blobs:
            if blob not in self.uploaded:
                answer = await self.put(self._kept[blob])
                assert answer.json() == {"id": blob.hex()}, answer.text
                self.uploaded.add(blob)

    async def open_job(self) -> Workbench:
        """Download what the job needs, and check it."""
        while not {"job", "round"} <= self.states.keys():
            await self.receive()
        if self._bench is None:
            told = self.states["job"]
            manifest = Manifest.from_bytes(await self.fetch(bytes.fromhex(told["manifest"])))
            step = await self.fetch(bytes.fromhex(manifest.step))
            root, form, job = bytes.fromhex(manifest.data.root[2:]), Form.of(manifest), told["job"]

            async def gather(rows: NDArray[np.int64]) -> tuple[Any, Any]:
                flat = rows.reshape(-1).tolist()
                asked = ",".join(map(str, flat))
                answer = await self.web.get(f"/join/samples/{job}?rows={asked}")
                answer.raise_for_status()
                pairs = msgspec.msgpack.decode(answer.content, type=list[tuple[bytes, list[bytes]]])
                for row, (sample, proof) in zip(flat, pairs, strict=True):
                    assert verify(root, manifest.data.count, row, sample, proof)
                read = [read_sample(sample, form) for sample, _ in pairs]
                x, y = (np.stack([pair[part] for pair in read]) for part in (0, 1))
                return x.reshape(*rows.shape, *form.x_shape), y.reshape(*rows.shape, *form.y_shape)

            shards = self.states["round"]["unit"]["shards"]  # the number of shards is the same in all rounds
            self._bench = Workbench(Bench(manifest, step, _Engine(), self.fetch, self.keep, gather, shards))
        return self._bench

    # -- working ---------------------------------------------------------------------------------------------------
    async def work(self, rounds: int) -> None:
        """Do what is asked until so many verdicts about own units came."""
        if "round" in self.states:
            await self.do(self.states["round"])
        while sum(verdict["kind"] == "unit" for verdict in self.verdicts) < rounds:
            frame = await self.receive()
            if frame["type"] == "round":
                await self.do(frame)

    async def work_until(self, said: str) -> None:
        """Do what is asked until a message of this kind was said."""
        await self.do(self.states["round"])
        while said not in self.progress:
            frame = await self.receive()
            if frame["type"] == "round":
                await self.do(frame)

    async def do(self, told: Frame) -> None:
        """Everything that a round asks for now."""
        job, number, phase = bytes.fromhex(told["job"]), told["round"], told["phase"]
        if not told["on_roster"]:
            await self._once(Present(job, number))
        elif phase == "lock" and told["unit"]:
            await self.train(told, told["unit"], Commit)
        elif phase == "audit":
            for unit in told["audits"]:
                await self.train(told, unit, AuditCommit)
        elif phase == "open":
            self.check_audits(told)
            await self._open(told)
        elif phase == "certify":
            for unit in told["replays"]:
                await self._replay(told, unit)

    def check_audits(self, told: Frame) -> None:
        """Nothing is revealed unless the committee has signed that the audits are locked."""
        phases = []
        for raw in told["quorums"]:
            body = unseal(self.domain, bytes.fromhex(raw)).body
            assert isinstance(body, Quorum)
            phases.append(body.phase)
        assert phases == [Phase.LOCK, Phase.BEACON, Phase.AUDIT]

    def unit_of(self, told: Frame, unit: Frame) -> UnitSpec:
        account = bytes.fromhex(unit["account"])
        job, beacon = bytes.fromhex(told["job"]), bytes.fromhex(told["beacon"])
        spec = UnitSpec(
            self.domain, job, told["round"], unit["index"], account, unit["shard"], beacon, unit["segments"]
        )
        assert spec.id.hex() == unit["id"]
        return spec

    async def train(self, told: Frame, unit: Frame, kind: type[Commit] | type[AuditCommit]) -> None:
        spec = self.unit_of(told, unit)
        if unit["id"] not in self._results:
            bench = await self.open_job()
            done = await bench.carry_out(Train(spec, kind is AuditCommit), bytes.fromhex(told["model"]), ())
            assert isinstance(done, Trained)
            self._results[unit["id"]] = done
        done = self._results[unit["id"]]
        made_of = (states_root(done.states), done.update, self._salt(spec.id))
        digest = commit_hash(self.domain, spec.job, spec.round, spec.id, self.key.address, *made_of)
        await self._once(kind(spec.job, spec.round, spec.id, digest))

    async def _open(self, told: Frame) -> None:
        own = [(told["unit"], Reveal)] if told["unit"] else []
        for unit, kind in [*own, *((unit, AuditReveal) for unit in told["audits"])]:
            done = self._results.get(unit["id"])
            if done is not None:
                await self.upload((*done.states[1:], done.update))
                job, name = bytes.fromhex(told["job"]), bytes.fromhex(unit["id"])
                await self._once(kind(job, told["round"], name, done.states, done.update, self._salt(name)))

    async def _replay(self, told: Frame, unit: Frame) -> None:
        spec = self.unit_of(told, unit)
        body = unseal(self.domain, bytes.fromhex(unit["reveal"])).body
        assert isinstance(body, Reveal)
        if unit["id"] not in self._reruns:
            done = await (await self.open_job()).carry_out(Rerun(spec, body), bytes.fromhex(told["model"]), ())
            assert isinstance(done, Replayed)
            self._reruns[unit["id"]] = done
        found = self._reruns[unit["id"]]
        if any(found.state):
            await self.upload([found.state])
        await self._once(Replay(spec.job, spec.round, spec.id, found.segment, found.state))

    async def _once(self, body: Body) -> None:
        """Say something, unless it was said."""
        signed = seal(self.domain, body, self.key.address, self.key.sign_digest)
        if signed.raw not in self._said:
            self._said.add(signed.raw)
            answer = await self.ask("say", raw=signed.raw.hex())
            self.progress.add(type(body).__name__)
            assert answer["type"] == "taken" or answer["reason"] in ("STALE", "NOT_FOUND"), answer  # too late

    def _salt(self, unit: bytes) -> bytes:
        return keccak(b"salt" + self.key.private + unit)
