"""Money for answers: what the journal keeps across kill -9, and vouchers that a real EVM pays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from atoll.errors import Refused, TransactionFailed
from atoll.inference.messages import Chunk, Done, Statement
from atoll.inference.router import Outcome
from atoll.inference.spotcheck import Case
from atoll.inference.vouchers import Price, Purse, Till, sign_voucher
from atoll.ledger.chain import Chain
from atoll.node.answers.payments import Bank, Evidence, KeptAnswer, Payments
from atoll.node.journal import Journal
from atoll.wire.identity import AccountKey
from atoll.wire.reasons import Reason
from tests.ledger.local_network import COIN, LocalNetwork
from tests.node.answers.town import SmallModels, Vault, town

A, B = b"\x0a" * 20, b"\x0b" * 20
ONE, TWO = b"\x01" * 16, b"\x02" * 16
STATEMENT = Statement(A, B, ONE, bytes(32), bytes(32), bytes(32), 7, 3, 4, b"\x05", b"s" * 65)
ANSWER = KeptAnswer(B, (Chunk("text", (1, 2), ()),), Done(b"", STATEMENT))
HUGE = 10**30


def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        payments = Payments(journal)
        payments.keep_purse(A, Purse(HUGE, HUGE - 1, {ONE: 5, TWO: HUGE}))
        payments.keep_till(B, Till(HUGE, 7, b"v" * 65, 3))
        payments.charge(B, ONE, 9, ANSWER)
        payments.charge(B, TWO, 0, ANSWER)
        record = payments.record(A).after(Outcome.TIMEOUT, 1e9).timed(0.5, 1.0, 10)
        payments.keep_record(A, record, Case(2, 1))
        payments.keep_evidence(A, Evidence(b"q", ANSWER.chunks, b"", STATEMENT, "why"))
    with Journal.open(tmp_path) as journal:
        payments = Payments(journal)
        assert payments.purse(A) == Purse(HUGE, HUGE - 1, {ONE: 5, TWO: HUGE})
        assert payments.till(B) == Till(HUGE + 9, 7, b"v" * 65, 3, ((ONE, HUGE + 9),))
        assert payments.kept_answer(ONE) == ANSWER
        assert payments.kept_answer(TWO) is None  # what is free is not kept
        assert (payments.record(A), payments.case(A)) == (record, Case(2, 1))
        assert payments.evidence(A) == Evidence(b"q", ANSWER.chunks, b"", STATEMENT, "why")
        assert payments.evidence(B) is None
        payments.keep_till(B, payments.till(B).take(HUGE + 9, b"w" * 65, HUGE * 2))
        assert payments.kept_answer(ONE) is None


def test_snapshots_are_found_by_the_beginning_of_their_key(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        for key in ("a/1", "a/2", "ab", "b/1"):
            journal.put_snapshot(key, key.encode())
        assert journal.snapshots("a/") == {"a/1": b"a/1", "a/2": b"a/2"}
        assert journal.snapshots("c") == {}


WRITER = """
    import sys
    from pathlib import Path
    from atoll.node.journal import Journal
    from atoll.node.answers.payments import Payments
    from tests.node.answers.test_payments import A, ANSWER, B

    payments = Payments(Journal.open(Path(sys.argv[1])))
    for number in range(1, 1_000_000):
        nonce = number.to_bytes(16, "big")
        purse = payments.purse(A).ask(nonce, 3)
        payments.keep_purse(A, purse)
        payments.charge(B, nonce, 3, ANSWER)
        payments.keep_purse(A, payments.purse(A).receive(nonce, 3).sign())
        print(payments.purse(A).signed, payments.till(B).charged, flush=True)
"""


def test_kill_9_loses_nothing_that_was_told(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)})
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines(keepends=True)
    process.wait()
    process.stdout.close()
    signed, charged = map(int, [line for line in lines if line.endswith(b"\n")][-1].split())
    with Journal.open(tmp_path) as journal:
        payments = Payments(journal)
        purse, till = payments.purse(A), payments.till(B)
        assert signed <= purse.signed == purse.due <= till.charged <= purse.due + 3
        assert charged <= till.charged and purse.at_risk in (0, 3)
        assert all(payments.kept_answer(nonce) == ANSWER for nonce, _ in till.kept)


# -- a real EVM --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    net = LocalNetwork(tmp_path_factory.mktemp("chain"))
    yield net
    net.devnet.close()


class OnChain(Vault):
    """Deposits as the contract itself tells of them."""

    def __init__(self, network: LocalNetwork) -> None:
        super().__init__()
        self.network = network
        self.chains: dict[bytes, Chain] = {}

    def open(self, key: AccountKey) -> Chain:
        chain = Chain.connect(self.network.request, self.network.registry, self.network.terms.chain_id, key)
        chain.fund(key.address)
        self.chains[key.address] = chain
        return chain

    def _any(self) -> Chain:
        return next(iter(self.chains.values()))

    def usable(self, payer: bytes) -> int:
        return self._any().deposit_of(payer)

    def leaving(self, payer: bytes) -> bool:
        return self._any().deposit_record(payer).leaving > 0

    def redeemed(self, payer: bytes, payee: bytes) -> int:
        return self._any().redeemed(payer, payee)

    def bank(self, payee: bytes) -> Bank:
        async def redeem(payer: bytes, cumulative: int, signature: bytes) -> None:
            self.chains[payee].redeem(payer, payee, cumulative, signature)

        return Bank(self._any().verifier("deposits"), self, redeem)


def test_answers_are_paid_by_the_contract(tmp_path: Path, network: LocalNetwork) -> None:
    x = np.ones((1, 4), np.float32)

    async def scene() -> None:
        async with town(tmp_path) as here:
            vault = OnChain(network)
            here.vault = vault
            keys = [AccountKey(bytes([number]) * 32) for number in (1, 2)]
            paying, earning = map(vault.open, keys)
            paying.deposit(COIN)
            me = await here.add(SmallModels(models=()))
            server = await here.add(SmallModels(), digits=Price(COIN // 10, 0))
            before = earning.balance(server.account)
            for _ in range(4):
                _, served = await me.routed.classify("digits", x)
                assert served.cost == COIN // 10
            await me.asker.close()
            assert await server.answering.redeem() == 4 * COIN // 10
            assert earning.balance(server.account) - before == 4 * COIN // 10
            assert vault.redeemed(me.account, server.account) == 4 * COIN // 10
            assert await server.answering.redeem() == 0
            # Six more use up the deposit; then the asker knows without asking that it cannot pay.
            for _ in range(6):
                await me.routed.classify("digits", x)
            with pytest.raises(Refused) as caught:
                await me.routed.classify("digits", x)
            assert caught.value.reason == Reason.OVER_BUDGET
            await me.asker.close()
            assert await server.answering.redeem() == 6 * COIN // 10
            assert paying.deposit_of(me.account) == 0
            old = sign_voucher(earning.verifier("deposits"), me.key, server.account, COIN // 2)
            with pytest.raises(TransactionFailed):
                earning.redeem(me.account, server.account, COIN // 2, old.signature)

    asyncio.run(scene())
