"""Limits that the engine's child process puts on itself before it sees anything from outside.

Memory is limited by RLIMIT_DATA (private writable memory), counted from what the process uses once ONNX Runtime is
loaded. RLIMIT_AS would also count address space that is only reserved, of which thread arenas and libraries take
gigabytes. Where the platform has no `resource` module (Windows), the parent's wall-clock limit is what remains.
"""

from __future__ import annotations

import os
from types import ModuleType

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

ASSUMED_BASE = 256 << 20  # memory of the process before its first graph, where /proc does not say

# The smallest graph (y = Identity(x), float [1]): opening it loads what ONNX Runtime loads lazily, before no more
# files can be opened.
WARM_GRAPH = bytes.fromhex(
    "080912003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a001012"
)


def lock_down(memory_bytes: int, files: int = 0) -> None:
    """From now on: at most `files` new files or sockets, no file grows, no core dump, `memory_bytes` more memory."""
    if resource is None:
        return
    _limit("RLIMIT_DATA", _base() + memory_bytes)
    _limit("RLIMIT_FSIZE", 0)
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_NOFILE", _first_free_descriptor() + files)


def allow_cpu(seconds: int) -> None:
    """The process may use `seconds` of CPU from now; the system kills it (SIGXCPU) when it uses more."""
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _limit(name: str, value: int) -> None:
    """Lower a limit for good; one that the platform lacks, or holds lower already, stays as it is."""
    if resource is None or not hasattr(resource, name):
        return
    which = getattr(resource, name)
    hard = resource.getrlimit(which)[1]
    if hard == resource.RLIM_INFINITY or value < hard:
        resource.setrlimit(which, (value, value))


def _base() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return ASSUMED_BASE


def _first_free_descriptor() -> int:
    """All descriptors below it are taken, so a limit there leaves none to open."""
    free = os.dup(2)
    os.close(free)
    return free
