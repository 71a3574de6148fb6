"""The Triton kernels of convolutions and gates, without a GPU: interpreted on the CPU, and compiled ahead of time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_ops_convolutions import (
    ABOVE,
    CASES,
    HORIZONTAL,
    SEED,
    VERTICAL,
    Case,
    conv_case,
    error,
    reference,
    run,
    tensors,
)
from triton_aot import CAPABILITIES, compile_ahead, interpret

from pixelfast.kernels import masked_conv_tiles as tiles
from pixelfast.ops.concat_elu_dropout import dropout_factors, dropout_threshold

OPERATIONS = "pixelfast.ops.masked_conv_cuda"
KINDS = {"masked_conv": "none", "concat_elu_conv": "concat_elu"}


def calls(case: Case, given: dict[str, torch.Tensor]) -> list[tuple[str, str, tuple[Any, ...]]]:
    """What the registered operation calls on a GPU: forward and backward, all gradients."""
    given = {name: tensor.detach() for name, tensor in given.items()}
    settings = dict(case.settings)
    x, condition = given["x"], given.get("condition")
    generator = torch.Generator().manual_seed(9)
    if case.function == "gated":
        kind = settings.get("kind", "tanh")
        shape = (x.shape[0], x.shape[1] // 2, *x.shape[2:])
        upstream = torch.randn(shape, generator=generator, dtype=torch.float64).to(x.dtype)
        forward = (x, condition, given.get("residual"), kind)
        return [(OPERATIONS, "gate", forward), (OPERATIONS, "gate_backward", (upstream, x, condition, kind))]
    weight, seed = given["weight"], settings.get("seed")
    kind = KINDS.get(case.function, settings.get("kind", "tanh"))
    dilation = [settings.get("dilation", 1)] * 2
    how = (seed, kind, list(settings.get("padding", (0, 0, 0, 0))), dilation, settings.get("dropout", 0.0))
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64).to(x.dtype)
    return [
        (OPERATIONS, "conv", (x, weight, given.get("bias"), condition, given.get("added"), *how)),
        (OPERATIONS, "conv_backward", (upstream, x, weight, condition, *how, [True] * 3)),
    ]


def assert_near(case: Case, forward: torch.Tensor, backward: Any) -> None:
    """At most twice plain torch's error in float32 forward, three times backward, plus an ulp of the largest."""
    given = tensors(case, torch.float32)
    exact = {name: t.detach().double().requires_grad_() for name, t in given.items()}
    truth = dict(zip(["out", *given], run(reference(case), case, exact), strict=True))
    plain = dict(zip(["out", *given], run(reference(case), case, given), strict=True))
    got = {"out": forward, "x": backward}
    if case.function != "gated":
        got |= dict(zip(("x", "weight", "bias"), backward, strict=True))
    for name, mine in got.items():
        if name in truth:
            floor = 2.0**-23 * float(truth[name].abs().max()) if truth[name].numel() else 0.0
            assert mine.shape == truth[name].shape
            if mine.numel():
                factor = 2 if name == "out" else 3
                assert error(mine, truth[name]) <= factor * error(plain[name], truth[name]) + floor, name


INTERPRETED = [
    *CASES,
    conv_case("masked_conv:blocks of everything", (2, 19, 9, 8), (35, 19, 2, 2), padding=HORIZONTAL),
    conv_case("concat_elu_conv:blocks", (1, 33, 9, 8), (18, 66, 2, 1), padding=(0, 0, 1, 0), dropout=0.3, seed=SEED),
    conv_case(
        "gated_conv:blocks", (2, 36, 9, 8), (34, 18, 1, 2), padding=(1, 0, 0, 0), given=("image", "bias", "added")
    ),
]


def test_interpreted_float32_errors_are_near_those_of_torch(tmp_path):
    left_out = ("masked_conv:no image", "masked_conv:many small images")  # nothing to run; many programs of one kind
    cases = [case for case in INTERPRETED if case.name not in left_out]
    found = interpret([call for case in cases for call in calls(case, tensors(case, torch.float32))], tmp_path)
    for case, forward, backward in zip(cases, found[::2], found[1::2], strict=True):
        assert_near(case, forward, backward)


def test_interpreted_strides_do_not_matter(tmp_path):
    cases = [
        conv_case("concat_elu_conv:strides", (2, 5, 5, 7), (4, 10, 1, 3), padding=ABOVE, dropout=0.5, seed=SEED),
        conv_case("gated_conv:strides", (2, 6, 5, 7), (4, 3, 2, 3), padding=VERTICAL, given=("map", "added")),
        Case("gated:strides", {"x": (2, 6, 3, 5), "residual": (2, 3, 3, 5), "condition": (2, 6, 1, 1)}),
    ]

    def sliced(t: torch.Tensor) -> torch.Tensor:
        larger = torch.full([2 * size + 1 for size in t.shape], float("nan"))
        return larger[tuple(slice(1, None, 2) for _ in t.shape)].copy_(t)

    def last(t: torch.Tensor) -> torch.Tensor:
        return t.to(memory_format=torch.channels_last) if t.ndim == 4 else t.clone()

    wanted = []
    for case in cases:
        plain = tensors(case, torch.float32)
        for change in (torch.clone, sliced, last):
            wanted += calls(case, {name: change(t.detach()) for name, t in plain.items()})
    found = interpret(wanted, tmp_path)
    for i in range(0, len(found), 6):
        for forward, backward in ((found[i + 2], found[i + 3]), (found[i + 4], found[i + 5])):
            assert torch.equal(forward, found[i])
            pairs = (
                [(backward, found[i + 1])] if torch.is_tensor(backward) else zip(backward, found[i + 1], strict=True)
            )
            # Plain torch adds up the bias's gradient, in the order of the memory.
            for a, b in list(pairs)[:2]:
                assert torch.equal(a, b)
        assert found[i + 4].is_contiguous(memory_format=torch.channels_last)


def test_interpreted_dropout_is_the_references(tmp_path):
    x = torch.zeros(2, 5, 3, 50)
    threshold = dropout_threshold(0.3)
    call = ("pixelfast.kernels.concat_elu_dropout", "kept_features", (x, SEED, threshold))
    [kept] = interpret([call], tmp_path)
    bits = torch.stack((kept & 1, kept >> 1), dim=1).flatten(1, 2)
    assert torch.equal(bits > 0, dropout_factors(SEED, x.shape, 0.3, torch.float32) > 0)


def types(kernel: Any, number: str, **constants: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Types of a kernel's arguments for dense tensors of `number`, and its constants."""
    pointers = {"kept": "*u8", "sums": "*fp32", "seed": "*i64", "scale": "fp32", "threshold": "i64"}
    tensor_names = {"x", "condition", "weight", "bias", "added", "out", "upstream", "gradient", "residual"}
    found = {}
    for name in kernel.arg_names:
        if name in tensor_names:
            found[name] = f"*{number}"
        elif name.endswith("_column") and name not in constants:
            constants[name] = 1
        elif name not in constants:
            found[name] = pointers.get(name, "i32")
    return {name: kind for name, kind in found.items() if name not in constants}, constants


NOT_MULTIPLES = ("positions", "height", "width", "taps", "columns", "top", "left", "dilation", "units", "outputs")


def compiled(kernel: str, number: str, kind: str, capability: int, dropout: bool = False) -> Any:
    kernels = pytest.importorskip("pixelfast.kernels.masked_conv")
    function = getattr(kernels, kernel)
    half = number != "fp32"
    constants: dict[str, Any] = {"KIND": kind, "PRECISION": "tf32", "WIDE": False}
    if kernel == "conv_kernel":
        tile = tiles.conv_tile(160, half)
        constants |= {"OUTPUTS": tile.outputs}
    elif kernel == "conv_input_gradient_kernel":
        tile = tiles.conv_gradient_tile(160, half)
        constants |= {"UNITS": tile.outputs}
    else:
        tile = tiles.weight_gradient_tile(160, half)
        constants |= {"OUTPUTS": tile.outputs}
    constants |= {"POSITIONS": tile.positions, "INPUTS": tile.inputs}
    absent = {"kept"} if not dropout else set()
    absent |= {"condition"} if kind in ("none", "concat_elu") else set()
    constants |= dict.fromkeys(absent & set(function.arg_names))
    arguments, constants = types(function, number, **constants)
    undivided = [name for name in NOT_MULTIPLES if name in arguments]
    return compile_ahead(
        function, arguments, constants, capability, tile.warps, undivided=undivided, num_stages=tile.stages
    )


CONV_KERNELS = ("conv_kernel", "conv_input_gradient_kernel", "conv_weight_gradient_kernel")
COMMON = [("bf16", "concat_elu", True), ("bf16", "tanh", False), ("fp32", "concat_elu", True)]
FURTHER = [
    (number, kind, kind == "concat_elu")
    for number in ("bf16", "fp16", "fp32")
    for kind in ("none", "concat_elu", "tanh", "linear")
    if (number, kind, kind == "concat_elu") not in COMMON
]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("number", "kind", "dropout"), [*COMMON, *(pytest.param(*case, marks=pytest.mark.slow) for case in FURTHER)]
)
@pytest.mark.parametrize("kernel", CONV_KERNELS)
def test_registers_suffice(kernel, number, kind, dropout, capability):
    found = compiled(kernel, number, kind, capability, dropout)
    assert found.spilled == 0
    assert found.registers <= 255


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("number", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["gate_kernel", "gate_gradient_kernel", "kept_features_kernel"])
def test_registers_of_elementwise_kernels_suffice(name, number, capability):
    gated = pytest.importorskip("pixelfast.kernels.gated")
    dropout = pytest.importorskip("pixelfast.kernels.concat_elu_dropout")
    if name == "kept_features_kernel":
        function, constants = dropout.kept_features_kernel, {"PAIRS": dropout.PAIRS, "POSITIONS": dropout.POSITIONS}
    else:
        function, constants = getattr(gated, name), {"KIND": "tanh", "LAST": False, "BLOCK": gated.BLOCK}
    arguments, constants = types(function, number, **constants)
    if name == "kept_features_kernel":
        arguments["kept"] = "*u8"
    undivided = [name for name in ("numbers", "features", "height", "width", "channels") if name in arguments]
    found = compile_ahead(
        function, arguments, constants, capability, undivided=[*undivided, "threshold"][: len(undivided)]
    )
    assert found.spilled == 0


def test_tiles():
    for half in (True, False):
        for size in (1, 16, 40, 64, 160, 1000):
            for tile in (
                tiles.conv_tile(size, half),
                tiles.conv_gradient_tile(size, half),
                tiles.weight_gradient_tile(size, half),
            ):
                assert all(side >= 16 and side & (side - 1) == 0 for side in tile[:3])
        assert tiles.conv_tile(1000, half).outputs > tiles.conv_tile(16, half).outputs
    assert tiles.splits(1, 100) == 1
    assert tiles.splits(1, 1 << 20) == tiles.MOST_SPLITS
    assert tiles.splits(10_000, 1 << 20) == 1
