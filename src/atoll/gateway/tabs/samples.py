"""Samples with their Merkle proofs for tabs: from this node's data sets, from memory, or from other nodes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from atoll.errors import AtollError, Refused, Unreachable
from atoll.gateway.tabs.limits import ROWS_AT_ONCE, SAMPLES_BYTES, SAMPLES_KEPT
from atoll.gateway.tabs.supply import Supply
from atoll.graph.manifest import Manifest
from atoll.training.data.samples import Form
from atoll.transfer.messages import ALPN, GetSamples, ProvenSample
from atoll.wire.hashing import HASH_BYTES
from atoll.wire.merkle import depth, verify
from atoll.wire.reasons import Reason
from atoll.wire.rpc import decode_body, decode_response, encode_body

if TYPE_CHECKING:
    from atoll.node.daemon import Node

_ROWS = re.compile(r"[0-9]{1,10}(?:,[0-9]{1,10})*")


def read_rows(text: str, count: int) -> list[int]:
    """Row numbers "1,2,3" of a data set of `count` samples; raises Refused."""
    if len(text) > 11 * ROWS_AT_ONCE or not _ROWS.fullmatch(text):
        raise Refused(Reason.MALFORMED, "rows are numbers with commas between them")
    rows = [int(part) for part in text.split(",")]
    if len(rows) > ROWS_AT_ONCE:
        raise Refused(Reason.TOO_LARGE, f"{len(rows)} rows; at most {ROWS_AT_ONCE} at once")
    if max(rows) >= count:
        raise Refused(Reason.NOT_FOUND, f"row {max(rows)} of {count}")
    return rows


class Samples:
    """Proven samples of all jobs, each as the msgpack bytes of [sample, [sibling, ...]]; the latest ones are kept."""

    def __init__(self, node: Node, supply: Supply) -> None:
        self._node, self._supply = node, supply
        self._kept: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._bytes = 0

    async def proven(self, job: bytes, manifest: Manifest, rows: Sequence[int]) -> list[bytes]:
        """The rows in this order; raises Refused(TOO_LARGE) for more than fit into an answer, or Unreachable."""
        each = _size_of(manifest)
        if each * len(rows) > SAMPLES_BYTES and len(rows) > 1:
            raise Refused(Reason.TOO_LARGE, f"ask for at most {max(1, SAMPLES_BYTES // each)} rows at once")
        root, found = bytes.fromhex(manifest.data.root[2:]), dict[int, bytes]()
        for row in dict.fromkeys(rows):
            packed = self._kept.get((root, row))
            if packed is not None:
                self._kept.move_to_end((root, row))
                found[row] = packed
        missing = [row for row in dict.fromkeys(rows) if row not in found]
        if missing:
            found.update(await self._bring(root, manifest.data.count, missing))
        return [found[row] for row in rows]

    async def _bring(self, root: bytes, count: int, rows: Sequence[int]) -> dict[int, bytes]:
        try:
            samples = [ProvenSample(sample, tuple(proof)) for sample, proof in self._node.library.proven(root, rows)]
        except Refused:
            samples = await self._ask(root, count, rows)
        packed = {row: encode_body(sample) for row, sample in zip(rows, samples, strict=True)}
        for row, data in packed.items():
            self._keep((root, row), data)
        return packed

    async def _ask(self, root: bytes, count: int, rows: Sequence[int]) -> list[ProvenSample]:
        """Ask one node after another, and check what it sends: a tab should not have to blame its gateway."""
        request, failures = encode_body(GetSamples(root, tuple(rows))), []
        async with self._supply.turn():
            for source in self._supply.sources():
                if source == self._node.account:
                    continue
                try:
                    answer = decode_response(await self._node.network.ask(source, ALPN, request))
                    samples = decode_body(list[ProvenSample], answer)
                    right = len(samples) == len(rows) and all(
                        verify(root, count, row, one.sample, one.proof) for row, one in zip(rows, samples, strict=True)
                    )
                    if right:
                        return samples
                    failures.append("wrong samples")
                except AtollError as error:
                    failures.append(str(error))
        raise Unreachable(f"Nobody has these samples now ({'; '.join(failures[:3])}). Ask again in a moment.")

    def _keep(self, key: tuple[bytes, int], data: bytes) -> None:
        before = self._kept.pop(key, b"")
        self._kept[key] = data
        self._bytes += len(data) - len(before)
        while self._bytes > SAMPLES_KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)


def _size_of(manifest: Manifest) -> int:
    """Bytes of one sample with its proof."""
    return Form.of(manifest).sample_bytes + depth(manifest.data.count) * (HASH_BYTES + 2) + 8
