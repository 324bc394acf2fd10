"""QR codes of short texts (ISO/IEC 18004: byte mode, error correction level M, versions 1 to 6), as SVG. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, groupby

Matrix = list[list[int]]
_FREE = -1

# version -> (blocks, data codewords of each, check codewords of each)
_SHAPES = {1: (1, 16, 10), 2: (1, 28, 16), 3: (1, 44, 26), 4: (2, 32, 18), 5: (2, 43, 24), 6: (4, 27, 16)}
_MASKS: tuple[Callable[[int, int], bool], ...] = (
    lambda r, c: (r + c) % 2 == 0,
    lambda r, c: r % 2 == 0,
    lambda r, c: c % 3 == 0,
    lambda r, c: (r + c) % 3 == 0,
    lambda r, c: (r // 2 + c // 3) % 2 == 0,
    lambda r, c: r * c % 2 + r * c % 3 == 0,
    lambda r, c: (r * c % 2 + r * c % 3) % 2 == 0,
    lambda r, c: ((r + c) % 2 + r * c % 3) % 2 == 0,
)


def svg(text: str) -> str:
    """The code as an SVG picture, black on white with a quiet margin of four modules; raises ValueError if too long."""
    rows = matrix(text)
    size = len(rows) + 8
    path = "".join(
        f"M{column + 4} {row + 4}h1v1h-1z" for row, line in enumerate(rows) for column, dark in enumerate(line) if dark
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" shape-rendering="crispEdges">'
        f'<path fill="#fff" d="M0 0h{size}v{size}H0z"/><path d="{path}"/></svg>'
    )


def matrix(text: str) -> Matrix:
    """The modules of the code: rows of 1 (dark) and 0. Raises ValueError for a text of more than 106 bytes."""
    data = text.encode()
    version = next((v for v, (blocks, size, _) in _SHAPES.items() if len(data) + 2 <= blocks * size), None)
    if version is None:
        raise ValueError(f"a text of {len(data)} bytes does not fit; at most 106 do")
    bits = [byte >> shift & 1 for byte in _codewords(data, version) for shift in range(7, -1, -1)]
    frame = _frame(version)
    filled = (_filled(frame, bits, mask) for mask in range(8))
    return min(filled, key=_penalty)


def _codewords(data: bytes, version: int) -> bytes:
    """Data and check codewords, interleaved over the blocks."""
    blocks, size, checks = _SHAPES[version]
    stream = f"0100{len(data):08b}" + "".join(f"{byte:08b}" for byte in data) + "0000"
    packed = int(stream, 2).to_bytes(len(stream) // 8, "big")[: blocks * size]
    packed += bytes([0xEC, 0x11] * (blocks * size))[: blocks * size - len(packed)]
    parts = [packed[i * size : (i + 1) * size] for i in range(blocks)]
    checked = [_checks(part, checks) for part in parts]
    return bytes(chain.from_iterable(zip(*parts, strict=True))) + bytes(chain.from_iterable(zip(*checked, strict=True)))


def _tables() -> tuple[list[int], list[int]]:
    """Powers and logarithms of GF(256) with x^8 + x^4 + x^3 + x^2 + 1."""
    powers, logs, value = [0] * 512, [0] * 256, 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logs[value] = exponent
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    return powers, logs


_POWERS, _LOGS = _tables()


def _checks(data: bytes, count: int) -> bytes:
    """Reed-Solomon check codewords: the remainder of data * x^count by the generator polynomial."""
    generator = [1]
    for root in range(count):
        grown = [*generator, 0]
        for place, factor in enumerate(generator):
            grown[place + 1] ^= _POWERS[_LOGS[factor] + root] if factor else 0
        generator = grown
    rest = list(data) + [0] * count
    for place in range(len(data)):
        lead = rest[place]
        if lead:
            for offset, factor in enumerate(generator):
                rest[place + offset] ^= _POWERS[_LOGS[factor] + _LOGS[lead]] if factor else 0
    return bytes(rest[len(data) :])


def _frame(version: int) -> Matrix:
    """Everything but the data: finders, timing, alignment; the places of the format are 0 for now."""
    size = 17 + 4 * version
    rows = [[_FREE] * size for _ in range(size)]
    for top, left in ((0, 0), (0, size - 7), (size - 7, 0)):
        for row in range(max(0, top - 1), min(size, top + 8)):
            for column in range(max(0, left - 1), min(size, left + 8)):
                ring = max(abs(row - top - 3), abs(column - left - 3))
                rows[row][column] = int(ring != 2 and ring < 4)
    for place in range(8, size - 8):
        rows[6][place] = rows[place][6] = 1 - place % 2
    if version > 1:
        centre = size - 7
        for row in range(centre - 2, centre + 3):
            for column in range(centre - 2, centre + 3):
                rows[row][column] = int(max(abs(row - centre), abs(column - centre)) != 1)
    for row, column in _format_places(size):
        rows[row][column] = 0
    rows[size - 8][8] = 1
    return rows


def _format_places(size: int) -> list[tuple[int, int]]:
    """Where the fifteen bits of the format lie, highest first: beside the first finder, then beside the other two."""
    near = [(8, c) for c in (0, 1, 2, 3, 4, 5, 7, 8)] + [(r, 8) for r in (7, 5, 4, 3, 2, 1, 0)]
    far = [(size - 1 - i, 8) for i in range(7)] + [(8, size - 8 + i) for i in range(8)]
    return near + far


def _format_bits(mask: int) -> list[int]:
    """Level M and the mask, with their BCH check bits."""
    value = rest = mask << 10  # level M is 00
    for shift in range(4, -1, -1):
        if rest >> (shift + 10) & 1:
            rest ^= 0x537 << shift
    word = (value | rest) ^ 0x5412
    return [word >> shift & 1 for shift in range(14, -1, -1)]


def _filled(frame: Matrix, bits: list[int], mask: int) -> Matrix:
    rows = [list(row) for row in frame]
    size, left = len(rows), iter(bits)
    for row, column in _zigzag(size):
        if rows[row][column] == _FREE:
            rows[row][column] = next(left, 0) ^ _MASKS[mask](row, column)
    for (row, column), bit in zip(_format_places(size), _format_bits(mask) * 2, strict=True):
        rows[row][column] = bit
    return rows


def _zigzag(size: int) -> Iterator[tuple[int, int]]:
    """Places in the order of the data: pairs of columns from the right, up and down in turn, but not the timing's."""
    upwards = True
    for right in (*range(size - 1, 6, -2), *range(5, 0, -2)):
        for step in range(size):
            row = size - 1 - step if upwards else step
            yield row, right
            yield row, right - 1
        upwards = not upwards


def _penalty(rows: Matrix) -> int:
    """How hard the code is to read, by the standard's four rules: the mask with the least is taken."""
    size, columns = len(rows), [list(column) for column in zip(*rows, strict=True)]
    total = 0
    for line in (*rows, *columns):
        runs = (sum(1 for _ in group) for _, group in groupby(line))
        total += sum(length - 2 for length in runs if length >= 5)
        text = "".join(map(str, line))
        for pattern in ("00001011101", "10111010000"):
            total += 40 * sum(text.startswith(pattern, place) for place in range(size))
    for row in range(size - 1):
        for column in range(size - 1):
            square = rows[row][column] + rows[row][column + 1] + rows[row + 1][column] + rows[row + 1][column + 1]
            total += 3 * (square in (0, 4))
    dark = sum(map(sum, rows)) * 100 // size**2
    return total + 10 * (abs(dark - 50) // 5)
