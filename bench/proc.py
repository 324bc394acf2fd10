"""Memory and CPU time of processes, as Linux tells them in /proc."""

from __future__ import annotations

import os
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
