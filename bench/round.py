"""A round with no compute: six nodes of Atoll against Flower's deployment engine and Flower's simulation, in one run.

    python bench/round.py --flower-venv DIR [--turns N] [--rounds N] [--json FILE]

Atoll: an embedded chain and six node processes that speak QUIC; every message signed, every unit committed, audited
and opened, every round certified by a quorum and its certificate posted on the chain. Flower 1.41.0, in an environment
of its own that is made if it is not there: a SuperLink and six SuperNodes (`flwr run`), then the same app on Ray; its
messages are neither signed nor checked. All move 100,000 parameters and train nothing.

The three take turns, each started anew; a round's time is from one certificate (aggregate) to the next. A ratio is of
the medians of the same turn, reported as the median turn with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flower
import proc
from empty_job import make_job, write_data
from network import Network, audits_by_round, follow

ALWAYS, FLOOR = 10_000, 1_000  # audit rates in parts per 10,000: every unit, and the product's floor
SETTLED = 10  # rounds after which an honest account is audited at the floor
ROUND_LIMIT = 30.0


async def atoll(nodes: int, parameters: int, rounds: int) -> dict[str, Any]:
    """Seconds of each round: with every unit audited, and at the product's rate after the first ten rounds."""
    with tempfile.TemporaryDirectory(prefix="atoll-", ignore_cleanup_errors=True) as folder:
        home, begin = Path(folder), time.time()
        data = write_data(home / "data")
        network = Network(home, nodes)
        try:
            await network.start()
            ready = time.time() - begin
            idle = sum(proc.group_memory(one.pid)["pss"] for one in (network.chain_process, *network.nodes) if one.pid)
            # The first round also fetches the data and starts the engines: it is reported apart.
            full = await _job(network, "audited", data, parameters, rounds + 1, ALWAYS)
            usual = await _job(network, "usual", data, parameters, SETTLED + rounds, FLOOR)
        finally:
            await network.stop()
    return {
        "start_infrastructure": ready,
        "memory_mb": round(idle / 2**20),
        "first_round": full["seconds"][0],
        "audited": {**full, "seconds": full["seconds"][1:]},
        "usual": {**usual, "seconds": usual["seconds"][SETTLED:], "audits": usual["audits"][SETTLED:]},
    }


async def _job(
    network: Network, name: str, data: Any, parameters: int, rounds: int, audit_floor: int
) -> dict[str, Any]:
    job = make_job(name, data, parameters, rounds, audit_floor)
    opened = await network.open(job, network.home / "data")
    follower = asyncio.create_task(follow(network.client(network.count), opened, rounds, 60 + ROUND_LIMIT * rounds))
    await network.start_job(opened)
    course = await follower
    if course.status["rejected"] or course.status["accepted"] != [network.count] * rounds:
        raise RuntimeError(f"an honest unit was refused: {course.status}")
    return {
        "seconds": course.seconds,
        "on_chain_every": (course.on_chain[-1] - course.on_chain[0]) / (rounds - 1),
        "on_chain_after": statistics.median(course.delays),
        "audits": await audits_by_round(network, opened, rounds),
        "phases": {phase: seconds / rounds for phase, seconds in course.status["seconds"].items()},
    }


def one_turn(options: argparse.Namespace, programs: Path) -> dict[str, Any]:
    """All three, one after the other, with the machine's load before each."""
    clients, parameters = options.nodes, options.parameters
    found: dict[str, Any] = {"load": [proc.load()]}
    found["atoll"] = asyncio.run(atoll(clients, parameters, options.rounds))
    found["load"].append(proc.load())
    found["deployment"] = flower.deployment(programs, clients, parameters, options.flower_rounds)
    found["load"].append(proc.load())
    simulated = flower.simulation(programs, clients, parameters, options.rounds + 1)
    simulated["start_run"] += simulated["seconds"].pop(0)  # Ray starts inside the first round
    found["simulation"] = simulated
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def summary(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Seconds of all rounds, and ratios turn by turn."""
    rounds = {
        "Atoll, every unit audited": [turn["atoll"]["audited"]["seconds"] for turn in turns],
        "Atoll, after ten rounds": [turn["atoll"]["usual"]["seconds"] for turn in turns],
        "Atoll, on the chain, every": [[turn["atoll"]["audited"]["on_chain_every"]] for turn in turns],
        "Flower deployment": [turn["deployment"]["seconds"] for turn in turns],
        "Flower simulation": [turn["simulation"]["seconds"] for turn in turns],
    }
    ours = list(rounds)[:3]
    medians = {name: [statistics.median(turn) for turn in values] for name, values in rounds.items()}
    return {
        "seconds": {name: spread([one for turn in values for one in turn]) for name, values in rounds.items()},
        "ratios": {
            f"{theirs} / {name}": spread([a / b for a, b in zip(medians[theirs], medians[name], strict=True)])
            for theirs in ("Flower deployment", "Flower simulation")
            for name in ours
        },
        "audits_a_round": {
            name: statistics.mean(count for turn in turns for count in turn["atoll"][name]["audits"])
            for name in ("audited", "usual")
        },
    }


def show(turns: Sequence[dict[str, Any]], found: dict[str, Any]) -> None:
    """The tables."""
    print(f"\n{'seconds a round':42}{'median':>8}   lowest to highest")
    for name, value in found["seconds"].items():
        print(f"  {name:40}{value['median']:8.2f}   {value['lowest']:.2f} to {value['highest']:.2f}")
    print(f"\n{'ratio (above 1: Atoll is faster)':52}{'median':>8}   lowest to highest turn")
    for name, value in found["ratios"].items():
        print(f"  {name:50}{value['median']:8.2f}   {value['lowest']:.2f} to {value['highest']:.2f}")
    full, usual = (found["audits_a_round"][name] for name in ("audited", "usual"))
    print(f"\naudits a round: {full:.1f} with every unit audited, {usual:.1f} after ten rounds")
    after = statistics.median(turn["atoll"]["audited"]["on_chain_after"] for turn in turns)
    print(f"a certificate is on the chain {after:.1f} s after its quorum (median; every unit audited)")
    for name in ("atoll", "deployment", "simulation"):
        ready = statistics.median(turn[name]["start_infrastructure"] for turn in turns)
        run = statistics.median(turn[name].get("first_round", turn[name].get("start_run")) for turn in turns)
        memory = statistics.median(turn[name]["memory_mb"] for turn in turns)
        what = "its first round" if name == "atoll" else "to its first round"
        print(f"{name:11} starts in {ready:5.1f} s, {what:18} {run:5.1f} s; all processes idle in {memory:.0f} MB")


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower-venv", type=Path, default=Path(".venv-flower"), help="made if it is not there")
    parser.add_argument("--no-flower", action="store_true", help="measure Atoll alone")
    parser.add_argument("--turns", type=int, default=3, help="how often the three take turns (default 3)")
    parser.add_argument("--rounds", type=int, default=12, help="rounds a turn, also in simulation (default 12)")
    parser.add_argument("--flower-rounds", type=int, default=6, help="rounds of Flower's deployment a turn (default 6)")
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="also write all times to this file")
    options = parser.parse_args()
    setting = {"python": platform.python_version(), "flower": flower.FLOWER, "machine": proc.machine()}
    setting |= {"nodes": options.nodes, "parameters": options.parameters}
    if options.no_flower:
        result: dict[str, Any] = {"atoll": asyncio.run(atoll(options.nodes, options.parameters, options.rounds))}
        print(json.dumps({name: spread(result["atoll"][name]["seconds"]) for name in ("audited", "usual")}, indent=1))
    else:
        programs, turns = flower.environment(options.flower_venv), []
        for number in range(options.turns):
            turns.append(one_turn(options, programs))
            print(f"turn {number + 1} of {options.turns}: load {turns[-1]['load']}", flush=True)
        result = {"turns": turns, "summary": summary(turns)}
        show(turns, result["summary"])
    if options.json:
        options.json.write_text(json.dumps({**setting, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
