"""Turns a program's instructions into the elementwise operations of `csrc/elementwise.h`.

Arguments are bound to ATen's own schemas first, so that defaults, keywords and positions need no care here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from .. import _C
from ..program import Instruction, Operand, Reduction

Argument = Operand | float
Translated = tuple[str, list[Argument]]
"""Name of an operation of the extension, and its arguments."""

REDUCTIONS = ("sum", "amax", "amin", "prod")

_SELU_ALPHA = 1.6732632423543772848
_SELU_SCALE = 1.0507009873554804934

# ATen name -> operation of the same arguments.
_PLAIN = {
    **{
        name: name
        for name in (
            "neg abs sign exp expm1 log log1p log2 log10 sqrt rsqrt reciprocal square tanh sigmoid erf "
            "relu silu mish hardsigmoid hardswish floor ceil trunc frac logical_not isnan sin cos tan asin "
            "acos atan sinh cosh erfc exp2 mul remainder fmod atan2 minimum maximum eq ne lt le gt ge "
            "logical_and logical_or logical_xor leaky_relu threshold softplus where lerp addcmul addcdiv "
            "elu"
        ).split()
    },
    "absolute": "abs",
    "negative": "neg",
    "positive": "copy",
    "sgn": "sign",
    "fix": "trunc",
    "multiply": "mul",
    "floor_divide": "div_floor",
    "prelu": "leaky_relu",
    "_prelu_kernel": "leaky_relu",
    "clone": "copy",
    "bitwise_not": "logical_not",
    "bitwise_and": "logical_and",
    "bitwise_or": "logical_or",
    "bitwise_xor": "logical_xor",
}


def _add(self: Argument, other: Argument, alpha: float = 1) -> Translated:
    return ("add", [self, other]) if alpha == 1 else ("add_scaled", [self, other, alpha])


def _sub(self: Argument, other: Argument, alpha: float = 1) -> Translated:
    return ("sub", [self, other]) if alpha == 1 else ("sub_scaled", [self, other, alpha])


def _rsub(self: Argument, other: Argument, alpha: float = 1) -> Translated:
    return _sub(other, self, alpha)


def _div(self: Argument, other: Argument, rounding_mode: str | None = None) -> Translated:
    return ("div" if rounding_mode is None else f"div_{rounding_mode}"), [self, other]


def _pow(self: Argument, exponent: Argument) -> Translated:
    short = {1.0: "copy", 2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if not isinstance(exponent, Operand) and float(exponent) in short:
        return short[float(exponent)], [self]
    return "pow", [self, exponent]


def _clamp(self: Argument, min: Argument | None = None, max: Argument | None = None) -> Translated:
    return "clamp", [self, -math.inf if min is None else min, math.inf if max is None else max]


def _clamp_min(self: Argument, min: Argument) -> Translated:
    return _clamp(self, min)


def _clamp_max(self: Argument, max: Argument) -> Translated:
    return _clamp(self, None, max)


def _hardtanh(self: Argument, min_val: float = -1, max_val: float = 1) -> Translated:
    return _clamp(self, min_val, max_val)


def _relu6(self: Argument) -> Translated:
    return _clamp(self, 0, 6)


def _selu(self: Argument) -> Translated:
    return "elu", [self, _SELU_ALPHA, _SELU_SCALE, 1.0]


def _celu(self: Argument, alpha: float = 1) -> Translated:
    return "elu", [self, alpha, 1.0, 1.0 / alpha]


def _gelu(self: Argument, approximate: str = "none") -> Translated:
    return ("gelu" if approximate == "none" else "gelu_tanh"), [self]


def _round(self: Argument, decimals: int = 0) -> Translated:
    if decimals:
        raise NotImplementedError("rounding to decimals")
    return "round", [self]


def _maximum(self: Argument, other: Argument) -> Translated:
    return "maximum", [self, other]


def _minimum(self: Argument, other: Argument) -> Translated:
    return "minimum", [self, other]


def _to_copy(self: Argument, dtype: torch.dtype | None = None, **_: Any) -> Translated:
    if dtype == torch.bool:
        return "ne", [self, 0.0]
    return ("copy" if dtype is None or dtype.is_floating_point else "trunc"), [self]


_SPECIAL: dict[str, Callable[..., Translated]] = {
    "add": _add,
    "sub": _sub,
    "subtract": _sub,
    "rsub": _rsub,
    "div": _div,
    "divide": _div,
    "true_divide": _div,
    "pow": _pow,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "hardtanh": _hardtanh,
    "relu6": _relu6,
    "selu": _selu,
    "celu": _celu,
    "gelu": _gelu,
    "round": _round,
    "max": _maximum,
    "min": _minimum,
    "_to_copy": _to_copy,
}


def translate(instruction: Instruction) -> Translated:
    """The operation and arguments of an instruction that is not a reduction.

    Raises:
        NotImplementedError: the extension has no such operation; the message names it.
    """
    if instruction.op == "copy":
        return "copy", list(instruction.args)
    namespace, name, overload = instruction.op.split(".")
    if namespace == "aten" and (name in _SPECIAL or name in _PLAIN):
        bound = _bind(name, overload, instruction)
        if name in _SPECIAL:
            operation, arguments = _SPECIAL[name](**bound)
        else:
            operation, arguments = _PLAIN[name], list(bound.values())
        if all(_is_argument(a) for a in arguments) and _C.elementwise_names()[operation] == len(arguments):
            return operation, [a if isinstance(a, Operand) else float(a) for a in arguments]
    raise NotImplementedError(instruction.op)


def reason_against(instruction: Instruction) -> str | None:
    """Why the extension cannot run an instruction, or None."""
    if instruction.op.startswith("reduce."):
        name = instruction.op.removeprefix("reduce.")
        fits = name in REDUCTIONS and isinstance(instruction.args[0], Reduction)
        return None if fits else f"no kernel for {instruction.op}"
    try:
        translate(instruction)
    except NotImplementedError as error:
        return f"no kernel for {error}"
    return None


def _is_argument(argument: Any) -> bool:
    return isinstance(argument, (Operand, bool, int, float))


def _bind(name: str, overload: str, instruction: Instruction) -> dict[str, Any]:
    """The instruction's arguments by the schema's names, defaults filled in."""
    schema = getattr(getattr(torch.ops.aten, name), overload)._schema
    given = dict(instruction.kwargs)
    bound: dict[str, Any] = {}
    for position, parameter in enumerate(schema.arguments):
        if position < len(instruction.args):
            bound[parameter.name] = instruction.args[position]
        elif parameter.name in given:
            bound[parameter.name] = given[parameter.name]
        elif parameter.has_default_value():
            bound[parameter.name] = parameter.default_value
        else:
            raise NotImplementedError(f"{instruction.op} without {parameter.name}")
    return bound
