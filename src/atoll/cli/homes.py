"""Where things are on this device: the base folder, the node that a command means, the process of `atoll up`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atoll.errors import BadInput, MachineError, NotRunning
from atoll.node import control
from atoll.wire.keystore import has_keys

Json = Any

BASE = "ATOLL_HOME"
NODE = "node"  # the home of `atoll node` inside the base folder; those of `atoll up` are node-1, node-2, ...
GATEWAY = "gateway"
UP_FILE = "up.json"
STOP_SECONDS = 90.0  # a network puts its blobs, journals and chain away before it ends


def base(given: Path | None = None) -> Path:
    """The folder that was given, else the environment's ATOLL_HOME, else ~/.atoll; absolute."""
    return (given or Path(os.environ.get(BASE) or "~/.atoll")).expanduser().absolute()


def nodes_in(home: Path) -> list[Path]:
    """The node homes that `home` stands for: itself, and those inside it in the order of their numbers."""
    numbered = [path for path in home.glob("node-*") if path.name.removeprefix("node-").isdecimal()]
    inside = [home / NODE, *sorted(numbered, key=lambda path: int(path.name.removeprefix("node-")))]
    inside.append(home / GATEWAY)
    return [path for path in (home, *inside) if (path / control.FILE_NAME).is_file() or has_keys(path)]


def ask(home: Path, method: str, params: Mapping[str, Json] | None = None, timeout: float = 30.0) -> Json:
    """The answer of the first running node of a home; raises NotRunning, or what the node answered."""
    return ask_from(home, method, params, timeout)[1]


def ask_from(
    home: Path, method: str, params: Mapping[str, Json] | None = None, timeout: float = 30.0
) -> tuple[Path, Json]:
    """As `ask`, with the home of the node that answered."""
    for path in nodes_in(home):
        try:
            return path, ask_node(path, method, params, timeout)
        except NotRunning:
            continue
    raise nothing_runs(home)


def ask_node(home: Path, method: str, params: Mapping[str, Json] | None = None, timeout: float = 30.0) -> Json:
    """The answer of the node of this very home; raises as `ask`."""
    return asyncio.run(control.ControlClient(home).call(method, timeout=timeout, **(params or {})))


def nothing_runs(home: Path) -> NotRunning:
    """The error that says what could run here."""
    return NotRunning(
        f"No node runs in {home}: start one with `atoll node`, or a whole network on this device with `atoll up`; "
        "if it runs elsewhere, name its folder with --home."
    )


def keys_in(home: Path) -> Path:
    """The one node home with keys that `home` stands for; BadInput if there are several to choose from."""
    found = [path for path in nodes_in(home) if has_keys(path)]
    if home in found or not found:
        return home
    if len(found) > 1:
        raise BadInput(f"{home} holds {len(found)} nodes: name the one that you mean, as --home {found[0]}.")
    return found[0]


# The process of `atoll up`
def supervisor(home: Path) -> int | None:
    """The process id of the `atoll up` that runs in this home, None if there is none."""
    try:
        pid = int(json.loads((home / UP_FILE).read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if _is_ours(pid) else None


def stop_supervisor(home: Path, pid: int, seconds: float = STOP_SECONDS) -> None:
    """Ask `atoll up` to end, and wait until it has; raises MachineError after `seconds`."""
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + seconds
    while _is_ours(pid):
        if time.monotonic() > until:
            raise MachineError(
                f"The network in {home} (process {pid}) has not ended within {seconds:g} s: look at {home} for its "
                "logs, or end the process yourself."
            )
        time.sleep(0.1)


def _is_ours(pid: int) -> bool:
    """Whether this process runs and is a Python program of Atoll: the number may have gone to another since."""
    if pid <= 0 or sys.platform == "win32":
        return False
    try:
        listed = subprocess.run(
            ["ps", "-ww", "-o", "stat=,command=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"The process {pid} cannot be looked up ({error}): end `atoll up` with Ctrl-C.") from error
    state, _, command = listed.stdout.strip().partition(" ")
    return bool(state) and not state.startswith("Z") and "atoll" in command
