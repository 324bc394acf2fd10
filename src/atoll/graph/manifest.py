"""The job manifest: what a posted job is, in one small canonical JSON document whose BLAKE3 hash is the manifest's id.

It is a job file's document (`atoll.graph.spec`) with the data, the number of rounds and the policy (prices, audit
rate, tolerances). Whatever is read from outside goes through `Manifest.from_bytes`, which refuses anything that is not
exactly the canonical encoding of a manifest within its limits.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from atoll.errors import Refused
from atoll.graph.spec import JobSpec, check_spec, need, within
from atoll.wire.reasons import Reason

MAX_AMOUNT = 1 << 128

_BLOB = re.compile(r"[0-9a-f]{64}")
_ROOT = re.compile(r"0x[0-9a-f]{64}")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,38}")
_AMOUNTS = ("unit_price", "audit_price", "validator_price")

Partition = Literal["shuffled", "ordered"]
Aggregation = Literal["robust", "mean"]


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The data a job needs: Merkle roots (0x hex) and counts of the train and held-out samples, id of the card.

    `partition`: `shuffled` samples make shards that are alike; `ordered` ones make shards of neighbours, as for data
    sorted by who it comes from.
    """

    root: str
    count: int
    held_out_root: str
    held_out_count: int
    card: str
    partition: Partition = "shuffled"


class Ratio(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fraction of integers: `part / whole`."""

    part: int
    whole: int


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prices and rules of a job; integers only. Prices are in base units (10^18 = 1 token).

    `audit_rate_floor` is in units per 10,000; `unit_tolerance` and `segment_tolerance` bound the relative L2
    distance between an honest result and its recomputation; `epoch_rounds` rounds are settled together;
    `train_seconds` is the time a worker has for one unit; `aggregation` says how accepted updates become one:
    `robust` outvotes a minority of liars that no audit caught, `mean` is the plain mean (FedAvg) for those who rely on
    audits alone.
    """

    unit_price: int
    audit_price: int
    validator_price: int
    audit_rate_floor: int = 1_000
    unit_tolerance: Ratio = Ratio(part=1, whole=100)
    segment_tolerance: Ratio = Ratio(part=1, whole=1_000)
    epoch_rounds: int = 4
    train_seconds: int = 60
    aggregation: Aggregation = "robust"


class Manifest(JobSpec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job as it is posted: what is computed, on what data, for how many rounds, at what prices."""

    data: Data
    rounds: int
    policy: Policy

    @classmethod
    def post(cls, spec: JobSpec, data: Data, rounds: int, policy: Policy) -> Manifest:
        """The manifest of a job file's job on `data`."""
        fields = {name: getattr(spec, name) for name in JobSpec.__struct_fields__}
        return cls(**fields, data=data, rounds=rounds, policy=policy)

    @property
    def spec(self) -> JobSpec:
        """The job file's document: what is computed."""
        return JobSpec(**{name: getattr(self, name) for name in JobSpec.__struct_fields__})

    def check(self) -> None:
        """Raise Refused(BAD_MANIFEST) when a field lies outside its limits."""
        check_spec(self)
        _check_data(self.data)
        within("rounds", self.rounds, 1, 1_000_000)
        _check_policy(self.policy)

    def to_plain(self) -> dict[str, Any]:
        """The manifest as plain values; amounts are decimal strings."""
        plain = super().to_plain()
        for key in _AMOUNTS:
            plain["policy"][key] = str(plain["policy"][key])
        return plain

    @classmethod
    def from_plain(cls, plain: Any) -> Any:
        """Amounts as integers again; raises Refused(BAD_MANIFEST)."""
        policy = plain.get("policy") if isinstance(plain, dict) else None
        if not isinstance(policy, dict):
            return plain  # the schema check says what is wrong
        amounts = {}
        for key in _AMOUNTS:
            text = policy.get(key)
            if not isinstance(text, str) or not _DECIMAL.fullmatch(text):
                raise Refused(Reason.BAD_MANIFEST, f"policy.{key} must be a decimal string")
            amounts[key] = int(text)
        return {**plain, "policy": {**policy, **amounts}}


def _check_data(data: Data) -> None:
    for key in ("root", "held_out_root"):
        need(bool(_ROOT.fullmatch(getattr(data, key))), f"data.{key} must be 0x and 64 lowercase hex digits")
    need(bool(_BLOB.fullmatch(data.card)), "data.card must be 64 lowercase hex digits")
    within("data.count", data.count, 1, 1 << 32)
    within("data.held_out_count", data.held_out_count, 1, 1 << 32)


def _check_policy(policy: Policy) -> None:
    for key in _AMOUNTS:
        within(f"policy.{key}", getattr(policy, key), 0, MAX_AMOUNT)
    within("policy.audit_rate_floor", policy.audit_rate_floor, 0, 10_000)
    for key in ("unit_tolerance", "segment_tolerance"):
        ratio = getattr(policy, key)
        within(f"policy.{key}.whole", ratio.whole, 1, 1_000_000_000)
        within(f"policy.{key}.part", ratio.part, 0, ratio.whole)
    within("policy.epoch_rounds", policy.epoch_rounds, 1, 1_000_000)
    within("policy.train_seconds", policy.train_seconds, 1, 86_400)
