"""A faster copy for outgoing bytes in iroh's generated glue, applied only where the slow copy is found.

iroh 1.2.0 is bound by a uniffi before 0.32, whose Python builder stores outgoing bytes one by one (about 4 MB a
second). This replaces the two methods that do so by one `memmove`, as uniffi-rs does since pull request 2824. A
release of iroh with a newer uniffi is recognised by behaviour and left alone.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import iroh.iroh_ffi as glue

_PROBE = bytes(range(256))


def apply() -> bool:
    """Replace the slow copy if this iroh has it and the replacement gives the same bytes; whether it is in place now.

    Safe to call more than once. If the glue has another shape, nothing is touched and transfers stay as they are.
    """
    builder = getattr(glue, "_UniffiRustBufferBuilder", None)
    if builder is None or not all(hasattr(builder, name) for name in ("write", "_pack_into", "_reserve", "finalize")):
        return False
    if builder.write is _write:
        return True
    if not _copies_byte_by_byte(builder):
        return False
    original = builder.write, builder._pack_into
    builder.write, builder._pack_into = _write, _pack_into
    if _built(builder) != struct.pack(">i", len(_PROBE)) + _PROBE:
        builder.write, builder._pack_into = original
        return False
    return True


def _copies_byte_by_byte(builder: Any) -> bool:
    """Whether `write` walks over its argument: fed a value that counts its steps, it takes one for each byte."""

    class Counted(bytes):
        steps = 0

        def __iter__(self) -> Any:
            for byte in super().__iter__():
                Counted.steps += 1
                yield byte

    _built(builder, Counted(_PROBE))
    return Counted.steps >= len(_PROBE)


def _built(builder: Any, data: bytes = _PROBE) -> bytes:
    """The bytes that the builder makes of a length and `data`."""
    made = builder()
    try:
        made.write_i32(len(data))
        made.write(data)
        return bytes(made.rbuf.data[0 : made.rbuf.len])
    finally:
        made.discard()


def _write(self: Any, value: bytes | bytearray | memoryview) -> None:
    size = len(value)
    with self._reserve(size):
        if size:
            source = value if isinstance(value, bytes) else bytes(value)
            ctypes.memmove(ctypes.addressof(self.rbuf.data.contents) + self.rbuf.len, source, size)


def _pack_into(self: Any, size: int, form: str, value: object) -> None:
    _write(self, struct.pack(form, value))
