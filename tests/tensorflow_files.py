"""Checkpoints as TensorFlow writes them, made by hand for tests: nothing here is shared with the reader."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA_TYPES = {torch.float32: 1, torch.float64: 2, torch.int32: 3, torch.int64: 9, torch.bfloat16: 14, torch.float16: 19}


def remainder(crc: int) -> int:
    """Eight bits further, bit by bit, as the definition says."""
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


REMAINDERS = [remainder(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ REMAINDERS[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % (1 << 32))


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def block(entries: list[tuple[bytes, bytes]], interval: int = 3) -> bytes:
    """Keys share what they have in common with the key before, but for every `interval`-th one."""
    out, restarts, last = bytearray(), [], b""
    for index, (key, value) in enumerate(entries):
        shared = 0
        if index % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def snappy(data: bytes) -> bytes:
    """Literals, and copies of 64 bytes from 1, 2 or 4 bytes' distance, wherever the data repeat a byte."""
    out, place = bytearray(varint(len(data))), 0
    while place < len(data):
        run = 1
        while place + run < len(data) and run <= 64 and data[place + run] == data[place]:
            run += 1
        if run > 12:
            out += bytes((0, data[place]))  # one literal byte
            count = run - 1
            if count >= 4 and count <= 11:
                out += bytes((1 | (count - 4) << 2, 1))
            elif place % 2:
                out += bytes((2 | (count - 1) << 2, 1, 0))
            else:
                out += bytes((3 | (count - 1) << 2, 1, 0, 0, 0))
            place += run
        else:
            literal = data[place : place + min(run, 60)]
            out += bytes(((len(literal) - 1) << 2,)) + literal
            place += len(literal)
    return bytes(out)


def table(entries: list[tuple[bytes, bytes]], per_block: int = 4, compress: bool = False) -> bytes:
    """A sorted table of the entries in the order they come."""
    out = bytearray()

    def put(content: bytes, compress: bool) -> bytes:
        stored = snappy(content) if compress else content
        handle = varint(len(out)) + varint(len(stored))
        kind = bytes((int(compress),))
        out.extend(stored + kind + masked_crc(stored + kind))
        return handle

    index = []
    for first in range(0, len(entries), per_block):
        part = entries[first : first + per_block]
        index.append((part[-1][0], put(block(part), compress)))
    meta = put(block([]), False)
    footer = meta + put(block(index, 1), False)
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def shape_of(tensor: Tensor) -> bytes:
    return b"".join(text(2, number(1, size)) for size in tensor.shape)


def write_bundle(path: Path, tensors: Mapping[str, Tensor], shards: int = 1) -> Path:
    """PREFIX.index and PREFIX.data-...; returns the index. path: PREFIX."""
    data = [bytearray() for _ in range(shards)]
    entries = [(b"", number(1, shards) + text(3, number(1, 1)))]
    for place, (name, tensor) in enumerate(sorted(tensors.items(), key=lambda item: item[0].encode())):
        shard, content = place % shards, raw(tensor)
        entry = number(1, DATA_TYPES[tensor.dtype]) + text(2, shape_of(tensor))
        entry += number(3, shard) + number(4, len(data[shard])) + number(5, len(content))
        entry += varint(6 << 3 | 5) + masked_crc(content)
        data[shard] += content
        entries.append((name.encode(), entry))
    for shard, content in enumerate(data):
        path.with_name(f"{path.name}.data-{shard:05}-of-{shards:05}").write_bytes(content)
    index = path.with_name(path.name + ".index")
    index.write_bytes(table(entries))
    return index


def write_slices(path: Path, tensors: Mapping[str, Tensor], compress: bool = False) -> Path:
    """The old format: one file. Its numbers are packed, or each by itself for the first tensor."""
    metas, entries = b"", []
    for index, (name, tensor) in enumerate(sorted(tensors.items())):
        whole = b"".join(text(1, b"") for _ in tensor.shape)
        meta = text(1, name.encode()) + text(2, shape_of(tensor)) + number(3, DATA_TYPES[tensor.dtype])
        metas += text(1, meta + text(4, whole))
        if tensor.dtype == torch.int64:
            values = text(10, b"".join(varint(int(value)) for value in tensor.reshape(-1)))
        elif index == 0:
            values = b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in tensor.reshape(-1).tolist())
        else:
            values = text(5, np.asarray(tensor.float().reshape(-1), "<f4").tobytes())
        entries.append(
            (b"\0\1" + name.encode() + b"\0\1", text(2, text(1, name.encode()) + text(2, whole) + text(3, values)))
        )
    path.write_bytes(table([(b"", text(1, metas)), *entries], compress=compress))
    return path
