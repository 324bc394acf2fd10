"""Who a node is: an account that is paid, an endpoint key that is reached, and the proof that they belong together.

The account is a secp256k1 key (the EVM recovers its signatures); the endpoint id is an Ed25519 public key
(connections are authenticated with it). Both sign one binding statement, and peers check it: an EVM cannot cheaply
verify Ed25519. Nothing here draws randomness or reads a file; private keys are passed in
(`atoll.wire.keystore` makes and keeps them).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import coincurve
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from atoll.errors import BadInput, Refused
from atoll.wire.hashing import Domain, Tag, keccak, tagged
from atoll.wire.reasons import Reason

ACCOUNT_BYTES = 20
ENDPOINT_BYTES = 32
PRIVATE_BYTES = 32
DIGEST_BYTES = 32
ACCOUNT_SIGNATURE_BYTES = 65  # r, s, v
ENDPOINT_SIGNATURE_BYTES = 64
CURVE_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141

MAX_RECORD_BYTES = 1024
MAX_ADDRESSES = 8
MAX_ADDRESS_CHARS = 64
MAX_VERSION_CHARS = 32
_MAX_SEQUENCE = 2**63 - 1


class AccountKey:
    """A secp256k1 private key: the identity on chain.

    `private` is 32 bytes; raises BadInput if it is not a valid key. `address` is the 20-byte account.
    """

    __slots__ = ("_key", "address")

    def __init__(self, private: bytes) -> None:
        if len(private) != PRIVATE_BYTES or not 0 < int.from_bytes(private, "big") < CURVE_ORDER:
            raise BadInput("An account key is 32 bytes, a number from 1 to the order of secp256k1 less one.")
        self._key = coincurve.PrivateKey(private)
        self.address = _account_of(self._key.public_key)

    @property
    def private(self) -> bytes:
        """The 32 secret bytes; for the key store and for chain libraries only."""
        return self._key.secret

    def sign_digest(self, digest: bytes) -> bytes:
        """65 bytes r || s || v over a 32-byte digest as it is; v is 27 or 28, s in the lower half (EIP-2).

        Deterministic (RFC 6979): the same digest always gives the same bytes.
        """
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"a digest has {DIGEST_BYTES} bytes, not {len(digest)}")
        signature = self._key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([27 + signature[64]])

    def __repr__(self) -> str:
        return f"AccountKey({format_account(self.address)})"


class EndpointKey:
    """An Ed25519 private key: the identity on the network. `public` (32 bytes) is the endpoint id."""

    __slots__ = ("_key", "_seed", "public")

    def __init__(self, private: bytes) -> None:
        if len(private) != PRIVATE_BYTES:
            raise BadInput(f"An endpoint key has {PRIVATE_BYTES} bytes, not {len(private)}.")
        self._seed = bytes(private)
        self._key = Ed25519PrivateKey.from_private_bytes(self._seed)
        self.public = self._key.public_key().public_bytes_raw()

    @property
    def private(self) -> bytes:
        """The 32 secret bytes; for the key store and the transport only."""
        return self._seed

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes (RFC 8032)."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"EndpointKey({self.public.hex()})"


def _account_of(public: coincurve.PublicKey) -> bytes:
    """Last 20 bytes of keccak-256 over the uncompressed point without its prefix."""
    return keccak(public.format(compressed=False)[1:])[-ACCOUNT_BYTES:]


def recover(digest: bytes, signature: bytes) -> bytes:
    """The 20-byte account that signed `digest` (32 bytes); Refused(BAD_SIGNATURE) for any malformed signature.

    A high s is refused: otherwise anyone could turn a signature into a second one that is also valid.
    """
    if len(digest) != DIGEST_BYTES or len(signature) != ACCOUNT_SIGNATURE_BYTES:
        raise Refused(Reason.BAD_SIGNATURE, "a signature has 65 bytes over a digest of 32")
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28) or not 0 < r < CURVE_ORDER or not 0 < s <= CURVE_ORDER // 2:
        raise Refused(Reason.BAD_SIGNATURE, "r, s or v lies outside its range")
    try:
        public = coincurve.PublicKey.from_signature_and_message(signature[:64] + bytes([v - 27]), digest, hasher=None)
    except ValueError as error:
        raise Refused(Reason.BAD_SIGNATURE, "no public key gives this signature") from error
    return _account_of(public)


def verify_endpoint(endpoint_id: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` was made by the Ed25519 key `endpoint_id` (32 bytes)."""
    if len(endpoint_id) != ENDPOINT_BYTES or len(signature) != ENDPOINT_SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(endpoint_id).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True)
class Binding:
    """An account and an endpoint key vouch for one another: both sign the same digest (`binding_digest`)."""

    account: bytes
    endpoint_id: bytes
    account_signature: bytes
    endpoint_signature: bytes


def binding_digest(domain: Domain, account: bytes, endpoint_id: bytes) -> bytes:
    """What both keys sign, 32 bytes."""
    return tagged(Tag.BINDING, domain.encode(), account, endpoint_id)


def make_binding(domain: Domain, account: AccountKey, endpoint: EndpointKey) -> Binding:
    """The binding of the two keys on one network."""
    digest = binding_digest(domain, account.address, endpoint.public)
    return Binding(account.address, endpoint.public, account.sign_digest(digest), endpoint.sign(digest))


def verify_binding(domain: Domain, binding: Binding) -> None:
    """Raises Refused(BAD_BINDING) unless both signatures are valid on this network."""
    if len(binding.account) != ACCOUNT_BYTES or len(binding.endpoint_id) != ENDPOINT_BYTES:
        raise Refused(Reason.BAD_BINDING, "an account has 20 bytes and an endpoint id 32")
    digest = binding_digest(domain, binding.account, binding.endpoint_id)
    try:
        signer = recover(digest, binding.account_signature)
    except Refused as error:
        raise Refused(Reason.BAD_BINDING, error.detail) from error
    if signer != binding.account:
        raise Refused(Reason.BAD_BINDING, "the account did not sign this endpoint id on this network")
    if not verify_endpoint(binding.endpoint_id, digest, binding.endpoint_signature):
        raise Refused(Reason.BAD_BINDING, "the endpoint key did not sign this account on this network")


class PeerRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a node can be reached, signed by its account; peers pass it on. The highest `sequence` counts.

    addresses: at most 8 of "ip:port" or "[ip6]:port". roles: bit flags, 0..255. version: of the program, at most
    32 characters. On the wire: the msgpack array of the fields in this order, at most 1,024 bytes.
    """

    account: bytes
    endpoint_id: bytes
    addresses: tuple[str, ...]
    roles: int
    version: str
    sequence: int
    signature: bytes = b""

    def digest(self, domain: Domain) -> bytes:
        """What the account signs, 32 bytes: all fields but the signature, as a msgpack array."""
        body = (self.account, self.endpoint_id, self.addresses, self.roles, self.version, self.sequence)
        return tagged(Tag.PEER_RECORD, domain.encode(), msgspec.msgpack.encode(body))

    def encode(self) -> bytes:
        """The record as it crosses the network."""
        return msgspec.msgpack.encode(self)


def sign_record(domain: Domain, key: AccountKey, record: PeerRecord) -> PeerRecord:
    """The same record with the account's signature; raises Refused like `decode_record` if a field breaks a limit."""
    _check_record(record)
    if record.account != key.address:
        raise ValueError("a record is signed by the account that it names")
    return msgspec.structs.replace(record, signature=key.sign_digest(record.digest(domain)))


def decode_record(domain: Domain, data: bytes) -> PeerRecord:
    """A checked record; raises Refused with TOO_LARGE, MALFORMED or BAD_SIGNATURE."""
    if len(data) > MAX_RECORD_BYTES:
        raise Refused(Reason.TOO_LARGE, f"a peer record has at most {MAX_RECORD_BYTES} bytes, not {len(data)}")
    try:
        record = msgspec.msgpack.decode(data, type=PeerRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(Reason.MALFORMED, f"peer record: {error}") from error
    if record.encode() != data:  # one record, one encoding: a re-encoded copy must not look like a different record
        raise Refused(Reason.MALFORMED, "peer record: not in canonical form")
    _check_record(record)
    if recover(record.digest(domain), record.signature) != record.account:
        raise Refused(Reason.BAD_SIGNATURE, "the account did not sign this peer record on this network")
    return record


def _check_record(record: PeerRecord) -> None:
    problem = ""
    if len(record.account) != ACCOUNT_BYTES or len(record.endpoint_id) != ENDPOINT_BYTES:
        problem = "an account has 20 bytes and an endpoint id 32"
    elif not 0 <= record.roles <= 255 or not 0 <= record.sequence <= _MAX_SEQUENCE:
        problem = "roles are 0..255 and the sequence is 0..2^63-1"
    elif len(record.version) > MAX_VERSION_CHARS or not record.version.isprintable():
        problem = f"a version has at most {MAX_VERSION_CHARS} printable characters"
    elif len(record.addresses) > MAX_ADDRESSES or len(set(record.addresses)) != len(record.addresses):
        problem = f"at most {MAX_ADDRESSES} addresses, no two the same"
    elif wrong := unusable_addresses(record.addresses):
        problem = f"{wrong[0]!r:.80} is not the ip:port of one device"
    if problem:
        raise Refused(Reason.MALFORMED, f"peer record: {problem}")


def unusable_addresses(addresses: Sequence[str]) -> list[str]:
    """Those that are not a canonical "ip:port" or "[ip6]:port" of one device with a port from 1 to 65535."""
    return [address for address in addresses if not _is_usable(address)]


def _is_usable(address: str) -> bool:
    if len(address) > MAX_ADDRESS_CHARS:
        return False
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return False
    canonical = f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
    if address != canonical or ip.is_unspecified or ip.is_multicast:
        return False
    return port.isascii() and port.isdigit() and str(int(port)) == port and 0 < int(port) < 65536


def format_account(account: bytes) -> str:
    """An account as "0x" and 40 hex digits, whose capitals are a checksum (EIP-55)."""
    if len(account) != ACCOUNT_BYTES:
        raise ValueError(f"an account has {ACCOUNT_BYTES} bytes, not {len(account)}")
    digits = account.hex()
    capitals = keccak(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(h, 16) >= 8 else c for c, h in zip(digits, capitals, strict=False))


def parse_account(text: str) -> bytes:
    """20 bytes from "0x" and 40 hex digits; capitals and small letters mixed must be a valid EIP-55 checksum.

    Raises BadInput with the expectation.
    """
    digits = text[2:]
    if not text.startswith("0x") or len(digits) != 40 or set(digits) - set("0123456789abcdefABCDEF"):
        raise BadInput(f"{text!r:.60} is not an account: expected 0x and 40 hexadecimal digits.")
    account = bytes.fromhex(digits)
    if digits not in (digits.lower(), digits.upper()) and format_account(account) != text:
        raise BadInput(f"The capitals of account {text} do not match its checksum: copy it again from its source.")
    return account
