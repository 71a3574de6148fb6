"""One rule per ATen operation that is not a view: rule(builder, call, *args, **kwargs) -> codes or constants.

A rule sees `Codes` for image-dependent tensors and float64 tensors for constants. It raises NotImplementedError, with a
reason, for what it cannot take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import contraction, normalisation, pointwise, recurrence, reduction, structural

RULES: dict[str, Callable[..., Any]] = {
    **structural.RULES,
    **pointwise.RULES,
    **contraction.RULES,
    **reduction.RULES,
    **normalisation.RULES,
    **recurrence.RULES,
}
