"""Fused convolutions and gates: the same numbers and gradients as plain torch, whatever the memory looks like."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelfast import _C, ops
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.ops import masked_conv_core, masked_conv_cpu

SEED = torch.tensor(0x1234_5678_9ABC_DEF)
VERTICAL, HORIZONTAL, ABOVE, LEFT = (1, 1, 1, 0), (1, 0, 1, 0), (1, 1, 1, -1), (1, -1, 0, 0)


@dataclass(frozen=True)
class Case:
    """One call. Shapes are of tensors by name; `settings` the other arguments."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> str:
        return self.name.split(":")[0]


def conv_case(name: str, x: tuple[int, ...], weight: tuple[int, ...], **settings: Any) -> Case:
    shapes = {"x": x, "weight": weight}
    out = (x[0], weight[0], *x[2:])
    conditions = {"image": (x[0], x[1], 1, 1), "map": x, "one": (1, x[1], 1, 1)}
    for given in settings.pop("given", ("bias", "added")):
        shapes["condition" if given in conditions else given] = {"bias": weight[:1], "added": out, **conditions}[given]
    return Case(name, shapes, settings)


CASES = (
    conv_case("masked_conv:vertical", (2, 3, 5, 7), (4, 3, 2, 3), padding=VERTICAL),
    conv_case("masked_conv:rows above only", (2, 3, 5, 7), (4, 3, 1, 3), padding=ABOVE),
    conv_case("masked_conv:columns to the left only", (1, 2, 4, 6), (3, 2, 1, 1), padding=LEFT, given=("bias",)),
    conv_case("masked_conv:dilated", (1, 2, 9, 8), (3, 2, 2, 3), padding=(4, 4, 4, 0), dilation=4, given=()),
    conv_case("masked_conv:dilated shift", (2, 2, 9, 8), (3, 2, 2, 2), padding=(4, -2, 4, -2), dilation=2),
    conv_case("masked_conv:1x1", (3, 5, 3, 4), (7, 5, 1, 1)),
    conv_case("masked_conv:1x1 image", (2, 3, 1, 1), (5, 3, 2, 3), padding=VERTICAL),
    conv_case("masked_conv:one column", (2, 3, 9, 1), (5, 3, 2, 2), padding=HORIZONTAL),
    conv_case("masked_conv:no image", (0, 3, 4, 4), (5, 3, 2, 2), padding=HORIZONTAL),
    conv_case("masked_conv:more than a block of channels", (1, 150, 3, 3), (2, 150, 1, 2), padding=(1, 0, 0, 0)),
    conv_case("masked_conv:many small images", (37, 2, 4, 4), (3, 2, 2, 3), padding=VERTICAL),
    conv_case("concat_elu_conv:vertical", (2, 3, 5, 7), (4, 6, 2, 3), padding=VERTICAL),
    conv_case("concat_elu_conv:dropout", (2, 3, 5, 7), (4, 6, 2, 2), padding=HORIZONTAL, dropout=0.4, seed=SEED),
    conv_case("concat_elu_conv:1x1", (1, 4, 4, 8), (3, 8, 1, 1), given=()),
    conv_case("gated_conv:tanh", (2, 6, 5, 7), (4, 3, 2, 3), padding=VERTICAL),
    conv_case("gated_conv:linear", (2, 6, 5, 7), (4, 3, 1, 1), kind="linear"),
    conv_case(
        "gated_conv:condition of an image", (2, 4, 3, 5), (3, 2, 2, 3), padding=VERTICAL, given=("image", "bias")
    ),
    conv_case("gated_conv:condition of a pixel", (2, 4, 3, 5), (3, 2, 1, 1), given=("map", "added")),
    conv_case("gated_conv:one condition", (2, 4, 3, 5), (3, 2, 1, 1), given=("one",), kind="linear"),
    Case("gated:tanh", {"x": (2, 6, 5, 7)}),
    Case("gated:linear with a residual", {"x": (2, 6, 4, 4), "residual": (2, 3, 4, 4)}, {"kind": "linear"}),
    Case("gated:everything", {"x": (2, 6, 3, 5), "residual": (2, 3, 3, 5), "condition": (2, 6, 1, 1)}),
    Case("gated:1x1 image", {"x": (1, 2, 1, 1), "condition": (1, 2, 1, 1)}),
)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def tensors(case: Case, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of a case, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for name, shape in case.shapes.items()
    }


def run(function: Callable[..., Tensor], case: Case, given: dict[str, Tensor]) -> list[Tensor]:
    """The result and the gradients of the case's tensors, for some gradient of the result."""
    out = function(**given, **case.settings)
    generator = torch.Generator().manual_seed(9)
    upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, list(given.values()), upstream)]


def fused(case: Case) -> Callable[..., Tensor]:
    return getattr(ops, case.function)


def reference(case: Case) -> Callable[..., Tensor]:
    return getattr(ops, case.function + "_reference")


def assert_equal(got: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@each_case
def test_float64_is_the_reference(case):
    for a, b in zip(run(fused(case), case, tensors(case)), run(reference(case), case, tensors(case)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@each_case
def test_gradcheck(case):
    given = tensors(case)
    if case.shapes["x"][0] == 0 or case.shapes["x"][1] > 100:
        pytest.skip("nothing to differentiate, or too many inputs for finite differences")

    def call(*values: Tensor) -> Tensor:
        return fused(case)(**dict(zip(given, values, strict=True)), **case.settings)

    assert torch.autograd.gradcheck(call, tuple(given.values()), fast_mode=given["x"].numel() > 500)


@each_case
def test_opcheck(case, monkeypatch):
    called = []
    for name in ("activated_conv", "gated"):
        overload = getattr(torch.ops.pixelfast, name)
        monkeypatch.setattr(torch.ops.pixelfast, name, lambda *a, overload=overload: called.append((overload, a)))
    fused(case)(**tensors(case, torch.float32), **case.settings)
    monkeypatch.undo()
    [(overload, arguments)] = called
    torch.library.opcheck(overload, arguments)


LARGER = (
    conv_case("masked_conv:larger", (3, 24, 17, 19), (40, 24, 2, 3), padding=VERTICAL),
    conv_case("concat_elu_conv:larger", (3, 20, 16, 16), (24, 40, 2, 3), padding=VERTICAL),
    conv_case(
        "concat_elu_conv:larger with dropout", (3, 20, 8, 8), (24, 40, 2, 2), padding=HORIZONTAL, dropout=0.5, seed=SEED
    ),
    conv_case("gated_conv:larger", (3, 48, 17, 19), (24, 24, 2, 3), padding=VERTICAL, given=("image", "bias")),
    Case("gated:larger", {"x": (3, 48, 17, 19), "residual": (3, 24, 17, 19), "condition": (3, 48, 1, 1)}),
)


def error(got: Tensor, truth: Tensor) -> float:
    return float((got.double() - truth).abs().max())


@pytest.mark.parametrize("isa", _C.available_isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", LARGER, ids=lambda case: case.name)
def test_errors_are_near_those_of_torch(case, dtype, isa, monkeypatch):
    """At most twice torch's own in that dtype forward, three times backward, plus an ulp of the largest number."""
    monkeypatch.setenv("PIXELFAST_ISA", isa)
    monkeypatch.setattr(masked_conv_core, "MULTIPLIES_BFLOAT16", False)
    given = tensors(case, dtype)
    exact = {name: t.detach().double().requires_grad_() for name, t in given.items()}
    truth = run(reference(case), case, exact)
    plain, got = run(reference(case), case, given), run(fused(case), case, given)
    for factor, mine, torchs, true in zip([2, *[3] * len(given)], got, plain, truth, strict=True):
        assert mine.dtype == dtype
        floor = torch.finfo(dtype).eps * float(true.abs().max())
        assert error(mine, true) <= factor * error(torchs, true) + floor


@pytest.mark.parametrize("case", [c for c in CASES if c.shapes["x"][0] > 0], ids=lambda case: case.name)
def test_strides_do_not_matter(case):
    """The same bits from contiguous, channels-last, transposed and sliced tensors."""
    plain = tensors(case, torch.float32)
    expected = run(fused(case), case, plain)

    def sliced(t: Tensor) -> Tensor:
        larger = torch.full([2 * size + 1 for size in t.shape], float("nan"))
        view = larger[tuple(slice(1, None, 2) for _ in t.shape)]
        return view.copy_(t)

    def transposed(t: Tensor) -> Tensor:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2) if t.ndim == 4 else t.clone()

    def last(t: Tensor) -> Tensor:
        return t.to(memory_format=torch.channels_last) if t.ndim == 4 else t.clone()

    for change in (sliced, transposed, last):
        given = {name: change(t.detach()).requires_grad_() for name, t in plain.items()}
        assert_equal(run(fused(case), case, given), expected)


def test_channels_last_stays_channels_last():
    x = torch.randn(2, 6, 5, 7).to(memory_format=torch.channels_last).requires_grad_()
    for out in (
        ops.masked_conv(x, torch.randn(4, 6, 2, 3), padding=VERTICAL),
        ops.concat_elu_conv(x, torch.randn(4, 12, 2, 3), padding=VERTICAL),
        ops.gated_conv(x, torch.randn(4, 3, 2, 3), padding=VERTICAL),
        ops.gated(x),
    ):
        assert out.is_contiguous(memory_format=torch.channels_last)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_every_number_is_written(monkeypatch):
    """Results and gradients come out the same when the memory they are put into held NaN."""
    expected = [run(fused(case), case, tensors(case, torch.float32)) for case in CASES]
    made = []

    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(make)
        def wrapper(*args: Any, **kwargs: Any) -> Tensor:
            made.append(make(*args, **kwargs).fill_(float("nan")))
            return made[-1]

        return wrapper

    monkeypatch.setattr(masked_conv_cpu, "empty_result", poisoned(masked_conv_cpu.empty_result))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))
    for case, values in zip(CASES, expected, strict=True):
        assert_equal(run(fused(case), case, tensors(case, torch.float32)), values)
    assert len(made) >= 2 * len(CASES)


@pytest.mark.parametrize("case", LARGER, ids=lambda case: case.name)
def test_repeats_and_threads_give_the_same_bits(case, torch_threads):
    given = tensors(case, torch.float32)
    torch_threads(1)
    expected = run(fused(case), case, given)
    # Few with several threads: where other processes keep the cores busy they wait for each other for long.
    for threads, repeats in ((1, 250), (2, 10), (3, 3)):
        torch_threads(threads)
        for _ in range(repeats):
            assert_equal(run(fused(case), case, given), expected)


def test_small_images_do_not_depend_on_their_neighbours():
    """Images that lie side by side in a plane: each as if it were alone."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, 3, 4, generator=generator)
    weight = torch.randn(6, 10, 2, 3, generator=generator)
    together = ops.concat_elu_conv(x, weight, padding=VERTICAL)
    alone = torch.cat([ops.concat_elu_conv(image, weight, padding=VERTICAL) for image in x.split(1)])
    assert torch.equal(together, alone)


def test_infinities_and_nan_stay_in_their_image():
    x = torch.zeros(9, 4, 4, 4)
    x[3] = float("nan")
    x[5] = float("inf")
    weight = torch.ones(3, 4, 2, 3, requires_grad=True)
    out = ops.masked_conv(x, weight, padding=VERTICAL)
    assert not out[[0, 1, 2, 4, 6, 7, 8]].isnan().any()
    assert out[3].isnan().all()
    assert out[5].isposinf().all()


@pytest.mark.parametrize("kind", ["tanh", "linear"])
def test_extreme_inputs_of_the_gates(kind):
    """Compared with formulas that are accurate in float64, 1 - sigmoid(b) as sigmoid(-b)."""
    points = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 30.0, -30.0, 200.0, -200.0, 1e30, -1e30])
    x = torch.stack((points.repeat(10), points.repeat_interleave(10))).view(1, 2, 10, 10).requires_grad_()
    out = ops.gated(x, kind=kind)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    a, b = x.detach().double().unbind(1)
    value, slope = (a.tanh(), 1 / a.cosh().square()) if kind == "tanh" else (a, torch.ones_like(a))
    torch.testing.assert_close(out[:, 0].double(), value * b.sigmoid(), rtol=1e-6, atol=1e-38)
    # 1 - tanh(a)^2 is as accurate as tanh is.
    torch.testing.assert_close(gradient[:, 0].double(), slope * b.sigmoid(), rtol=1e-6, atol=2.0**-22)
    torch.testing.assert_close(gradient[:, 1].double(), value * b.sigmoid() * (-b).sigmoid(), rtol=1e-6, atol=1e-37)


def test_dropout_drops_the_share_it_should_and_nothing_else():
    x = torch.linspace(0.5, 3.0, 4 * 16 * 32 * 32).view(4, 16, 32, 32)
    identity = torch.eye(32).view(32, 32, 1, 1)
    for probability in (0.1, 0.5, 0.9):
        out = ops.concat_elu_conv(x, identity, dropout=probability, seed=SEED)
        whole = ops.concat_elu_conv(x, identity)
        kept = out != 0
        torch.testing.assert_close(out[kept], whole[kept] / (1 - probability))
        # 131,072 independent features: five standard deviations.
        share = 1 - kept.float().mean().item()
        assert abs(share - probability) < 5 * (probability * (1 - probability) / kept.numel()) ** 0.5
        for neighbours in (kept[:-1] == kept[1:], kept[:, :-1] == kept[:, 1:], kept[..., :-1] == kept[..., 1:]):
            agree = probability**2 + (1 - probability) ** 2
            assert abs(neighbours.float().mean().item() - agree) < 6 * (0.25 / neighbours.numel()) ** 0.5


def test_dropout_follows_torchs_generator():
    x, weight = torch.randn(2, 3, 5, 7), torch.randn(4, 6, 1, 1)

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return ops.concat_elu_conv(x, weight, dropout=0.5)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    torch.manual_seed(1)
    first, second = (ops.concat_elu_conv(x, weight, dropout=0.5) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("native", [False, True])
def test_autocast_casts_like_torchs_convolution(monkeypatch, native):
    monkeypatch.setattr(masked_conv_core, "MULTIPLIES_BFLOAT16", native)
    x, weight, bias = torch.randn(2, 6, 5, 7), torch.randn(4, 6, 2, 3), torch.randn(4)
    weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.masked_conv(x, weight, bias, padding=VERTICAL, added=torch.ones(2, 4, 5, 7))
        gates = ops.gated(out, residual=torch.ones(2, 2, 5, 7))
        (gradient,) = torch.autograd.grad(out.float().sum(), weight)
    assert out.dtype == gates.dtype == torch.bfloat16
    assert gradient.dtype == torch.float32
    expected = ops.masked_conv(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), padding=VERTICAL).float() + 1
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.masked_conv(x.double(), weight.double(), padding=VERTICAL).dtype == torch.float64


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_is_plain_torch_where_the_processor_multiplies_it(monkeypatch, native):
    """Where nothing is left out of memory by the operation; other dtypes and activations have it in any case."""
    called = []
    overload = torch.ops.pixelfast.activated_conv
    monkeypatch.setattr(masked_conv_core, "MULTIPLIES_BFLOAT16", native)
    monkeypatch.setattr(torch.ops.pixelfast, "activated_conv", lambda *a: called.append(a) or overload(*a))
    for case in (CASES[0], CASES[4], CASES[11], CASES[14]):
        for dtype in (torch.float32, torch.bfloat16):
            called.clear()
            got = run(fused(case), case, tensors(case, dtype))
            plain = native and dtype == torch.bfloat16 and case.function == "masked_conv"
            assert len(called) == (0 if plain else 1)
            if plain:
                assert_equal(got, run(reference(case), case, tensors(case, dtype)))


def test_masks_multiply_the_weight():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 4, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 6, 1, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(6, 6, 1, 2, generator=generator) < 0.5
    half = weight[:, :3].detach().requires_grad_()
    for function, w, m in ((ops.masked_conv, weight, mask), (ops.gated_conv, half, mask[:, :3])):
        out = function(x, w, padding=(1, 0, 0, 0), mask=m)
        expected = getattr(ops, function.__name__ + "_reference")(x, w, padding=(1, 0, 0, 0), mask=m)
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(out.sum(), w)
        assert torch.equal(gradient != 0, m)


def test_only_the_inputs_are_kept():
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    weight, gate_weight = torch.randn(4, 8, 2, 3, requires_grad=True), torch.randn(4, 2, 2, 3, requires_grad=True)
    for call in (
        lambda: ops.concat_elu_conv(x, weight, padding=VERTICAL, dropout=0.5),
        lambda: ops.gated_conv(x, gate_weight, padding=VERTICAL),
        lambda: ops.gated(x),
    ):
        kept: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            call()
        assert {t.data_ptr() for t in kept if t.numel() > 1} <= {t.data_ptr() for t in (x, weight, gate_weight)}


@pytest.mark.parametrize("mode", ["masked_conv", "concat_elu_conv", "gated_conv", "gated"])
def test_compiles_as_one_graph(mode):
    def network(x: Tensor, weight: Tensor) -> Tensor:
        if mode == "gated":
            return ops.gated(x.sin(), residual=x[:, :2]).sum()
        settings = {"dropout": 0.25, "seed": SEED} if mode == "concat_elu_conv" else {}
        return getattr(ops, mode)(x.sin(), weight, padding=VERTICAL, **settings).cos().sum()

    inputs = {"concat_elu_conv": 8, "gated_conv": 2}.get(mode, 4)
    x, weight = torch.randn(2, 4, 5, 7), torch.randn(3, inputs, 2, 3)
    results = []
    for function in (network, torch.compile(network, fullgraph=True, backend="aot_eager")):
        x.requires_grad_(), weight.requires_grad_()
        wanted = [x] if mode == "gated" else [x, weight]
        out = function(x, weight)
        results.append([out.detach(), *torch.autograd.grad(out, wanted)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_large_images_take_torchs_convolution(monkeypatch):
    """The two ways agree; the sizes alone decide which is taken."""
    case = CASES[12]
    expected = run(fused(case), case, tensors(case))
    monkeypatch.setattr(masked_conv_cpu, "LARGEST_SCRATCH", 0)
    monkeypatch.setattr(_C, "conv", None)
    for case in CASES:
        if case.function == "gated":
            continue
        got = run(fused(case), case, tensors(case))
        for a, b in zip(got, run(reference(case), case, tensors(case)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    for a, b in zip(run(fused(CASES[12]), CASES[12], tensors(CASES[12])), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


X, W = torch.randn(2, 4, 5, 7), torch.randn(3, 4, 2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.masked_conv(X.long(), W, padding=VERTICAL), "must be floats"),
        (lambda: ops.masked_conv(X, W[0], padding=VERTICAL), "must be floats"),
        (lambda: ops.masked_conv(X, W[:, :3], padding=VERTICAL), "4 channels, which make 4 features"),
        (lambda: ops.concat_elu_conv(X, W, padding=VERTICAL), "which make 8 features"),
        (lambda: ops.gated_conv(X[:, :3], W, padding=VERTICAL), "which make 1.5 features"),
        (lambda: ops.masked_conv(X, W), "does not keep the image's size; left \\+ right must be 2"),
        (lambda: ops.masked_conv(X, W, padding=(1, 1, 2, 0)), "top \\+ bottom 1"),
        (lambda: ops.masked_conv(X, W, torch.zeros(4), padding=VERTICAL), "the bias has shape \\(4,\\)"),
        (lambda: ops.masked_conv(X, W, padding=VERTICAL, added=X), "what is added"),
        (lambda: ops.masked_conv(X, W.double(), padding=VERTICAL), "another argument torch.float64"),
        (lambda: ops.gated_conv(X, W[:, :2], padding=VERTICAL, condition=X[:, :2]), "the condition has shape"),
        (lambda: ops.gated_conv(X, W, padding=VERTICAL, kind="relu"), "one of tanh, linear"),
        (lambda: ops.concat_elu_conv(X, W, padding=VERTICAL, dropout=1.0), "not including, 1"),
        (lambda: ops.masked_conv(X, W, padding=VERTICAL, mask=torch.ones(3, 3, 2, 3)), "the mask has shape"),
        (lambda: ops.gated_conv(X, W[:, :2], padding=VERTICAL, mask=torch.ones(2, 3, 2, 2, 3)), "the mask has shape"),
        (lambda: ops.masked_conv(X, W, padding=(1, 1, 1)), "four integers"),
        (lambda: ops.masked_conv(X, W, padding=(1.0, 1.0, 1.0, 0.0)), "four integers"),
        (lambda: ops.masked_conv(X, W, padding=(2**62, 2 - 2**62, 2**62, 1 - 2**62)), "up to 16777216"),
        (lambda: ops.masked_conv(X, W, padding=(2**62, 2**62, 2**62, 0), dilation=2**62), "up to 16777216"),
        (lambda: ops.masked_conv(X, W, padding=(0, 0, 0, 0), dilation=0), "one from 1"),
        (lambda: ops.masked_conv(X, W[:0], padding=VERTICAL), "have a 0"),
        (lambda: ops.masked_conv(X[:, :, :0], W, padding=VERTICAL), "have a 0"),
        (lambda: ops.masked_conv(X.to_sparse(), W, padding=VERTICAL), "layout torch.sparse_coo"),
        (lambda: ops.masked_conv(X, W.to_sparse(), padding=VERTICAL), "layout torch.sparse_coo"),
        (lambda: ops.gated(X[:, :, :0]), "have a 0"),
        (lambda: ops.concat_elu_conv(X[:, :2], W, padding=VERTICAL, dropout=0.5, seed=7), "the seed is 7"),
        (lambda: ops.concat_elu_conv(X[:, :2], W, padding=VERTICAL, dropout=0.5, seed=torch.tensor(0.5)), "int64"),
        (lambda: ops.gated(X[:, :3]), "even number"),
        (lambda: ops.gated(X, residual=X), "residual has shape"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises((ShapeError, PixelfastError), match=message):
        call()


@pytest.mark.parametrize("scratch", [masked_conv_cpu.LARGEST_SCRATCH, 0], ids=["C++", "torch"])
def test_a_shift_may_be_larger_than_the_image(scratch, monkeypatch):
    """A dilated layer of a small image: what is cropped on one side comes from the other's zeros."""
    monkeypatch.setattr(masked_conv_cpu, "LARGEST_SCRATCH", scratch)
    x, weight = torch.randn(2, 3, 2, 3, dtype=torch.float64), torch.randn(4, 3, 2, 3, dtype=torch.float64)

    def run(convolution, x):
        x = x.clone().requires_grad_()
        out = convolution(x, weight, padding=(4, 4, 8, -4), dilation=4)
        return out, *torch.autograd.grad(out.sum(), x)

    wide = F.pad(x, (4, 4, 8, 0))
    expected = F.conv2d(wide, weight, dilation=4)[:, :, :2]
    for convolution in (ops.masked_conv, ops.masked_conv_reference):
        torch.testing.assert_close(run(convolution, x)[0], expected)
    for a, b in zip(run(ops.masked_conv, x), run(ops.masked_conv_reference, x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("scratch", [masked_conv_cpu.LARGEST_SCRATCH, 0], ids=["C++", "torch"])
@pytest.mark.parametrize("wanted", [("x",), ("weight",), ("bias",), ("x", "bias")], ids="+".join)
def test_some_arguments_may_be_frozen(wanted, scratch, monkeypatch):
    """Outputs of an operation must not share memory, those of gradients that nobody wants neither."""
    monkeypatch.setattr(masked_conv_cpu, "LARGEST_SCRATCH", scratch)
    given = {"x": torch.randn(2, 4, 3, 5), "weight": torch.randn(3, 4, 2, 3), "bias": torch.randn(3)}
    for name in wanted:
        given[name].requires_grad_()

    def gradients(convolution):
        return torch.autograd.grad(convolution(**given, padding=VERTICAL).square().sum(), [given[n] for n in wanted])

    for a, b in zip(gradients(ops.masked_conv), gradients(ops.masked_conv_reference), strict=True):
        torch.testing.assert_close(a, b)


def test_every_int64_is_a_seed():
    x, weight = torch.randn(2, 3, 2, 3), torch.randn(4, 6, 1, 1)
    for number in (-(2**63), -1, 2**63 - 1):
        seed = torch.tensor(number)
        got = ops.concat_elu_conv(x, weight, dropout=0.5, seed=seed)
        torch.testing.assert_close(got, ops.concat_elu_conv_reference(x, weight, dropout=0.5, seed=seed))


def test_shapes_on_the_meta_device():
    """A model may be looked at without memory."""
    x, weight = X.to("meta"), W.to("meta")
    assert ops.masked_conv(x, weight, padding=VERTICAL).shape == (2, 3, 5, 7)
    assert ops.gated(x).shape == (2, 2, 5, 7)
