"""CRC-32C (Castagnoli; RFC 3720, appendix B.4) of large arrays, without a loop over their bytes."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

POLYNOMIAL = 0x82F63B78
"""Reflected: the lowest bit is the highest power."""

ALL = 0xFFFFFFFF
LENGTH = 1 << 10
"""Bytes of a piece; pieces are worked on side by side, and their remainders put together in pairs."""
FEW = 1 << 14
"""Bytes up to which a loop over them is faster."""
MASK_DELTA = 0xA282EAD8

Words = npt.NDArray[np.uint32]


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of some bytes."""
    if len(data) <= FEW:
        return _bytewise(data)
    array = np.frombuffer(data, np.uint8)
    # Zeros in front of the first byte change nothing while the remainder is 0; the bits that the definition inverts at
    # the start are those of the first four bytes.
    count = 1 << (-(-len(array) // LENGTH) - 1).bit_length()
    padded = np.zeros(count * LENGTH, np.uint8)
    start = len(padded) - len(array)
    padded[start:] = array
    padded[start : start + 4] ^= 0xFF
    remainders = np.zeros(count, np.uint32)
    table = _table()
    for column in padded.reshape(count, LENGTH).T:
        remainders = table[(remainders ^ column) & 0xFF] ^ (remainders >> np.uint32(8))
    advance = _advance(LENGTH)
    while len(remainders) > 1:
        remainders = _apply(advance, remainders[0::2]) ^ remainders[1::2]
        advance = _apply(advance, advance)
    return int(remainders[0]) ^ ALL


def masked(crc: int) -> int:
    """As TensorFlow and LevelDB store a checksum, so that one of data that holds checksums is no weak one."""
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & ALL


def _bytewise(data: bytes | memoryview) -> int:
    crc, table = ALL, _list()
    for byte in bytes(data):
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ ALL


@functools.cache
def _list() -> list[int]:
    return _table().tolist()


@functools.cache
def _table() -> Words:
    """The remainder of each byte."""
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> np.uint32(1)) ^ np.uint32(POLYNOMIAL), values >> np.uint32(1))
    return values.astype(np.uint32)


def _advance(length: int) -> Words:
    """What so many zero bytes, a power of two, make of each single bit of a remainder: a matrix by columns."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    matrix = _table()[bits & 0xFF] ^ (bits >> np.uint32(8))
    while length > 1:
        matrix = _apply(matrix, matrix)
        length //= 2
    return matrix


def _apply(matrix: Words, values: Words) -> Words:
    """The matrix, by columns, times each value, over GF(2)."""
    result = np.zeros_like(values)
    for bit in range(32):
        result ^= np.where((values >> np.uint32(bit)) & 1, matrix[bit], np.uint32(0)).astype(np.uint32)
    return result
