"""Memory and CPU time of processes, as Linux tells them in /proc."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KILO = 1024


def group(leader: int) -> list[int]:
    """The processes of the group that `leader` leads: itself and the children that it started."""
    return sorted(int(path.name) for path in Path("/proc").glob("[0-9]*") if _group_of(path) == leader)


def _group_of(path: Path) -> int:
    try:
        return int(_fields(path)[2])
    except OSError:  # it has just ended
        return 0


def _fields(path: Path) -> list[str]:
    """Fields of `stat` after the program's name: state, parent, group, ..."""
    return (path / "stat").read_text().rpartition(")")[2].split()


def memory(pid: int) -> dict[str, int]:
    """Bytes in memory: `rss` counts shared pages in full, `pss` shares them out among those who use them."""
    found = {"rss": 0, "pss": 0}
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        name = line.partition(":")[0].lower()
        if name in found:
            found[name] = _KILO * int(line.split()[1])
    return found


def group_memory(leader: int) -> dict[str, int]:
    """The sum of `memory` over a group."""
    parts = [memory(pid) for pid in group(leader)]
    return {name: sum(part[name] for part in parts) for name in ("rss", "pss")}


def family(mark: str) -> dict[int, str]:
    """Processes that have `mark` in the environment they were started with, and all that they started: id, start time.

    An id may be used again; together with the start time (in ticks since boot) it is the process.
    """
    parents, starts, found = {}, {}, set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields, marked = _fields(path), mark.encode() in (path / "environ").read_bytes()
        except OSError:  # it has just ended
            continue
        pid = int(path.name)
        parents[pid], starts[pid] = int(fields[1]), fields[19]
        found |= {pid} if marked else set()
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return {pid: starts[pid] for pid in found}


class Watch:
    """Looks at the processes with a mark once a second, in a thread: most memory (PSS) at one time, how many, CPU time.

    Use it as a context manager; at the end, what still runs of all that was seen is ended. CPU time of a process in
    the second before it ends is missed.
    """

    def __init__(self, mark: str, seconds: float = 1.0) -> None:
        self.peak, self.processes = 0, 0
        self._cpu: dict[tuple[int, str], float] = {}
        self._mark, self._seconds, self._seen = mark, seconds, dict[int, str]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(self._seconds):
            found = family(self._mark)
            self._seen |= found
            self._cpu |= {(pid, start): seconds for pid, start in found.items() if (seconds := _cpu_or_none(pid))}
            memory_now = sum(memory(pid)["pss"] for pid in found)
            self.peak, self.processes = max(self.peak, memory_now), max(self.processes, len(found))

    def facts(self) -> dict[str, float]:
        """The most memory in bytes, the most processes, and CPU seconds of all of them."""
        return {"peak_memory": self.peak, "processes": self.processes, "cpu_seconds": sum(self._cpu.values())}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._seen |= family(self._mark)
        end_all(self._seen)


def end_all(processes: dict[int, str], seconds: float = 5.0) -> None:
    """End processes by id and start time: first they are asked, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + seconds
        for pid in _alive(processes):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        while _alive(processes) and time.monotonic() < end:
            time.sleep(0.1)


def _alive(processes: dict[int, str]) -> list[int]:
    found = []
    for pid, start in processes.items():
        try:
            fields = _fields(Path(f"/proc/{pid}"))
        except OSError:
            continue
        if fields[19] == start and fields[0] != "Z":
            found.append(pid)
    return found


def _cpu_or_none(pid: int) -> float | None:
    try:
        return cpu_seconds(pid)
    except OSError:  # it has just ended
        return None


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, all its threads, user and system."""
    fields = _fields(Path(f"/proc/{pid}"))
    return (int(fields[11]) + int(fields[12])) / _TICKS


def load() -> float:
    """Processes that want to run, averaged over the last minute."""
    return round(os.getloadavg()[0], 2)


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cores": os.cpu_count(), "processor": models[0] if models else "unknown"}
