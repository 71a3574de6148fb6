"""The kernels of the extension on every instruction set: noise, elementwise operations, reductions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cpu_programs import one_pixel_program, operation_program

from pixelfast import _C, rng
from pixelfast.backends.base import Job
from pixelfast.backends.cpu import CpuBackend
from pixelfast.backends.cpu_instructions import reason_against, translate
from pixelfast.likelihoods import Categorical
from pixelfast.program import Instruction, Operand, Program, Reduction

ISAS = _C.available_isas()


def outputs(program: Program, conditions: list[np.ndarray], isa: str) -> np.ndarray:
    """The parameters of the only pixel; nothing is drawn from them."""
    width = program.buffers[-1].channels
    backend = CpuBackend(program, Categorical(width), isa=isa)
    job = Job(
        samples=1,
        seed=0,
        sample_ids=np.zeros(1, dtype=np.uint64),
        conditions=[(1 + i, c.reshape(1, 1, -1).astype(np.float64)) for i, c in enumerate(conditions)],
        temperature=1.0,
        mode="exact",
        known=np.zeros((1, 1, 1, 1), dtype=np.int64),
        mask=np.ones((1, 1, 1, 1), dtype=bool),
        on_row=None,
        collect_params=True,
        threads=1,
    )
    result = backend.run(job)
    assert result.params is not None
    return result.params[0][0, 0]


def ulps(actual: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors in units in the last place of the exact results, which are float64."""
    spacing = np.spacing(np.maximum(np.abs(exact).astype(np.float32), np.float32(1.2e-38))).astype(np.float64)
    return np.abs(actual.astype(np.float64) - exact) / spacing


# -- noise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    words = _C.philox4x32(np.array([counter], dtype=np.uint32), np.array(key, dtype=np.uint32))
    assert words[0].tolist() == expected


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("draws", [1, 4, 11, 33, 256])
def test_noise_is_that_of_python(isa: str, draws: int) -> None:
    for seed, sample, number in [(0, 0, 0), (2**64 - 1, 2**32 - 1, 2**32 - 1), (12345678901234567, 77, 3071)]:
        expected = rng.words(seed, [sample], [number], draws)[0, 0]
        tag = rng.RNG_VERSION << 16 | rng.PIXELS
        assert np.array_equal(_C.noise_words(seed, sample, number, draws, tag, isa), expected)


# -- elementwise ---------------------------------------------------------------------------------------------

WIDE = np.concatenate([np.linspace(-90, 90, 20001), np.linspace(-2, 2, 20001), np.geomspace(1e-30, 80, 4000)])
POSITIVE = np.concatenate(
    [np.geomspace(1.2e-38, 3e38, 20000), np.linspace(0.3, 3, 20001), np.geomspace(1e-45, 1e-38, 500)]
)

ACCURATE: list[tuple[str, Any, np.ndarray]] = [
    ("exp", torch.exp, np.concatenate([WIDE[np.abs(WIDE) < 87], np.linspace(87, 88.7, 1000)])),
    ("expm1", torch.expm1, WIDE[WIDE < 88.7]),
    ("tanh", torch.tanh, WIDE),
    ("sigmoid", torch.sigmoid, WIDE[WIDE > -87]),
    ("erf", torch.erf, WIDE),
    ("log", torch.log, POSITIVE),
    ("log2", torch.log2, POSITIVE),
    ("log10", torch.log10, POSITIVE),
    (
        "log1p",
        torch.log1p,
        np.concatenate([POSITIVE, np.linspace(-0.999, 5, 20001), -np.geomspace(1e-30, 0.5, 3000)]),
    ),
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("name", "function", "points"), ACCURATE, ids=[a[0] for a in ACCURATE])
def test_elementary_functions_are_within_4_ulp(
    isa: str, name: str, function: Any, points: np.ndarray
) -> None:
    points = points.astype(np.float32).astype(np.float64)
    exact = function(torch.from_numpy(points)).numpy()
    actual = outputs(operation_program(f"aten.{name}.default", [None], {}, len(points)), [points], isa)
    assert ulps(actual, exact).max() <= 4


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1.0, -1.0, 200.0, -200.0, 3e38, -3e38])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "name",
    [
        "exp",
        "expm1",
        "tanh",
        "sigmoid",
        "erf",
        "log",
        "log1p",
        "floor",
        "ceil",
        "round",
        "trunc",
        "sqrt",
        "abs",
    ],
)
def test_special_values_are_those_of_torch(isa: str, name: str) -> None:
    op = getattr(torch.ops.aten, name).default
    expected = op(torch.from_numpy(SPECIAL).float()).numpy()
    actual = outputs(operation_program(f"aten.{name}.default", [None], {}, len(SPECIAL)), [SPECIAL], isa)
    normal = np.where(np.abs(expected) < 1.2e-38, 0, expected)
    np.testing.assert_allclose(np.where(np.abs(actual) < 1.2e-38, 0, actual), normal, rtol=1e-6)


X = np.concatenate([np.linspace(-6, 6, 97), [0.0, -0.5, 0.5, 1.5, 2.5, -2.5, 1e-6, -1e-6]])
Y = np.roll(X, 13) + 0.01
Z = np.roll(X, 29) * 0.5
TRUTH = (np.arange(len(X)) % 3 == 0).astype(np.float64)
ANY = None
OPERATIONS: list[tuple[str, list[Any], dict[str, Any], list[np.ndarray]]] = [
    *[
        (f"aten.{name}.default", [ANY], {}, [X])
        for name in (
            "neg abs sign sgn exp expm1 square sin cos atan tanh sigmoid erf relu silu hardsigmoid "
            "hardswish hardtanh relu6 elu selu celu gelu leaky_relu softplus mish floor ceil round trunc "
            "frac logical_not sinh cosh erfc exp2 tan isnan positive"
        ).split()
    ],
    *[
        (f"aten.{name}.default", [ANY], {}, [np.abs(X) + 0.1])
        for name in "log log1p log2 log10 sqrt rsqrt reciprocal".split()
    ],
    *[(f"aten.{name}.default", [ANY], {}, [X / 7]) for name in "asin acos".split()],
    *[
        (f"aten.{name}.Tensor", [ANY, ANY], {}, [X, Y])
        for name in "add sub rsub mul div remainder fmod eq ne lt le gt ge".split()
    ],
    *[
        (f"aten.{name}.Tensor", [ANY, ANY], {}, [np.round(X), np.round(Y)])
        for name in "eq ne lt le gt ge".split()
    ],
    *[
        (f"aten.{name}.Scalar", [ANY, 1.5], {}, [X])
        for name in "add sub rsub mul div remainder fmod eq ne lt le gt ge".split()
    ],
    *[
        (f"aten.{name}.default", [ANY, ANY], {}, [X, Y])
        for name in "minimum maximum atan2 floor_divide".split()
    ],
    *[
        (f"aten.{name}.default", [ANY, ANY], {}, [TRUTH, np.roll(TRUTH, 1)])
        for name in "logical_and logical_or logical_xor".split()
    ],
    ("aten.floor_divide.Scalar", [ANY, 0.25], {}, [X]),
    ("aten.add.Tensor", [ANY, ANY], {"alpha": 0.7}, [X, Y]),
    ("aten.add.Tensor", [ANY, 2.0], {}, [X]),
    ("aten.sub.Tensor", [ANY, ANY], {"alpha": 2}, [X, Y]),
    ("aten.rsub.Scalar", [ANY, 1], {"alpha": 3}, [X]),
    ("aten.div.Tensor_mode", [ANY, ANY], {"rounding_mode": "floor"}, [X, Y]),
    ("aten.div.Tensor_mode", [ANY, ANY], {"rounding_mode": "trunc"}, [X, Y]),
    ("aten.div.Tensor_mode", [ANY, ANY], {"rounding_mode": None}, [X, Y]),
    ("aten.remainder.Scalar_Tensor", [2.0, ANY], {}, [Y]),
    *[("aten.pow.Tensor_Scalar", [ANY, e], {}, [np.abs(X) + 0.1]) for e in (2, 0.5, -0.5, -1, 1, 3, 2.5, 0)],
    ("aten.pow.Tensor_Scalar", [ANY, 3], {}, [X]),
    ("aten.pow.Tensor_Tensor", [ANY, ANY], {}, [np.abs(X) + 0.1, Y]),
    ("aten.pow.Scalar", [2.0, ANY], {}, [X]),
    ("aten.elu.default", [ANY, 0.5, 2.0, 1.5], {}, [X]),
    ("aten.celu.default", [ANY, 0.7], {}, [X]),
    ("aten.leaky_relu.default", [ANY, 0.2], {}, [X]),
    ("aten.softplus.default", [ANY, 2.0, 3.0], {}, [X]),
    ("aten.hardtanh.default", [ANY, -0.5, 2.0], {}, [X]),
    ("aten.threshold.default", [ANY, 0.5, -7.0], {}, [X]),
    ("aten.gelu.default", [ANY], {"approximate": "tanh"}, [X]),
    ("aten.clamp.default", [ANY, -1.0, 2.0], {}, [X]),
    ("aten.clamp.default", [ANY, None, 2.0], {}, [X]),
    ("aten.clamp.default", [ANY, -1.0], {}, [X]),
    ("aten.clamp.Tensor", [ANY, ANY, ANY], {}, [X, Z - 1, Z + 1]),
    ("aten.clamp_min.default", [ANY, 0.25], {}, [X]),
    ("aten.clamp_max.Tensor", [ANY, ANY], {}, [X, Y]),
    ("aten.max.other", [ANY, ANY], {}, [X, Y]),
    ("aten.min.other", [ANY, ANY], {}, [X, Y]),
    ("aten.lerp.Scalar", [ANY, ANY, 0.3], {}, [X, Y]),
    ("aten.lerp.Tensor", [ANY, ANY, ANY], {}, [X, Y, Z]),
    ("aten.addcmul.default", [ANY, ANY, ANY], {"value": 0.5}, [X, Y, Z]),
    ("aten.addcdiv.default", [ANY, ANY, ANY], {"value": 0.5}, [X, Y, Z + 0.3]),
    ("aten.where.self", [ANY, ANY, ANY], {}, [TRUTH, X, Y]),
    ("aten._prelu_kernel.default", [ANY, ANY], {}, [X, Y]),
]


@pytest.mark.parametrize("isa", ISAS)
def test_operations_are_those_of_torch(isa: str) -> None:
    for op, args, kwargs, values in OPERATIONS:
        values = [v.astype(np.float32).astype(np.float64) for v in values]
        numbers = iter(values)
        arguments = [
            torch.from_numpy(next(numbers)) if a is ANY and _is_slot(op, i) else a for i, a in enumerate(args)
        ]
        if op == "aten.where.self":
            arguments[0] = arguments[0] != 0
        _, name, overload = op.split(".")
        expected = getattr(getattr(torch.ops.aten, name), overload)(*arguments, **kwargs).double().numpy()
        actual = outputs(_program(op, args, kwargs, len(X)), values, isa)
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6, err_msg=f"{op} {args} {kwargs}")


def _is_slot(op: str, position: int) -> bool:
    """Whether None stands for a register; in clamp(x, None, 2) it is ATen's own None."""
    return not (op == "aten.clamp.default" and position > 0)


def _program(op: str, args: list[Any], kwargs: dict[str, Any], width: int) -> Program:
    if op != "aten.clamp.default":
        return operation_program(op, args, kwargs, width)
    instruction = Instruction(op, 1, 0, width, (Operand(0), *args[1:]), tuple(kwargs.items()))
    return one_pixel_program([width], width, [width, width], [instruction])


def test_every_kernel_is_reached_by_some_operation() -> None:
    reached = {"copy"}
    for op, args, kwargs, _ in OPERATIONS:
        program = _program(op, args, kwargs, 4)
        reached.add(translate(program.kernels[0].instructions[0])[0])
    assert set(_C.elementwise_names()) <= reached


@pytest.mark.parametrize("op", ["aten.lgamma.default", "aten.round.decimals", "reduce.median"])
def test_operations_without_a_kernel_are_named(op: str) -> None:
    kwargs = (("decimals", 2),) if op == "aten.round.decimals" else ()
    reason = reason_against(Instruction(op, 1, 0, 4, (Operand(0),), kwargs))
    assert reason is not None and op.split(".")[1] in reason


# -- operands and reductions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", [1, 3, 16, 17, 50])
def test_operands_may_start_anywhere_and_take_any_stride(isa: str, width: int) -> None:
    generator = np.random.default_rng(width)
    a, b = (generator.normal(size=3 * width + 5).astype(np.float32).astype(np.float64) for _ in range(2))
    size = len(a)
    program = one_pixel_program(
        [size, size],
        3 * width + 2,
        [size, size, 3 * width + 2],
        [
            Instruction("copy", 2, 0, 3 * width + 2, (Operand(0),)),
            Instruction("aten.mul.Tensor", 2, 1, width, (Operand(0, 3), Operand(1, 2, 3))),
            Instruction("aten.sub.Tensor", 2, width + 1, width, (Operand(1, 4, 0), Operand(0, 1, 2))),
            # In place, shifted upwards: what is read must not be what was just written.
            Instruction("aten.add.Tensor", 2, 2 * width + 1, width, (Operand(2, 2 * width), Operand(1))),
        ],
    )
    expected = a[: 3 * width + 2].copy()
    expected[1 : width + 1] = a[3 : 3 + width] * b[2 : 2 + 3 * width : 3]
    expected[width + 1 : 2 * width + 1] = b[4] - a[1 : 1 + 2 * width : 2]
    expected[2 * width + 1 : 3 * width + 1] = expected[2 * width : 3 * width] + b[:width]
    np.testing.assert_allclose(outputs(program, [a, b], isa), expected, rtol=1e-6)


@pytest.mark.parametrize("op", ["sum", "amax", "amin", "prod"])
@pytest.mark.parametrize(("outer", "inner"), [(7, 1), (1, 6)])
def test_reductions(op: str, outer: int, inner: int) -> None:
    a = np.random.default_rng(0).normal(size=50).astype(np.float32).astype(np.float64)
    groups, count = 6, 7
    index = 3 + np.arange(groups)[:, None] * outer + np.arange(count)[None] * inner
    program = one_pixel_program(
        [50],
        groups,
        [50, groups],
        [Instruction(f"reduce.{op}", 1, 0, groups, (Reduction(0, 3, outer, inner, count),))],
    )
    expected = getattr(torch, op)(torch.from_numpy(a[index]), dim=1).numpy()
    np.testing.assert_allclose(outputs(program, [a], ISAS[0]), expected, rtol=1e-6)


def test_instruction_sets_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    program = operation_program("aten.exp.default", [None], {}, 4)
    for isa in ISAS:
        monkeypatch.setenv("PIXELFAST_ISA", isa)
        assert CpuBackend(program, Categorical(4)).isa == isa
    monkeypatch.setenv("PIXELFAST_ISA", "avx1024")
    with pytest.raises(Exception, match=r"avx1024.*this CPU runs.*baseline"):
        CpuBackend(program, Categorical(4))
