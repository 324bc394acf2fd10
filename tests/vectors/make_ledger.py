"""How ledger.json was made, once: by other means than the product.

EIP-712 by eth_account, ABI by eth_abi, keccak by pycryptodome, the audit rate by fractions; the Merkle tree is
recursive and the msgpack packer written by hand. Prints the document; it is compared with the committed file, which
is never edited: `python tests/vectors/make_ledger.py | diff - tests/vectors/ledger.json`.
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from math import ceil
from typing import Any

from blake3 import blake3
from Crypto.Hash import keccak as crypto_keccak
from eth_abi import encode
from eth_account.messages import encode_typed_data

CHAIN = 31337
SETTLEMENT = bytes.fromhex("5fc8d32690cc91d4c39d9d3abcbd16989f875707")
JOBS = bytes.fromhex("cf7ed3acca5a467e9e704c703e8d87f634fb0fc9")
DOMAIN = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
TYPES = {
    "Receipt": "uint8 kind,bytes32 job,uint32 round,bytes32 unit,address account,uint16 reason,uint256 amount",
    "Post": "uint64 epoch,bytes32 root,bytes32 receiptsRoot,uint64 accounts,uint64 receipts,bytes32 totals",
    "Certificate": "bytes32 job,uint32 round,uint32 attempt,bytes32 lockRoot,bytes32 verdictRoot,bytes32 modelRoot,"
    "bytes32 committee,bytes32 nextCommittee,bool last",
}
ABOUT = (
    "Golden vectors of the ledger. Made once with eth_account (EIP-712), eth_abi, pycryptodome (keccak), blake3, "
    "fractions, and a Merkle tree and msgpack packer written apart from the product. Never edited: a changed meaning "
    "gets a new file."
)
TOKEN = 10**18
Row = dict[str, Any]


def keccak(data: bytes) -> bytes:
    return crypto_keccak.new(digest_bits=256, data=data).digest()


def hex0x(data: bytes) -> str:
    return "0x" + data.hex()


def digest(name: str, message: Row, contract: bytes) -> bytes:
    types = {name: [dict(zip(("type", "name"), field.split(), strict=True)) for field in TYPES[name].split(",")]}
    domain = {"name": "Atoll", "version": "1", "chainId": CHAIN, "verifyingContract": hex0x(contract)}
    values = {key: hex0x(value) if _is_address(value) else value for key, value in message.items()}
    signable = encode_typed_data(domain, types, values)
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


def _is_address(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 20


def separator(contract: bytes) -> bytes:
    kinds = ["bytes32", "bytes32", "bytes32", "uint256", "address"]
    return keccak(encode(kinds, [keccak(DOMAIN), keccak(b"Atoll"), keccak(b"1"), CHAIN, contract]))


def width(count: int) -> int:
    size = 1
    while size < count:
        size *= 2
    return size


def top(leaves: list[bytes], low: int, size: int) -> bytes:
    if size == 1:
        return keccak(b"\0" + leaves[low]) if low < len(leaves) else bytes(32)
    half = size // 2
    return keccak(b"\1" + top(leaves, low, half) + top(leaves, low + half, half))


def root_of(leaves: list[bytes]) -> bytes:
    return keccak(b"\2" + len(leaves).to_bytes(8, "big") + top(leaves, 0, width(len(leaves))))


def prove(leaves: list[bytes], index: int) -> list[bytes]:
    proof, step = [], 1
    while step < width(len(leaves)):
        proof.append(top(leaves, (index // step ^ 1) * step, step))
        step *= 2
    return proof


def pack(value: Any) -> bytes:
    """Msgpack of short lists, short strings, bytes, booleans and unsigned integers, in its shortest form."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if value < 128:
            return bytes([value])
        power = next(power for power in range(4) if value < 1 << (8 << power))
        return bytes([0xCC + power]) + value.to_bytes(1 << power, "big")
    if isinstance(value, str):
        assert len(value) < 32
        return bytes([0xA0 + len(value)]) + value.encode()
    assert len(value) < 16 or (isinstance(value, bytes) and len(value) < 256)
    if isinstance(value, bytes):
        return bytes([0xC4, len(value)]) + value
    return bytes([0x90 + len(value)]) + b"".join(pack(part) for part in value)


def minimal(amount: int) -> bytes:
    digits = f"{amount:x}"
    return bytes.fromhex(digits.rjust(len(digits) + len(digits) % 2, "0")) if amount else b""


FIELDS = ("kind", "job", "round", "unit", "account", "reason", "amount")
ACCOUNTS = [
    bytes.fromhex(account)
    for account in (
        "f39fd6e51aad88f6f4ce6ab8827279cfffb92266",
        "70997970c51812dc3a010c7d01b50e0d17dc79c8",
        "3c44cdddb6a900fa2b585dd299e03d12fa4293bc",
        "90f79bf6eb2c4f870365e785982e1f101e93b906",
    )
]
JOB_A, JOB_B = bytes(31) + b"\1", keccak(b"job b")
UNITS = [keccak(b"unit %d" % number) for number in range(4)]
EPOCHS: list[tuple[list[tuple[Any, ...]], list[bytes]]] = [
    (
        [
            (1, JOB_A, 0, UNITS[0], ACCOUNTS[0], 0, TOKEN),
            (1, JOB_A, 0, UNITS[1], ACCOUNTS[1], 33, 0),
            (2, JOB_A, 0, UNITS[1], ACCOUNTS[2], 0, TOKEN // 2),
            (3, JOB_A, 0, UNITS[1], ACCOUNTS[3], 0, TOKEN // 2),
            (4, JOB_A, 0, bytes(32), ACCOUNTS[0], 0, TOKEN // 10),
            (1, JOB_A, 300, UNITS[2], ACCOUNTS[2], 37, 0),
        ],
        [],
    ),
    (
        [
            (1, JOB_A, 300, UNITS[2], ACCOUNTS[2], 0, (1 << 128) - 1),
            (1, JOB_B, 70_000, UNITS[3], ACCOUNTS[0], 0, 7),
            (4, JOB_B, 70_000, bytes(32), ACCOUNTS[3], 0, 1),
        ],
        [JOB_B],
    ),
]


def packable(receipt: Row) -> list[Any]:
    return [receipt[name] for name in FIELDS[:-1]] + [minimal(receipt["amount"])]


def as_json(receipt: Row) -> Row:
    found = {name: hex0x(value) if isinstance(value, bytes) else value for name, value in receipt.items()}
    return {**found, "amount": str(receipt["amount"])}


def epoch_vector(number: int, receipts: list[Row], settled: list[bytes], owed: Row, due: Row) -> Row:
    ordered = sorted(receipts, key=lambda row: [row[name] for name in ("job", "round", "unit", "kind", "account")])
    for receipt in ordered:
        owed[receipt["account"]] = owed.get(receipt["account"], 0) + receipt["amount"]
        due[receipt["job"]] = due.get(receipt["job"], 0) + receipt["amount"]
    accounts = sorted((account, amount) for account, amount in owed.items() if amount)
    touched = sorted({receipt["job"] for receipt in receipts} | set(settled))
    jobs = [(job, due[job], job in settled) for job in touched]
    digests = [digest("Receipt", receipt, SETTLEMENT) for receipt in ordered]
    leaves = [encode(["address", "uint256"], [hex0x(account), amount]) for account, amount in accounts]
    totals = keccak(encode(["(bytes32,uint256,bool)[]"], [jobs]))
    root, receipts_root = root_of(leaves), root_of(digests)
    post = {"epoch": number, "root": root, "receiptsRoot": receipts_root}
    post |= {"accounts": len(accounts), "receipts": len(ordered), "totals": totals}
    account_rows = [[account, minimal(amount)] for account, amount in accounts]
    job_rows = [[job, minimal(total), ended] for job, total, ended in jobs]
    receipt_rows = [packable(receipt) for receipt in ordered]
    blob = pack(["atoll/epoch/1", number, receipt_rows, account_rows, job_rows])
    return {
        "number": number,
        "receipts": [as_json(receipt) for receipt in receipts],
        "settled": [hex0x(job) for job in settled],
        "canonical_order": [receipts.index(receipt) for receipt in ordered],
        "digests": [hex0x(each) for each in digests],
        "encoded": [hex0x(pack(row)) for row in receipt_rows],
        "receipts_root": hex0x(receipts_root),
        "accounts": [[hex0x(account), str(amount)] for account, amount in accounts],
        "jobs": [[hex0x(job), str(total), ended] for job, total, ended in jobs],
        "totals": hex0x(totals),
        "root": hex0x(root),
        "post_digest": hex0x(digest("Post", post, SETTLEMENT)),
        "proofs": [[hex0x(sibling) for sibling in prove(leaves, index)] for index in range(len(leaves))],
        "blob": hex0x(blob),
        "blob_id": blake3(blob).hexdigest(),
    }


def certificate_vector() -> Row:
    fields: Row = {"job": JOB_A, "round": 7, "attempt": 1}
    fields |= {"lockRoot": keccak(b"lock"), "verdictRoot": keccak(b"verdict"), "modelRoot": keccak(b"model")}
    committee = [hex0x(account) for account in ACCOUNTS]
    fields |= {"committee": keccak(encode(["address[]"], [committee])), "nextCommittee": bytes(32), "last": True}
    shown = {name: hex0x(value) if isinstance(value, bytes) else value for name, value in fields.items()}
    return {"fields": shown, "committee": committee, "digest": hex0x(digest("Certificate", fields, JOBS))}


RATES = [  # consecutive valid units, stake, held back, unit price, floor, detection
    (0, 0, 0, TOKEN, 1000, 10_000),
    (1, 0, 0, TOKEN, 1000, 10_000),
    (3, 0, 0, TOKEN, 1000, 10_000),
    (3, 2 * TOKEN, TOKEN, TOKEN, 1000, 9900),
    (50, 20 * TOKEN, 0, TOKEN, 1000, 10_000),
    (50, 20 * TOKEN, 0, TOKEN, 0, 10_000),
    (50, 20 * TOKEN, 0, TOKEN, 0, 7000),
    (10**9, 0, 0, 0, 0, 0),
    (10**9, 0, 0, 1, 0, 0),
    (7, 10**30, 5, 3, 1, 9999),
]


def rate_vector(valid: int, stake: int, held: int, price: int, floor: int, detection: int) -> Row:
    if valid == 0:
        rate = Fraction(1)
    else:
        delta = Fraction(detection, 10_000)
        by_stake = Fraction(price > 0)
        if price and delta:
            by_stake = Fraction(3, 2) * price / (delta * (price + stake + held))
        rate = min(Fraction(1), max(Fraction(floor, 10_000), Fraction(1, valid), by_stake))
    amounts = {"stake": str(stake), "held_back": str(held), "unit_price": str(price)}
    policy = {"floor_per_10k": floor, "detection_per_10k": detection}
    return {"consecutive_valid": valid, **amounts, **policy, "rate": ceil(rate * 10_000)}


def document() -> Row:
    owed: Row = {}
    due: Row = {}
    epochs = []
    for number, (rows, settled) in enumerate(EPOCHS):
        receipts = [dict(zip(FIELDS, row, strict=True)) for row in rows]
        epochs.append(epoch_vector(number, receipts, settled, owed, due))
    return {
        "about": ABOUT,
        "chain_id": CHAIN,
        "settlement": hex0x(SETTLEMENT),
        "jobs": hex0x(JOBS),
        "separator": {"settlement": hex0x(separator(SETTLEMENT)), "jobs": hex0x(separator(JOBS))},
        "type_hash": {name: hex0x(keccak(f"{name}({fields})".encode())) for name, fields in TYPES.items()},
        "certificate": certificate_vector(),
        "epochs": epochs,
        "audit_rates": [rate_vector(*row) for row in RATES],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=1) + "\n")
