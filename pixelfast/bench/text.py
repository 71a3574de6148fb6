"""Tables as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Column = tuple[str, Callable[[Any], str]]
"""Heading, and a row's text."""


def table(columns: Sequence[Column], rows: Sequence[Any], *, words_last: bool = False) -> str:
    """A line of headings and a line per row, aligned to the right; the last column to the left where it is words."""
    cells = [[name for name, _ in columns], *([text(row) for _, text in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    if words_last:
        widths[-1] = 0
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def dtype_name(dtype: Any) -> str:
    """float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")


def percent(share: float | None) -> str:
    """Whole per cent; a dash where there is nothing to say."""
    return "-" if share is None else f"{share:.0%}"
