"""Pseudorandom permutations of any size without a table: map k to the k-th row.

A Feistel network over a rectangle: row k is a cell (k // b, k % b) of an a x b grid with
a b >= size, a and b near its square root. Each round adds a keyed hash of one coordinate to the
other, modulo its side; a result >= size goes through the network again (cycle walking; at most
about one in sqrt(size)). By chi-square tests four rounds suffice and two do not (Luby and Rackoff
1988 prove the same for random round functions); this module uses six.

All arithmetic is on unsigned 64-bit integers, so the order is the same on every machine.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixopt.system import IntArray

Words = NDArray[np.uint64]

ROUNDS = 6

_U = np.uint64
_GOLDEN = _U(0x9E3779B97F4A7C15)
_FIRST_FACTOR = _U(0xFF51AFD7ED558CCD)  # of MurmurHash3's finaliser
_SECOND_FACTOR = _U(0xC4CEB9FE1A85EC53)  # of MurmurHash3's finaliser
_HALF = _U(32)  # bits of a word


def domain_key(seed: int, name: str) -> int:
    """Hash the seed and a domain's name to 64 bits."""
    text = f"{seed}\n{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def scramble(words: Words) -> Words:
    """Hash 64-bit words, one to one (the finaliser of MurmurHash3)."""
    out = words ^ (words >> _U(33))
    out *= _FIRST_FACTOR
    out ^= out >> _U(33)
    out *= _SECOND_FACTOR
    out ^= out >> _U(33)
    return out


class RowOrder:
    """The order of each domain's rows, with a new permutation in each epoch."""

    def __init__(self, sizes_D: Sequence[int], keys_D: Sequence[int]) -> None:
        sizes = [max(size, 1) for size in sizes_D]
        left = [math.isqrt(size - 1) + 1 for size in sizes]
        right = [-(-size // side) for size, side in zip(sizes, left, strict=True)]
        self._sizes = np.array(sizes, np.uint64)
        self._keys = np.array(keys_D, np.uint64)
        self._left = np.array(left, np.uint64)
        self._right = np.array(right, np.uint64)

    def rows(self, domain: IntArray, ordinal: IntArray) -> IntArray:
        """Return the row of a domain's draw number `ordinal`, counted from 0."""
        size = self._sizes[domain]
        count = ordinal.view(np.uint64)
        epoch = count // size
        key = scramble(self._keys[domain] + epoch * _GOLDEN)
        left = self._left[domain]
        right = self._right[domain]
        out = _feistel(count - epoch * size, key, left, right)
        outside = np.flatnonzero(out >= size)
        while len(outside):
            out[outside] = _feistel(out[outside], key[outside], left[outside], right[outside])
            outside = outside[out[outside] >= size[outside]]
        return out.view(np.int64)


def _feistel(index: Words, key: Words, left: Words, right: Words) -> Words:
    row = index // right
    column = index - row * right
    for _ in range(ROUNDS // 2):
        key = key + _GOLDEN
        _add_hash(row, column, key, left)
        key = key + _GOLDEN
        _add_hash(column, row, key, right)
    row *= right
    row += column
    return row


def _add_hash(target: Words, source: Words, key: Words, side: Words) -> None:
    """Add a hash of `source` to `target`, modulo `side` < 2^32."""
    word = source ^ key
    word *= _FIRST_FACTOR
    word ^= word >> _HALF
    word *= _SECOND_FACTOR
    word >>= _HALF
    word *= side
    word >>= _HALF
    target += word
    np.subtract(target, side, out=word)
    np.minimum(target, word, out=target)


def window_order(seed_key: int, first: int, windows: int, size: int) -> IntArray:
    """Return a permutation of each of some windows of equal size, shape (windows, size)."""
    place = np.arange(size, dtype=np.uint64)
    mask = _U((1 << max(size - 1, 1).bit_length()) - 1)
    number = np.arange(first, first + windows, dtype=np.uint64)[:, None]
    words = scramble(scramble(number + _U(seed_key & (2**64 - 1))) + place * _GOLDEN)
    words &= ~mask
    words |= place
    words.sort(axis=1)
    words &= mask
    return words.view(np.int64)
