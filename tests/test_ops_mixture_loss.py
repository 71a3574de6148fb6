"""The fused mixture loss against plain torch: values, gradients, layouts, and what torch asks of an operation."""

from __future__ import annotations

import math

import pytest
import torch

from pixelfast import _C
from pixelfast.errors import ShapeError
from pixelfast.likelihoods import DiscretizedLogisticMixture
from pixelfast.ops import mixture_nll, mixture_nll_reference
from pixelfast.ops.mixture_loss_reference import planes_per_component

FORWARD_RATIO, BACKWARD_RATIO = 2.0, 3.0
"""How many times torch's own error in the same dtype the kernels may have."""
LOW_PRECISION = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(3, 7, 5), (1, 1, 1), (2, 16, 16), (1, 3, 33)]
"""N, H, W."""


def case(channels, mixtures, shape, dtype=torch.float64, levels=256, spread=1.0, seed=0):
    """Parameters, images with all of their edges, and a gradient of the result."""
    generator = torch.Generator().manual_seed(seed)
    n, height, width = shape
    planes = planes_per_component(channels) * mixtures
    params = spread * torch.randn(n, planes, height, width, generator=generator, dtype=torch.float64)
    x = torch.randint(levels, (n, channels, height, width), generator=generator)
    edges = torch.randint(4, x.shape, generator=generator)
    x = torch.where(edges == 0, 0, torch.where(edges == 1, levels - 1, x))
    upstream = torch.rand(n, height, width, generator=generator, dtype=torch.float64)
    return params.to(dtype), x, upstream


def extreme_case(channels, dtype=torch.float64, seed=0):
    """Log-scales from -20 to 20, means outside of the range too, strong coefficients, logits far apart."""
    params, x, upstream = case(channels, 4, (8, 24, 24), seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    kinds = 3 if channels == 3 else 2
    params[:, :4] *= 10
    blocks = params[:, 4:].view(8, channels, kinds, 4, 24, 24)
    blocks[:, :, 1] = 40 * torch.rand(blocks[:, :, 1].shape, generator=generator, dtype=torch.float64) - 20
    blocks[:, :, 2:] *= 5
    return params.to(dtype), x, upstream


def run(function, params, x, upstream, levels=256):
    """Result and gradient."""
    params = params.detach().requires_grad_()
    nats = function(params, x, levels=levels)
    (gradient,) = torch.autograd.grad(nats, params, upstream.to(nats.dtype))
    return nats.detach(), gradient


def rms(error):
    return error.double().square().mean().sqrt().item()


def assert_errors(got, plain, truth):
    """(result, gradient) three times: the kernels', plain torch's at the same precision, and in float64."""
    for mine, torchs, exact, ratio in zip(got, plain, truth, (FORWARD_RATIO, BACKWARD_RATIO), strict=True):
        assert mine.dtype == torchs.dtype
        assert mine.shape == exact.shape
        error, allowed = rms(mine - exact), ratio * rms(torchs - exact)
        assert error <= allowed, f"RMS error {error:.3g}; {allowed:.3g} is allowed"


def isas():
    return _C.available_isas()


# ---------------------------------------------------------------- values and gradients


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("mixtures", [1, 10])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_float64_is_the_reference(shape, channels, mixtures, levels):
    params, x, upstream = case(channels, mixtures, shape, levels=levels)
    nats, gradient = run(mixture_nll, params, x, upstream, levels)
    expected, expected_gradient = run(mixture_nll_reference, params, x, upstream, levels)
    assert nats.shape == shape
    torch.testing.assert_close(nats, expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_reference_is_the_likelihood(channels):
    params, x, _ = case(channels, 3, (2, 4, 5))
    likelihood = DiscretizedLogisticMixture(mixtures=3)
    torch.testing.assert_close(mixture_nll_reference(params, x), -likelihood.log_prob(params, x).sum(1))
    torch.testing.assert_close(likelihood.loss(params, x), mixture_nll(params, x).sum() / 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradcheck(channels):
    params, x, _ = case(channels, 2, (2, 2, 3))
    assert torch.autograd.gradcheck(lambda p: mixture_nll(p, x), params.requires_grad_())


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", LOW_PRECISION)
@pytest.mark.parametrize("channels", [1, 3])
def test_errors_are_near_those_of_torch(monkeypatch, channels, dtype, isa):
    monkeypatch.setenv("PIXELFAST_ISA", isa)
    params, x, upstream = case(channels, 10, (4, 17, 13), dtype)
    truth = run(mixture_nll_reference, params.double(), x, upstream)
    assert_errors(run(mixture_nll, params, x, upstream), run(mixture_nll_reference, params, x, upstream), truth)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", LOW_PRECISION)
@pytest.mark.parametrize("channels", [1, 3])
def test_extreme_parameters(monkeypatch, channels, dtype, isa):
    monkeypatch.setenv("PIXELFAST_ISA", isa)
    params, x, upstream = extreme_case(channels, dtype)
    got = run(mixture_nll, params, x, upstream)
    assert all(bool(t.isfinite().all()) for t in got)
    truth = run(mixture_nll_reference, params.double(), x, upstream)
    assert_errors(got, run(mixture_nll_reference, params, x, upstream), truth)


def test_a_wrong_result_exceeds_the_allowed_error():
    params, x, upstream = case(3, 10, (4, 17, 13), torch.float32)
    truth = run(mixture_nll_reference, params.double(), x, upstream)
    plain = run(mixture_nll_reference, params, x, upstream)
    for wrong in ((plain[0] * (1 + 1e-5), plain[1]), (plain[0], plain[1].roll(1, 0)), (plain[0], -plain[1])):
        with pytest.raises(AssertionError, match="RMS error"):
            assert_errors(wrong, plain, truth)


@pytest.mark.parametrize("isa", isas())
def test_a_component_of_no_weight_counts_for_nothing(monkeypatch, isa):
    monkeypatch.setenv("PIXELFAST_ISA", isa)
    params, x, upstream = case(3, 3, (2, 5, 5), torch.float32)
    params[:, 1] = -math.inf
    nats, gradient = run(mixture_nll, params, x, upstream)
    kept = [i for i in range(30) if i % 3 != 1]
    expected, expected_gradient = run(mixture_nll, params[:, kept], x, upstream)
    assert torch.equal(nats, expected)
    assert torch.equal(gradient[:, kept], expected_gradient)
    assert bool((gradient[:, 1::3] == 0).all())


@pytest.mark.parametrize("function", [mixture_nll, mixture_nll_reference])
@pytest.mark.parametrize("level", [-1, 256])
def test_values_that_are_no_levels_give_nan_where_they_are(function, level):
    params, x, upstream = case(3, 2, (2, 5, 5), torch.float32)
    x[1, 2, 3, 4] = level
    nats, gradient = run(function, params, x, upstream)
    expected = torch.zeros(2, 5, 5, dtype=torch.bool)
    expected[1, 3, 4] = True
    assert torch.equal(nats.isnan(), expected)
    assert torch.equal(gradient.isnan(), expected.unsqueeze(1).expand_as(gradient))


def test_nan_parameters_give_nan_where_they_are():
    for plane in range(30):
        params, x, _ = case(3, 3, (2, 4, 5), torch.float32)
        params[1, plane, 2, 3] = math.nan
        where = mixture_nll(params, x).isnan().nonzero().tolist()
        assert where == [[1, 2, 3]], plane


# ---------------------------------------------------------------- memory


def layouts(tensor):
    """The same numbers in memory in other ways."""
    n, c, h, w = tensor.shape
    larger = tensor.new_zeros(n + 1, c + 3, h + 2, 2 * w + 1)
    larger[1:, 2:-1, 1:-1, 1::2] = tensor
    return {
        "channels-last": tensor.contiguous(memory_format=torch.channels_last),
        "sliced": larger[1:, 2:-1, 1:-1, 1::2],
        "columns-first": tensor.transpose(2, 3).contiguous().transpose(2, 3),
        "images-last": tensor.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        "flipped": tensor.flip(3).contiguous().flip(3),
    }


@pytest.mark.parametrize("dtype", [torch.float64, *LOW_PRECISION])
@pytest.mark.parametrize("layout", ["channels-last", "sliced", "columns-first", "images-last", "flipped"])
def test_any_strides_give_the_same_bits(layout, dtype):
    params, x, upstream = case(3, 3, (2, 7, 16), dtype)
    expected = run(mixture_nll, params, x, upstream)
    strided = layouts(params)[layout], layouts(x)[layout], layouts(upstream.unsqueeze(1))[layout].squeeze(1)
    got = run(mixture_nll, *strided)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_expanded_arguments():
    params, x, _ = case(3, 3, (2, 7, 5), torch.float32)
    x = x[:1, :, :, :1].expand(2, -1, 7, 5)
    upstream = torch.ones(()).expand(2, 7, 5)
    got = run(mixture_nll, params, x, upstream)
    expected = run(mixture_nll, params, x.contiguous(), upstream.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_any_integers(dtype):
    params, x, _ = case(3, 3, (2, 7, 5), torch.float32)
    assert torch.equal(mixture_nll(params, x.to(dtype)), mixture_nll(params, x))


@pytest.mark.parametrize("dtype", [torch.float64, *LOW_PRECISION])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_number_of_the_results_is_written(monkeypatch, shape, dtype):
    params, x, upstream = case(3, 2, shape, dtype)
    expected = run(mixture_nll, params, x, upstream)

    def poisoned(make):
        return lambda *args, **kwargs: make(*args, **kwargs).fill_(math.nan)

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    assert torch.empty(1).isnan()
    got = run(mixture_nll, params, x, upstream)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_only_the_arguments_are_kept_for_the_gradient():
    params, x, _ = case(3, 10, (2, 8, 8), torch.float32)
    params.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        mixture_nll(params, x).sum().backward()
    assert set(kept) == {params.data_ptr(), x.data_ptr()}


# ---------------------------------------------------------------- repeats and threads


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_250_repeats_on_two_threads_are_bit_identical(torch_threads, dtype):
    torch_threads(2)
    params, x, upstream = case(3, 10, (3, 9, 11), dtype)
    first = run(mixture_nll, params, x, upstream)
    for _ in range(250):
        assert all(torch.equal(a, b) for a, b in zip(run(mixture_nll, params, x, upstream), first, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, *LOW_PRECISION])
def test_results_do_not_depend_on_threads(torch_threads, dtype):
    params, x, upstream = case(3, 10, (3, 9, 11), dtype)
    results = []
    for threads in (1, 2, 3, 7):
        torch_threads(threads)
        results.append(run(mixture_nll, params, x, upstream))
    assert all(torch.equal(a, b) for other in results for a, b in zip(other, results[0], strict=True))


def test_a_pixel_does_not_depend_on_those_around_it():
    params, x, upstream = case(3, 10, (2, 9, 11), torch.float32)
    nats, gradient = run(mixture_nll, params, x, upstream)
    part = (slice(1, 2), slice(None), slice(2, 5), slice(3, 4))
    alone, alone_gradient = run(mixture_nll, params[part], x[part], upstream[1:2, 2:5, 3:4])
    assert torch.equal(alone, nats[1:2, 2:5, 3:4])
    assert torch.equal(alone_gradient, gradient[part])


# ---------------------------------------------------------------- as one of torch's operations


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_opcheck(channels, dtype):
    params, x, upstream = case(channels, 2, (2, 3, 5), dtype)
    strided = params.contiguous(memory_format=torch.channels_last).requires_grad_()
    for argument in (params.requires_grad_(), strided):
        torch.library.opcheck(torch.ops.pixelfast.mixture_nll, (argument, x, 256))
        arguments = (upstream.float(), argument.detach(), x, 256)
        torch.library.opcheck(torch.ops.pixelfast.mixture_nll_backward, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_compile_without_graph_breaks(dynamic):
    params, x, upstream = case(3, 2, (2, 3, 5), torch.float32)

    def loss(params, x, levels=256):
        return 2 * mixture_nll(params * 1.5, x, levels=levels)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    got, expected = run(compiled, params, x, upstream), run(loss, params, x, upstream)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.slow
def test_torch_compile_with_inductor():
    params, x, upstream = case(3, 2, (2, 3, 5), torch.float32)
    got = run(torch.compile(mixture_nll, fullgraph=True), params, x, upstream)
    assert all(torch.equal(a, b) for a, b in zip(got, run(mixture_nll, params, x, upstream), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_it_in_float32(dtype):
    params, x, upstream = case(3, 2, (2, 3, 5), dtype)
    expected = run(mixture_nll, params, x, upstream)
    with torch.autocast("cpu", torch.bfloat16):
        got = run(mixture_nll, params, x, upstream)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_meta_tensors():
    params, x, _ = case(3, 2, (2, 3, 5), torch.bfloat16)
    nats = mixture_nll(params.to("meta"), x.to("meta"))
    assert nats.device.type == "meta"
    assert nats.shape == (2, 3, 5)
    assert nats.dtype == torch.float32


def test_no_images_at_all():
    nats, gradient = run(mixture_nll, *case(3, 2, (0, 3, 5), torch.float32))
    assert nats.shape == (0, 3, 5)
    assert gradient.shape == (0, 20, 3, 5)


@pytest.mark.parametrize(
    ("params", "x", "levels", "message"),
    [
        (torch.zeros(2, 20, 3, 5), torch.zeros(2, 3, 3, 5), 256, "x has dtype torch.float32"),
        (torch.zeros(2, 20, 3, 5), torch.zeros(2, 2, 3, 5, dtype=torch.uint8), 256, "of 1 or 3 channels"),
        (torch.zeros(2, 21, 3, 5), torch.zeros(2, 3, 3, 5, dtype=torch.uint8), 256, r"\(2, 10 \* mixtures, 3, 5\)"),
        (torch.zeros(2, 0, 3, 5), torch.zeros(2, 1, 3, 5, dtype=torch.uint8), 256, r"\(2, 3 \* mixtures, 3, 5\)"),
        (torch.zeros(1, 20, 3, 5), torch.zeros(2, 3, 3, 5, dtype=torch.uint8), 256, "params have dtype"),
        (torch.zeros(2, 20, 3, 5).long(), torch.zeros(2, 3, 3, 5, dtype=torch.uint8), 256, "params have dtype"),
        (torch.zeros(2, 20, 3, 5), torch.zeros(2, 3, 3, 5, dtype=torch.uint8), 1, "levels is 1"),
        (torch.zeros(2, 20, 3, 5, device="meta"), torch.zeros(2, 3, 3, 5, dtype=torch.uint8), 256, "on one device"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(params, x, levels, message):
    with pytest.raises(ShapeError, match=message):
        mixture_nll(params, x, levels=levels)
