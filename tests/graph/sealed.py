"""Run something in a child process that may open nothing: no file, no socket, no other program.

Two nets: Python's audit events, everywhere; and on Linux (x86-64) a system-call filter, which also sees what C++ does.
The child is a fork, so nothing is imported again, and what it uses is measured by the system.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atoll.errors import Refused

_AUDITED = ("open", "socket.", "os.", "subprocess.", "shutil.", "ctypes.", "import", "exec", "compile", "pickle.")
# open, stat, lstat, access, socket, connect, bind, fork, vfork, execve, creat, unlink, mkdir, rename, openat, execveat,
# newfstatat, readlink, statx, openat2: numbers of the system calls that look for a name, or reach outside.
_CALLS = (2, 4, 6, 21, 41, 42, 49, 57, 58, 59, 85, 87, 83, 82, 257, 322, 262, 89, 332, 437)
_HAS_FILTER = sys.platform == "linux" and platform.machine() == "x86_64"


@dataclass(frozen=True)
class Seen:
    """What became of a call: a reason code or -1 for none, its detail, bytes of memory and seconds of CPU used."""

    reason: int
    detail: str
    memory: int
    seconds: float


def sealed(call: Callable[[], object], *, cpu_seconds: int = 20, memory_bytes: int = 2 << 30) -> Seen:
    """What `call` does in a sealed child; raises AssertionError when the child dies or reaches outside."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            _limit(cpu_seconds, memory_bytes)
            os.write(write, json.dumps(_watched(call)).encode())
        except BaseException as error:  # the parent is told of whatever it is
            os.write(write, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise AssertionError(f"the child died of {signal.Signals(os.WTERMSIG(status)).name}")
    found: dict[str, Any] = json.loads(told)
    if "error" in found:
        raise AssertionError(found["error"])
    return Seen(**found)


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    with open("/proc/self/statm", encoding="ascii") as statm:
        base = int(statm.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (base + memory_bytes, base + memory_bytes))


def _watched(call: Callable[[], object]) -> dict[str, Any]:
    events: list[str] = []
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if _HAS_FILTER:
        _filter_calls()
    sys.addaudithook(lambda event, _: events.append(event) if event.startswith(_AUDITED) else None)
    reason, detail = -1, ""
    try:
        call()
    except Refused as error:
        reason, detail = int(error.reason), error.detail
    seen = tuple(events)
    if seen:
        raise AssertionError(f"reached outside: {seen[:5]}")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"reason": reason, "detail": detail, "memory": 1024 * used, "seconds": time.process_time() - start}


def _filter_calls() -> None:
    """From now on any of `_CALLS` ends this process with SIGSYS (seccomp, in filter mode)."""
    load, jump_if_equal, finish = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 0)]
    for index, number in enumerate(_CALLS):
        program.append((jump_if_equal, len(_CALLS) - index, 0, number))
    program += [(finish, 0, 0, 0x7FFF0000), (finish, 0, 0, 0x80000000)]  # allow; kill
    raw = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in program))
    head = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(raw))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(head), 0, 0):
        raise OSError(ctypes.get_errno(), "the system-call filter could not be set")
