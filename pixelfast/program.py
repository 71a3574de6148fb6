"""The program: what every backend runs. Buffers, kernels and a task list, the same for every image.

A *buffer* holds one activation as rows ("slots") of channels. A *site* is one spatial position of a kernel's outputs.
A *table* says, for each site of a kernel, in which slot of some buffer a value lies; -1 is outside the image: zeros.
A *kernel* computes registers (vectors of channels) at sites: at most one contraction or attention, then loads and
instructions, then stores. A *task* runs one kernel at some of its sites, at one step; step t is the work before number
t is sampled.
Numbers are ordered by pixel in raster order, within a pixel by channel: number = (y * W + x) * C + c.

Rows of one task are independent of each other: they may be computed in any order and in parallel. Tasks run in order.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

VERSION = 1
"""Raised whenever the same model would give other bits: the order of sums, or the meaning of a field."""


@dataclass(frozen=True, eq=False)
class Buffer:
    """`slots` rows of `channels` numbers. `input`, `condition` and `state` exist once per image, `constant` once."""

    name: str
    kind: str
    channels: int
    slots: int
    data: np.ndarray | None = None
    """(slots, channels) float64, for `constant` only."""


@dataclass(frozen=True, eq=False)
class Operand:
    """Channels `start`, `start + stride`, ... of a register. Stride 0 broadcasts one channel."""

    register: int
    start: int = 0
    stride: int = 1


@dataclass(frozen=True, eq=False)
class Load:
    """register <- channels of the buffer's slot `table[site]`; `table` None means slot 0 at every site.

    `channels`: (start, count), or an int64 array of channel numbers.
    """

    register: int
    buffer: int
    table: int | None
    channels: tuple[int, int] | np.ndarray


@dataclass(frozen=True, eq=False)
class Instruction:
    """register[0:width] <- op(arguments).

    `op` is an elementwise ATen overload such as `aten.mul.Tensor` (arguments: operands and plain numbers, in ATen's own
    order), `copy`, or `reduce.{sum,amax,amin,prod}`, whose single operand is read as (width, count) channels at
    start + i * outer + j * inner (`Reduction`).
    """

    op: str
    register: int
    start: int
    """First channel written."""
    width: int
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Reduction:
    """Argument of `reduce.*`: channel of element j of group i is start + i * outer + j * inner, j < count."""

    register: int
    start: int
    outer: int
    inner: int
    count: int


@dataclass(frozen=True, eq=False)
class Store:
    """buffer[table[site], channel : channel + count] <- register[start : start + count]."""

    register: int
    start: int
    count: int
    buffer: int
    table: int
    channel: int


@dataclass(frozen=True, eq=False)
class Term:
    """One tap of one source: `count` channels from `start` of the slot `table[site]`, times `weight`."""

    buffer: int
    table: int
    start: int
    weight: np.ndarray
    """(count, out_channels) float64."""


@dataclass(frozen=True, eq=False)
class Contraction:
    """register <- bias + sum over the site's active terms of source @ weight.

    The order of summation is part of the program: the terms of `patterns[pattern_of_site[site]]` in order; their
    channels, concatenated, cut by `k_blocks`; each block summed from zero, channel by channel; block sums added in
    order; then the bias.
    """

    register: int
    terms: tuple[Term, ...]
    bias: np.ndarray | None
    """(out_channels,) float64."""
    patterns: tuple[tuple[int, ...], ...]
    """Each a list of active terms; a site's other terms are outside the image there."""
    pattern_of_site: np.ndarray
    """(sites,) int32."""

    @property
    def out_channels(self) -> int:
        return int(self.terms[0].weight.shape[1])


@dataclass(frozen=True, eq=False)
class Attended:
    """What an attention reads: `width` channels per head from `start`, head after head, of the slots of a table."""

    buffer: int
    table: int
    start: int
    width: int


@dataclass(frozen=True, eq=False)
class Attention:
    """register <- what each site attends to, by `ir.Attend`.

    Tables of `keys` and `values` have an entry per pair of a site and what it attends to: those of site s are
    `first[s] : first[s + 1]`. That of `query` has one per site. The order is part of the program: the pairs of a site
    in order, cut into blocks of ATTENTION_BLOCK; each block's weights and weighted values summed from zero; block sums
    added in order; then the division.
    """

    register: int
    query: Attended
    keys: Attended
    values: Attended
    first: np.ndarray
    """(sites + 1,) int32."""
    bias: np.ndarray | None
    """(heads or 1, pairs) float64."""
    heads: int
    scale: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class Kernel:
    """contraction or attention, then loads and instructions in order, then stores."""

    name: str
    sites: int
    registers: tuple[int, ...]
    """Width of each register, in channels."""
    contraction: Contraction | None
    loads: tuple[Load, ...]
    instructions: tuple[Instruction, ...]
    stores: tuple[Store, ...]
    attention: Attention | None = None


@dataclass(frozen=True, eq=False)
class Input:
    """Where a sampled number goes: channel c into slot `pixel` of buffer `buffers[c]` (one channel wide).

    The value is `scale * number + offset`, or `table[c, level]` when there is a table (then `mode="reference"`, which
    feeds unrounded levels back, is refused).
    """

    buffers: tuple[int | None, ...]
    """None where the network never reads the channel."""
    scale: float
    offset: float
    table: np.ndarray | None
    """(C, levels) float64 or None."""


@dataclass(frozen=True, eq=False)
class Output:
    """The likelihood's parameters of channel c: slot `tables[table][pixel]` of `buffer`."""

    buffer: int
    table: int


@dataclass(frozen=True, eq=False)
class Program:
    shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    buffers: tuple[Buffer, ...]
    tables: tuple[np.ndarray, ...]
    """int32 arrays of slots, by site or by pair (`Attention`)."""
    kernels: tuple[Kernel, ...]
    tasks: np.ndarray
    """(tasks, 4) int32: step, kernel, first, count; ordered. The task's sites are `sites[first : first + count]`."""
    sites: np.ndarray
    """int32."""
    input: Input
    outputs: tuple[Output, ...]
    """One per channel."""
    flops: float
    """2 x multiply-adds of one image, each activation once, taps on zero padding left out."""
    lookahead: int = 1
    """So many consecutive steps of one image row may be merged: kernel after kernel, each at the sites of all these
    steps. Tasks of a step are then in the order of their kernels."""
    ahead_tables: tuple[np.ndarray, ...] = ()
    """`tables` where steps are merged: a slot is not written again, within an image row, for `lookahead` steps after
    its last reading. That takes more slots, which leave the caches sooner where many images are sampled together."""

    @property
    def numbers(self) -> int:
        channels, height, width = self.shape
        return channels * height * width

    def bytes_per_image(self, itemsize: int = 4) -> int:
        """Bytes of activations kept for one image while it is sampled."""
        return sum(b.slots * b.channels * itemsize for b in self.buffers if b.kind != "constant")

    def attended_bytes_per_image(self, itemsize: int = 4) -> int:
        """Bytes of these from which attention reads keys and values: they stay to the end of the image."""
        attentions = [kernel.attention for kernel in self.kernels if kernel.attention is not None]
        read = {part.buffer for attention in attentions for part in (attention.keys, attention.values)}
        buffers = [self.buffers[index] for index in read]
        return sum(b.slots * b.channels * itemsize for b in buffers if b.kind != "constant")

    def fingerprint(self) -> str:
        """SHA-256 over everything in the program."""
        digest = hashlib.sha256(f"program {VERSION}".encode())
        _update(digest, self)
        return digest.hexdigest()


K_BLOCK = 128
ATTENTION_BLOCK = 128


def k_blocks(counts: list[int], step: int = 1) -> list[list[tuple[int, int, int]]]:
    """Cuts the concatenated channels of active terms into blocks: [[(term position, first, last), ...], ...].

    A term longer than K_BLOCK is cut into equal parts (the first ones longer by one step); short neighbours share a
    block. One chain over a long sum loses float32 digits that a sum of short chains keeps.

    step: channels that are multiplied together (pairs in bfloat16): terms are cut between steps only.
    """
    blocks: list[list[tuple[int, int, int]]] = []
    room = 0
    for position, count in enumerate(counts):
        if count <= room:
            blocks[-1].append((position, 0, count))
            room -= count
            continue
        parts = -(-count // K_BLOCK)
        size, longer = divmod(-(-count // step), parts)
        first = 0
        for part in range(parts):
            last = min(first + step * (size + (part < longer)), count)
            blocks.append([(position, first, last)])
            first = last
        room = K_BLOCK - count if parts == 1 else 0
    return blocks


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            digest.update(field.name.encode())
            _update(digest, getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        digest.update(f"[{len(value)}".encode())
        for item in value:
            _update(digest, item)
    else:
        digest.update(repr(value).encode())
