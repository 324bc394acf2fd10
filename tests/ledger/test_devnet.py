"""The embedded chain: what it answers, what it refuses, and that `kill -9` costs nothing that was mined."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from eth_account import Account
from eth_utils.address import to_checksum_address
from web3 import HTTPProvider, Web3

from atoll.errors import Corrupt, PortInUse, UserError, WrongChain
from atoll.ledger import abi
from atoll.ledger.chain import Chain
from atoll.ledger.devnet.describe import contract_address
from atoll.ledger.devnet.network import Devnet, Terms
from atoll.ledger.devnet.rpc import MAX_BATCH
from atoll.ledger.devnet.server import MAX_BODY, Producer, Server, is_own_host, is_own_origin
from atoll.ledger.devnet.store import backup_path
from atoll.ledger.events import Transfer
from atoll.wire.hashing import keccak
from atoll.wire.identity import AccountKey
from tests.ledger.local_network import START, Clock, LocalNetwork, account_of, key_of

KEY = AccountKey(keccak(b"somebody"))


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    net = LocalNetwork(tmp_path / "home")
    yield net
    net.devnet.close()


def ask(network: LocalNetwork, method: str, *params: Any) -> Any:
    answer = network.devnet.rpc.answer({"id": 7, "method": method, "params": list(params)})
    assert "error" not in answer, answer
    return answer["result"]


def transfer(
    chain: Chain, nonce: int, to: bytes = b"\x05" * 20, value: int = 1, fee: int = 10**10, **more: Any
) -> bytes:
    """A signed payment of coins."""
    body = {
        "type": 2,
        "chainId": chain.addresses.chain_id,
        "nonce": nonce,
        "to": to,
        "value": value,
        "gas": 21_000,
        "maxFeePerGas": fee,
        "maxPriorityFeePerGas": 10**9,
    }
    return bytes(Account.sign_transaction(body | more, key_of(chain).private).raw_transaction)


# The chain's rules


def test_transactions_wait_for_the_block_and_share_it(network: LocalNetwork) -> None:
    chain, evm = network.newcomer("one"), network.devnet.evm
    before = evm.head.block_number
    for nonce in (2, 0, 1):  # out of order
        evm.submit(transfer(chain, nonce))
    evm.submit(transfer(chain, 4))  # a gap: it waits for 3
    assert evm.nonce(account_of(chain)) == 0
    assert evm.nonce(account_of(chain), pending=True) == 3
    network.clock.now += 5
    assert evm.mine() == before + 1
    assert evm.nonce(account_of(chain)) == 3
    assert len(evm.pending) == 1
    evm.submit(transfer(chain, 3))
    evm.mine()
    assert evm.nonce(account_of(chain)) == 5
    assert evm.balance(b"\x05" * 20) == 5


def test_a_block_a_second_with_the_time_of_the_clock(network: LocalNetwork) -> None:
    chain, evm, clock = network.newcomer("one"), network.devnet.evm, network.clock
    clock.now += 100.7
    assert not evm.ready()  # nothing waits
    evm.submit(transfer(chain, 0))
    assert evm.ready()
    evm.mine()
    assert evm.head.timestamp == int(clock.now)
    evm.submit(transfer(chain, 1))
    assert evm.waiting() and not evm.ready()  # the second is not over
    clock.now += 0.5
    assert evm.ready() == (int(clock.now) > evm.head.timestamp)
    clock.now += 0.5
    assert evm.ready()
    evm.mine()
    assert evm.head.timestamp <= clock.now


def test_a_clock_that_was_set_back_does_not_stop_the_chain(tmp_path: Path) -> None:
    clock = Clock()
    Devnet(tmp_path, Terms(), clock).close()
    clock.now -= 10_000
    devnet = Devnet(tmp_path, Terms(), clock)
    clock.now += 1
    assert devnet.evm.now() == int(START) + 2  # the last block was the second one of the same second
    devnet.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chainId": 5}, "invalid chain id"),
        ({"value": 10**30}, "insufficient funds"),
        ({"gas": 20_999}, "intrinsic gas too low"),
        ({"gas": 30_000_001}, "exceeds block gas limit"),
        ({"nonce": 500}, "nonce too high"),
    ],
)
def test_what_no_block_can_take_is_refused(network: LocalNetwork, change: dict[str, int], message: str) -> None:
    chain = network.newcomer("one")
    raw = transfer(chain, **({"nonce": 0} | change))
    answer = network.devnet.rpc.answer({"id": 1, "method": "eth_sendRawTransaction", "params": ["0x" + raw.hex()]})
    assert message in answer["error"]["message"]


@pytest.mark.parametrize("raw", ["0x", "0x00", "0x02ff", "0x03c0", "0x04c0", "0xc0", "0x" + "ff" * 100])
def test_bytes_that_are_no_transaction_are_refused(network: LocalNetwork, raw: str) -> None:
    answer = network.devnet.rpc.answer({"id": 1, "method": "eth_sendRawTransaction", "params": [raw]})
    assert answer["error"]["code"] == -32000


def test_a_nonce_is_used_once_and_replaced_for_more(network: LocalNetwork) -> None:
    chain, evm = network.newcomer("one"), network.devnet.evm
    evm.submit(transfer(chain, 0, value=1))
    evm.submit(transfer(chain, 0, value=1))  # the same bytes: no error
    cheap = transfer(chain, 0, value=2, fee=10**10 + 1)
    answer = network.devnet.rpc.answer({"id": 1, "method": "eth_sendRawTransaction", "params": ["0x" + cheap.hex()]})
    assert "underpriced" in answer["error"]["message"]
    evm.submit(transfer(chain, 0, value=3, fee=2 * 10**10))
    evm.mine()
    assert evm.balance(b"\x05" * 20) == 3
    answer = network.devnet.rpc.answer({"id": 1, "method": "eth_sendRawTransaction", "params": ["0x" + cheap.hex()]})
    assert "nonce too low" in answer["error"]["message"]


def test_what_an_earlier_transaction_made_impossible_is_dropped(network: LocalNetwork) -> None:
    chain, evm = network.newcomer("one"), network.devnet.evm
    most = network.terms.gift_wei - 2 * 21_000 * 10**10
    evm.submit(transfer(chain, 0, value=most))
    evm.submit(transfer(chain, 1, value=most))
    evm.mine()
    assert (evm.nonce(account_of(chain)), len(evm.pending)) == (1, 0)


# JSON-RPC


def test_what_is_no_request_gets_a_well_formed_error(network: LocalNetwork) -> None:
    handle = network.devnet.rpc.handle
    for body, code in (
        (b"", -32700),
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32600),
        (b"3", -32600),
        (b"[]", -32600),
        (b"{}", -32600),
        (b'{"method": 5}', -32600),
        (b'{"method": "eth_nothing", "id": 1}', -32601),
        (b'{"method": "eth_getBalance", "id": 1}', -32602),
        (b'{"method": "eth_getBalance", "id": 1, "params": {"a": 1}}', -32602),
        (b'{"method": "eth_getBalance", "id": 1, "params": ["0x12"]}', -32602),
        (b'{"method": "eth_getBalance", "id": 1, "params": ["zz", 5]}', -32602),
        (b'{"method": "eth_call", "id": 1, "params": ["0x"]}', -32602),
        (b'{"method": "eth_getLogs", "id": 1, "params": [{"fromBlock": "soon"}]}', -32602),
        (b'{"method": "eth_getBlockByNumber", "id": 1, "params": [null]}', -32602),
        (b'{"method": "eth_getBlockByNumber", "id": 1, "params": ["-0x1"]}', -32602),
        (b'{"method": "evm_increaseTime", "id": 1, "params": [-5]}', -32602),
        (json.dumps([{"method": "eth_chainId"}] * (MAX_BATCH + 1)).encode(), -32600),
    ):
        answer = json.loads(handle(body))
        assert answer["error"]["code"] == code, body[:80]
        assert answer["jsonrpc"] == "2.0"
    batch = json.loads(handle(b'[{"method":"eth_chainId","id":"a"},{"method":"nope","id":2}]'))
    assert (batch[0]["id"], batch[0]["result"], batch[1]["error"]["code"]) == ("a", hex(31337), -32601)


def test_a_revert_carries_the_contracts_error(network: LocalNetwork) -> None:
    call = {"to": network.devnet.network.jobs, "data": "0x" + abi.call_data("Jobs", "get", keccak(b"none")).hex()}
    for method in ("eth_call", "eth_estimateGas"):
        answer = network.devnet.rpc.answer({"id": 1, "method": method, "params": [call]})
        assert answer["error"]["code"] == 3
        reason = abi.contract_error(bytes.fromhex(answer["error"]["data"][2:]))
        assert reason is not None and reason.arguments == {"job": keccak(b"none")}


def test_methods_for_tests_are_offered_only_when_asked_for(tmp_path: Path) -> None:
    devnet = Devnet(tmp_path, Terms(), Clock())
    for method in ("evm_mine", "evm_increaseTime"):
        assert devnet.rpc.answer({"id": 1, "method": method, "params": [1]})["error"]["code"] == -32601
    devnet.close()


def test_a_fault_of_ours_is_an_answer(network: LocalNetwork, capsys: pytest.CaptureFixture[str]) -> None:
    network.devnet.close()
    answer = network.devnet.rpc.answer({"id": 1, "method": "eth_blockNumber"})
    assert answer["error"] == {"code": -32603, "message": "internal error: ProgrammingError"}
    assert "closed database" in capsys.readouterr().err


def test_state_of_older_blocks_can_be_read(network: LocalNetwork) -> None:
    chain = network.newcomer("one")
    before = chain.head().number
    chain.transfer(b"\x05" * 20, 7)
    data = "0x" + abi.call_data("Token", "balanceOf", b"\x05" * 20).hex()
    call = {"to": network.devnet.network.token, "data": data}
    assert int(ask(network, "eth_call", call, hex(before)), 16) == 0
    assert int(ask(network, "eth_call", call, "latest"), 16) == 7
    answer = network.devnet.rpc.answer({"id": 1, "method": "eth_call", "params": [call, hex(before + 50)]})
    assert "no block" in answer["error"]["message"]


def test_calls_see_the_present_time_between_blocks(network: LocalNetwork) -> None:
    # Timestamp of the block to come: what a claim will see when its window is over while nobody sends anything.
    code = "0x4260005260206000f3"  # return block.timestamp
    network.clock.now += 500
    assert int(ask(network, "eth_call", {"data": code}), 16) == int(network.clock.now)
    ask(network, "evm_increaseTime", 1000)
    assert int(ask(network, "eth_call", {"data": code}), 16) == int(network.clock.now) + 1000


def test_logs_are_filtered_by_address_topic_and_range(network: LocalNetwork) -> None:
    chain = network.newcomer("one")
    first = chain.transfer(b"\x05" * 20, 7).block
    second = chain.transfer(b"\x06" * 20, 8).block
    moved, token = "0x" + keccak(b"Transfer(address,address,uint256)").hex(), network.devnet.network.token
    six = "0x" + (b"\x06" * 20).rjust(32, b"\x00").hex()

    def values(**query: Any) -> list[int]:
        return [int(log["data"], 16) for log in ask(network, "eth_getLogs", query)]

    span = {"fromBlock": hex(first), "toBlock": hex(second)}
    assert values(**span) == values(**span, address=token) == values(**span, topics=[moved]) == [7, 8]
    assert values(**span, topics=[None, None, six]) == [8]
    assert values(**span, topics=[[six, moved], None, [six]]) == [8]
    assert values(**span, address=[network.devnet.network.jobs]) == []
    assert values(**span, topics=[six]) == []
    assert values(fromBlock=hex(second)) == [8]
    assert values(blockHash=ask(network, "eth_getBlockByNumber", hex(first), False)["hash"]) == [7]


def test_the_gift_is_repeated_only_if_it_was_lost(network: LocalNetwork) -> None:
    account = "0x" + KEY.address.hex()
    first = ask(network, "atoll_fund", account)
    assert ask(network, "atoll_fund", account) == first
    network.devnet.evm.pending.__init__()  # type: ignore[misc]  # what kill -9 does to the queue
    second = ask(network, "atoll_fund", account)
    network.devnet.evm.mine()
    assert ask(network, "atoll_fund", account) == second
    network.devnet.evm.mine()
    assert network.devnet.evm.balance(KEY.address) == network.terms.gift_wei


@pytest.mark.parametrize("nonce", [0, 1, 127, 128, 255, 256, 70_000])
def test_addresses_of_contracts(nonce: int) -> None:
    import rlp

    assert contract_address(KEY.address, nonce) == keccak(rlp.encode([KEY.address, nonce]))[12:]


# The home directory


def test_the_key_of_the_faucet_is_private(network: LocalNetwork) -> None:
    assert (network.home / "deployer.key").stat().st_mode & 0o777 == 0o600


def test_one_process_a_home(network: LocalNetwork) -> None:
    with pytest.raises(UserError, match="another chain process"):
        Devnet(network.home, network.terms, network.clock)


def test_another_chain_id_is_refused(tmp_path: Path) -> None:
    Devnet(tmp_path, Terms(chain_id=5), Clock()).close()
    with pytest.raises(WrongChain, match="holds chain 5"):
        Devnet(tmp_path, Terms(), Clock())


def damage_pages(path: Path) -> None:
    body = bytearray(path.read_bytes())
    for place in range(4096, len(body) - 600, 4096):
        body[place : place + 512] = b"\xff" * 512
    path.write_bytes(body)


def damage_header(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)


@pytest.mark.parametrize("damage", [damage_pages, damage_header])
def test_a_damaged_database_is_kept_and_restored_from_the_copy(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    database, clock = tmp_path / "chain.sqlite", Clock()
    Devnet(tmp_path, Terms(), clock).close()
    devnet = Devnet(tmp_path, Terms(), clock)  # the second start makes the copy
    head = devnet.evm.head.hash
    devnet.close()
    damage(database)
    damaged = database.read_bytes()
    with pytest.raises(Corrupt) as caught:
        Devnet(tmp_path, Terms(), clock)
    assert f"cp {backup_path(database)} {database}" in str(caught.value)
    kept = list(tmp_path.glob("chain.sqlite.damaged-*"))
    assert [one.read_bytes() for one in kept] == [damaged]
    with pytest.raises(Corrupt, match="describes a chain whose database"):
        Devnet(tmp_path, Terms(), clock)  # it does not quietly start another chain
    database.write_bytes(backup_path(database).read_bytes())
    devnet = Devnet(tmp_path, Terms(), clock)
    assert devnet.evm.head.hash == head
    devnet.close()


def test_a_lost_or_damaged_key_is_named(tmp_path: Path) -> None:
    Devnet(tmp_path, Terms(), Clock()).close()
    key = tmp_path / "deployer.key"
    key.write_text("no key")
    with pytest.raises(Corrupt, match="is damaged"):
        Devnet(tmp_path, Terms(), Clock())
    key.unlink()
    with pytest.raises(Corrupt, match="is missing"):
        Devnet(tmp_path, Terms(), Clock())


def test_a_block_is_written_in_full_or_not_at_all(tmp_path: Path, network: LocalNetwork) -> None:
    chain, evm = network.newcomer("one"), network.devnet.evm
    evm.submit(transfer(chain, 0))
    before = evm.head.hash
    store = network.devnet._store
    rows = store.connection.execute("select count(*) from kv").fetchone()
    store.connection.execute(
        "create temp trigger full before insert on transactions begin select raise(abort, 'disk full'); end"
    )
    with pytest.raises(sqlite3.IntegrityError, match="disk full"):
        evm.mine()
    store.connection.execute("drop trigger full")
    assert evm.head.hash == before
    assert store.connection.execute("select count(*) from kv").fetchone() == rows
    evm.mine()
    assert evm.balance(b"\x05" * 20) == 1


# HTTP


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8545", True),
        ("localhost", True),
        ("[::1]:8545", True),
        ("192.168.1.7:8545", True),
        ("evil.example:8545", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
        ("[", False),
        (None, False),
    ],
)
def test_hosts(host: str | None, own: bool) -> None:
    assert is_own_host(host) is own


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        (None, True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080", True),
        ("https://evil.example", False),
        ("http://10.0.0.5", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_origins(origin: str | None, own: bool) -> None:
    assert is_own_origin(origin) is own


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server("127.0.0.1", 0, lambda body: b'{"echo": %d}' % len(body))
    made.start()
    yield made
    made.shutdown()
    made.server_close()


def post(server: Server, body: bytes = b"{}", method: str = "POST", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, "/", body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_requests_over_http(server: Server) -> None:
    assert post(server) == (200, b'{"echo": 2}')
    assert post(server, Host="evil.example")[0] == 403
    assert post(server, Origin="https://evil.example")[0] == 403
    assert post(server, b"x" * MAX_BODY)[0] == 200
    assert post(server, Content_Length=str(MAX_BODY + 1))[0] == 413
    assert post(server, Content_Length="-1")[0] == 413
    assert post(server, Content_Length="many")[0] == 411
    assert post(server, b"", method="GET")[0] == 405
    assert json.loads(post(server, Host="evil.example")[1])["error"]["message"]


def test_a_connection_is_used_again(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    for length in (3, 0, 9):
        connection.request("POST", "/", b"x" * length)
        assert connection.getresponse().read() == b'{"echo": %d}' % length
    connection.close()


def test_a_port_in_use_is_told(server: Server) -> None:
    with pytest.raises(PortInUse, match="choose another port with --port"):
        Server("127.0.0.1", server.server_address[1], lambda body: body)


def test_the_producer_ends_when_it_is_stopped(network: LocalNetwork) -> None:
    producer = Producer(network.devnet.evm, network.devnet.rpc.lock, network.clock)
    producer.stop()
    producer.run()


# The process


class Process:
    """The chain as a process of its own."""

    def __init__(self, home: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "atoll.ledger.devnet", "--home", str(home), "--port", str(port)]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            _, complaint = self.child.communicate()
            raise AssertionError(complaint)
        self.facts = json.loads(line)
        self.rpc = self.facts["rpc"]
        self.registry = bytes.fromhex(self.facts["registry"][2:])

    @property
    def port(self) -> int:
        port = urlsplit(self.rpc).port
        assert port is not None
        return port

    def end(self, number: signal.Signals) -> int:
        self.child.send_signal(number)
        self.child.communicate(timeout=30)
        return self.child.returncode


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    begun: list[Process] = []

    def begin(port: int = 0) -> Process:
        begun.append(Process(tmp_path / "home", port))
        return begun[-1]

    yield begin
    for process in begun:
        if process.child.poll() is None:
            process.end(signal.SIGKILL)


@pytest.mark.processes
def test_killed_and_started_again_it_goes_on(start: Callable[..., Process]) -> None:
    process = start()
    chain = Chain.connect(process.rpc, process.registry, 31337, KEY)
    chain.fund(KEY.address)
    for amount in (1, 2, 3):
        chain.transfer(b"\x05" * 20, amount)
    head = chain.head()
    logs = chain.logs(0, head.number)
    assert head.timestamp <= time.time()
    process.end(signal.SIGKILL)

    again = start(process.port)
    assert again.facts == process.facts
    assert chain.head() == head
    assert chain.logs(0, head.number) == logs
    assert [event.value for event in map(chain.decode, logs) if isinstance(event, Transfer)][-3:] == [1, 2, 3]
    assert chain.balance(b"\x05" * 20) == 6
    chain.transfer(b"\x05" * 20, 4)  # the same object goes on with the new process
    assert chain.balance(b"\x05" * 20) == 10
    assert again.end(signal.SIGTERM) == 0


@pytest.mark.processes
def test_killed_between_broadcast_and_block_the_wallet_sends_again(start: Callable[..., Process]) -> None:
    process = start()
    Chain.connect(process.rpc, process.registry, 31337, KEY).fund(KEY.address)
    chain = Chain.connect(process.rpc, process.registry, 31337, KEY)
    original = chain.link.broadcast
    killed: list[int] = []

    def broadcast_and_kill(raw: bytes) -> None:
        original(raw)
        if not killed:
            killed.append(process.end(signal.SIGKILL))
            start(process.port)

    chain.link.broadcast = broadcast_and_kill  # type: ignore[method-assign]  # the moment of the crash is the point
    chain.transfer(b"\x05" * 20, 4)
    assert killed == [-signal.SIGKILL]
    assert chain.balance(b"\x05" * 20) == 4


@pytest.mark.processes
def test_an_occupied_port_ends_the_process_with_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "atoll.ledger.devnet", "--home", str(tmp_path), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == PortInUse.exit_code
    assert done.stderr.count("\n") == 1 and "choose another port" in done.stderr
    assert not os.listdir(tmp_path)


@pytest.mark.processes
def test_web3_reads_and_sends_all_that_we_answer(start: Callable[..., Process]) -> None:
    """web3's own formatters and middleware, which we do not use, accept the answers."""
    process = start()
    Chain.connect(process.rpc, process.registry, 31337, KEY).fund(KEY.address)
    w3 = Web3(HTTPProvider(process.rpc))
    assert w3.is_connected() and w3.eth.chain_id == 31337 and w3.eth.syncing is False and not w3.eth.accounts
    account = Account.from_key(KEY.private)
    token = w3.eth.contract(to_checksum_address(process.facts["token"]), abi=abi.artifact("Token")["abi"])
    built = token.functions.transfer("0x" + "05" * 20, 9).build_transaction(
        {"from": account.address, "nonce": w3.eth.get_transaction_count(account.address)}
    )
    name = w3.eth.send_raw_transaction(account.sign_transaction(built).raw_transaction)
    receipt = w3.eth.wait_for_transaction_receipt(name, timeout=30)
    assert receipt["status"] == 1 and receipt["gasUsed"] <= built["gas"]
    sent = w3.eth.get_transaction(name)
    assert bytes(sent["input"]) == bytes.fromhex(built["data"][2:]) and sent["from"] == account.address
    block = w3.eth.get_block(receipt["blockNumber"], full_transactions=True)
    assert block["transactions"][0]["hash"] == name and block["hash"] == receipt["blockHash"]
    assert w3.eth.get_block(block["hash"])["number"] == block["number"]
    assert token.events.Transfer().process_receipt(receipt)[0]["args"]["value"] == 9
    assert len(w3.eth.get_logs({"fromBlock": 0, "address": token.address})) >= 3
    assert w3.eth.get_balance(account.address) == 10**18 - receipt["gasUsed"] * receipt["effectiveGasPrice"]
    assert len(w3.eth.get_code(token.address)) > 1000
    assert w3.eth.fee_history(3, "latest", [50])["gasUsedRatio"]
    assert w3.eth.gas_price > 0
