"""Who is on the network and where: a fold over the registry's events and the records that peers sign. Pure.

The registry says which accounts exist; its hints are where a node was when it registered. A peer record, signed by the
account, says where it is now: the one with the highest sequence counts. Nobody is listed whose endpoint key and account
do not vouch for one another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from atoll.errors import Refused
from atoll.wire.hashing import Domain
from atoll.wire.identity import PeerRecord, binding_digest, decode_record, unusable_addresses, verify_endpoint
from atoll.wire.reasons import Reason

MAX_HINTS = 8


@dataclass(frozen=True)
class Peer:
    """What is known about a node. `addresses` are "ip:port", the likeliest first."""

    account: bytes
    endpoint_id: bytes
    addresses: tuple[str, ...]
    roles: int
    version: str = ""
    sequence: int = -1
    record: bytes = b""


class Directory:
    """All known peers by account. Several may share an endpoint key: the first one that registered it owns it."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._peers: dict[bytes, Peer] = {}
        self._by_endpoint: dict[bytes, bytes] = {}

    def registered(self, account: bytes, endpoint_id: bytes, roles: int, hints: str, binding: bytes) -> bool:
        """Take in a registration; False (and nothing changed) when its endpoint key did not sign the account."""
        if not verify_endpoint(endpoint_id, binding_digest(self._domain, account, endpoint_id), binding):
            return False
        addresses = tuple(text for text in hints.split(",") if text and not unusable_addresses([text]))[:MAX_HINTS]
        known = self._peers.get(account)
        if known is not None and known.endpoint_id == endpoint_id and known.sequence >= 0:
            self._peers[account] = replace(known, roles=roles)
        else:
            self._peers[account] = Peer(account, endpoint_id, addresses, roles)
        replaced = known is not None and known.endpoint_id != endpoint_id
        if known is not None and replaced and self._by_endpoint.get(known.endpoint_id) == account:
            del self._by_endpoint[known.endpoint_id]  # a key that was replaced speaks for nobody
        self._by_endpoint.setdefault(endpoint_id, account)  # browser tabs share the key of their gateway
        return True

    def learn(self, data: bytes) -> Peer:
        """Take in a signed peer record; raises Refused if it is not one of a registered node."""
        record: PeerRecord = decode_record(self._domain, data)
        known = self._peers.get(record.account)
        if known is None:
            raise Refused(Reason.UNKNOWN_ACCOUNT, "the account of this peer record is not registered")
        if known.endpoint_id != record.endpoint_id:
            raise Refused(Reason.BAD_BINDING, "the registry names another endpoint key for this account")
        if record.sequence > known.sequence:
            known = replace(
                known, addresses=record.addresses, version=record.version, sequence=record.sequence, record=data
            )
            self._peers[record.account] = known
        return known

    def get(self, account: bytes) -> Peer:
        """A peer by account; raises Refused(UNKNOWN_ACCOUNT). A browser tab is where its gateway is now."""
        peer = self._peers.get(account)
        if peer is None:
            raise Refused(Reason.UNKNOWN_ACCOUNT, f"0x{account.hex()} is not registered on this network")
        owner = self._peers.get(self._by_endpoint.get(peer.endpoint_id, account))
        if owner is None or peer.sequence >= 0 or owner.sequence < 0:
            return peer
        return replace(peer, addresses=owner.addresses)

    def account_of(self, endpoint_id: bytes) -> bytes | None:
        """The account that owns an endpoint key, if it is registered."""
        return self._by_endpoint.get(endpoint_id)

    def accounts(self) -> list[bytes]:
        """All registered accounts, sorted."""
        return sorted(self._peers)

    def reached(self) -> list[bytes]:
        """The accounts that have an endpoint of their own, sorted: one for each node, none for a browser tab."""
        return sorted(self._by_endpoint.values())

    def with_role(self, role: int) -> list[bytes]:
        """Accounts with a role, sorted."""
        return sorted(account for account, peer in self._peers.items() if peer.roles & role)

    def records(self) -> list[bytes]:
        """Signed records to pass on."""
        return [peer.record for peer in self._peers.values() if peer.record]
