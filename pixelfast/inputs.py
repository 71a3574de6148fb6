"""How levels become what a model's forward takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .errors import ShapeError

KINDS = ("levels", "index", "unit", "signed", "real")


@dataclass(frozen=True, eq=False)
class InputCode:
    """value = scale * level + offset, or table[c, level]; real numbers as they are.

    `kind`: levels (integers (N, C, H, W)), index (integers (N, H, W)), unit (level / (levels - 1)),
    signed (2 * unit - 1), real (floats (N, C, H, W), of a likelihood of real numbers) or table.
    """

    kind: str
    levels: int
    scale: float
    offset: float
    table: np.ndarray | None = None

    @property
    def integer(self) -> bool:
        return self.kind in ("levels", "index")

    def encode(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What forward takes. x: float64 (N, C, H, W) in levels, whole unless the kind is unit or signed, or real."""
        if self.kind == "index":
            return x[:, 0].to(torch.int64)
        if self.kind == "levels":
            return x.to(torch.int64)
        if self.table is not None:
            table = torch.from_numpy(self.table).to(x.device)
            channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
            return table[channel, x.to(torch.int64)].to(dtype)
        return (x * self.scale + self.offset).to(dtype)


def input_code(kind: Any, levels: int, channels: int) -> InputCode:
    """From what the user says: a name of KINDS, or a table of values (levels,) or (C, levels).

    levels: of the likelihood, 0 where numbers are real.
    """
    if (isinstance(kind, str) and kind == "real") != (levels == 0):
        shown = repr(kind) if isinstance(kind, str) else f"a {type(kind).__name__}"
        takes = "real numbers and takes input='real'" if levels == 0 else f"{levels} levels; use another input"
        raise ShapeError(f"input is {shown}; the likelihood is of {takes}")
    if isinstance(kind, str):
        if kind == "unit":
            return InputCode(kind, levels, 1 / (levels - 1), 0.0)
        if kind == "signed":
            return InputCode(kind, levels, 2 / (levels - 1), -1.0)
        if kind == "index" and channels != 1:
            raise ShapeError(f"input='index' is for one channel, the shape has {channels}; use input='levels'")
        if kind in KINDS:
            return InputCode(kind, levels, 1.0, 0.0)
        raise ShapeError(f"input={kind!r} is unknown; use one of {', '.join(map(repr, KINDS))}, or a table of values")
    try:
        table = torch.as_tensor(kind).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        names = ", ".join(map(repr, KINDS))
        raise ShapeError(f"input is {type(kind).__name__}; use one of {names}, or a table of values") from None
    if table.shape not in ((levels,), (channels, levels)) or not bool(torch.isfinite(table).all()):
        raise ShapeError(
            f"input is a table of shape {tuple(table.shape)}; it takes finite values of shape ({levels},) or "
            f"({channels}, {levels})"
        )
    return InputCode("table", levels, 1.0, 0.0, np.array(table.expand(channels, levels).numpy()))
