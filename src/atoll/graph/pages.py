"""Memory between the runs of a graph: glibc keeps its pages, so that the system need not clear new ones for each run.

A step needs the same intermediate values again and again. By default glibc returns each large one at once, and what
the next run gets are new pages: up to a fifth of the time of a step. On other C libraries nothing happens here.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LARGE = 32 << 20  # bytes: glibc's own bound; larger values go back to the system at once
_NEVER = 1 << 30


@cache
def _glibc() -> Any:
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


@cache
def keep() -> None:
    """From now on this process keeps freed memory for itself, until `give_back`; values above 32 MB excepted."""
    library = _glibc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)


def give_back() -> None:
    """Return to the system what is not in use."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
