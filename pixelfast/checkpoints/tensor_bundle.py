"""Tensors of TensorFlow's checkpoints, read without TensorFlow.

There are two formats. The present one is a bundle: PREFIX.index, a sorted table of BundleEntryProto by tensor name,
and PREFIX.data-0000k-of-0000n, the tensors' raw bytes. The old one is a single table whose entries hold the numbers
themselves (SavedTensorSlices). Field numbers are those of TensorFlow's tensor_bundle.proto, saved_tensor_slice.proto
and tensor.proto. Every checksum is compared.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelfast.checkpoints.crc32c import crc32c, masked
from pixelfast.checkpoints.protobuf import Malformed, Message, parse, signed
from pixelfast.checkpoints.sstable import MAGIC, entries

DTYPES = {1: torch.float32, 2: torch.float64, 14: torch.bfloat16, 19: torch.float16}
"""Those of DataType that are floats. Counters and flags beside the weights have others and are passed over."""

VALUE_FIELDS = {1: (5, "<f4"), 2: (6, "<f8")}
"""Of TensorProto, by dtype: the field of numbers that are not raw bytes."""

LITTLE_ENDIAN = 0
MOST_TENSORS = 1 << 16


def index_of(path: Path) -> Path:
    """The table that a checkpoint is read from, given it, one of its data files, or the prefix of both."""
    if not path.name:
        return path
    name = re.sub(r"\.data-\d{5}-of-\d{5}$", "", path.name)
    index = path.with_name(name + ".index")
    # os.path, for names that cannot be: they do not exist.
    return index if (name != path.name or not os.path.exists(path)) and os.path.exists(index) else path


def is_table(path: Path) -> bool:
    """Whether a file ends like a sorted table."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        if file.tell() < len(MAGIC):
            return False
        file.seek(-len(MAGIC), 2)
        return file.read() == MAGIC


def read_bundle(path: Path) -> dict[str, Tensor]:
    """Every float tensor by its name. path: the table.

    Raises Malformed, in a few words, for a damaged checkpoint, one of partitioned tensors, or one of another byte
    order; OSError where a file cannot be read.
    """
    table = entries(path.read_bytes())
    try:
        key, value = next(table)
    except StopIteration:
        raise Malformed("its table is empty") from None
    if key != b"":
        raise Malformed("its table does not begin with a description")
    description = parse(value)
    tensors: dict[str, Tensor] = {}
    found = _of_slices(description, table) if description.texts.get(1) else _of_bundle(description, table, path)
    for name, tensor in found:
        if name in tensors:
            raise Malformed(f"{name} is there twice")
        tensors[name] = tensor
        if len(tensors) > MOST_TENSORS:
            raise Malformed(f"it has more than {MOST_TENSORS} tensors")
    return tensors


def _of_bundle(header: Message, table: Iterator[tuple[bytes, memoryview]], path: Path) -> Iterator[tuple[str, Tensor]]:
    shards = header.integer(1)
    if header.integer(2) != LITTLE_ENDIAN:
        raise Malformed("its numbers are big-endian")
    if not 1 <= shards <= 1 << 10:
        raise Malformed(f"it has {shards} data files")
    prefix = path.name.removesuffix(".index")
    data: dict[int, bytes] = {}
    claimed = 0
    for key, value in table:
        name, entry = _text(key), parse(value)
        dtype = DTYPES.get(entry.integer(1))
        if dtype is None:
            continue
        if entry.texts.get(7):
            raise Malformed(f"{name} is saved in parts, by a partitioner")
        shape = _shape(entry.text(2))
        shard, offset, size = entry.integer(3), entry.integer(4), entry.integer(5)
        if shard >= shards:
            raise Malformed(f"{name} lies in data file {shard} of {shards}")
        if shard not in data:
            data[shard] = path.with_name(f"{prefix}.data-{shard:05}-of-{shards:05}").read_bytes()
        claimed += size
        if size != math.prod(shape) * dtype.itemsize or offset + size > len(data[shard]) or claimed > _total(data):
            raise Malformed(f"{name} does not have the bytes that its shape {shape} needs")
        content = memoryview(data[shard])[offset : offset + size]
        if masked(crc32c(content)) != entry.integer(6):
            raise Malformed(f"the checksum of {name} is wrong")
        yield name, _tensor(content, dtype, shape)


def _total(data: dict[int, bytes]) -> int:
    return sum(len(part) for part in data.values())


def _of_slices(description: Message, table: Iterator[tuple[bytes, memoryview]]) -> Iterator[tuple[str, Tensor]]:
    sizes: dict[str, tuple[int, tuple[int, ...]]] = {}
    for one in parse(description.text(1)).messages(1):
        sizes[_text(one.text(1))] = (one.integer(3), _shape(one.text(2)))
    seen = set()
    for _, value in table:
        part = parse(parse(value).text(2))
        name = _text(part.text(1))
        if name not in sizes:
            raise Malformed(f"{name} is not in its list of tensors")
        number, shape = sizes[name]
        extents = parse(part.text(2)).messages(1)
        if any(extent.integers.get(1, [0])[-1] or 2 in extent.integers for extent in extents):
            raise Malformed(f"{name} is saved in parts, by a partitioner")
        seen.add(name)
        if number not in DTYPES:
            continue
        values = parse(part.text(3))
        dtype = DTYPES[number]
        content = values.text(4)
        if not len(content):
            if number not in VALUE_FIELDS:
                raise Malformed(f"{name} is stored as 16-bit floats in an old checkpoint, which is not read")
            content = _packed(values, *VALUE_FIELDS[number])
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise Malformed(f"{name} does not have the bytes that its shape {shape} needs")
        yield name, _tensor(content, dtype, shape)
    missing = sizes.keys() - seen
    if missing:
        raise Malformed(f"{min(missing)} is in its list of tensors and not in the file")


def _packed(values: Message, number: int, kind: str) -> memoryview:
    """The numbers of a field, written one after the other or each by itself."""
    parts = [bytes(part) for part in values.texts.get(number, [])]
    width = np.dtype(kind).itemsize
    single = [value.to_bytes(8, "little")[:width] for value in values.integers.get(number, [])]
    return memoryview(parts[0] if len(parts) == 1 and not single else b"".join((*parts, *single)))


def _tensor(content: memoryview, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    raw = torch.frombuffer(bytearray(content), dtype=dtype) if len(content) else torch.empty(0, dtype=dtype)
    return raw.reshape(tuple(shape))


def _shape(content: memoryview) -> tuple[int, ...]:
    """Of a TensorShapeProto."""
    message = parse(content)
    sizes = tuple(signed(size.integer(1)) for size in message.messages(2))
    # An empty tensor, too, has strides, which must be numbers of 63 bits.
    if message.integer(3) or min(sizes, default=0) < 0 or len(sizes) > 8 or math.prod(max(s, 1) for s in sizes) >> 63:
        raise Malformed("a tensor has no known shape")
    return sizes


def _text(content: bytes | memoryview) -> str:
    try:
        return bytes(content).decode()
    except UnicodeDecodeError:
        raise Malformed("a name is not text") from None
