"""Networks on a chain that runs elsewhere: deploying them with a key, and giving nodes what they need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from atoll.errors import ChainDown, NoFunds, RpcRefused, WrongChain
from atoll.ledger.chain import Chain
from atoll.ledger.deploy import GAS, SUPPLY, TERMS, Deployed, deploy
from atoll.ledger.devnet.server import Server
from atoll.ledger.events import Transfer, Wired
from atoll.ledger.funding import NODE_COINS, Dues, check_ready, dues, endow, needs_of
from atoll.ledger.index import EventIndex
from atoll.ledger.link import Link, over_http
from atoll.wire.hashing import keccak
from atoll.wire.identity import AccountKey
from tests.ledger.local_network import COIN, NO_BINDING, LocalNetwork, account_of, key_of

WINDOW = 7


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    net = LocalNetwork(tmp_path)
    yield net
    net.devnet.close()


@pytest.fixture
def owner(network: LocalNetwork) -> AccountKey:
    """An account with one coin, from the faucet."""
    return key_of(network.newcomer("owner"))


@pytest.fixture
def deployed(network: LocalNetwork, owner: AccountKey) -> Deployed:
    """A second network on the same chain, deployed as one would on any chain."""
    return deploy(Link(network.request), owner, replace(TERMS, window=WINDOW))


def without_faucet(network: LocalNetwork) -> Callable[[str, list[Any]], dict[str, Any]]:
    def request(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "atoll_fund":
            return {"error": {"code": -32601, "message": "Method not found"}}
        return network.request(method, params)

    return request


def opened(network: LocalNetwork, deployed: Deployed, key: AccountKey) -> Chain:
    return Chain.connect(without_faucet(network), deployed.addresses.registry, 31337, key)


def test_a_deployed_network_is_whole(network: LocalNetwork, owner: AccountKey, deployed: Deployed) -> None:
    chain = opened(network, deployed, owner)
    assert chain.addresses == deployed.addresses
    assert chain.addresses.registry != network.registry
    assert chain.terms() == replace(TERMS, window=WINDOW)
    assert chain.balance(owner.address) == SUPPLY == 10**27
    assert chain.read("Settlement", "registry") == chain.addresses.registry
    assert chain.read("Settlement", "jobs") == chain.read("Registry", "jobs") == chain.addresses.jobs
    assert chain.read("Jobs", "token") == chain.read("Registry", "token") == chain.addresses.token
    assert chain.read("Deposits", "token") == chain.addresses.token
    assert chain.read("Registry", "deposits") == chain.addresses.deposits


def test_its_events_begin_at_the_first_block(network: LocalNetwork, owner: AccountKey, deployed: Deployed) -> None:
    chain = opened(network, deployed, owner)
    index = EventIndex(chain, ":memory:", deployed.first_block)
    kinds = [type(one.event) for one in index.poll().new]
    index.close()
    assert kinds == [Transfer, Wired]  # the mint and the wiring: nothing of the network was missed


def test_its_price(deployed: Deployed) -> None:
    calls = [f"deploy {name}" for name in ("Token", "Registry", "Jobs", "Settlement", "Deposits")]
    assert list(deployed.gas_by_call) == [*calls, "Registry.wire"]
    total = sum(use.total for use in deployed.gas_by_call.values())
    assert GAS * 0.7 < total < GAS  # the estimate that accounts are checked against has a margin, and no more


def test_an_account_without_coins_is_told_what_it_needs(network: LocalNetwork) -> None:
    poor = AccountKey(keccak(b"poor"))
    link = Link(network.request)
    base, tip = link.fees()
    with pytest.raises(NoFunds) as told:
        deploy(link, poor)
    needed = 11_000_000 * (2 * base + tip)
    said = float(str(told.value).split("needs about ")[1].split()[0])
    assert needed <= said * 10**18 <= needed + 10**15
    assert "0x" + poor.address.hex() in str(told.value).lower()
    assert "has 0 coins on chain 31337" in str(told.value)
    assert told.value.exit_code == 13
    assert link.nonce(poor.address, pending=True) == 0


def test_a_chain_that_takes_contracts_and_makes_none(network: LocalNetwork, owner: AccountKey) -> None:
    def request(method: str, params: list[Any]) -> dict[str, Any]:
        return {"result": "0x"} if method == "eth_getCode" else network.request(method, params)

    with pytest.raises(WrongChain, match="took the contract Token and made none"):
        deploy(Link(request), owner)


# Funding


def test_nodes_are_given_what_they_lack(network: LocalNetwork, owner: AccountKey, deployed: Deployed) -> None:
    chain = opened(network, deployed, owner)
    keys = [AccountKey(keccak(b"node %d" % number)) for number in range(18)]  # more than go at once
    assert endow(chain, [key.address for key in keys]) == 18
    # By hand: 100 ATL at stake, and the bonds of 8 posts at 50 ATL each.
    assert {chain.balance(key.address) for key in keys} == {500 * COIN}
    assert {chain.coins(key.address) for key in keys} == {5 * 10**16}
    assert endow(chain, [key.address for key in keys]) == 0

    node = opened(network, deployed, keys[0])
    node.register(keccak(b"endpoint"), 15, "127.0.0.1:1", NO_BINDING)
    due = dues(node.node(account_of(node)), node.bond(account_of(node)), node.terms())
    assert due == Dues(100 * COIN, 400 * COIN)
    node.stake(due.stake)
    node.deposit_bond(due.bond)
    assert node.is_validator(account_of(node))
    assert node.balance(account_of(node)) == 0
    assert needs_of(chain, account_of(node), chain.terms()).tokens == 0  # it has put in all that it needs
    assert endow(chain, [key.address for key in keys]) == 0


def test_a_node_that_has_spent_half_its_coins_is_filled_up(
    network: LocalNetwork, owner: AccountKey, deployed: Deployed
) -> None:
    chain = opened(network, deployed, owner)
    account, other = AccountKey(keccak(b"spender")), b"\x07" * 20
    endow(chain, [account.address])
    spender = opened(network, deployed, account)
    spender.send_coins({other: NODE_COINS // 2})
    assert chain.coins(other) == 25 * 10**15
    before = chain.coins(account.address)
    assert endow(chain, [account.address]) == 1
    assert before < chain.coins(account.address) == NODE_COINS


@pytest.mark.parametrize("lacks", ["coins", "tokens"])
def test_nothing_is_given_by_an_account_that_has_too_little(
    network: LocalNetwork, owner: AccountKey, deployed: Deployed, lacks: str
) -> None:
    chain = opened(network, deployed, owner)
    if lacks == "coins":
        chain.send_coins({b"\x09" * 20: 8 * COIN // 10})
    else:
        chain.transfer(b"\x09" * 20, SUPPLY - 2499 * COIN)
    accounts = [keccak(b"%d" % number)[:20] for number in range(5)]
    nonce = chain.link.nonce(owner.address)
    with pytest.raises(NoFunds) as told:
        endow(chain, accounts)
    expected = "to set up 5 nodes" if lacks == "coins" else "has 2499 ATL and needs 2500 for the stakes and bonds of 5"
    assert expected in str(told.value)
    assert chain.link.nonce(owner.address) == nonce
    assert chain.coins(accounts[0]) == 0


def test_what_a_node_waits_for(network: LocalNetwork, owner: AccountKey, deployed: Deployed) -> None:
    chain, account = opened(network, deployed, owner), b"\x21" * 20
    due = Dues(100 * COIN, 400 * COIN)
    with pytest.raises(NoFunds, match=r"has 0 coins and 0 ATL .* about 0\.05 coins and 500 ATL for stake and bond"):
        check_ready(chain, account, due)
    chain.send_coins({account: 1})
    check_ready(chain, account, Dues(0, 0))  # a node that is no validator needs no tokens
    chain.transfer(account, 500 * COIN - 1)
    with pytest.raises(NoFunds, match="500 ATL for stake and bond"):
        check_ready(chain, account, due)
    chain.transfer(account, 1)
    check_ready(chain, account, due)


def test_only_chains_of_ours_have_a_faucet(network: LocalNetwork, owner: AccountKey, deployed: Deployed) -> None:
    assert Chain.connect(network.request, network.registry).has_faucet()
    assert not opened(network, deployed, owner).has_faucet()


# The line


def serving(answer: Callable[[bytes], bytes]) -> Server:
    server = Server("127.0.0.1", 0, answer)
    server.start()
    return server


LIMIT_PROGRAM = """
import sys
from atoll.ledger.chain import Chain
from atoll.wire.identity import AccountKey
usual = sys.getrecursionlimit()
chain = Chain.connect(sys.argv[1], bytes.fromhex(sys.argv[2]), key=AccountKey(bytes.fromhex(sys.argv[3])))
chain.transfer(bytes([5]) * 20, 1)
assert "py_ecc" in sys.modules, "nothing raises the limit any more: usual_recursion_limit can go"
print(usual, sys.getrecursionlimit())
"""


def test_libraries_of_the_chain_leave_the_recursion_limit(network: LocalNetwork, owner: AccountKey) -> None:
    """In a process of its own: here, the embedded chain has long been imported."""

    def answer(body: bytes) -> bytes:
        found = network.devnet.rpc.handle(body)
        if b"eth_sendRawTransaction" in body:
            with network.devnet.rpc.lock:
                network.clock.now += 2
                network.devnet.evm.mine()
        return found

    server = serving(answer)
    arguments = [server.url, network.registry.hex(), owner.private.hex()]
    command = [sys.executable, "-W", "ignore", "-c", LIMIT_PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    usual, after = done.stdout.split()
    assert usual == after


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [(401, RpcRefused, "HTTP 401"), (403, RpcRefused, "the key in it"), (429, ChainDown, "does not answer"),
     (503, ChainDown, "does not answer")],
)  # fmt: skip
def test_statuses_of_an_endpoint(status: int, error: type[Exception], told: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.handle_request)
    thread.start()
    url = f"http://user:secret@127.0.0.1:{server.server_port}/v2/secret"
    with pytest.raises(error, match=told) as caught:
        Link(over_http(url), patience=0.0).chain_id()
    thread.join()
    server.server_close()
    assert "secret" not in str(caught.value)
    assert f"127.0.0.1:{server.server_port}" in str(caught.value)
