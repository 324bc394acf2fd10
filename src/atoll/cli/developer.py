"""The developer of `atoll up`: an account that posts a job, pays for it, and has it settled."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from atoll.cli.plan import COMMITTEE, JobPlan
from atoll.errors import MachineError
from atoll.ledger.chain import Chain
from atoll.ledger.funding import check_tokens
from atoll.ledger.records import JobRecord
from atoll.wire.generator import Generator
from atoll.wire.hashing import blob_id
from atoll.wire.identity import AccountKey, parse_account
from atoll.wire.keystore import create_keys, has_keys, load_keys

Result = TypeVar("Result")
JOB_SECONDS = 7 * 24 * 3600
ENLIST_SECONDS = 60.0
SETTLE_SECONDS = 120.0
SPARE_ROUNDS = 3  # that a job still has when it is ended early, so that every node hears of it in time


class Developer:
    """One account that posts jobs. All chain calls run in a thread, one after the other."""

    def __init__(self, home: Path, chain: Chain) -> None:
        self.home, self.chain = home, chain
        self.first_epoch = 0
        self.window = 0
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, home: Path, network: dict[str, Any], key: AccountKey | None = None) -> Developer:
        """Connect as the account of `key`, or of keys that are kept in the home; where there is a faucet, use it."""
        home.mkdir(parents=True, exist_ok=True)
        if key is None:
            key = _own_key(home)
        chain = await asyncio.to_thread(
            Chain.connect, network["rpc"], parse_account(network["registry"]), network["chain_id"], key
        )
        found = cls(home, chain)
        if await found.call(chain.coins, key.address) == 0 and await found.call(chain.has_faucet):
            await found.call(chain.fund, key.address)
        found.first_epoch = await found.call(chain.next_epoch)
        found.window = (await found.call(chain.terms)).window
        return found

    async def call(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """A chain call in a thread."""
        async with self._turn:
            return await asyncio.to_thread(work, *arguments)

    # -- the job ---------------------------------------------------------------------------------------------------
    async def find_unfinished(self) -> str:
        """A job of this account that was started and is not yet settled ("" if there is none)."""
        for job in await self.call(self.chain.jobs):
            record: JobRecord = await self.call(self.chain.job, job)
            if record.developer == self.chain.account and record.started_at and not record.closed:
                return "0x" + job.hex()
        return ""

    def write_parts(self, plan: JobPlan) -> list[Path]:
        """Write the job's parts as files, for a node to publish; returns them."""
        paths = []
        for content in plan.parts:
            path = self.home / f"{blob_id(content).hex()}.part"
            path.write_bytes(content)
            paths.append(path)
        return paths

    async def post(self, plan: JobPlan, seed: str) -> str:
        """Open the job on the chain with its budget in escrow; returns its id."""
        me = self.chain.account or b""
        await self.call(check_tokens, self.chain, me, plan.budget, "for the job's budget")
        deadline = int(time.time()) + JOB_SECONDS
        terms = (plan.manifest.id, plan.budget, plan.manifest.rounds, deadline, parse_account(seed))
        job, _ = await self.call(self.chain.open, *terms)
        return "0x" + job.hex()

    async def start_when(self, job: str, count: int, say: Callable[[str], None]) -> None:
        """Start the job when so many nodes have enlisted; after a minute with those that have."""
        name, end = bytes.fromhex(job[2:]), time.monotonic() + ENLIST_SECONDS
        while True:
            enlisted = await self.call(self.chain.enlisted, name)
            if len(enlisted) >= count or (enlisted and time.monotonic() > end):
                break
            await asyncio.sleep(0.3)
        members = sorted(one.account for one in enlisted)
        order = Generator(name, b"first committee")
        order.shuffle(members)
        await self.call(self.chain.start, name, members[:COMMITTEE])
        say(f"{len(enlisted)} nodes have enlisted; training starts")

    async def shorten(self, job: str, certified: int) -> int:
        """End a job early; `certified` rounds are known off the chain. The rounds it will have (0: too late)."""
        record: JobRecord = await self.call(self.chain.job, bytes.fromhex(job[2:]))
        rounds = max(certified, record.certified) + SPARE_ROUNDS  # what is under way is finished and paid
        if rounds >= record.rounds:
            return 0
        await self.call(self.chain.shorten, record.job, rounds)
        return rounds

    # -- afterwards ------------------------------------------------------------------------------------------------
    async def settle(self, job: str, nodes: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """Wait until everything earned is paid, then take the rest of the budget back; `nodes` are their states."""
        limit = SETTLE_SECONDS + 2 * self.window  # of the last epoch, and of the one before it
        name, end = bytes.fromhex(job[2:]), time.monotonic() + limit
        while not await self.call(self.chain.is_settled, name) or await self._unpaid(nodes()):
            if time.monotonic() > end:
                raise MachineError(f"Job {job} was not settled within {limit:g} s; see the nodes' logs.")
            await asyncio.sleep(0.3)
        if not (await self.call(self.chain.job, name)).closed:
            await self.call(self.chain.refund, name)

    async def _unpaid(self, nodes: Sequence[Mapping[str, Any]]) -> bool:
        """Whether somebody earned tokens and does not have them yet. On a shared network only our nodes count."""
        if not await self.call(self.chain.unclaimed):
            return False
        epochs = await self.call(self.chain.next_epoch)
        return any(node["epochs"] < epochs or node["earned"] != node["claimed"] for node in nodes)


def _own_key(home: Path) -> AccountKey:
    passphrase = os.environ.get("ATOLL_PASSPHRASE")
    if not has_keys(home):
        create_keys(home, passphrase)
    return load_keys(home, passphrase)[0].account
