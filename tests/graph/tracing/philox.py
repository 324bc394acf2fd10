"""Philox2x32 in plain integers, written from the paper, and the masks that a step graph draws with it."""

from __future__ import annotations

import numpy as np

MULTIPLIER, WEYL, LOW = 0xD256D193, 0x9E3779B9, 0xFFFFFFFF


def philox(low: int, high: int, key: int, rounds: int) -> tuple[int, int]:
    """One block: two words of 32 bits."""
    for _ in range(rounds):
        product = low * MULTIPLIER
        low, high = (product >> 32) ^ key ^ high, product & LOW
        key = (key + WEYL) & LOW
    return low, high


def mask(shape: tuple[int, ...], probability: float, seed: int, step: int, call: int) -> np.ndarray:
    """Which elements are kept: along the longest dimension lie four lanes of 16 bits of a block each."""
    dim = int(np.argmax(shape[1:])) + 1  # the first of the longest ones; the batch is none of them
    blocks = list(shape)
    blocks[dim] = -(-shape[dim] // 4)
    count = int(np.prod(blocks))
    low = np.arange(count, dtype=np.uint64)
    high = np.full(count, (step * 256 + call) & LOW, np.uint64)
    key = seed & LOW
    for _ in range(7):
        product = low * np.uint64(MULTIPLIER)
        low, high = (product >> np.uint64(32)) ^ np.uint64(key) ^ high, product & np.uint64(LOW)
        key = (key + WEYL) & LOW
    half = np.uint64(16)
    lanes = [low & np.uint64(0xFFFF), low >> half, high & np.uint64(0xFFFF), high >> half]
    kept = np.concatenate([(lane < round(probability * 65_536)).reshape(blocks) for lane in lanes], dim)
    return np.take(kept, range(shape[dim]), dim)
