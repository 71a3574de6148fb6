"""Building a model without its random start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

FILLS = frozenset({Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_})


class Unfilled(TorchFunctionMode):
    """While active, parameters are left as they were allocated, and no random number is drawn.

    For a model whose every tensor is then loaded. Filling a large one takes longer than loading it, and on
    the meta device it imports seconds' worth of torch.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        # torch.nn.init hands itself over whole, before it calls the tensor's own method.
        if func in FILLS or getattr(init, func.__name__, None) is func:
            return args[0] if args else keywords["tensor"]
        return func(*args, **keywords)
