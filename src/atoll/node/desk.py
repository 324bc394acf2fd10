"""What the owner of a node can ask it over the control channel: its state and a few actions, as plain JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll import __version__
from atoll.errors import BadInput
from atoll.ledger.statement import ChainView, Explanation, explain, explanation_json, statement, statement_json
from atoll.node.control import ControlHandler
from atoll.node.runner import Runner
from atoll.node.settler import NOTHING_WAITS
from atoll.training.committee import UNIT
from atoll.training.verdict import GUILTY
from atoll.wire.identity import format_account, parse_account
from atoll.wire.reasons import Reason

if TYPE_CHECKING:
    from atoll.node.daemon import Node

Json = Any


class Desk:
    """The owner's side of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handlers(self) -> dict[str, ControlHandler]:
        """Methods by name; each takes its parameters as an object."""
        return {
            "status": self.status,
            "stop": self.stop,
            "pause": self.pause,
            "resume": self.resume,
            "claim": self.claim,
            "share": self.share,
            "put": self.put,
            "get": self.get,
            "statement": self.statement,
            "explain": self.explain,
            **self._node.serving.counter.handlers(),
        }

    # -- state -----------------------------------------------------------------------------------------------------
    async def status(self, _: dict[str, Json]) -> Json:
        """Everything that a person may want to see at a glance."""
        node = self._node
        traffic = node.network.meter.total()
        view = node.view
        return {
            "account": format_account(node.account),
            "endpoint": node.transport.endpoint_id.hex(),
            "name": node.settings.name,
            "roles": list(node.settings.roles),
            "addresses": list(node.transport.addresses()),
            "page": node.page,
            "version": __version__,
            "uptime": round(time.time() - node.started, 1),
            "paused": node.paused,
            "registered": node.account in view.nodes,
            "validator": node.account in view.validators,
            "peers": len(view.nodes) - (node.account in view.nodes),
            "balance": str(view.balances.get(node.account, 0)),
            "stake": str(view.stakes.get(node.account, 0)),
            "earned": str(node.settler.book.totals.accounts.get(node.account, 0)),
            "claimed": str(view.claimed.get(node.account, 0)),
            "bytes": {"up": traffic.up, "down": traffic.down},
            "stored": {"blobs": node.blobs.total_bytes, "pieces": node.pieces.total_bytes},
            "gas": {name: [use.calls, use.total] for name, use in node.chain.gas_by_call.items()},
            "epochs": len(node.settler.book.epochs),
            "answers": node.serving.counter.sums(),
            "network": {
                "rpc": node.settings.rpc,
                "registry": format_account(node.chain.addresses.registry),
                "chain_id": node.chain.addresses.chain_id,
                "first_block": node.settings.first_block,
            },
            "jobs": [self._job(runner) for runner in node.jobs.runners],
        }

    def _job(self, runner: Runner) -> Json:
        jobs, job = self._node.jobs, runner.id
        known = self._node.view.jobs.get(job)
        finished = jobs.finished[job]
        rejected = [
            {"node": format_account(row.account), "round": one.round, "reason": Reason(row.reason).name}
            for one in finished
            for row in one.certificate.verdicts
            if row.kind == UNIT and row.reason in GUILTY
        ]
        model = jobs.models.get(job)
        known_scores = sorted(jobs.scores[job].items())
        scores = {str(number): found for number, found in known_scores if number < runner.job.end}
        return {
            "job": "0x" + job.hex(),
            "name": jobs.materials[job].manifest.name,
            "round": runner.job.standing.round,
            "rounds": runner.job.end,
            "phase": runner.progress.phase,
            "leader": self._leader(runner),
            "roster": len(runner.job.standing.roster),
            "certified": known.certified if known else 0,
            "done": runner.job.standing.done,
            "scores": scores,
            "accuracy": {number: found["accuracy"] for number, found in scores.items() if "accuracy" in found},
            "accepted": [
                sum(row.kind == UNIT and row.reason == 0 for row in one.certificate.verdicts) for one in finished
            ],
            "rejected": rejected,
            "model": model.hex() if model else "",
            "seconds": {name: round(value, 2) for name, value in runner.seconds.items()},
        }

    def _leader(self, runner: Runner) -> str:
        current = runner.job.round
        return format_account(current.ballot.leader) if current else ""

    # -- actions ---------------------------------------------------------------------------------------------------
    async def stop(self, _: dict[str, Json]) -> Json:
        """End the node."""
        self._node.stop()
        return {"stopping": True}

    async def pause(self, _: dict[str, Json]) -> Json:
        """Take no units and enlist in no jobs until `resume`; what was promised (audits, votes) is still done."""
        return self._set_paused(True)

    async def resume(self, _: dict[str, Json]) -> Json:
        """Take units again."""
        return self._set_paused(False)

    def _set_paused(self, paused: bool) -> Json:
        self._node.paused = paused
        for runner in self._node.jobs.runners:
            runner.paused = paused
        return {"paused": paused}

    async def claim(self, _: dict[str, Json]) -> Json:
        """Claim what posted epochs grant this account."""
        try:
            amount = await self._node.settler.collect(self._node.account)
        except BadInput as error:
            return {"claimed": "0", "note": str(error)}
        return {"claimed": str(amount), "note": "" if amount else NOTHING_WAITS}

    async def share(self, params: dict[str, Json]) -> Json:
        """Serve a data set ("mnist" or a directory of IDX files) and files of this device to the network."""
        node, data = self._node, params.get("data")
        if data is not None:
            node.jobs.share(str(data))
        blobs = [node.blobs.put(Path(str(path)).read_bytes(), pin=True).hex() for path in params.get("files", [])]
        return {"data": ["0x" + one.root.hex() for one in node.library.shared], "blobs": blobs}

    async def put(self, params: dict[str, Json]) -> Json:
        """Cut a file into pieces and hand them to holders."""
        layout = await self._node.jobs.store(Path(str(params["file"])).read_bytes())
        return {"blob": layout.blob.hex(), "k": layout.k, "n": layout.n}

    async def get(self, params: dict[str, Json]) -> Json:
        """Bring a stored blob back and write it to a file."""
        data = await self._node.server.stored_blob(_blob(params["blob"]))
        Path(str(params["out"])).write_bytes(data)
        return {"bytes": len(data)}

    # -- money -----------------------------------------------------------------------------------------------------
    async def statement(self, params: dict[str, Json]) -> Json:
        """What an account was paid for, and what was refused and why."""
        account = parse_account(params["account"]) if params.get("account") else self._node.account
        return statement_json(statement(account, self._node.settler.book.epochs))

    async def explain(self, _: dict[str, Json]) -> Json:
        """Recompute all payments from the published receipts and compare with the chain."""
        return explanation_json(self.explanation())

    def explanation(self) -> Explanation:
        """The offline check of this node's copy of the receipts against its view of the chain."""
        node = self._node
        view: ChainView = node.view.chain_view(node.chain.verifier("settlement"))
        prices = {job: account.prices for job, account in node.settler.book.jobs.items()}
        return explain(node.settler.book.epochs, view, prices)


def _blob(text: Json) -> bytes:
    try:
        name = bytes.fromhex(str(text).removeprefix("0x"))
    except ValueError:
        name = b""
    if len(name) != 32:
        raise BadInput(f"{str(text)[:80]!r} is not a blob id: expected 64 hexadecimal digits, as `atoll status` shows.")
    return name
