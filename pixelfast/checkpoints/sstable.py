"""Sorted tables of keys and values, as TensorFlow's checkpoints use them: LevelDB's format, blocks maybe under Snappy.

https://github.com/google/leveldb/blob/main/doc/table_format.md and
https://github.com/google/snappy/blob/main/format_description.txt describe them.
"""

from __future__ import annotations

from collections.abc import Iterator

from pixelfast.checkpoints.crc32c import crc32c, masked
from pixelfast.checkpoints.protobuf import Malformed, varint

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
TRAILER = 5
"""After each block: a byte for the compression, and the masked checksum of both."""
LARGEST_RATIO = 32
"""Snappy copies at most 64 bytes by an element of three: nothing honest grows by more than 22."""


def entries(table: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Every key and value of a table, in order. Raises Malformed."""
    table = memoryview(table)
    if len(table) < FOOTER or bytes(table[-len(MAGIC) :]) != MAGIC:
        raise Malformed("it does not end like a table")
    footer = table[-FOOTER:]
    numbers, place = [], 0
    for _ in range(4):  # where the lists of meta blocks and of blocks lie, and how long they are
        number, place = varint(footer, place)
        numbers.append(number)
    if list(_block(table, *numbers[:2])):
        raise Malformed("it has blocks of another kind")
    offset, size = numbers[2:]
    last = b""
    for _, handle in _block(table, offset, size):
        offset, place = varint(handle, 0)
        size, _ = varint(handle, place)
        for key, value in _block(table, offset, size):
            if key <= last and last:
                raise Malformed("its keys are not in order")
            last = key
            yield key, value


def _block(table: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    if offset + size + TRAILER > len(table):
        raise Malformed("a block lies past the end of the file")
    stored, trailer = table[offset : offset + size], table[offset + size : offset + size + TRAILER]
    if masked(crc32c(table[offset : offset + size + 1])) != int.from_bytes(trailer[1:], "little"):
        raise Malformed("the checksum of a block is wrong")
    if trailer[0] == 1:
        block = memoryview(_snappy(stored))
    elif trailer[0] == 0:
        block = stored
    else:
        raise Malformed(f"a block has the unknown compression {trailer[0]}")
    if len(block) < 4:
        raise Malformed("a block is too short")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise Malformed("a block is too short")
    key, place = b"", 0
    while place < end:
        shared, place = varint(block, place)
        own, place = varint(block, place)
        length, place = varint(block, place)
        if shared > len(key) or own + length > end - place:
            raise Malformed("an entry is longer than its block")
        key = key[:shared] + bytes(block[place : place + own])
        place += own
        yield key, block[place : place + length]
        place += length


def _snappy(data: memoryview) -> bytearray:
    """Decompressed bytes."""
    length, place = varint(data, 0)
    if length > LARGEST_RATIO * len(data):
        raise Malformed("a compressed block claims too many bytes")
    out = bytearray()
    while place < len(data):
        tag = data[place]
        place += 1
        kind = tag & 3
        if kind == 0:
            count = tag >> 2
            if count >= 60:
                extra = count - 59
                count = int.from_bytes(data[place : place + extra], "little")
                place += extra
            count += 1
            if count > len(data) - place:
                raise Malformed("a compressed block ends too early")
            out += data[place : place + count]
            place += count
        else:
            extra = (1, 2, 4)[kind - 1]
            if extra > len(data) - place:
                raise Malformed("a compressed block ends too early")
            back = int.from_bytes(data[place : place + extra], "little")
            place += extra
            if kind == 1:
                count, back = 4 + (tag >> 2 & 7), back | (tag >> 5) << 8
            else:
                count = 1 + (tag >> 2)
            if not 0 < back <= len(out):
                raise Malformed("a compressed block copies from before its beginning")
            piece = out[-back:]
            if back < count:
                piece *= -(-count // back)
            out += piece[:count]
        if len(out) > length:
            break
    if len(out) != length:
        raise Malformed("a compressed block has another length than it says")
    return out
