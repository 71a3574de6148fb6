"""Elementwise operations, and what of them carries no dependency."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .common import Codes, as_codes, operand

_LOGICAL = {
    "bitwise_not": "logical_not",
    "bitwise_and": "logical_and",
    "bitwise_or": "logical_or",
    "bitwise_xor": "logical_xor",
}


def _pointwise(builder: Any, call: Any, name: str, args: Any, kwargs: Any) -> Codes:
    overload = call.op._overloadname
    base = name.split(".")[1]
    if "out" in kwargs:
        raise NotImplementedError("an operation with out=")
    if len(call.outputs) != 1 or "shift" in base:
        raise NotImplementedError("integer arithmetic and results in several tensors have no rule")
    dtype = call.outputs[0].dtype
    kinds = [a.dtype for a in args if isinstance(a, (Codes, torch.Tensor))]
    if base in _LOGICAL:
        if any(kind != torch.bool for kind in kinds):
            raise NotImplementedError("bitwise arithmetic on integers")
        base, overload = _LOGICAL[base], "default"
        args = [torch.tensor(float(a)) if isinstance(a, bool) else a for a in args]
    if any(kind.is_complex for kind in kinds):
        raise NotImplementedError("complex numbers")
    return Codes(builder.pointwise(f"aten.{base}.{overload}", [operand(a) for a in args], dict(kwargs)), dtype)


def _mul(builder: Any, call: Any, a: Any, b: Any, **kwargs: Any) -> Codes:
    """Where one factor is a constant 0 the other is not read."""
    if kwargs:
        raise NotImplementedError("an operation with out=")
    a, b = _to_number(a), _to_number(b)
    if isinstance(a, Codes) and isinstance(b, Codes):
        return _pointwise(builder, call, "aten.mul", [a, b], {})
    if not isinstance(a, Codes):
        a, b = b, a
    if isinstance(b, torch.Tensor):
        zero = (b == 0).numpy()
        shape = np.broadcast_shapes(a.array.shape, zero.shape)
        codes = np.where(np.broadcast_to(zero, shape), 0, np.broadcast_to(a.array, shape)) if zero.any() else a.array
        if not codes.any():
            return Codes(np.zeros(shape, dtype=codes.dtype), a.dtype)
        if bool(((b == 0) | (b == 1)).all()):
            return Codes(np.broadcast_to(codes, shape), a.dtype)
        product = builder.pointwise("aten.mul.Tensor", [codes, b])
        return Codes(np.where(zero, 0, product) if zero.any() else product, call.outputs[0].dtype)
    if b == 0:
        return Codes(np.zeros_like(a.array), a.dtype)
    return Codes(builder.pointwise("aten.mul.Tensor", [a.array, b]), call.outputs[0].dtype)


def _to_number(x: Any) -> Any:
    if isinstance(x, torch.Tensor) and x.dtype == torch.bool:
        return x.to(torch.float64)
    return x


def _where(builder: Any, call: Any, mask: Any, a: Any, b: Any) -> Codes:
    """A constant mask only chooses: nothing is computed."""
    dtype = call.outputs[0].dtype
    if isinstance(mask, Codes):
        a, b = (torch.tensor(float(v)) if isinstance(v, (int, float)) else v for v in (a, b))
        return Codes(builder.pointwise("aten.where.self", [mask.array, operand(a), operand(b)]), dtype)
    shape = np.broadcast_shapes(*(tuple(np.shape(operand(v))) for v in (mask, a, b)))
    chosen = np.where(np.broadcast_to(mask.numpy(), shape), as_codes(builder, a), as_codes(builder, b))
    return Codes(chosen, dtype)


def _masked_fill(builder: Any, call: Any, x: Any, mask: Any, value: Any) -> Codes:
    return _where(builder, call, mask, value, x)


def _identity(builder: Any, call: Any, x: Any, *_: Any) -> Any:
    return x


def _dropout(builder: Any, call: Any, x: Any, *_: Any) -> Any:
    return [x, torch.ones(1)]


def _sub(builder: Any, call: Any, a: Any, b: Any, alpha: Any = 1) -> Codes:
    return _pointwise(builder, call, "aten.sub", [a, b], {} if alpha == 1 else {"alpha": alpha})


def _add(builder: Any, call: Any, a: Any, b: Any, alpha: Any = 1, **kwargs: Any) -> Codes:
    """The sum of two truth values is their disjunction."""
    if all(getattr(v, "dtype", None) == torch.bool for v in (a, b)):
        return Codes(builder.pointwise("aten.logical_or.default", [operand(a), operand(b)]), torch.bool)
    if kwargs:
        raise NotImplementedError("an operation with out=")
    total = _pointwise(builder, call, "aten.add", [a, b], {} if alpha == 1 else {"alpha": alpha})
    constant = b if isinstance(a, Codes) else a
    if isinstance(constant, torch.Tensor) and bool(torch.isinf(constant).any()):
        # A mask: nothing that is added to an infinity matters.
        infinite = np.broadcast_to(torch.isinf(constant).numpy(), total.array.shape)
        where = np.broadcast_to(constant.to(torch.float64).numpy(), total.array.shape)
        signs = math.copysign(1.0, alpha) if constant is b else 1.0
        fixed = builder.constant(np.where(infinite, signs * where, 0.0))
        return Codes(np.where(infinite, fixed, total.array), total.dtype)
    return total


def _log_sigmoid(builder: Any, call: Any, x: Codes) -> Any:
    """-softplus(-x), and a buffer that only the backward pass reads."""
    negative = builder.pointwise("aten.neg.default", [x.array])
    return [
        Codes(builder.pointwise("aten.neg.default", [builder.pointwise("aten.softplus.default", [negative])]), x.dtype)
    ]


def _prelu(builder: Any, call: Any, x: Codes, weight: Any) -> Codes:
    positive = builder.pointwise("aten.relu.default", [x.array])
    negative = builder.pointwise("aten.minimum.default", [x.array, torch.zeros(1, dtype=torch.float64)])
    scaled = builder.pointwise("aten.mul.Tensor", [negative, operand(weight)])
    return Codes(builder.pointwise("aten.add.Tensor", [positive, scaled]), x.dtype)


def _logit(builder: Any, call: Any, x: Codes, eps: float | None = None) -> Codes:
    codes = x.array if eps is None else builder.pointwise("aten.clamp.default", [x.array, eps, 1 - eps])
    rest = builder.pointwise("aten.log1p.default", [builder.pointwise("aten.neg.default", [codes])])
    return Codes(builder.pointwise("aten.sub.Tensor", [builder.pointwise("aten.log.default", [codes]), rest]), x.dtype)


RULES: dict[str, Callable[..., Any]] = {
    "pointwise": _pointwise,
    "aten.mul": _mul,
    "aten.add": _add,
    "aten.sub": _sub,
    "aten.where": _where,
    "aten.masked_fill": _masked_fill,
    "aten.logit": _logit,
    "aten.log_sigmoid_forward": _log_sigmoid,
    "aten._prelu_kernel": _prelu,
    "aten.native_dropout": _dropout,
    "aten.dropout": _identity,
    "aten.feature_dropout": _identity,
}
