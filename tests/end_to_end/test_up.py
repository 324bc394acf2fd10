"""The main job, faults and resumption, on real processes."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from atoll.node.control import ControlClient

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def check_sums(summary: dict[str, Any]) -> None:
    """Money, to the last unit: in = out + refunded, and what left escrow is what accounts were paid."""
    paid = [int(amount) for amount in summary["paid"].values()]
    assert int(summary["escrow_in"]) == int(summary["escrow_out"]) + int(summary["refunded"])
    assert sum(paid) == int(summary["escrow_out"])
    assert summary["explain"] == "match"


def check_rejected(summary: dict[str, Any], dishonest: str) -> None:
    """Only the dishonest node is ever refused, and it is."""
    assert {one["node"] for one in summary["rejected"]} == {dishonest}


async def statuses(network: Any, count: int) -> list[dict[str, Any] | None]:
    """What each node says about itself."""
    found: list[dict[str, Any] | None] = []
    for index in range(1, count + 1):
        try:
            found.append(await ControlClient(network.home / f"node-{index}").call("status", timeout=3))
        except Exception:  # a node that was killed does not answer
            found.append(None)
    return found


def furthest(found: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The job status of the node that is furthest."""
    jobs = [job for status in found if status for job in status["jobs"]]
    return max(jobs, key=lambda job: job["round"], default=None)


def test_main_job(up: Any) -> None:
    summary = up("--nodes", "6", "--rounds", "12", "--dishonest", "1", "--exit").finish()
    assert (summary["nodes"], summary["rounds"], len(summary["accuracy"])) == (6, 12, 12)
    assert summary["accuracy"][-1] >= 0.90
    assert summary["accuracy"][-1] > summary["baseline_accuracy"]
    check_rejected(summary, "node-6")
    assert len(summary["rejected"]) == 12  # every unit of it
    check_sums(summary)
    # By hand: 12 rounds x 5 honest units at 1 ATL, nothing for the liar's units; the rest are audits and duties.
    liar = summary["accounts"]["node-6"]
    honest = [int(paid) for account, paid in summary["paid"].items() if account != liar]
    assert all(paid >= 12 * 10**18 for paid in honest)
    assert int(summary["paid"][liar]) < 12 * 10**18
    assert summary["answer"]["class"] == summary["answer"]["label"]
    assert len(bytes.fromhex(summary["model"])) == 32
    assert summary["claims"] >= 6
    assert summary["bytes_up"] > 0 and summary["bytes_down"] > 0


def test_lazy_worker_is_caught(up: Any) -> None:
    arguments = ("--nodes", "5", "--rounds", "2", "--dishonest", "1", "--attack", "lazy", "--model", "mlp", "--exit")
    summary = up(*arguments).finish()
    check_rejected(summary, "node-5")
    check_sums(summary)


async def kill_plan(network: Any, plan: list[tuple[int, str]]) -> None:
    """kill -9 as planned: (from which round on, which process or "leader")."""

    async def furthest_from(least: int) -> tuple[list[Any], dict[str, Any]]:
        while True:
            found = await statuses(network, 6)
            job = furthest(found)
            if job is not None and job["round"] >= least:
                return found, job
            assert network.process.poll() is None, network.output()[-4000:]

    for least, who in plan:
        found, job = await furthest_from(least)
        if who == "leader":
            places = [index for index, status in enumerate(found, 1) if status and status["account"] == job["leader"]]
            name = f"node-{places[0]}"
        else:
            name = who
        os.kill(network.processes()[name], signal.SIGKILL)


def test_killed_processes_do_not_stop_the_job(up: Any) -> None:
    import asyncio

    network = up("--nodes", "6", "--rounds", "9", "--dishonest", "1", "--exit")
    network.wait_for(lambda: len(network.processes()) == 8)
    asyncio.run(kill_plan(network, [(1, "node-3"), (3, "chain"), (5, "leader")]))
    summary = network.finish()
    assert "SIGKILL" in network.output()
    assert summary["accuracy"][-1] >= 0.90
    check_rejected(summary, "node-6")
    check_sums(summary)


def test_resumes_with_its_balances(up: Any) -> None:
    arguments = ("--nodes", "3", "--rounds", "1", "--model", "softmax", "--exit")
    first = up(*arguments).finish()
    second = up(*arguments).finish()
    assert first["accounts"] == second["accounts"]
    assert first["chain"]["contracts"] == second["chain"]["contracts"]
    assert first["job"] != second["job"]
    check_sums(second)
    total = int(second["chain"]["claimed"])
    assert total == int(first["escrow_out"]) + int(second["escrow_out"])


def test_interrupted_job_goes_on(up: Any) -> None:
    arguments = ("--nodes", "3", "--rounds", "30", "--model", "softmax", "--exit")
    network = up(*arguments)
    network.wait_for(lambda: "round 1: " in network.output())
    assert network.stop() == 130
    assert not (network.home / "up.json").exists()
    summary = up(*arguments).finish()
    assert summary["rounds"] == 30
    check_sums(summary)
