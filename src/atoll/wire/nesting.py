"""How deep JSON from outside may nest.

A parser calls itself for each level and relies on Python's recursion limit, which libraries of the chain (py_ecc) raise
so far that 100 kB of "[" would overflow the C stack and end the process. So the depth is checked before parsing.
"""

from __future__ import annotations

import re

# Possessive, and to the end of the text where a string is not closed: each byte is looked at once.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
MAX_DEPTH = 64  # of objects and lists within one another


def is_shallow(text: bytes) -> bool:
    """Whether no more than MAX_DEPTH objects and lists of a JSON text lie within one another."""
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return False
    return True
