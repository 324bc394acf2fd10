"""What a node costs the device that it runs on: disk, memory, CPU when idle, and the time until something happens.

    python bench/footprint.py [--seconds N] [--repeats N] [--json FILE]

Installs the package without extras into a fresh environment (as `pip install .` does) and runs a node from there; the
embedded chain, which is no part of a node, and `atoll up` run from the environment of this script. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import proc
from empty_job import make_job, write_data
from network import Network, follow, wait

ROOT = Path(__file__).parent.parent
PARTS = ("pyproject.toml", "README.md", "LICENSE", "src")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules")
MEGA = 1e6
NOT_OURS = ("pip", "setuptools", "wheel")  # they come with the environment
IMPORTS = ("atoll", "atoll.cli.main", "atoll.node.daemon", "atoll.graph.session")
REPEATS = 5

# Runs in the fresh environment: bytes of the files of each distribution.
_SIZES = """
import importlib.metadata as metadata, json
def size(one):
    found = (one.locate_file(path) for path in one.files or ())
    return sum(path.stat().st_size for path in found if path.is_file())
print(json.dumps({one.metadata["Name"]: size(one) for one in metadata.distributions()}))
"""


def install(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The package in an environment of its own; returns its Python and what it takes."""
    source = folder / "source"
    source.mkdir()
    for name in PARTS:  # a copy, because building leaves files behind
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=LEFT_OUT)
        elif path.is_file():
            shutil.copy(path, source / name)
    begin = time.monotonic()
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run([python, "-m", "pip", "install", *quiet, source], check=True)
    seconds = time.monotonic() - begin
    listed = subprocess.run([python, "-c", _SIZES], check=True, capture_output=True, text=True)
    sizes = {name: size for name, size in json.loads(listed.stdout).items() if name not in NOT_OURS}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    return python, {
        "seconds": round(seconds, 1),
        "megabytes": round(sum(sizes.values()) / MEGA, 1),
        "packages": len(sizes),
        "largest_megabytes": {name: round(size / MEGA, 1) for name, size in largest},
        "atoll_megabytes": round(sizes["atoll"] / MEGA, 1),
    }


def import_seconds(python: Path) -> dict[str, float]:
    """Seconds that importing takes beyond starting Python: the median of a few, with warm files."""

    def run(code: str) -> float:
        times = []
        for _ in range(REPEATS + 1):
            begin = time.perf_counter()
            subprocess.run([python, "-c", code], check=True)
            times.append(time.perf_counter() - begin)
        return statistics.median(times[1:])

    bare = run("pass")
    return {name: round(run(f"import {name}") - bare, 3) for name in IMPORTS}


async def measure_idle(python: Path, seconds: float) -> dict[str, Any]:
    """Memory and CPU of an idle node on an idle chain: newly joined, and after its first work (the engine is warm)."""
    with tempfile.TemporaryDirectory(prefix="atoll-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        data = write_data(home / "data")
        # The settings that a user's node has, not the faster polling of `atoll up`.
        network = Network(home, 1, str(python), poll_seconds="1.0")
        try:
            await network.start()
            fresh = await _watch(network, seconds)
            job = make_job("empty", data, 100_000, 2, 10_000)
            opened = await network.open(job, home / "data")
            await network.start_job(opened)
            await follow(network.client(1), opened, 2, 60)

            async def paid() -> bool:
                status = await network.client(1).call("status")
                return bool(status["jobs"][0]["model"]) and int(status["claimed"]) == int(status["earned"]) > 0

            await wait(paid, 60, "the node's pay")
            return {"fresh": fresh, "after_work": await _watch(network, seconds)}
        finally:
            await network.stop()


async def _watch(network: Network, seconds: float) -> dict[str, Any]:
    leader, chain = network.nodes[0].pid, network.chain_process.pid
    if leader is None or chain is None:
        raise RuntimeError(f"the node or the chain ended: {network.nodes[0].last_words()}")
    processes = proc.group(leader)
    before = {pid: proc.cpu_seconds(pid) for pid in (*processes, chain)}
    begin = time.monotonic()
    await asyncio.sleep(seconds)
    passed = time.monotonic() - begin
    percent = {pid: 100 * (proc.cpu_seconds(pid) - used) / passed for pid, used in before.items()}
    children = [pid for pid in processes if pid != leader]

    def megabytes(pids: Sequence[int]) -> dict[str, float]:
        parts = [proc.memory(pid) for pid in pids]
        return {name: round(sum(part[name] for part in parts) / MEGA, 1) for name in ("rss", "pss")}

    return {
        "node": megabytes([leader]),
        "engine": megabytes(children) if children else None,
        "node_cpu_percent": round(percent[leader], 2),
        "engine_cpu_percent": round(sum(percent[pid] for pid in children), 2),
        "chain": {**megabytes([chain]), "cpu_percent": round(percent[chain], 2)},
    }


def first_round(nodes: int) -> dict[str, float]:
    """Seconds of `atoll up` until its first round is certified, from the summary that it writes."""
    with tempfile.TemporaryDirectory(prefix="atoll-up-", ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "out.json"
        where = ("--home", str(Path(folder) / "home"), "--json", str(out))
        # One round only: then the phase "training" is the first round.
        arguments = ("--nodes", str(nodes), "--rounds", "1", "--exit", "--plain", *where)
        begin = time.monotonic()
        command = [sys.executable, "-m", "atoll", "up", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
        whole = time.monotonic() - begin
        found = json.loads(out.read_text())["seconds"]
    loading = max(0.0, whole - found["total"])  # Python starting and ending
    phases = {name: found[name] for name in ("starting", "enlisting", "training")}
    return {**phases, "first_round_certified": round(sum(phases.values()), 2), "around_it": round(loading, 2)}


def show(found: dict[str, Any]) -> None:
    """The tables."""
    disk = found["install"]
    if disk:
        print(f"installed without extras: {disk['megabytes']} MB in {disk['packages']} packages, {disk['seconds']} s")
        for name, size in disk["largest_megabytes"].items():
            print(f"  {name:24}{size:8.1f} MB")
    print("import, beyond starting Python:")
    for name, seconds in found["import_seconds"].items():
        print(f"  {name:24}{1e3 * seconds:8.0f} ms")
    print(f"idle {'':22}{'RSS MB':>8}{'PSS MB':>8}{'CPU %':>8}")
    for when, told in (("fresh", "newly joined"), ("after_work", "after its first work")):
        one = found["idle"][when]
        print(f"  node, {told:20}{one['node']['rss']:8.1f}{one['node']['pss']:8.1f}{one['node_cpu_percent']:8.2f}")
        if one["engine"]:
            engine = one["engine"]
            print(f"  its engine {'':16}{engine['rss']:8.1f}{engine['pss']:8.1f}{one['engine_cpu_percent']:8.2f}")
    chain = found["idle"]["fresh"]["chain"]
    print(f"  (embedded chain {'':11}{chain['rss']:8.1f}{chain['pss']:8.1f}{chain['cpu_percent']:8.2f})")
    for one in found.get("up", ()):
        print(f"atoll up to the first certified round: {one['first_round_certified']} s {one}")


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the idle node is watched (default 20)")
    parser.add_argument("--nodes", type=int, default=6, help="nodes of `atoll up` (default 6)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of `atoll up` (default 3; 0 leaves it out)")
    parser.add_argument("--python", type=Path, help="a Python that has Atoll, instead of a fresh environment")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    found: dict[str, Any] = {"python": platform.python_version(), "machine": proc.machine(), "load": [proc.load()]}
    with tempfile.TemporaryDirectory(prefix="atoll-venv-") as folder:
        python, found["install"] = (options.python, None) if options.python else install(Path(folder))
        found["import_seconds"] = import_seconds(python)
        found["idle"] = asyncio.run(measure_idle(python, options.seconds))
    found["up"] = [first_round(options.nodes) for _ in range(options.repeats)]
    found["load"].append(proc.load())
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
