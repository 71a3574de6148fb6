"""The mixture's sampling kernel, without a GPU: interpreted on the CPU, and compiled ahead of time."""

from __future__ import annotations

import math

import pytest
import torch
from test_ops_mixture_sample import case
from triton_aot import CAPABILITIES, compile_ahead, interpret

from pixelfast.ops import mixture_sample_reference

MODULE = "pixelfast.kernels.mixture_sample"
LARGE_BLOCKS = (
    f"import {MODULE} as kernels, triton\n"
    "kernels.launch = lambda pixels, mixtures: kernels.Launch(1024, triton.next_power_of_2(mixtures), 8)"
)


def assert_the_same(cases, folder, before=""):
    """Numbers equal those of the reference; each case is (params, uniforms, levels, temperature)."""
    results = interpret([(MODULE, "mixture_sample", arguments) for arguments in cases], folder, before)
    for (params, uniforms, levels, temperature), sampled in zip(cases, results, strict=True):
        expected = mixture_sample_reference(params, uniforms, levels=levels, temperature=temperature)
        assert torch.equal(sampled, expected)


def test_numbers_are_those_of_the_reference(tmp_path):
    # Values differ by about 1e-14 bins, so a number in some 1e13 would: among these 123,000 none may.
    colour, grey = case(3, 10, (16, 32, 32)), case(1, 5, (24, 32, 32), seed=1)
    assert_the_same([(*colour, 256, 1.0), (*grey, 256, 0.7), (*grey, 5, 1.5)], tmp_path, LARGE_BLOCKS)


def test_small_images_types_strides_and_parameters_without_a_level(tmp_path):
    params, uniforms = case(3, 3, (2, 3, 3))
    sick = params.clone()
    sick[0, 1, 2, 0] = math.nan
    sick[1, :3, 0, 0] = -math.inf
    sick[1, 12:15, 1, 1] = math.nan
    extreme = torch.cat([params[:, :3], 30 * params[:, 3:]], dim=1)
    strided = params.contiguous(memory_format=torch.channels_last)
    noise = uniforms.permute(4, 2, 3, 1, 0).contiguous().permute(4, 3, 1, 2, 0)
    assert_the_same(
        [
            (*case(3, 1, (1, 1, 1)), 256, 1.0),
            (strided, noise, 256, 1.0),
            (params.half(), uniforms, 256, 0.0),
            (params.double(), uniforms, 2, 1.0),
            (sick, uniforms, 256, 1.0),
            (extreme, uniforms, 256, 1.0),
        ],
        tmp_path,
    )


def test_values_between_two_levels_go_to_the_even_one(tmp_path):
    params, uniforms = case(1, 1, (1, 1, 6))
    # Without noise and with 3 levels the value is that of the mean, from -0.5 to 2.5 in levels.
    params[0, 1, 0] = torch.tensor([-1.5, -0.5, 0.5, 1.5, -1.0, 1.0])
    expected = [0, 0, 2, 2, 0, 2]
    assert mixture_sample_reference(params, uniforms, levels=3, temperature=0.0).flatten().tolist() == expected
    assert_the_same([(params, uniforms, 3, 0.0)], tmp_path)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("pixels", [64, 1 << 20])
@pytest.mark.parametrize(
    ("channels", "number"),
    [(3, "fp32"), pytest.param(3, "bf16", marks=pytest.mark.slow), pytest.param(1, "fp32", marks=pytest.mark.slow)],
)
def test_registers_suffice(channels, number, pixels, capability):
    kernels = pytest.importorskip(MODULE)
    function = kernels.mixture_sample_kernel
    shape = kernels.launch(pixels, 10)
    assert (shape.components, function.params[3].annotation_type) == (16, "fp64")
    constants = {
        "CHANNELS": channels,
        "COMPONENTS": shape.components,
        "BLOCK": shape.block,
        **dict.fromkeys(("params_column", "uniforms_draw", "sampled_column"), 1),
    }
    given = {"params": f"*{number}", "uniforms": "*fp64", "sampled": "*i64", "temperature": "fp64"}
    types = {name: given.get(name, "i32") for name in function.arg_names if name not in constants}
    undivided = ("mixtures", "levels", "uniforms_column")
    found = compile_ahead(function, types, constants, capability, shape.warps, undivided=undivided)
    assert found.spilled == 0
    # A multiprocessor's 65,536 registers then hold three programs of four warps.
    assert found.registers <= 168


def test_launches():
    launch = pytest.importorskip(MODULE).launch
    for pixels in (1, 64, 1 << 20):
        for mixtures in (1, 3, 10, 16, 100):
            _, components, warps = launch(pixels, mixtures)
            assert mixtures <= components < 2 * mixtures
            assert components & (components - 1) == 0
            assert 1 <= warps <= 8
    assert launch(1 << 20, 10).block > launch(1, 10).block
