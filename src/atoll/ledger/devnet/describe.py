"""Blocks, transactions and receipts of py-evm as JSON-RPC shows them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoll.wire.hashing import keccak

Json = dict[str, Any]


@dataclass(frozen=True)
class BlockRows:
    """A block and what is in it, ready to be answered; transactions and receipts in the order of the block."""

    block: Json
    transactions: list[Json]
    receipts: list[Json]


def quantity(value: int) -> str:
    """A number as JSON-RPC writes it."""
    return hex(value)


def data(value: bytes) -> str:
    """Bytes as JSON-RPC writes them."""
    return "0x" + value.hex()


def word(value: int) -> str:
    """A number as 32 bytes."""
    return "0x" + value.to_bytes(32, "big").hex()


def block_rows(block: Any, taken: Sequence[tuple[bytes, Any]], receipts: Sequence[Any]) -> BlockRows:
    """Everything that is asked about a block later; `taken` has (sender, transaction) pairs."""
    header = block.header
    rows = BlockRows(_block(header, [data(bytes(t.hash)) for _, t in taken]), [], [])
    before = log_index = 0
    for position, ((sender, item), result) in enumerate(zip(taken, receipts, strict=True)):
        place = {
            "blockHash": data(header.hash),
            "blockNumber": quantity(header.block_number),
            "transactionIndex": quantity(position),
        }
        rows.transactions.append(transaction(item, sender, header.base_fee_per_gas) | place)
        logs = [
            place
            | {
                "transactionHash": data(bytes(item.hash)),
                "logIndex": quantity(log_index + number),
                "address": data(log.address),
                "topics": [word(topic) for topic in log.topics],
                "data": data(log.data),
                "removed": False,
            }
            for number, log in enumerate(result.logs)
        ]
        log_index += len(logs)
        rows.receipts.append(
            place
            | {
                "transactionHash": data(bytes(item.hash)),
                "from": data(sender),
                "to": data(item.to) if item.to else None,
                "contractAddress": None if item.to else data(contract_address(sender, item.nonce)),
                "gasUsed": quantity(result.gas_used - before),
                "cumulativeGasUsed": quantity(result.gas_used),
                "effectiveGasPrice": quantity(_price(item, header.base_fee_per_gas)),
                "status": quantity(int.from_bytes(result.state_root, "big")),
                "type": quantity(_type(item)),
                "logsBloom": "0x" + int(result.bloom).to_bytes(256, "big").hex(),
                "logs": logs,
            }
        )
        before = result.gas_used
    return rows


def _block(header: Any, transactions: list[str]) -> Json:
    return {
        "number": quantity(header.block_number),
        "hash": data(header.hash),
        "parentHash": data(header.parent_hash),
        "nonce": data(header.nonce),
        "mixHash": data(header.mix_hash),
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": "0x" + int(header.bloom).to_bytes(256, "big").hex(),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": data(header.coinbase),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "extraData": data(header.extra_data),
        "size": "0x0",
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "transactions": transactions,
        "uncles": [],
    }


def transaction(item: Any, sender: bytes, base_fee: int | None) -> Json:
    """A transaction; `base_fee` is that of its block, None while it waits."""
    kind = _type(item)
    body: Json = {
        "hash": data(bytes(item.hash)),
        "type": quantity(kind),
        "nonce": quantity(item.nonce),
        "from": data(sender),
        "to": data(item.to) if item.to else None,
        "value": quantity(item.value),
        "gas": quantity(item.gas),
        "input": data(item.data),
        "gasPrice": quantity(item.max_fee_per_gas if base_fee is None else _price(item, base_fee)),
        "r": quantity(item.r),
        "s": quantity(item.s),
        "v": quantity(item.y_parity if kind else item.v),
        "blockHash": None,
        "blockNumber": None,
        "transactionIndex": None,
    }
    if item.chain_id is not None:
        body["chainId"] = quantity(item.chain_id)
    if kind == 2:
        body["maxFeePerGas"] = quantity(item.max_fee_per_gas)
        body["maxPriorityFeePerGas"] = quantity(item.max_priority_fee_per_gas)
    if kind:
        body["accessList"] = []
    return body


def contract_address(sender: bytes, nonce: int) -> bytes:
    """Where a contract lands that `sender` deploys: the last 20 bytes of keccak(rlp([sender, nonce]))."""
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    encoded = number if len(number) == 1 and number[0] < 0x80 else bytes([0x80 + len(number)]) + number
    payload = b"\x94" + sender + encoded
    return keccak(bytes([0xC0 + len(payload)]) + payload)[12:]


def _type(item: Any) -> int:
    return int(getattr(item, "type_id", None) or 0)


def _price(item: Any, base_fee: int) -> int:
    return int(min(item.max_fee_per_gas, item.max_priority_fee_per_gas + base_fee))
