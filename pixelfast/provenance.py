"""Where every element of a tensor comes from: codes, and their reading as sources.

Each element of each value has a number, its *code*: the value's base + site * channels + channel. Code 0 is the
constant zero. A structural operation (pad, slice, cat, permute, shuffle) is run on codes instead of numbers, so that
any mix of them is understood without a rule for each. `Space.sources` turns a (channels, sites) matrix of codes back
into a few `ir.Source`s.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .ir import Source


def distinct_columns(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct columns of a boolean (rows, columns) matrix, which of them each column is, and how many are alike."""
    if len(rows) > 62:
        found, which, counts = np.unique(rows, axis=1, return_inverse=True, return_counts=True)
        return found, which.reshape(-1), counts
    keys = np.int64(1) << np.arange(len(rows), dtype=np.int64)
    _, first, which, counts = np.unique(keys @ rows, return_index=True, return_inverse=True, return_counts=True)
    return rows[:, first], which.reshape(-1), counts


class Space:
    """The numbering of all elements of all values."""

    def __init__(self, dtype: type[np.signedinteger[Any]] = np.int32) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._largest = int(np.iinfo(dtype).max)
        self.bases: list[int] = []
        self.channels: list[int] = []
        self._next = 1
        self._bases_array: np.ndarray | None = None

    def add(self, sites: int, channels: int) -> int:
        """Makes room for the next value; returns the code of its first element."""
        base = self._next
        self.bases.append(base)
        self.channels.append(channels)
        self._next += sites * channels
        self._bases_array = None
        if self._next > self._largest:
            raise OverflowError("the codes of this graph do not fit their integer type")
        return base

    def codes(self, value: int, sites: int) -> np.ndarray:
        """(channels, sites) codes of a value."""
        base, channels = self.bases[value], self.channels[value]
        column = np.arange(base, base + channels, dtype=self.dtype)[:, None]
        return column + np.arange(0, sites * channels, channels, dtype=self.dtype)[None]

    def decode(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """value (-1 for zero), site and channel of every code."""
        if self._bases_array is None:
            self._bases_array = np.array(self.bases, dtype=np.int64)
            self._channels_array = np.array(self.channels, dtype=np.int64)
        value = np.searchsorted(self._bases_array, codes, side="right") - 1
        known = np.maximum(value, 0)
        site, channel = np.divmod(codes - self._bases_array[known], self._channels_array[known])
        return np.where(codes == 0, -1, value), site, channel

    def sources(self, codes: np.ndarray) -> list[tuple[np.ndarray, Source]]:
        """Reads a (columns, sites) matrix of codes as [(columns, source), ...]: source i holds just those columns.

        A column of zeros has no source; a column fed by several values, at different sites, has several.
        """
        found: list[tuple[np.ndarray, Source]] = []
        top = codes.max(axis=1) if codes.shape[1] else np.zeros(len(codes), dtype=self.dtype)
        live = np.flatnonzero(top)
        if not len(live):
            return found
        value_of, _, _ = self.decode(top[live])
        for value in dict.fromkeys(value_of.tolist()):
            columns = live[value_of == value]
            found += self._of_value(codes, columns, value)
        return found

    def _of_value(self, codes: np.ndarray, columns: np.ndarray, value: int) -> list[tuple[np.ndarray, Source]]:
        base, channels = self.bases[value], self.channels[value]
        part = codes if len(columns) == len(codes) else codes[columns]
        whole = self._one_source(part, value)
        if whole is not None:
            return [(columns, whole)]
        if part.min(where=part != 0, initial=self._largest) < base:
            return self._mixed(codes, columns)
        found: list[tuple[np.ndarray, Source]] = []
        while len(columns):
            first = part[0]
            at = int(first.argmax())
            shift = part[:, at] - first[at]
            alike = ((part - shift[:, None] == first) | (part == 0)).all(axis=1) & (part[:, at] != 0)
            alike &= ((part == 0) == (first == 0)).all(axis=1)
            site, channel = np.divmod(first - base, channels)
            table = np.where(first == 0, -1, site).astype(np.int32)
            channel_of = int(channel[at]) + shift[alike].astype(np.int64)
            if (channel_of < 0).any() or (channel_of >= channels).any() or (channel[first != 0] != channel[at]).any():
                return found + self._mixed(codes, columns)
            found.append((columns[alike], Source(value, table, channel_of)))
            columns, part = columns[~alike], part[~alike]
        return found

    def _one_source(self, part: np.ndarray, value: int) -> Source | None:
        """The usual case, in few passes: every column is the first one shifted by a channel, and nowhere zero."""
        base, channels = self.bases[value], self.channels[value]
        first = part[0]
        shift = part[:, 0] - first[0]
        if first.min() <= 0 or not np.array_equal(part, first + shift[:, None]):
            return None
        site, channel = np.divmod(first - base, channels)
        channel_of = int(channel[0]) + shift.astype(np.int64)
        if (channel != channel[0]).any() or channel_of.min() < 0 or channel_of.max() >= channels or site.min() < 0:
            return None
        return Source(value, site.astype(np.int32), channel_of)

    def _mixed(self, codes: np.ndarray, columns: np.ndarray) -> list[tuple[np.ndarray, Source]]:
        """The general case: sites of a column that come from other values or channels, each kind its own source."""
        value, site, channel = self.decode(codes[columns])
        groups: dict[tuple[int, bytes], tuple[list[int], list[int], np.ndarray]] = {}
        for row, column in enumerate(columns.tolist()):
            kinds = np.unique(np.stack([value[row], channel[row]]), axis=1).T
            for one, of in kinds.tolist():
                if one < 0:
                    continue
                table = np.where((value[row] == one) & (channel[row] == of), site[row], -1).astype(np.int32)
                entry = groups.setdefault((one, table.tobytes()), ([], [], table))
                entry[0].append(column)
                entry[1].append(of)
        return [
            (np.array(members), Source(one, table, np.array(channels, dtype=np.int64)))
            for (one, _), (members, channels, table) in groups.items()
        ]
