"""The mixture loss's Triton kernels, without a GPU: interpreted on the CPU, and compiled ahead of time."""

from __future__ import annotations

import pytest
import torch
from test_ops_mixture_loss import assert_errors, case, extreme_case, run
from triton_aot import CAPABILITIES, compile_ahead, interpret

from pixelfast.ops import mixture_nll_reference

MODULE = "pixelfast.kernels.mixture_loss"
FURTHER_TYPES = [(3, "fp16"), (1, "fp32"), (1, "bf16"), (1, "fp16")]
"""Channels, and the type of the parameters; each takes seconds to compile."""


def interpreted(cases, folder, before=""):
    """(result, gradient) of each (params, x, upstream, levels)."""
    calls = []
    for params, x, upstream, levels in cases:
        upstream = upstream.double() if params.dtype == torch.float64 else upstream.float()
        calls.append((MODULE, "mixture_nll", (params, x, levels)))
        calls.append((MODULE, "mixture_nll_backward", (upstream, params, x, levels)))
    results = interpret(calls, folder, before)
    return list(zip(results[::2], results[1::2], strict=True))


def test_float64_is_the_reference(tmp_path):
    cases = [
        (*case(channels, mixtures, shape, levels=levels), levels)
        for channels, mixtures, shape, levels in [
            (3, 1, (1, 1, 1), 256),
            (3, 3, (2, 3, 5), 256),
            (1, 3, (2, 3, 5), 256),
            (3, 2, (1, 5, 9), 2),
            (1, 10, (1, 2, 2), 5),
        ]
    ]
    cases.append((*(tensor[:1, ..., :5, :5] for tensor in extreme_case(3)), 256))
    for arguments, (nats, gradient) in zip(cases, interpreted(cases, tmp_path), strict=True):
        expected, expected_gradient = run(mixture_nll_reference, *arguments)
        torch.testing.assert_close(nats, expected, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-13)


def test_float32_errors_are_near_those_of_torch(tmp_path):
    cases = []
    for channels in (1, 3):
        # Of the extreme ones enough that no single pixel decides: posteriors of far pixels are rounded by chance.
        cases.append((*case(channels, 3, (1, 12, 12), torch.float32), 256))
        cases.append((*extreme_case(channels, torch.float32), 256))
    large_blocks = f"import {MODULE} as kernels; kernels.launch = lambda pixels: kernels.Launch(1024, 32)"
    for arguments, got in zip(cases, interpreted(cases, tmp_path, large_blocks), strict=True):
        params, *others = arguments
        truth = run(mixture_nll_reference, params.double(), *others)
        assert_errors(got, run(mixture_nll_reference, *arguments), truth)


def test_strides_types_and_values_that_are_no_levels(tmp_path):
    params, x, upstream = case(3, 2, (2, 3, 5), torch.float32)
    larger = torch.zeros(3, 25, 3, 10)
    larger[1:, 3:-2, :, ::2] = params
    bad = x.clone()
    bad[1, 2, 1, 4] = 256
    plain, strided, last, bytes_, half, sick = interpreted(
        [
            (params, x, upstream, 256),
            (larger[1:, 3:-2, :, ::2], x.transpose(2, 3).contiguous().transpose(2, 3), upstream, 256),
            (params.contiguous(memory_format=torch.channels_last), x, torch.ones(()).expand(2, 3, 5), 256),
            (params, x.to(torch.uint8), upstream, 256),
            (params.half(), x, upstream, 256),
            (params, bad, upstream, 256),
        ],
        tmp_path,
    )
    for other in (strided, bytes_):
        assert all(torch.equal(a, b) for a, b in zip(other, plain, strict=True))
    assert torch.equal(last[0], plain[0])
    assert last[1].is_contiguous(memory_format=torch.channels_last)
    assert half[0].dtype == torch.float32
    assert half[1].dtype == torch.float16
    expected = run(mixture_nll_reference, params.half(), x, upstream)
    torch.testing.assert_close(half[0], expected[0])
    torch.testing.assert_close(half[1], expected[1], rtol=2e-3, atol=1e-6)
    assert sick[0].isnan().nonzero().tolist() == [[1, 1, 4]]
    assert torch.equal(sick[1].isnan(), sick[0].isnan().unsqueeze(1).expand_as(sick[1]))


def compiled(kernel, number, channels, capability, channels_last=False, **options):
    kernels = pytest.importorskip(MODULE)
    function = getattr(kernels, kernel)
    pointers = {"params": number, "gradient": number, "x": "u8", "nats": "fp32", "upstream": "fp32"}
    ones = {name for name in function.arg_names if name.endswith("_plane" if channels_last else "_column")}
    ones.add("upstream_column")
    shape = kernels.launch(1 << 20)
    constants = {"CHANNELS": channels, "BLOCK": shape.block, **dict.fromkeys(ones & {*function.arg_names}, 1)}
    types = {
        name: f"*{pointers[name]}" if name in pointers else "i32"
        for name in function.arg_names
        if name not in constants
    }
    return compile_ahead(
        function, types, constants, capability, shape.warps, undivided=("mixtures", "levels"), **options
    )


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("channels", "number"),
    [(3, "fp32"), (3, "bf16"), *(pytest.param(*case, marks=pytest.mark.slow) for case in FURTHER_TYPES)],
)
@pytest.mark.parametrize("kernel", ["mixture_nll_kernel", "mixture_nll_backward_kernel"])
def test_registers_suffice(kernel, channels, number, capability):
    found = compiled(kernel, number, channels, capability)
    assert found.spilled == 0
    # A multiprocessor's 65,536 registers then hold at least 640 threads.
    assert found.registers <= 96


def test_channels_last_compiles_without_spills():
    assert compiled("mixture_nll_backward_kernel", "bf16", 3, 90, channels_last=True).spilled == 0


def test_spills_are_seen():
    assert compiled("mixture_nll_backward_kernel", "fp32", 3, 90, maxnreg=32).spilled > 0


def test_launches():
    launch = pytest.importorskip(MODULE).launch
    for pixels in (1, 31, 1024, 16384, 40000, 1 << 20):
        block, warps = launch(pixels)
        assert block == 32 * warps
    assert launch(1 << 20).block > launch(1).block
