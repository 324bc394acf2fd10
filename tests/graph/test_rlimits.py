"""The child's limits on itself, tried in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from onnx import ModelProto, checker

from atoll.graph.rlimits import WARM_GRAPH

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")


def locked(code: str) -> subprocess.CompletedProcess[str]:
    before = "import os, sys, socket, tempfile\nfrom atoll.graph.rlimits import allow_cpu, lock_down\n"
    return subprocess.run(
        [sys.executable, "-c", before + code], capture_output=True, text=True, timeout=60, check=False
    )


def test_no_file_can_be_opened() -> None:
    assert "Too many open files" in locked("lock_down(1 << 28)\nopen('/etc/hostname')").stderr


def test_no_socket_can_be_opened() -> None:
    assert "Too many open files" in locked("lock_down(1 << 28)\nsocket.socket()").stderr


def test_no_file_grows() -> None:
    done = locked("f = tempfile.TemporaryFile()\nlock_down(1 << 28)\nf.write(b'x')\nf.flush()")
    assert done.returncode != 0


def test_memory_beyond_the_limit_is_not_given() -> None:
    assert locked("lock_down(1 << 28)\nbytearray(200 << 20)").returncode == 0
    assert "MemoryError" in locked("lock_down(1 << 28)\nbytearray(300 << 20)").stderr


def test_a_process_that_uses_more_cpu_than_allowed_is_stopped() -> None:
    done = locked("allow_cpu(0)\nwhile True: pass")
    assert done.returncode == -24  # SIGXCPU


def test_cpu_may_be_allowed_again() -> None:
    done = locked("for _ in range(3): allow_cpu(5)\nprint('alive')")
    assert done.stdout == "alive\n"


def test_the_warm_graph_is_a_graph() -> None:
    checker.check_model(ModelProto.FromString(WARM_GRAPH), full_check=True)
