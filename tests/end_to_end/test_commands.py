"""What an owner does with a running network: join, look, ask, store, stop, and what happens when files are damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Network

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def atoll(*arguments: str, expect: int = 0) -> str:
    """Run a command; its output. Errors are one sentence, never a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "atoll", *arguments], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    return done.stdout + done.stderr


def ask(*arguments: str) -> Any:
    """The JSON that a command prints."""
    return json.loads(atoll(*arguments, "--json"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three nodes that have trained one model and stay."""
    running = Network(tmp_path_factory.mktemp("up") / "home", "--nodes", "3", "--rounds", "2", "--model", "softmax")
    try:
        running.wait_for(lambda: running.summary_file.exists() and "keeps running" in running.output())
        yield running
    finally:
        running.close()


def summary(network: Network) -> dict[str, Any]:
    """What `atoll up` wrote."""
    return dict(json.loads(network.summary_file.read_text()))


def first(network: Network) -> list[str]:
    """Options that name the first node."""
    return ["--home", str(network.home / "node-1")]


def test_statement_adds_up_to_what_was_paid(network: Network) -> None:
    found = ask("statement", *first(network))
    lines = found["lines"]
    assert sum(int(line["amount"]) for line in lines) == int(found["earned"])
    assert summary(network)["paid"][summary(network)["accounts"]["node-1"]] == found["earned"]
    # By hand: two rounds, each one unit (1 ATL), validation (0.01 ATL) and no, one or more audits (0.5 ATL).
    audits = sum(line["kind"] == 2 for line in lines)
    assert int(found["earned"]) == 2 * 10**18 + 2 * 10**16 + audits * 5 * 10**17


def test_explain_matches_the_chain(network: Network) -> None:
    assert "matches the chain" in atoll("explain", *first(network))


def test_a_model_answers_here_and_at_a_server(network: Network) -> None:
    found = summary(network)
    question = (found["model"], str(network.home / "question.png"))
    here, remote = ask("run", *question, *first(network)), ask("run", *question, "--remote", *first(network))
    assert here["answered_by"] == "this device"
    assert remote["answered_by"] in found["accounts"].values()
    assert here["class"] == remote["class"] == found["answer"]["class"]
    assert [one["score"] for one in here["top"]] == pytest.approx([one["score"] for one in remote["top"]], abs=1e-3)
    assert (remote["cost"], remote["checked"]) == ("0", "yes")  # free, and the first answer is always checked
    assert found["answer"]["answered_by"] in found["accounts"].values()


def test_money_goes_into_the_deposit_and_out(network: Network) -> None:
    assert ask("deposit", *first(network))["deposit"] == "0"
    assert ask("deposit", "5", *first(network))["deposit"] == ask("deposit", *first(network))["free"] == str(5 * 10**18)
    asked = ask("withdraw", "2", *first(network))
    assert (asked["deposit"], asked["leaving"], asked["received"]) == (str(3 * 10**18), str(2 * 10**18), False)
    assert "on their way out" in atoll("withdraw", *first(network))
    assert "too little" in atoll("withdraw", "4", *first(network), expect=13)
    assert "Nothing is waiting" in atoll("redeem", *first(network))
    assert "deposit 3 ATL" in atoll("status", *first(network))


def test_join_store_and_bring_back(network: Network, tmp_path: Path) -> None:
    chain = summary(network)["chain"]
    home = tmp_path / "joined"
    join = ["node", "--home", str(home), "--rpc", chain["rpc"], "--registry", chain["contracts"]["registry"]]
    joined = subprocess.Popen(
        [sys.executable, "-m", "atoll", *join, "--set", "listen=127.0.0.1:0"], stderr=subprocess.DEVNULL
    )
    try:
        network.wait_for(lambda: (network_status(home) or {}).get("validator"), 60)
        # the two others, the gateway, and the one that has joined
        network.wait_for(lambda: (network_status(network.home / "node-1") or {}).get("peers") == 4, 30)
        content = os.urandom(300_000)
        (tmp_path / "file").write_bytes(content)
        put = ask("put", str(tmp_path / "file"), *first(network))
        assert (put["k"], put["n"]) == (2, 4)  # four holders, any two are enough
        gone = [path for name in ("node-2", "node-3") for path in (network.home / name / "pieces").rglob("*")]
        for path in gone:
            if path.is_file() and len(path.name) == 64:
                path.write_bytes(b"damaged")
        atoll("get", put["blob"], str(tmp_path / "back"), *first(network))
        assert (tmp_path / "back").read_bytes() == content
        atoll("stop", "--home", str(home))
        assert joined.wait(30) == 0
    finally:
        joined.kill()


def network_status(home: Path) -> dict[str, Any] | None:
    """A node's status; None while it does not answer."""
    done = subprocess.run(
        [sys.executable, "-m", "atoll", "status", "--home", str(home), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return dict(json.loads(done.stdout)) if done.returncode == 0 else None


def test_pause_and_resume(network: Network) -> None:
    atoll("pause", *first(network))
    assert (network_status(network.home / "node-1") or {})["paused"]
    atoll("resume", *first(network))
    assert not (network_status(network.home / "node-1") or {})["paused"]


def test_home_and_port_in_use(network: Network, tmp_path: Path) -> None:
    assert str(network.process.pid) in atoll("up", "--home", str(network.home), "--exit", expect=2)
    port = summary(network)["page"].rstrip("/").rpartition(":")[2]
    said = atoll("up", "--home", str(tmp_path / "other"), "--port", port, "--exit", expect=10)
    assert port in said and "--port" in said


def test_damaged_files_are_kept_and_named(network: Network, tmp_path: Path) -> None:
    chain = summary(network)["chain"]
    home = tmp_path / "home"
    start = ["node", "--home", str(home), "--rpc", chain["rpc"], "--registry", chain["contracts"]["registry"]]
    joined = subprocess.Popen([sys.executable, "-m", "atoll", *start], stderr=subprocess.DEVNULL)
    network.wait_for(lambda: network_status(home), 60)
    backup = tmp_path / "keys.json"
    atoll("key", "export", str(backup), "--open", "--home", str(home))
    atoll("stop", "--home", str(home))
    assert joined.wait(30) == 0

    journal = home / "journal.sqlite"
    damaged = bytearray(journal.read_bytes())
    damaged[100:2000] = os.urandom(1900)
    journal.write_bytes(damaged)
    said = atoll(*start, expect=40)
    assert "--fresh-journal" in said and "journal.sqlite" in said
    assert journal.read_bytes() == bytes(damaged)  # nothing is thrown away

    keys = home / "keys" / "account.json"
    whole = keys.read_text()
    secret = json.loads(whole)["private_key"]
    keys.write_text(whole.replace(secret, secret[:-1] + ("0" if secret[-1] != "0" else "1")))
    said = atoll(*start, "--fresh-journal", expect=40)
    assert "atoll key import" in said
    atoll("key", "import", str(backup), "--home", str(home))
    assert json.loads(keys.read_text())["name"] == json.loads(whole)["name"]


def test_ctrl_c_ends_everything(network: Network) -> None:
    children = list(network.processes().values())
    assert network.stop() == 0
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
