"""A real job as a gateway tells one of its workers: quorums, certificates and signatures of a simulated network.

`play` runs the network; one node is listened to. `told` holds what a gateway would tell that account and what its work
brought, in order; `said` what the node itself said about its work, which a browser tab must say to the byte.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from atoll.gateway.tabs.duties import duties_of
from atoll.gateway.tabs.telling import certificates, chapter, round_of, state_key
from atoll.sim.faults import Faults
from atoll.sim.network import DOMAIN, JOBS_CONTRACT, Material, Network, Options, SimNode
from atoll.sim.scenario import material
from atoll.training.events import Event, Replayed, Send, Trained
from atoll.wire.hashing import keccak
from atoll.wire.messages import Present, Work

HERE = Path(__file__).parent
Message = dict[str, Any]


@dataclass
class Record:
    """What one account was told, in order, and what its node said about its work."""

    private: bytes
    account: bytes
    job: bytes
    secret: bytes
    segments: int
    first_committee: list[str]
    told: list[Message] = field(default_factory=list)
    said: list[tuple[str, int, str]] = field(default_factory=list)  # (kind, round, envelope)
    verdicts: list[tuple[int, int, str, int]] = field(default_factory=list)  # (round, kind, unit, reason)
    certificates: list[str] = field(default_factory=list)  # envelopes, by round

    @property
    def place(self) -> Message:
        return {
            "chainId": DOMAIN.chain_id,
            "registry": DOMAIN.registry.hex(),
            "jobs": JOBS_CONTRACT.hex(),
            "job": self.job.hex(),
            "segments": self.segments,
            "firstCommittee": self.first_committee,
        }

    def drive(self, events: Sequence[Message], **more: Any) -> Message:
        """What duties.js makes of the events, in Node."""
        known = {"place": self.place, "private": self.private.hex(), "secret": self.secret.hex()}
        shown = {"certificates": self.certificates, "events": list(events)}
        found: Message = Lines.of("duties.mjs").ask({**known, **shown, **more})
        return found


class Lines:
    """A script of this folder that answers each line of JSON with another, for as long as the tests run."""

    def __init__(self, script: str) -> None:
        if shutil.which("node") is None:
            pytest.skip("needs Node.js: node is not on the PATH")
        command = ["node", str(HERE / script)]
        self._node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self._node.communicate)

    @staticmethod
    @cache
    def of(script: str) -> Lines:
        """The one process of a script."""
        return Lines(script)

    def ask(self, question: Any) -> Any:
        """The answer to one line; a script that died gives none."""
        assert self._node.stdin and self._node.stdout
        self._node.stdin.write(json.dumps(question) + "\n")
        self._node.stdin.flush()
        answer = self._node.stdout.readline()
        assert answer, "the script ended"
        return json.loads(answer)


class Listened(SimNode):
    """A worker that is listened to, as the gateway's observer would see its round."""

    record: Record
    _last: object = None

    def handle(self, event: Event) -> None:
        match event:
            case Trained(unit=unit, states=states, update=update):
                names = [state.hex() for state in states]
                self._note({"type": "worked", "unit": unit.hex(), "states": names, "update": update.hex()})
            case Replayed(unit=unit, segment=segment, state=state):
                self._note({"type": "replayed", "unit": unit.hex(), "segment": segment, "state": state.hex()})
        super().handle(event)
        self._look()

    def _note(self, message: Message) -> None:
        self.record.told.append(message)

    def _look(self) -> None:
        if self.job is None or self.job.round is None or state_key(self.job) == self._last:
            return
        self._last = state_key(self.job)
        duties, common = duties_of(self.job, self.account), chapter(self.job)
        if duties is not None and common is not None:
            self._note(json.loads(round_of(duties, common, [])))

    def say(self, send: Send) -> None:
        body = send.message.body
        if isinstance(body, Work | Present):
            row = (type(body).__name__, body.round, send.message.raw.hex())
            if row not in self.record.said:
                self.record.said.append(row)
        super().say(send)


@cache
def softmax(rounds: int) -> Material:
    return material("softmax", rounds)


def play(faults: Faults | None = None, *, seed: int = 1, index: int = 3, rounds: int = 3, nodes: int = 6) -> Record:
    """Play a job to its end and return what node `index` was told and said."""
    options = Options(committee_size=4, kinds={index: Listened})
    network = Network(softmax(rounds), nodes, faults or Faults(), seed, options)
    node = network.by_index[index]
    assert isinstance(node, Listened)
    secret = keccak(b"secret" + keccak(b"seed" + node.account))
    terms = network.terms
    first = [member.hex() for member in terms.committee]
    node.record = Record(node.key.private, node.account, terms.job, secret, terms.segments, first)
    for finished in network.run():
        node.record.verdicts += [
            (finished.round, row.kind, row.unit.hex(), row.reason)
            for row in finished.certificate.verdicts
            if row.account == node.account
        ]
    assert node.job is not None
    node.record.certificates = [raw.hex() for raw in certificates(node.job, 0)]
    return node.record
