"""Talking to a chain: connecting, sending until mined, what is lost on the way, and errors that people can read."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode

from atoll.errors import BadInput, ChainDown, RpcRefused, TransactionFailed, UserError, WrongChain
from atoll.ledger import abi
from atoll.ledger.chain import Chain
from atoll.ledger.events import Registered, Staked, Transfer, ValidatorSet
from atoll.ledger.link import Link
from atoll.ledger.records import quorum
from atoll.ledger.wallet import RAISE_FEE_SECONDS, SEND_SECONDS, Call
from atoll.wire.hashing import keccak
from tests.ledger.local_network import COIN, NO_BINDING, LocalNetwork, account_of, key_of


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    net = LocalNetwork(tmp_path)
    yield net
    net.devnet.close()


class Weather:
    """A line to the network that can break, and whose clock only moves by sleeping; it mines when told to."""

    def __init__(self, network: LocalNetwork, automine: bool = True) -> None:
        self.network = network
        self.automine = automine
        self.time = 0.0
        self.down_until = 0.0
        self.lose_broadcasts = 0
        self.methods: list[str] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def request(self, method: str, params: list[Any]) -> dict[str, Any]:
        self.methods.append(method)
        if self.time < self.down_until:
            raise ChainDown("the line is cut")
        if method == "eth_sendRawTransaction" and self.lose_broadcasts:
            self.lose_broadcasts -= 1
            return {"result": "0x" + keccak(bytes.fromhex(params[0][2:])).hex()}
        if self.automine:
            return self.network.request(method, params)
        return self.network.devnet.rpc.answer({"id": 1, "method": method, "params": params})

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.on_sleep()

    def mine(self) -> None:
        self.network.clock.now += 1
        self.network.devnet.evm.mine()

    def chain(self, like: Chain, patience: float = 20.0) -> Chain:
        link = Link(self.request, patience, self.sleep, lambda: self.time)
        return Chain(link, like.addresses, key_of(like))


# Connecting


def test_a_chain_that_is_down(network: LocalNetwork) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ChainDown, match=f"127.0.0.1:{port} does not answer"):
        Chain.connect(f"http://127.0.0.1:{port}", network.registry)


@pytest.mark.parametrize("url", ["127.0.0.1:8545", "ftp://host", "", "http://"])
def test_what_is_no_address_of_a_chain(network: LocalNetwork, url: str) -> None:
    with pytest.raises(BadInput, match="expected http"):
        Chain.connect(url, network.registry)


def test_another_chain_is_refused(network: LocalNetwork) -> None:
    with pytest.raises(WrongChain, match="serves chain 31337, but the network is on chain 1"):
        Chain.connect(network.request, network.registry, 1)


@pytest.mark.parametrize("where", ["nobody", "token", "jobs"])
def test_an_address_without_a_registry_is_refused(network: LocalNetwork, where: str) -> None:
    chain = Chain.connect(network.request, network.registry)
    address = bytes(range(20)) if where == "nobody" else getattr(chain.addresses, where)
    with pytest.raises(WrongChain, match="no Atoll registry"):
        Chain.connect(network.request, address)


@pytest.mark.parametrize("answer", [{}, {"result": 5}, {"result": None}, {"result": "web page"}])
def test_an_endpoint_of_something_else_is_refused(network: LocalNetwork, answer: dict[str, Any]) -> None:
    with pytest.raises(WrongChain, match="not as an Ethereum JSON-RPC endpoint does"):
        Chain.connect(lambda method, params: answer, network.registry)


def test_an_endpoint_that_refuses_is_quoted(network: LocalNetwork) -> None:
    with pytest.raises(RpcRefused, match="refused the request: pay first") as caught:
        Chain.connect(lambda method, params: {"error": {"code": -32001, "message": "pay first"}}, network.registry)
    assert caught.value.rpc_code == -32001


def test_a_chain_without_the_method_for_tips(network: LocalNetwork) -> None:
    def older(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "eth_maxPriorityFeePerGas":
            return {"error": {"code": -32601, "message": "the method does not exist"}}
        return network.request(method, params)

    node = network.newcomer("node")
    chain = Chain.connect(older, network.registry, key=key_of(node))
    chain.transfer(b"\x05" * 20, 5)
    assert chain.balance(b"\x05" * 20) == 5


def test_the_registry_is_the_root(network: LocalNetwork) -> None:
    where = Chain.connect(network.request, network.registry, 31337).addresses
    listed = network.devnet.network
    assert ["0x" + one.hex() for one in (where.token, where.jobs, where.settlement, where.deposits)] == [
        listed.token,
        listed.jobs,
        listed.settlement,
        listed.deposits,
    ]


def test_terms_are_those_of_the_network(network: LocalNetwork) -> None:
    found, given = Chain.connect(network.request, network.registry).terms(), network.terms
    assert (found.min_stake, found.unstake_delay, found.bond, found.window, found.grace) == (
        given.min_stake,
        given.unstake_delay,
        given.bond,
        given.window,
        given.grace,
    )


def test_reading_needs_no_key_and_sending_does(network: LocalNetwork) -> None:
    reader = Chain.connect(network.request, network.registry)
    assert reader.validator_count() == 0
    assert reader.gas_by_call == {}
    with pytest.raises(UserError, match="for reading only"):
        reader.transfer(bytes(20), 1)
    with pytest.raises(UserError, match="for reading only"):
        reader.stake(1)


# Sending


def test_a_transaction_tells_gas_place_and_events(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    tx = node.register(keccak(b"e"), 3, "hint", NO_BINDING)
    assert tx.events == (Registered(account_of(node), keccak(b"e"), 3, "hint", NO_BINDING),)
    assert node.block(tx.block).hash == tx.block_hash  # type: ignore[union-attr]
    tx = node.stake(100 * COIN)
    assert [type(event) for event in tx.events if not isinstance(event, Transfer)] == [Staked, ValidatorSet]
    assert node.gas_by_call["Registry.stakeWithPermit"].total == tx.gas > 21_000
    node.stake(1)
    use = node.gas_by_call["Registry.stakeWithPermit"]
    assert (use.calls, use.most) == (2, tx.gas)


def test_a_refusal_names_the_contracts_error_and_its_values(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    with pytest.raises(TransactionFailed) as caught:
        node.register(keccak(b"e"), 1, "x" * 300, NO_BINDING)
    assert caught.value.reason == "HintsTooLong"
    assert "HintsTooLong(length 300, limit 256): Address hints may have this many bytes at most." in str(caught.value)
    with pytest.raises(TransactionFailed) as caught:
        node.job(keccak(b"none"))
    assert caught.value.reason == "UnknownJob"


def test_a_transaction_that_fails_in_its_block_is_explained(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    data = abi.call_data("Registry", "setActive", True)
    with pytest.raises(TransactionFailed) as caught:
        node._send(Call("Registry.setActive", node.addresses.registry, data, gas=100_000))
    assert caught.value.reason == "NotRegistered"
    assert "failed" in str(caught.value)
    data = abi.call_data("Registry", "register", keccak(b"e"), 1, "", NO_BINDING)
    with pytest.raises(TransactionFailed, match="ran out of gas at 60000"):
        node._send(Call("Registry.register", node.addresses.registry, data, gas=60_000))
    node.register(keccak(b"e"), 1, "", NO_BINDING)  # the account goes on


def test_an_account_without_coins_is_told(network: LocalNetwork) -> None:
    rich = network.newcomer("rich")
    poor = Chain.connect(network.request, network.registry, key=key_of(rich).__class__(keccak(b"poor")))
    with pytest.raises(TransactionFailed, match="insufficient funds"):
        poor.register(keccak(b"e"), 1, "", NO_BINDING)


def test_several_transactions_of_one_account_share_a_block(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    weather = Weather(network, automine=False)
    chain = weather.chain(node)
    weather.on_sleep = weather.mine
    receipts = chain._wallet.send(  # type: ignore[union-attr]
        *(
            Call(
                "Token.transfer",
                chain.addresses.token,
                abi.call_data("Token", "transfer", bytes([n]) * 20, n),
                gas=90_000,
            )
            for n in range(1, 6)
        )
    )
    assert len({receipt.block for receipt in receipts}) == 1
    assert [chain.balance(bytes([n]) * 20) for n in range(1, 6)] == [1, 2, 3, 4, 5]


def test_top_up_approves_and_pays_in_one_block(network: LocalNetwork) -> None:
    developer = network.newcomer("developer")
    job, _ = developer.open(keccak(b"m"), 50, 1, developer.head().timestamp + 99, account_of(developer))
    weather = Weather(network, automine=False)
    chain = weather.chain(developer)
    weather.on_sleep = weather.mine
    before = chain.head().number
    chain.top_up(job, 7)
    assert (chain.job(job).budget, chain.head().number) == (57, before + 1)


def test_a_lost_transaction_is_handed_in_again(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    weather = Weather(network)
    weather.lose_broadcasts = 2
    chain = weather.chain(node)
    chain.transfer(b"\x05" * 20, 5)
    assert chain.balance(b"\x05" * 20) == 5
    assert weather.methods.count("eth_sendRawTransaction") == 3


def test_an_outage_is_sat_out(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    weather = Weather(network, automine=False)
    chain = weather.chain(node)
    mined = iter([False, True])

    def storm() -> None:
        if weather.down_until == 0.0:
            weather.down_until = weather.time + 10.0  # right after the broadcast
        elif weather.time >= weather.down_until and next(mined, False):
            weather.mine()

    weather.on_sleep = storm
    chain.transfer(b"\x05" * 20, 5)
    assert chain.balance(b"\x05" * 20) == 5
    assert weather.time >= 10.0


def test_an_outage_that_lasts_is_an_error(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    weather = Weather(network)
    chain = weather.chain(node, patience=8.0)
    weather.down_until = 1e9
    with pytest.raises(ChainDown):
        chain.balance(account_of(node))
    assert 5.0 < weather.time <= 8.0


def test_a_chain_that_makes_no_blocks_is_an_error(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    weather = Weather(network, automine=False)
    with pytest.raises(ChainDown, match=f"not mined within {SEND_SECONDS:.0f} seconds"):
        weather.chain(node).transfer(b"\x05" * 20, 5)


def test_a_nonce_that_another_process_took_is_given_up(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    weather = Weather(network)
    weather.lose_broadcasts = 1
    chain, rival = weather.chain(node), Chain.connect(network.request, network.registry, key=key_of(node))
    done: list[bool] = []

    def race() -> None:
        if not done:
            done.append(True)
            rival.transfer(b"\x06" * 20, 6)  # the same account, the same nonce, first in a block

    weather.on_sleep = race
    chain.transfer(b"\x05" * 20, 5)
    assert (chain.balance(b"\x05" * 20), chain.balance(b"\x06" * 20)) == (5, 6)
    assert network.devnet.evm.nonce(account_of(node)) == 2


def test_a_stuck_transaction_offers_more(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    weather = Weather(network, automine=False)
    chain = weather.chain(node)
    fees: list[int] = []

    def look() -> None:
        waiting = list(network.devnet.evm.pending.ready(network.devnet.evm._state().get_nonce))
        fees.append(waiting[0][1].max_fee_per_gas)
        if weather.time > RAISE_FEE_SECONDS + 10:
            weather.on_sleep = weather.mine

    weather.on_sleep = look
    chain.transfer(b"\x05" * 20, 5)
    assert chain.balance(b"\x05" * 20) == 5
    assert fees[-1] >= fees[0] * 5 // 4
    assert network.devnet.evm.nonce(account_of(node)) == 1


# The chain itself


def test_blocks_and_logs_are_read(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    node.register(keccak(b"e"), 1, "", NO_BINDING)
    head = node.head()
    assert node.finalized() == head
    assert node.block(head.number + 1) is None
    parent = node.block(head.number - 1)
    assert parent is not None and parent.hash == head.parent
    events = [node.decode(log) for log in node.logs(0, head.number)]
    assert isinstance(events[-1], Registered)
    assert {type(event).__name__ for event in events} == {"Transfer", "Wired", "Registered"}


def test_the_gift_comes_once(network: LocalNetwork) -> None:
    node = network.newcomer("node")
    gift = network.terms.gift_tokens
    node.fund(account_of(node))
    assert node.balance(account_of(node)) == gift
    assert node.coins(account_of(node)) == network.terms.gift_wei


@pytest.mark.parametrize(("members", "needed"), [(1, 1), (2, 2), (3, 3), (4, 3), (7, 5), (9, 7), (16, 11)])
def test_quorum_as_in_the_contracts(members: int, needed: int) -> None:
    assert quorum(members) == needed


def test_solidity_errors_are_decoded() -> None:
    text = abi.contract_error(bytes.fromhex("08c379a0") + encode(["string"], ["no"]))
    assert text is not None and (text.name, text.arguments) == ("Error", {"message": "no"})
    panic = abi.contract_error(bytes.fromhex("4e487b71") + (0x11).to_bytes(32, "big"))
    assert panic is not None and str(panic) == "Panic(code an arithmetic overflow)"
    assert abi.contract_error(b"\x00\x01\x02\x03") is None
    assert abi.contract_error(b"") is None
