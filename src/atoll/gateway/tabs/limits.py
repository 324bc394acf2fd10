"""How much a gateway takes from browser tabs: places, sizes, rates. Pure."""

from __future__ import annotations

from collections import Counter

FRAME_BYTES = 64 * 1024
"""Largest frame from a tab."""
HELLO_SECONDS = 5.0
"""How long a socket may wait with saying whose it is."""
IDLE_SECONDS = 60.0
"""A tab without any duty that was silent for so long gives its place to a newcomer when all are taken."""
SOCKETS_PER_ADDRESS = 8
REFUSALS_AT_ONCE = 32
"""Sockets that are told why they are refused; more at the same time are just closed."""
FRAMES_BURST, FRAMES_PER_SECOND = 120.0, 20.0
"""Frames of one tab."""
SPONSORED_BURST, SPONSORED_PER_SECOND = 30.0, 0.5
"""Transactions that the gateway pays for, for all tabs together: 30 at once, then 30 a minute."""
SPONSORED_EACH_BURST, SPONSORED_EACH_PER_SECOND = 10.0, 0.1
"""The same for one address: 10 at once, then 6 a minute."""
UPLOADING_BYTES = 64 << 20
"""Bytes of uploads that are in memory at the same time (a single larger one is taken alone)."""
FETCHES_AT_ONCE, FETCHES_WAITING = 4, 64
"""Blobs and batches of samples brought from the network for tabs."""
ROWS_AT_ONCE = 1024
SAMPLES_BYTES = 8 << 20
"""Largest answer to a question for samples."""
CERTIFICATES_AT_ONCE = 64
CERTIFICATES_BYTES = 4 << 20
"""Certificates in one answer: as many as fit, and at least one."""
SAMPLES_KEPT = 32 << 20
"""Samples with proofs that are kept in memory for the next tab."""


class Places:
    """Open sockets: at most `tabs` in all and SOCKETS_PER_ADDRESS from one address, so that none crowds others out."""

    def __init__(self, tabs: int) -> None:
        self.tabs = tabs
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._taken.total()

    @property
    def full(self) -> bool:
        """Whether there is no place left for anybody."""
        return len(self) >= self.tabs

    def crowded(self, address: str) -> bool:
        """Whether an address has all that one may have."""
        return self._taken[address] >= SOCKETS_PER_ADDRESS

    def enter(self, address: str) -> None:
        """Take a place."""
        self._taken[address] += 1

    def leave(self, address: str) -> None:
        """Give it back."""
        self._taken[address] -= 1
        if self._taken[address] <= 0:
            del self._taken[address]


class Loads:
    """Bytes that uploads may have in memory at the same time."""

    def __init__(self, limit: int = UPLOADING_BYTES) -> None:
        self._limit, self._held = limit, 0

    def take(self, size: int) -> bool:
        """Whether there is room for so many more bytes; then they are held until `give`."""
        if self._held and self._held + size > self._limit:
            return False
        self._held += size
        return True

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self._held -= size
