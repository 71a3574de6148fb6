"""Products of two image-dependent tensors, and attention: products that become weights of a second product.

The product of queries and keys has an element for every pair of positions: far too many to follow one by one. Such a
product is *deferred* (`Pairs`): scaling, masks and the softmax are noted on it, and the product with the values makes
one `ir.Attend` of it all. Whatever else is done with it is done element by element, where the image is small enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..ir import Attend, Source, Span
from .common import Codes, operand
from .pointwise import RULES as POINTWISE
from .reduction import NEGLIGIBLE
from .reduction import RULES as REDUCTIONS

Array = np.ndarray
MAX_ELEMENTS = 1 << 15
"""Most products of two numbers that are followed one by one: compiling takes seconds then."""
_UNKNOWN = "a product of two image-dependent tensors (attention) that is used otherwise than through a softmax"


@dataclass(frozen=True, eq=False)
class Deferred:
    """A tensor that is not followed element by element; `shape` is how the reader sees it."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, eq=False)
class Pairs(Deferred):
    """factor * (queries @ keys) + bias, and what was made of it. The last two axes: rows (queries), columns (keys).

    Constants broadcast to (B, rows, columns), B the product of the other axes.
    """

    queries: Array
    """(B, rows, K) codes."""
    keys: Array
    """(B, K, columns) codes."""
    factor: Array
    bias: Array
    stage: str = "score"
    """score; shifted: less the row's maximum; power: exponential; weight: divided by the row's sum."""
    kept: Array = field(default_factory=lambda: np.ones((1, 1, 1), dtype=bool))
    """Powers that were not multiplied by zero before the row's sum."""
    gain: Array = field(default_factory=lambda: np.ones((1, 1, 1)))
    """What the weights are multiplied by."""
    epsilon: float = 0.0
    """Added to the row's sum."""
    empty_is_zero: bool = False
    """Rows in which every score is -inf have weights of zero, where softmax has NaN."""
    mark: object = field(default_factory=object)
    """The same for all views of one tensor."""


@dataclass(frozen=True, eq=False)
class Turned(Deferred):
    """Pairs with rows and columns exchanged."""

    of: Pairs


@dataclass(frozen=True, eq=False)
class RowSummary(Deferred):
    """The maximum of each row's scores, or the sum of its powers plus epsilon."""

    of: Pairs
    kind: str
    epsilon: float = 0.0


def viewed(content: Deferred, shape: tuple[int, ...]) -> Deferred | None:
    """The same numbers in another shape, their last two axes the same. None where these would be cut up."""
    if math.prod(shape) != math.prod(content.shape) or shape[-2:] != content.shape[-2:]:
        return None
    return replace(content, shape=tuple(shape))


def turned(content: Deferred) -> Deferred | None:
    """The last two axes exchanged; None where that is not followed."""
    shape = (*content.shape[:-2], content.shape[-1], content.shape[-2])
    if isinstance(content, Turned):
        return replace(content.of, shape=shape)
    return Turned(shape, content.dtype, content) if isinstance(content, Pairs) else None


def multiply(builder: Any, call: Any, a: Any, b: Any) -> Any:
    """a (B, rows, K) @ b (B, K, columns), where both depend on the image, or one is deferred."""
    dtype = call.outputs[0].dtype
    if isinstance(a, Codes) and isinstance(b, Turned) and _are_weights(b.of):
        return Codes(attend(builder, b.of, a.array.swapaxes(1, 2)).swapaxes(1, 2), dtype)
    if isinstance(a, Pairs) and _are_weights(a) and isinstance(b, Codes):
        return Codes(attend(builder, a, b.array), dtype)
    if isinstance(a, Codes) and isinstance(b, Codes):
        size = (*a.array.shape[:-1], b.array.shape[-1])
        one = np.ones((1, 1, 1))
        return Pairs(size, dtype, a.array, b.array, one, 0 * one)
    return multiply_elements(builder, followed(builder, a), followed(builder, b), dtype)


def _are_weights(x: Pairs) -> bool:
    """Whether values multiplied by them are attention: after the softmax, changed row by row at most."""
    return x.stage == "weight" and bool((x.gain == x.gain[..., :1]).all())


def multiply_elements(builder: Any, a: Any, b: Any, dtype: torch.dtype) -> Codes:
    """The product as elementwise products and their sums. Where one factor is zero the other is not read."""
    left, right = (x if isinstance(x, np.ndarray) else x.to(torch.float64) for x in (operand(a), operand(b)))
    if math.prod(left.shape) * right.shape[-1] > MAX_ELEMENTS:
        raise NotImplementedError(_UNKNOWN)
    columns = right.swapaxes(-1, -2)
    terms = builder.pointwise("aten.mul.Tensor", [left[..., :, None, :], columns[..., None, :, :]])
    terms = np.where((left == 0)[..., :, None, :] | (columns == 0)[..., None, :, :], 0, terms)
    total = builder.reduce("sum", terms, [-1], False)
    if total is None:
        raise NotImplementedError(_UNKNOWN)
    return Codes(total, dtype)


def followed(builder: Any, x: Any) -> Any:
    """A deferred product as codes of its elements; anything else as it is."""
    if not isinstance(x, Deferred):
        return x
    if isinstance(x, Turned):
        return Codes(followed(builder, x.of).array.reshape(*x.shape[:-2], *x.shape[:-3:-1]).swapaxes(-1, -2), x.dtype)
    if not isinstance(x, Pairs) or x.stage not in ("score", "weight"):
        raise NotImplementedError(_UNKNOWN)
    scores = multiply_elements(builder, Codes(x.queries, x.dtype), Codes(x.keys, x.dtype), x.dtype).array
    full = scores.shape
    masked = np.broadcast_to(x.factor == 0, full)
    if (x.factor != 1).any():
        scores = builder.pointwise("aten.mul.Tensor", [scores, _tensor(np.where(x.factor == 0, 1.0, x.factor))])
    if masked.any():
        scores = np.where(masked, builder.constant(np.where(masked, x.bias, 0.0)), scores)
    if (np.where(masked, 0.0, x.bias) != 0).any():
        scores = builder.pointwise("aten.add.Tensor", [scores, _tensor(np.where(masked, 0.0, x.bias))])
    result = Codes(scores, x.dtype)
    if x.stage == "weight":
        if x.epsilon or x.empty_is_zero or not x.kept.all():
            raise NotImplementedError(_UNKNOWN)
        result = REDUCTIONS["aten._softmax"](builder, None, result, -1)
        if not isinstance(result, Codes):
            raise NotImplementedError(_UNKNOWN)
        if (x.gain != 1).any():
            result = POINTWISE["aten.mul"](builder, _Typed(x.dtype), result, _tensor(x.gain))
    return Codes(result.array.reshape(x.shape), x.dtype)


class _Typed:
    """A call that only knows the dtype of its result."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.outputs = [torch.empty(0, dtype=dtype)]


def _tensor(constants: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(constants, dtype=np.float64))


# -- attention --------------------------------------------------------------------------------------------------------


def attend(builder: Any, pairs: Pairs, values: Array) -> Array:
    """weights @ values: (B, rows, V) codes. values: (B, columns, V) codes."""
    batch, rows, columns = (*pairs.queries.shape[:2], pairs.keys.shape[2])
    result = np.zeros((batch, rows, values.shape[-1]), dtype=builder.space.dtype)
    constants = {name: getattr(pairs, name) for name in ("factor", "bias", "kept", "gain")}
    for members in _heads(builder, pairs, values):
        alike = {name: array if len(array) == 1 else _distinct(array[members]) for name, array in constants.items()}
        mine = {name: np.broadcast_to(array, (len(array), rows, columns)) for name, array in alike.items()}
        reached = _reached(pairs, **mine)
        node = _node(builder, pairs, values, members, reached, mine)
        codes = builder.space.codes(node, rows).reshape(len(members), -1, rows).transpose(0, 2, 1)
        result[members] = _scaled(builder, codes, mine["gain"][..., :1])
    return result


def _distinct(array: Array) -> Array:
    """One head for all where they are alike: (heads or 1, rows, columns)."""
    return array[:1] if (array == array[:1]).all() else array


def _scaled(builder: Any, codes: Array, gain: Array) -> Array:
    """Multiplied by constants; where they are zero nothing is read."""
    if (gain == 1).all():
        return codes
    codes = np.where(np.broadcast_to(gain == 0, codes.shape), 0, codes)
    if ((gain == 0) | (gain == 1)).all():
        return codes
    return np.asarray(builder.pointwise("aten.mul.Tensor", [codes, _tensor(gain)]))


def _heads(builder: Any, pairs: Pairs, values: Array) -> list[Array]:
    """Entries of the first axis that read the same sites: heads of one attention."""
    found: dict[bytes, list[int]] = {}
    for entry in range(len(pairs.queries)):
        places = (pairs.queries[entry, :, 0], pairs.keys[entry, 0], values[entry, :, 0])
        sites = [builder.space.decode(place)[:2] for place in places]
        key = b"".join(np.concatenate([value, site]).tobytes() for value, site in sites)
        found.setdefault(key, []).append(entry)
    return [np.array(members) for members in found.values()]


def _reached(pairs: Pairs, factor: Array, bias: Array, kept: Array, gain: Array) -> Array:
    """(heads or 1, rows, columns): the pairs whose weight is not zero whatever the image."""
    free = factor != 0
    top = np.where(free, bias, -np.inf).max(axis=2, keepdims=True)
    # Without a free score every weight of the row is a constant: where all are alike they are not small.
    top = np.where(np.isneginf(top), bias.max(axis=2, keepdims=True), top)
    with np.errstate(invalid="ignore"):
        possible = ~(bias - top < -NEGLIGIBLE)
    reached = kept & possible
    if (possible & ~kept & reached.any(axis=2, keepdims=True)).any():
        # The maximum read these scores: where they are large, the weights of the others vanish.
        raise NotImplementedError("scores of attention that are masked only after their maximum was taken")
    if pairs.empty_is_zero or pairs.epsilon:
        reached = reached & ~np.isneginf(bias)
    return np.asarray(reached & (gain != 0).any(axis=2, keepdims=True))


def _node(builder: Any, pairs: Pairs, values: Array, members: Array, reached: Array, mine: dict[str, Array]) -> int:
    """The value of one `Attend`: channels are heads, then what is attended to; its sites are the rows."""
    rows = reached.shape[1]
    union = reached.any(axis=0)
    row_of, column_of = np.nonzero(union)
    first = np.concatenate([[0], np.cumsum(union.sum(axis=1))]).astype(np.int64)
    asked, scale = _asked(reached, mine["factor"])
    bias = np.where(reached, mine["bias"], -np.inf)[:, row_of, column_of]
    query = _source(builder, _matrix(pairs.queries[members].transpose(0, 2, 1)))
    query = Source(query.value, np.where(asked, query.sites, -1).astype(np.int32), query.channels)
    keys = _source(builder, _matrix(pairs.keys[members]))
    attended = _source(builder, _matrix(values[members].transpose(0, 2, 1)))
    key_span = Span(keys.value, keys.sites[column_of], keys.channels, first)
    value_span = Span(attended.value, attended.sites[column_of], attended.channels, first)
    ready = builder._ready_of([query, key_span, value_span], rows)
    out = builder.value("node", rows, len(members) * values.shape[-1], ready)
    added = bias if (bias != 0).any() else None
    builder.graph.nodes.append(
        Attend(out, builder.where, query, key_span, value_span, len(members), scale, pairs.epsilon, added)
    )
    return int(out)


def _asked(reached: Array, factor: Array) -> tuple[Array, float]:
    """(rows,) whether a row's scores depend on its query, and what they are scaled by."""
    shape = np.broadcast_shapes(reached.shape, factor.shape)
    reached, factor = np.broadcast_to(reached, shape), np.broadcast_to(factor, shape)
    free = reached & (factor != 0)
    asked = free.any(axis=(0, 2))
    factors = np.unique(factor[reached & asked[:, None]])
    if len(factors) > 1:
        raise NotImplementedError("scores of attention that are scaled by several constants")
    return asked, float(factors[0]) if len(factors) else 1.0


def _matrix(codes: Array) -> Array:
    """(heads, channels, sites) as (heads * channels, sites)."""
    return np.ascontiguousarray(codes).reshape(-1, codes.shape[-1])


def _source(builder: Any, matrix: Array) -> Source:
    """The matrix as neighbouring channels of one value."""
    found = builder.space.sources(matrix)
    if len(found) == 1:
        columns, source = found[0]
        regular = len(columns) == len(matrix) and bool((np.diff(source.channels) == 1).all())
        if regular and bool((source.sites >= 0).all()) and not builder.is_constant(source):
            return source
    return builder._whole(matrix)


# -- what may be done with a deferred product --------------------------------------------------------------------------


def follow(builder: Any, call: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operation of which some arguments are deferred. None: it has to be done element by element."""
    rule = _RULES.get(name)
    return None if rule is None else rule(builder, call, *args, **kwargs)


def _constant(x: Pairs, c: Any) -> Array | None:
    """A number or a constant tensor as it broadcasts to (B, rows, columns); None for anything else."""
    if isinstance(c, (int, float)):
        return np.full((1, 1, 1), float(c))
    if not isinstance(c, torch.Tensor):
        return None
    array = c.to(torch.float64).numpy()
    array = array.reshape((1,) * max(0, x.ndim - array.ndim) + array.shape)
    if array.ndim != x.ndim or any(a not in (1, b) for a, b in zip(array.shape, x.shape, strict=True)):
        return None
    leading = array.shape[:-2]
    if math.prod(leading) == 1:
        return np.asarray(array.reshape((1, *array.shape[-2:])))
    return np.broadcast_to(array, (*x.shape[:-2], *array.shape[-2:])).reshape((-1, *array.shape[-2:]))


def _changed(x: Pairs, **changes: Any) -> Pairs:
    return replace(x, mark=object(), **changes)


def _mul(builder: Any, call: Any, a: Any, b: Any, **kwargs: Any) -> Any:
    x, c = (a, b) if isinstance(a, Pairs) else (b, a)
    constant = _constant(x, c) if isinstance(x, Pairs) and not kwargs else None
    if constant is None:
        return None
    if x.stage == "score":
        with np.errstate(invalid="ignore"):
            bias = np.where(x.bias == 0, 0.0, x.bias * constant)
        return _changed(x, factor=x.factor * constant, bias=bias)
    if x.stage == "power" and ((constant == 0) | (constant == 1)).all():
        return _changed(x, kept=x.kept & (constant != 0))
    return _changed(x, gain=x.gain * constant) if x.stage == "weight" else None


def _div(builder: Any, call: Any, a: Any, b: Any, **kwargs: Any) -> Any:
    if isinstance(a, Pairs) and isinstance(b, RowSummary):
        if a.stage == "power" and b.kind == "sum" and a.mark is b.of.mark and not kwargs:
            return _changed(a, stage="weight", epsilon=b.epsilon)
        return None
    if not isinstance(a, Pairs) or kwargs or a.stage != "score":
        return None
    constant = _constant(a, b)
    return None if constant is None or (constant == 0).any() else _mul(builder, call, a, _tensor(1 / constant))


def _add(builder: Any, call: Any, a: Any, b: Any, alpha: Any = 1, **kwargs: Any) -> Any:
    if kwargs or (alpha != 1 and not isinstance(b, (int, float, torch.Tensor))):
        return None
    x, c = (a, b) if isinstance(a, Deferred) else (b, a)
    if isinstance(x, RowSummary):
        if x.kind == "sum" and isinstance(c, (int, float)):
            return replace(x, epsilon=x.epsilon + c * alpha)
        return None
    constant = _constant(x, c) if isinstance(x, Pairs) else None
    if constant is None or not isinstance(x, Pairs) or x.stage not in ("score", "shifted"):
        return None
    return _changed(x, bias=x.bias + constant * alpha)


def _sub(builder: Any, call: Any, a: Any, b: Any, alpha: Any = 1, **kwargs: Any) -> Any:
    if isinstance(a, Pairs) and isinstance(b, RowSummary):
        if a.stage == "score" and b.kind == "max" and a.mark is b.of.mark and alpha == 1 and not kwargs:
            return _changed(a, stage="shifted")
        return None
    return _add(builder, call, a, b, -alpha, **kwargs) if isinstance(a, Deferred) else None


def _filled(builder: Any, call: Any, x: Any, mask: Any, value: Any) -> Any:
    """x where the mask is not set, else a constant."""
    if not isinstance(x, Pairs) or not isinstance(mask, torch.Tensor):
        return None
    chosen, constant = _constant(x, mask.to(torch.float64)), _constant(x, value)
    if chosen is None or constant is None:
        return None
    hit = chosen != 0
    if x.stage in ("score", "shifted"):
        return _changed(x, factor=np.where(hit, 0.0, x.factor), bias=np.where(hit, constant, x.bias))
    if (constant != 0).any():
        return None
    if x.stage == "power":
        return _changed(x, kept=x.kept & ~hit)
    return _changed(x, gain=np.where(hit, 0.0, x.gain))


def _where(builder: Any, call: Any, mask: Any, a: Any, b: Any) -> Any:
    if not isinstance(mask, torch.Tensor):
        return None
    if isinstance(b, Pairs):
        return _filled(builder, call, b, mask, a)
    return _filled(builder, call, a, mask == 0, b)


def _softmax(empty_is_zero: bool) -> Callable[..., Any]:
    def rule(builder: Any, call: Any, x: Any, dim: int, *_: Any) -> Any:
        if not isinstance(x, Pairs) or x.stage != "score" or dim % x.ndim != x.ndim - 1:
            return None
        return _changed(x, stage="weight", empty_is_zero=empty_is_zero)

    return rule


def _exp(builder: Any, call: Any, x: Any) -> Any:
    return _changed(x, stage="power") if isinstance(x, Pairs) and x.stage == "shifted" else None


def _nan_to_num(builder: Any, call: Any, x: Any, nan: float | None = None, *_: Any) -> Any:
    """Only rows without any score are not numbers."""
    wanted = isinstance(x, Pairs) and x.stage == "weight" and not nan
    return _changed(x, empty_is_zero=True) if wanted else None


def _summary(kind: str, stage: str) -> Callable[..., Any]:
    def rule(builder: Any, call: Any, x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
        axes = [d % x.ndim for d in (dims if isinstance(dims, (list, tuple)) else [dims])] if dims is not None else []
        if not isinstance(x, Pairs) or x.stage != stage or axes != [x.ndim - 1] or not keepdim:
            return None
        return [RowSummary((*x.shape[:-1], 1), x.dtype, x, kind)]

    return rule


def _same(builder: Any, call: Any, x: Any, *_: Any, **__: Any) -> Any:
    return x


_RULES: dict[str, Callable[..., Any]] = {
    "aten.mul": _mul,
    "aten.div": _div,
    "aten.add": _add,
    "aten.sub": _sub,
    "aten.masked_fill": _filled,
    "aten.where": _where,
    "aten._softmax": _softmax(False),
    "aten._safe_softmax": _softmax(True),
    "aten.exp": _exp,
    "aten.nan_to_num": _nan_to_num,
    "aten.max": _summary("max", "score"),
    "aten.amax": _summary("max", "score"),
    "aten.sum": _summary("sum", "power"),
    "aten.clone": _same,
    "aten._to_copy": _same,
    "aten._unsafe_view": lambda builder, call, x, size: viewed(x, tuple(size)),
}
