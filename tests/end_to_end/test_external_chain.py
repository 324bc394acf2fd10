"""`atoll up --rpc`: a network on a chain that is not ours. For real against anvil, a node of Ethereum's in Rust.

Where anvil comes from: the program that the variable ANVIL names, or `anvil` on the PATH, or npm (which needs the
network once). Without any of them the tests on it are skipped. What only needs some chain uses the embedded one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atoll.ledger.chain import Chain
from atoll.ledger.funding import endow
from atoll.wire.identity import AccountKey, parse_account

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

# 1.5.1: in 1.7 the price of a block grows with the height.
PACKAGE, SHA256 = "@foundry-rs/anvil-linux-amd64", "b47362d2159aa0f2f575320e5e529bb5a91093cb62dc6bd30c0022018aa9f738"
VERSION = "1.5.1"
# The first account of anvil's well-known words, "test test ... junk": it has 10,000 coins on a new chain.
KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ACCOUNT = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
CHAIN_DOWN, WRONG_CHAIN, NO_FUNDS, USAGE = 30, 31, 13, 2
NOBODY = "0x000000000000000000000000000000000000dEaD"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def atoll(*arguments: object) -> Ran:
    """Run a command line to its end."""
    command = [sys.executable, "-m", "atoll", *(str(one) for one in arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    return Ran(done.returncode, done.stdout, done.stderr)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(url: str, method: str, *params: Any) -> Any:
    """The result of a JSON-RPC request, by nothing of ours."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own chain
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)["result"]


def wait_for(what: str, condition: Any, seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key.hex"
    path.touch(mode=0o600)
    path.write_text(f"0x{KEY}\n")
    return path


def from_npm(folder: Path) -> Path:
    """anvil as npm brings it, with its hash compared; skips the tests where that cannot be done."""
    if not shutil.which("npm") or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("no anvil: set ANVIL to the program, put it on the PATH, or install npm (Linux on x86-64)")
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "1", "--fetch-timeout", "30000"]
    command = ["npm", "install", *quiet, "--prefix", str(folder), f"{PACKAGE}@{VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("no anvil: npm did not bring it within two minutes")
    if done.returncode != 0:
        pytest.skip(f"no anvil: npm could not bring it ({' '.join(done.stderr.split())[-200:]})")
    program = folder / "node_modules" / PACKAGE / "bin" / "anvil"
    assert hashlib.sha256(program.read_bytes()).hexdigest() == SHA256
    return program


@pytest.fixture(scope="module")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a new chain of anvil's, with a block every second."""
    named = os.environ.get("ANVIL") or shutil.which("anvil")
    program = Path(named) if named else from_npm(tmp_path_factory.mktemp("anvil"))
    port = free_port()
    place = ["--port", str(port), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [str(program), *place, "--block-time", "1", "--silent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, f"anvil ended with {process.returncode}"
        try:
            return bool(ask(url, "eth_chainId"))
        except OSError:
            return False

    try:
        wait_for("anvil to answer", answers, 30)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Our own chain as a process: rpc, registry, chain_id 77."""
    place = ["--home", str(tmp_path_factory.mktemp("chain")), "--port", "0", "--chain-id", "77"]
    with subprocess.Popen(
        [sys.executable, "-m", "atoll.ledger.devnet", *place], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def one_sentence(text: str) -> bool:
    return text.startswith("atoll: ") and text.count("\n") == 1 and text.endswith("\n")


# The network


def check(summary: dict[str, Any], url: str) -> None:
    paid = [int(amount) for amount in summary["paid"].values()]
    assert int(summary["escrow_in"]) == int(summary["escrow_out"]) + int(summary["refunded"])
    assert sum(paid) == int(summary["escrow_out"])
    assert min(paid) >= 2 * 10**18  # by hand: a unit in each of two rounds, at 1 ATL
    assert summary["explain"] == "match"
    assert (summary["chain"]["kind"], summary["chain"]["rpc"]) == ("external", url)
    assert summary["chain"]["chain_id"] == int(ask(url, "eth_chainId"), 16)
    assert all(len(ask(url, "eth_getCode", one, "latest")) > 1000 for one in summary["chain"]["contracts"].values())


def test_a_network_on_anvil_and_its_resumption(up: Any, anvil: str, key_file: Path) -> None:
    job = ("--nodes", "3", "--rounds", "2", "--model", "softmax", "--rpc", anvil, "--exit")
    network = up(*job, "--key", str(key_file), "--window", "3")
    first = network.finish()
    check(first, anvil)
    assert "deploy Registry" in first["chain"]["gas"]
    kept = json.loads((network.home / "network.json").read_text())
    assert kept["registry"].lower() == first["chain"]["contracts"]["registry"]
    assert 0 <= kept["first_block"] < int(ask(anvil, "eth_blockNumber"), 16)
    assert f"--set first_block={kept['first_block']}" in first["join"] or not kept["first_block"]
    # The nodes were paid on the chain itself, beside what the developer gave them and they put in.
    chain = Chain.connect(anvil, parse_account(kept["registry"]))
    for account, amount in first["paid"].items():
        assert chain.balance(parse_account(account)) == int(amount)
        assert chain.coins(parse_account(account)) > 0

    second = up(*job, "--key", str(key_file), "--registry", kept["registry"]).finish()
    check(second, anvil)
    assert second["accounts"] == first["accounts"]
    assert second["chain"]["contracts"] == first["chain"]["contracts"]
    assert second["job"] != first["job"]
    assert not any(name.startswith("deploy") for name in second["chain"]["gas"])
    assert int(second["chain"]["claimed"]) == int(first["escrow_out"]) + int(second["escrow_out"])

    told = atoll("up", "--home", network.home, "--port", 0, "--plain")
    assert (told.code, one_sentence(told.err)) == (WRONG_CHAIN, True)
    assert "give --rpc URL and --key FILE again" in told.err


def test_a_node_waits_until_somebody_sends_it_coins(anvil: str, key_file: Path, tmp_path: Path) -> None:
    deployed = json.loads(atoll("deploy", "--rpc", anvil, "--key", key_file, "--json").out)
    home = tmp_path / "node"
    place = ["--rpc", anvil, "--registry", deployed["registry"], "--set", f"first_block={deployed['first_block']}"]
    log = tmp_path / "err"
    with log.open("w") as err:
        node = subprocess.Popen(
            [sys.executable, "-m", "atoll", "node", "--home", str(home), *place, "--set", "listen=127.0.0.1:0"],
            stderr=err,
        )
    try:
        wait_for("the node to say what it lacks", lambda: "has 0 coins" in log.read_text())
        block = int(ask(anvil, "eth_blockNumber"), 16)
        wait_for("time in which it tries again", lambda: int(ask(anvil, "eth_blockNumber"), 16) >= block + 7)
        assert log.read_text().count("not registered yet") == 1
        status = json.loads(atoll("status", "--home", home, "--json").out)
        assert f"{status['account']} has 0 coins" in log.read_text()
        assert not status["registered"]
        developer = Chain.connect(anvil, parse_account(deployed["registry"]), key=AccountKey(bytes.fromhex(KEY)))
        assert endow(developer, [parse_account(status["account"])]) == 1
        wait_for("the node to register", lambda: developer.is_validator(parse_account(status["account"])))
        wait_for("it to say so", lambda: "registered as" in log.read_text())
        assert node.poll() is None
    finally:
        node.terminate()
        assert node.wait(30) == 0


def test_what_a_deployment_says(anvil: str, key_file: Path) -> None:
    ran = atoll("deploy", "--rpc", anvil, "--key", key_file, "--window", 60)
    assert ran.code == 0
    rows = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if line.split()[0] != "join")
    chain = Chain.connect(anvil, parse_account(rows["registry"]))
    assert chain.terms().window == 60
    assert chain.balance(parse_account(ACCOUNT)) == 10**27
    assert f"join with:  atoll node --rpc {anvil} --registry {rows['registry']}" in ran.out


def test_an_account_without_coins(anvil: str, tmp_path: Path) -> None:
    path = tmp_path / "poor.hex"
    path.write_text("11" * 32)
    path.chmod(0o644)
    for command in (["deploy"], ["up", "--home", tmp_path / "home", "--port", 0, "--plain", "--exit"]):
        ran = atoll(*command, "--rpc", anvil, "--key", path)
        assert ran.code == NO_FUNDS
        warning, told = ran.err.splitlines()
        assert "chmod 600" in warning
        # The account of the key 0x1111...11, as eth_account computes it.
        assert "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A has 0 coins on chain 31337 and needs about 0.0" in told


# What is wrong


@pytest.mark.parametrize("command", ["up", "node", "deploy"])
def test_an_endpoint_that_is_down(command: str, key_file: Path, tmp_path: Path) -> None:
    options = {
        "up": ["--home", tmp_path / "home", "--port", 0, "--plain", "--key", key_file],
        "node": ["--home", tmp_path / "home", "--registry", NOBODY],
        "deploy": ["--key", key_file],
    }[command]
    ran = atoll(command, "--rpc", f"http://127.0.0.1:{free_port()}", *options)
    told = ran.err.splitlines()
    if command == "node":
        assert "wrote" in told.pop(0)  # the node's settings, of its first start
    assert ran.code == CHAIN_DOWN
    assert len(told) == 1
    assert "does not answer" in told[0] and "check that it runs" in told[0]


def test_an_address_that_is_no_registry(embedded: dict[str, Any], tmp_path: Path) -> None:
    where = ["--rpc", embedded["rpc"], "--registry", NOBODY]
    ran = atoll("up", "--home", tmp_path / "home", "--port", 0, "--plain", *where)
    assert (ran.code, one_sentence(ran.err)) == (WRONG_CHAIN, True)
    assert "no Atoll registry at 0x000000000000000000000000000000000000dead on chain 77" in ran.err
    assert not (tmp_path / "home" / "network.json").exists()


def test_a_node_on_another_chain(embedded: dict[str, Any], tmp_path: Path) -> None:
    where = ["--rpc", embedded["rpc"], "--registry", embedded["registry"], "--set", "chain_id=1"]
    ran = atoll("node", "--home", tmp_path / "home", *where)
    assert ran.code == WRONG_CHAIN
    assert "serves chain 77, but the network is on chain 1" in ran.err


@pytest.mark.parametrize(
    ("kept", "given", "told"),
    [
        ({"chain_id": 1}, [], "serves chain 77, but the network is on chain 1"),
        ({"registry": NOBODY}, [], "no Atoll registry"),
        ({}, ["--registry", NOBODY], "give another --home"),
    ],
)
def test_a_home_of_another_network(
    embedded: dict[str, Any], tmp_path: Path, kept: dict[str, Any], given: list[str], told: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    memory = {"schema": 1, "chain_id": 77, "registry": embedded["registry"], "first_block": 0}
    (home / "network.json").write_text(json.dumps(memory | kept))
    ran = atoll("up", "--home", home, "--port", 0, "--plain", "--rpc", embedded["rpc"], *given)
    assert (ran.code, one_sentence(ran.err)) == (WRONG_CHAIN, True)
    assert told in ran.err
    assert json.loads((home / "network.json").read_text()) == memory | kept


def test_options_that_need_one_another(embedded: dict[str, Any], key_file: Path, tmp_path: Path) -> None:
    up = ["up", "--home", tmp_path / "home", "--port", 0, "--plain"]
    rpc, registry = ["--rpc", embedded["rpc"]], ["--registry", embedded["registry"]]
    for given, told in (
        (rpc, "--key FILE of an account that deploys one"),
        (["--key", key_file], "--rpc URL"),
        (["--window", 3], "--rpc URL"),
        ([*rpc, *registry, "--window", 3], "set up with its own for good"),
        ([*rpc, "--key", tmp_path / "nothing"], "cannot be read"),
        ([*rpc, "--key", tmp_path], "cannot be read"),
    ):
        ran = atoll(*up, *given)
        assert (ran.code, one_sentence(ran.err)) == (USAGE, True), (given, ran)
        assert told in ran.err
