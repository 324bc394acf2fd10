"""What a job is made of: brought from peers, checked, and kept. The peers are other stores in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from atoll.errors import Refused, Unreachable
from atoll.graph.check import Limits
from atoll.graph.manifest import Manifest
from atoll.graph.zoo import load_zoo
from atoll.node.material import Library, Material, bring
from atoll.training.data import DataSet
from atoll.transfer.blobs import BlobStore
from atoll.transfer.messages import GetBlob, GetSamples
from atoll.transfer.service import TransferService
from atoll.wire.hashing import blob_id
from atoll.wire.merkle import verify
from atoll.wire.reasons import Reason
from atoll.wire.rpc import decode_body, encode_body, encode_ok, leading_number
from tests.graph.hostile import model as hostile_model
from tests.graph.test_archive import posted

ME, A, B, GONE = (bytes([number]) * 20 for number in (1, 2, 3, 4))
IMAGES = (np.arange(6 * 28 * 28) % 251).astype(np.uint8).reshape(6, 28, 28)
DATA = DataSet(IMAGES, np.array([5, 4, 3, 2, 1, 0], np.int64))


CARD = b'{"name":"six pictures"}'


@dataclass(frozen=True)
class Posted:
    """A job as it is posted: the parts that nodes fetch."""

    manifest: Manifest
    step: bytes
    evaluate: bytes
    predict: bytes
    params: bytes
    card: bytes


def zoo_job() -> Posted:
    job = load_zoo("softmax")
    manifest = posted(job.spec)
    data = msgspec.structs.replace(manifest.data, card=blob_id(CARD).hex())
    return Posted(change(manifest, data=data), job.step, job.evaluate, job.predict, job.params, CARD)


class Network:
    """Nodes A and B with stores of their own, and a record of what was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stores = {account: BlobStore(folder / account.hex(), 1 << 24, sync=False) for account in (A, B)}
        self.libraries = {account: self._library(account) for account in (A, B)}
        self.blobs_asked: list[tuple[bytes, bytes]] = []
        self.samples_asked: list[tuple[bytes, tuple[int, ...]]] = []
        self.lies: dict[bytes, bytes] = {}

    def _library(self, account: bytes) -> Library:
        return Library(self.stores[account], self.folder / "shared", self.ask, account)

    def mine(self, limit: int = 1 << 24) -> Library:
        """The library of this node; opened again, it finds what it had."""
        store = BlobStore(self.folder / "mine", limit, sync=False)
        return Library(store, self.folder / "samples", self.ask, ME)

    async def ask(self, account: bytes, alpn: bytes, payload: bytes) -> bytes:
        assert alpn == b"/atoll/transfer/1"
        assert account != ME, "a node does not ask itself"
        if leading_number(payload) == 1:
            self.blobs_asked.append((account, decode_body(GetBlob, payload).blob))
        else:
            self.samples_asked.append((account, decode_body(GetSamples, payload).indices))
        if account not in self.stores:
            raise Unreachable("no answer")
        if account in self.lies:
            return encode_ok(self.lies[account])
        return TransferService(self.stores[account], self.libraries[account].proven).handle(payload)

    def give(self, account: bytes, job: Posted, *without: bytes) -> bytes:
        """Store a job's parts at a node; returns the id of its manifest."""
        parts = (job.manifest.to_bytes(), job.step, job.evaluate, job.predict, job.params, job.card)
        for part in parts:
            if part not in without:
                self.stores[account].put(part)
        return job.manifest.id


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


def change(manifest: Manifest, **changes: object) -> Manifest:
    return msgspec.structs.replace(manifest, **changes)


def get(library: Library, blob: bytes, *sources: bytes, limit: int = 1 << 20) -> bytes:
    return asyncio.run(library.fetch(blob, sources, limit))


def brought(library: Library, name: bytes, *sources: bytes, limits: Limits | None = None) -> Material:
    return asyncio.run(bring(library, name, sources, lambda: limits or Limits()))


def refusal(library: Library, name: bytes, *sources: bytes, limits: Limits | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        brought(library, name, *sources, limits=limits)
    return caught.value


# Blobs
def test_a_blob_is_fetched_once(network: Network) -> None:
    blob = network.stores[B].put(b"content")
    library = network.mine()
    assert get(library, blob, ME, GONE, A, B, A) == b"content"
    assert [account for account, _ in network.blobs_asked] == [GONE, A, B]
    assert get(library, blob) == b"content"
    assert get(network.mine(), blob) == b"content"  # from disk, after a restart
    assert len(network.blobs_asked) == 3


def test_what_is_kept_needs_no_peer(network: Network) -> None:
    library = network.mine()
    assert library.keep(b"mine") == blob_id(b"mine")
    assert get(library, blob_id(b"mine"), A) == b"mine"
    assert network.blobs_asked == []


def test_a_damaged_blob_is_fetched_again(network: Network) -> None:
    blob = network.stores[A].put(b"content")
    library = network.mine()
    get(library, blob, A)
    library.blobs.path(blob).write_bytes(b"c0ntent")
    assert get(library, blob, A) == b"content"
    assert library.blobs.path(blob).read_bytes() == b"content"
    assert len(network.blobs_asked) == 2


def test_a_damaged_blob_that_nobody_has(network: Network) -> None:
    library = network.mine()
    blob = library.keep(b"content")
    library.blobs.path(blob).write_bytes(b"c0ntent")
    with pytest.raises(Unreachable):
        get(library, blob, GONE)
    with pytest.raises(Unreachable, match="no node to ask"):
        get(library, blob, ME)


def test_other_bytes_under_the_name_are_not_kept(network: Network) -> None:
    network.lies[A] = encode_body((7, b"another"))
    library = network.mine()
    with pytest.raises(Refused) as caught:
        get(library, blob_id(b"content"), A)
    assert caught.value.reason == Reason.WRONG_HASH
    assert len(library.blobs) == 0
    network.stores[B].put(b"content")
    assert get(library, blob_id(b"content"), A, B) == b"content"


def test_a_blob_above_the_limit(network: Network) -> None:
    blob = network.stores[A].put(bytes(100))
    library = network.mine()
    with pytest.raises(Refused) as caught:
        get(library, blob, A, limit=99)
    assert caught.value.reason == Reason.TOO_LARGE
    assert get(library, blob, A, limit=100) == bytes(100)


# Jobs
def test_a_job_is_brought_and_pinned(network: Network) -> None:
    job = zoo_job()
    name = network.give(A, job)
    library = network.mine()
    material = brought(library, name, GONE, A)
    assert material == Material(job.manifest, job.step, job.evaluate, job.predict, job.params, None, (GONE, A))
    for part in (job.step, job.evaluate, job.predict, job.params, load_zoo("softmax").model):
        assert library.blobs.pinned(blob_id(part))
    assert not library.blobs.pinned(blob_id(job.card))
    network.blobs_asked.clear()
    assert brought(network.mine(), name).manifest == job.manifest  # again, from disk
    assert network.blobs_asked == []


def test_the_parts_may_come_from_several_nodes(network: Network) -> None:
    job = zoo_job()
    network.give(A, job, job.params, job.step)
    name = network.give(B, job, job.predict, job.card)
    assert brought(network.mine(), name, A, B).predict == job.predict


def test_a_part_that_nobody_has(network: Network) -> None:
    job = zoo_job()
    name = network.give(A, job, job.predict)
    library = network.mine()
    assert refusal(library, name, A).reason == Reason.NOT_FOUND
    with pytest.raises(Unreachable):
        brought(library, name, GONE)
    assert not any(library.blobs.pinned(blob) for blob in library.blobs.ids())


def test_a_manifest_that_is_none(network: Network) -> None:
    assert refusal(network.mine(), network.stores[A].put(b"{}"), A).reason == Reason.BAD_MANIFEST
    spaced = zoo_job().manifest.to_bytes().replace(b":", b": ", 1)
    assert refusal(network.mine(), network.stores[A].put(spaced), A).reason == Reason.BAD_MANIFEST


def test_first_values_of_other_tensors_or_of_another_model(network: Network) -> None:
    job = zoo_job()
    other = load_zoo("mlp").params
    wrong = replace(job, params=other, manifest=change(job.manifest, params=blob_id(other).hex()))
    assert refusal(network.mine(), network.give(A, wrong), A).reason == Reason.BAD_PARAMS
    lying = replace(job, manifest=change(job.manifest, initial="ab" * 32))
    found = refusal(network.mine(), network.give(A, lying), A)
    assert found.reason == Reason.BAD_MANIFEST
    assert "first model" in found.detail


def test_a_forbidden_operator_is_refused_with_the_reason(network: Network) -> None:
    graph = hostile_model("r = RandomNormalLike(x) scores = MatMul(r, w)").SerializeToString()
    job = zoo_job()
    job = replace(job, predict=graph, manifest=change(job.manifest, predict=blob_id(graph).hex()))
    library = network.mine()
    found = refusal(library, network.give(A, job), A)
    assert found.reason == Reason.FORBIDDEN_OP
    assert "RandomNormalLike" in found.detail
    assert not library.blobs.pinned(blob_id(graph))
    assert not library.blobs.pinned(blob_id(job.step))  # nothing of a refused job stays for good


def test_graphs_in_each_others_place_are_refused(network: Network) -> None:
    job = zoo_job()
    job = replace(job, manifest=change(job.manifest, evaluate=job.manifest.predict))
    found = refusal(network.mine(), network.give(A, job), A)
    assert found.reason == Reason.BAD_SIGNATURE_OF_GRAPH


def test_a_job_beyond_what_this_node_lends(network: Network) -> None:
    name = network.give(A, zoo_job())
    assert refusal(network.mine(), name, A, limits=Limits(flops=1000)).reason == Reason.TOO_MUCH_COMPUTE
    assert refusal(network.mine(), name, A, limits=Limits(memory_bytes=1000)).reason == Reason.TOO_MUCH_MEMORY


# Samples
def about(data: DataSet = DATA, count: int | None = None, shape: tuple[int, ...] = (1, 28, 28)) -> Manifest:
    """The manifest of a job on a data set, or on what somebody says about it."""
    manifest = zoo_job().manifest
    facts = msgspec.structs.replace(manifest.data, root="0x" + data.root.hex(), count=count or len(data))
    return change(manifest, data=facts, input=msgspec.structs.replace(manifest.input, shape=shape))


def gather(library: Library, rows: Sequence[object], *sources: bytes, manifest: Manifest | None = None) -> None:
    """Gather and compare with the data set itself."""
    wanted = np.array(rows, np.int64)
    x, y = asyncio.run(library.gather(manifest or about(), wanted, sources))
    assert x.shape == (*wanted.shape, 1, 28, 28)
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)
    assert (x.reshape(*wanted.shape, 28, 28) == IMAGES[wanted]).all()
    assert (y == 5 - wanted).all()


def test_samples_are_fetched_with_proofs_and_kept(network: Network) -> None:
    network.libraries[A].share(DATA)
    library = network.mine()
    gather(library, [[4, 0], [0, 3]], ME, A)
    assert [(account, sorted(indices)) for account, indices in network.samples_asked] == [(A, [0, 3, 4])]
    gather(library, [[3, 4], [4, 1]], A)
    assert network.samples_asked[1:] == [(A, (1,))]  # only what is missing
    library.close()
    gather(network.mine(), [0, 1, 3, 4], GONE)  # after a restart, from disk
    assert len(network.samples_asked) == 2


def test_a_damaged_sample_is_fetched_again(network: Network) -> None:
    network.libraries[A].share(DATA)
    library = network.mine()
    gather(library, range(6), A)
    library.close()
    (file,) = (path for path in (network.folder / "samples").rglob("*.samples"))
    with file.open("r+b") as opened:
        opened.seek(2 * file.stat().st_size // 6 + 10)  # within record 2
        opened.write(b"\xff\x00\xff")
    gather(network.mine(), range(6), A)
    assert network.samples_asked[1:] == [(A, (2,))]


def test_samples_with_a_wrong_proof_are_asked_of_another(network: Network) -> None:
    network.libraries[B].share(DATA)
    network.lies[A] = encode_body([(DATA.sample(1), DATA.prove(1))])  # a good sample, but not the one asked for
    library = network.mine()
    gather(library, [2], A, B)
    assert [account for account, _ in network.samples_asked] == [A, B]
    with pytest.raises(Refused) as caught:
        gather(library, [3], A)
    assert caught.value.reason == Reason.BAD_PROOF
    with pytest.raises(Refused) as caught:
        gather(network.mine(), [3], A)  # nothing of it was kept
    assert caught.value.reason == Reason.BAD_PROOF


def test_a_shared_data_set_is_used_without_asking(network: Network) -> None:
    library = network.mine()
    library.share(DATA)
    assert library.shared == [DATA]
    gather(library, [[5, 1]])
    assert network.samples_asked == []


def test_what_is_served_proves_itself(network: Network) -> None:
    library = network.mine()
    library.share(DATA)
    for index, (sample, proof) in zip((5, 0), library.proven(DATA.root, [5, 0]), strict=True):
        assert sample == IMAGES[index].tobytes() + (5 - index).to_bytes(4, "little")
        assert verify(DATA.root, 6, index, sample, proof)


@pytest.mark.parametrize(("root", "indices"), [(bytes(32), [0]), (None, [6]), (None, [0, -1])])
def test_samples_that_are_not_there(network: Network, root: bytes | None, indices: list[int]) -> None:
    library = network.mine()
    library.share(DATA)
    with pytest.raises(Refused) as caught:
        library.proven(root or DATA.root, indices)
    assert caught.value.reason == Reason.NOT_FOUND


def test_a_false_claim_about_a_shared_data_set_is_refused(network: Network) -> None:
    library = network.mine()
    library.share(DATA)
    for manifest in (about(count=9), about(count=5), about(shape=(1, 28, 29))):
        with pytest.raises(Refused) as caught:
            gather(library, [0, 4], manifest=manifest)
        assert caught.value.reason == Reason.BAD_MANIFEST
    gather(library, [0, 4])


def test_a_false_claim_about_a_data_set_spoils_nothing_for_others(network: Network) -> None:
    network.libraries[A].share(DATA)
    library = network.mine()
    for manifest in (about(count=2), about(count=9), about(shape=(1, 2, 2))):
        with pytest.raises(Refused):
            gather(library, [1], A, manifest=manifest)
    gather(library, range(6), A)
    for manifest in (about(count=2), about(count=9)):  # nor what has been fetched
        with pytest.raises(Refused):
            gather(network.mine(), [1], A, manifest=manifest)
    gather(library, range(6))
    gather(network.mine(), range(6))
