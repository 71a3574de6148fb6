"""Gated blocks as one operation: the same numbers and gradients as plain torch, whatever the memory looks like."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelfast import _C, ops
from pixelfast.errors import ShapeError
from pixelfast.ops import gated_block_cpu, masked_conv_core, masked_conv_cpu


@dataclass(frozen=True)
class Case:
    """Sizes of h, whether v is gated, conditions of v and h: "image", "map" or "one"; rows of the vertical kernel."""

    name: str
    images: int
    features: int
    height: int
    width: int
    gated: bool = True
    conditions: tuple[str | None, str | None] = (None, None)
    rows: int = 2
    dilation: int = 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by name."""
        f, pair, rows = self.features, 2 * self.features, self.rows
        h = (self.images, f, self.height, self.width)
        v = (self.images, pair if self.gated else f, self.height, self.width)
        shapes: dict[str, tuple[int, ...]] = {"v": v, "h": h}
        shapes |= {"vertical": (pair, f, rows, 2 * rows - 1), "horizontal": (pair, f, 1, rows)}
        shapes |= {"link": (pair, pair, 1, 1), "mix": (f, f, 1, 1)}
        shapes |= {f"{name} bias": (pair,) for name in ("vertical", "horizontal", "link")} | {"mix bias": (f,)}
        whole = (self.images, pair, self.height, self.width)
        kinds = {"image": (self.images, pair, 1, 1), "map": whole, "one": (1, pair, 1, 1)}
        for name, kind in zip(("v_condition", "h_condition"), self.conditions, strict=True):
            if kind is not None:
                shapes[name] = kinds[kind]
        return shapes


CASES = (
    Case("gated", 2, 3, 5, 7),
    Case("first of its stack", 2, 3, 5, 7, gated=False),
    Case("dilated", 1, 2, 9, 8, dilation=4),
    Case("five by five", 2, 2, 6, 5, rows=3, dilation=2),
    Case("one image's conditions", 2, 2, 3, 5, conditions=("image", "image")),
    Case("maps", 2, 2, 3, 5, conditions=("map", "map")),
    Case("one condition", 2, 2, 3, 5, conditions=("one", None)),
    Case("condition of h alone", 2, 2, 3, 5, gated=False, conditions=(None, "image")),
    Case("1x1 image", 2, 3, 1, 1),
    Case("one column", 2, 3, 9, 1),
    Case("whole vectors", 2, 2, 8, 8),
    Case("many small images", 37, 2, 4, 4),
    Case("no image", 0, 2, 4, 4),
)
LARGER = (
    Case("larger", 3, 24, 17, 19, conditions=("image", "image")),
    Case("larger, first", 3, 20, 16, 16, gated=False, dilation=2),
)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def tensors(case: Case, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The tensors of a case, with gradients."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in case.shapes().items():
        scale = (shape[1] * shape[2] * shape[3]) ** -0.5 if name in ("vertical", "horizontal", "link", "mix") else 1.0
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        made[name] = values.to(dtype).requires_grad_()
    return made


def call(function: Callable[..., tuple[Tensor, Tensor]], case: Case, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    names = ("vertical", "horizontal", "link", "mix")
    return function(
        given["v"],
        given["h"],
        [given[name] for name in names],
        [given[f"{name} bias"] for name in names],
        v_condition=given.get("v_condition"),
        h_condition=given.get("h_condition"),
        dilation=case.dilation,
    )


def run(function: Callable[..., tuple[Tensor, Tensor]], case: Case, given: dict[str, Tensor]) -> list[Tensor]:
    """Both results, and the gradients of the case's tensors, for some gradients of the results."""
    out = call(function, case, given)
    generator = torch.Generator().manual_seed(9)
    upstream = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in out]
    return [*(o.detach() for o in out), *torch.autograd.grad(out, list(given.values()), upstream)]


def assert_equal(got: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@each_case
def test_float64_is_the_reference(case):
    got, expected = (run(f, case, tensors(case)) for f in (ops.gated_block, ops.gated_block_reference))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", CASES[:8], ids=lambda case: case.name)
def test_gradcheck(case):
    given = tensors(case)

    def results(*values: Tensor) -> tuple[Tensor, Tensor]:
        return call(ops.gated_block, case, dict(zip(given, values, strict=True)))

    assert torch.autograd.gradcheck(results, tuple(given.values()), fast_mode=True)


@pytest.mark.parametrize("case", CASES[:6], ids=lambda case: case.name)
def test_opcheck(case, monkeypatch):
    called = []
    overload = torch.ops.pixelfast.gated_block

    def record(*arguments: Any) -> tuple[Tensor, ...]:
        called.append(arguments)
        return overload(*arguments)

    monkeypatch.setattr(torch.ops.pixelfast, "gated_block", record)
    call(ops.gated_block, case, tensors(case, torch.float32))
    monkeypatch.undo()
    [arguments] = called
    # Nothing comes back through `left`, which is for the backward pass alone: its users are not what is checked.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(overload, arguments, test_utils=tests)


@pytest.mark.parametrize("given_gradient", [0, 1])
def test_one_result_alone(given_gradient):
    """Where only one result is used, the other's gradient counts as zero."""
    case = CASES[0]
    found = []
    for function in (ops.gated_block, ops.gated_block_reference):
        given = tensors(case)
        out = call(function, case, given)[given_gradient]
        wanted = [given[name] for name in ("v", "vertical", "vertical bias", *(["h", "mix"] if given_gradient else []))]
        found.append(torch.autograd.grad(out.square().sum(), wanted))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_frozen_tensors_get_no_gradient():
    case = CASES[4]
    names = list(tensors(case))
    expected = dict(zip(names, run(ops.gated_block, case, tensors(case))[2:], strict=True))
    for only in names:
        given = {name: t.detach().requires_grad_(name == only) for name, t in tensors(case).items()}
        out = call(ops.gated_block, case, given)
        generator = torch.Generator().manual_seed(9)
        upstream = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in out]
        used = [(o, u) for o, u in zip(out, upstream, strict=True) if o.requires_grad]
        torch.autograd.backward([o for o, _ in used], [u for _, u in used])
        torch.testing.assert_close(given[only].grad, expected[only], rtol=1e-12, atol=1e-12)
        assert all(given[name].grad is None for name in names if name != only)


@pytest.mark.parametrize("isa", _C.available_isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", LARGER, ids=lambda case: case.name)
def test_errors_are_near_those_of_torch(case, dtype, isa, monkeypatch):
    """At most twice torch's own in that dtype forward, three times backward, plus an ulp of the largest number."""
    monkeypatch.setattr(masked_conv_core, "MULTIPLIES_BFLOAT16", False)
    monkeypatch.setenv("PIXELFAST_ISA", isa)
    given = tensors(case, dtype)
    exact = {name: t.detach().double().requires_grad_() for name, t in given.items()}
    truth = run(ops.gated_block_reference, case, exact)
    plain, got = (run(f, case, given) for f in (ops.gated_block_reference, ops.gated_block))
    for factor, mine, torchs, true in zip([2, 2, *[3] * len(given)], got, plain, truth, strict=True):
        assert mine.dtype == dtype
        floor = torch.finfo(dtype).eps * float(true.abs().max())
        assert (mine.double() - true).abs().max() <= factor * (torchs.double() - true).abs().max() + floor


@pytest.mark.parametrize("case", [c for c in CASES if c.images], ids=lambda case: case.name)
def test_strides_do_not_matter(case):
    """The same bits from contiguous, channels-last, transposed and sliced tensors."""
    plain = tensors(case, torch.float32)
    expected = run(ops.gated_block, case, plain)

    def sliced(t: Tensor) -> Tensor:
        larger = torch.full([2 * size + 1 for size in t.shape], float("nan"))
        return larger[tuple(slice(1, None, 2) for _ in t.shape)].copy_(t)

    def transposed(t: Tensor) -> Tensor:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2) if t.ndim == 4 else t.clone()

    def last(t: Tensor) -> Tensor:
        return t.to(memory_format=torch.channels_last) if t.ndim == 4 else t.clone()

    for change in (sliced, transposed, last):
        given = {name: change(t.detach()).requires_grad_() for name, t in plain.items()}
        assert_equal(run(ops.gated_block, case, given), expected)


def test_every_number_is_written(monkeypatch):
    """Results and gradients come out the same when the memory they are put into held NaN."""
    expected = [run(ops.gated_block, case, tensors(case, torch.float32)) for case in CASES]
    made = []

    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(make)
        def wrapper(*args: Any, **kwargs: Any) -> Tensor:
            made.append(make(*args, **kwargs).fill_(float("nan")))
            return made[-1]

        return wrapper

    monkeypatch.setattr(gated_block_cpu, "empty_result", poisoned(gated_block_cpu.empty_result))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))
    for case, values in zip(CASES, expected, strict=True):
        assert_equal(run(ops.gated_block, case, tensors(case, torch.float32)), values)
    assert len(made) >= 5 * len(CASES)


@pytest.mark.parametrize("case", LARGER, ids=lambda case: case.name)
def test_repeats_and_threads_give_the_same_bits(case, torch_threads):
    given = tensors(case, torch.float32)
    torch_threads(1)
    expected = run(ops.gated_block, case, given)
    for threads, repeats in ((1, 250), (2, 10), (3, 3)):
        torch_threads(threads)
        for _ in range(repeats):
            assert_equal(run(ops.gated_block, case, given), expected)


def test_infinities_and_nan_stay_in_their_image():
    case = Case("", 9, 2, 4, 4)
    given = tensors(case, torch.float32)
    with torch.no_grad():
        given["v"][3] = float("nan")
        given["h"][5] = float("inf")
    above, out = call(ops.gated_block, case, given)
    assert not above[[0, 1, 2, 4, 5, 6, 7, 8]].isnan().any()
    assert not out[[0, 1, 2, 4, 6, 7, 8]].isnan().any()
    assert above[3].isnan().all()
    assert not out[5].isfinite().any()


def test_only_what_the_backward_pass_reads_is_kept():
    case = CASES[0]
    given = tensors(case, torch.float32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        above, _ = call(ops.gated_block, case, given)
    known = {t.data_ptr() for t in (*given.values(), above)}
    [left] = [t for t in kept if t.data_ptr() not in known]
    assert left.shape == above.shape


@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=lambda case: case.name)
def test_compiles_as_one_graph(case):
    names = list(tensors(case))

    def network(*values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        v, h = call(ops.gated_block, case, given)
        return sum(result.sin().sum() for result in call(ops.gated_block, case, {**given, "v": v.cos(), "h": h}))

    results = []
    for function in (network, torch.compile(network, fullgraph=True, backend="aot_eager")):
        given = tensors(case, torch.float32)
        out = function(*given.values())
        results.append([out.detach(), *torch.autograd.grad(out, list(given.values()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_is_plain_torch_where_the_processor_multiplies_it(monkeypatch, native):
    case = CASES[4]
    called = []
    overload = torch.ops.pixelfast.gated_block
    monkeypatch.setattr(masked_conv_core, "MULTIPLIES_BFLOAT16", native)
    monkeypatch.setattr(torch.ops.pixelfast, "gated_block", lambda *a: called.append(a) or overload(*a))
    for dtype in (torch.float32, torch.bfloat16):
        got = run(ops.gated_block, case, tensors(case, dtype))
        plain = run(ops.gated_block_reference, case, tensors(case, dtype))
        if native and dtype == torch.bfloat16:
            assert_equal(got, plain)
    assert len(called) == (1 if native else 2)


@pytest.mark.parametrize("native", [False, True])
def test_autocast_casts_everything(monkeypatch, native):
    monkeypatch.setattr(masked_conv_core, "MULTIPLIES_BFLOAT16", native)
    case = CASES[4]
    given = tensors(case, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = run(ops.gated_block, case, given)
        plain = run(ops.gated_block_reference, case, given)
    assert [g.dtype for g in got[:2]] == [torch.bfloat16] * 2
    assert {g.dtype for g in got[2:]} == {torch.float32}
    truth = run(ops.gated_block_reference, case, {n: t.detach().double().requires_grad_() for n, t in given.items()})

    def distance(these: list[Tensor]) -> float:
        return sum(float((a.double() - b).square().sum()) for a, b in zip(these, truth, strict=True)) ** 0.5

    assert distance(got) <= 2 * distance(plain)


@pytest.mark.parametrize("whole", [True, False], ids=["convolutions in C++", "torch's convolutions"])
def test_large_images_take_the_parts(monkeypatch, whole):
    """Where a block does not fit into the cache its convolutions run one after the other, in C++ if these fit."""
    expected = [run(ops.gated_block, case, tensors(case)) for case in CASES]
    monkeypatch.setattr(gated_block_cpu, "LARGEST_SCRATCH", 0)
    monkeypatch.setattr(_C, "gated_block", None)
    monkeypatch.setattr(_C, "gated_block_gradient", None)
    if not whole:
        monkeypatch.setattr(masked_conv_cpu, "LARGEST_SCRATCH", 0)
        monkeypatch.setattr(_C, "conv", None)
    for case, values in zip(CASES, expected, strict=True):
        for a, b in zip(run(ops.gated_block, case, tensors(case)), values, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def changed(name: str, change: Callable[[Tensor], Tensor], case: Case = CASES[4]) -> Callable[[], Any]:
    """A call with one tensor of the case replaced."""

    def attempt() -> None:
        given = tensors(case, torch.float32)
        call(ops.gated_block, case, {**given, name: change(given[name].detach())})

    return attempt


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (changed("h", lambda t: t.long()), "must be floats"),
        (changed("h", lambda t: t[0]), "must be floats"),
        (changed("v", lambda t: t[:, :3]), "as many channels, or twice as many"),
        (changed("v", lambda t: t[..., :2]), "as many channels, or twice as many"),
        (changed("vertical", lambda t: t[..., :2]), "the vertical weight has shape"),
        (changed("vertical", lambda t: t[0]), "the vertical weight has shape"),
        (changed("horizontal", lambda t: t[..., :1]), "the horizontal weight has shape"),
        (changed("link", lambda t: t[:1]), "the link weight has shape"),
        (changed("mix bias", lambda t: t[:1]), r"the mix weight has shape .* its bias \(1,\)"),
        (changed("mix", lambda t: t.double()), "another argument torch.float64"),
        (changed("v_condition", lambda t: t[:, :1]), "the condition has shape"),
        (changed("h_condition", lambda t: t[:, :1]), "the condition has shape"),
        (changed("v", lambda t: t[:, :2]), "no gate to condition"),
        (changed("h", lambda t: t.to_sparse()), "sparse"),
    ],
)
def test_what_does_not_fit_is_named(attempt, message):
    with pytest.raises(ShapeError, match=message):
        attempt()


@pytest.mark.parametrize("dilation", [0, -1, 1.0, 2**62])
def test_dilations_that_make_no_sense(dilation):
    case = Case("", 1, 2, 3, 3, dilation=dilation)
    with pytest.raises(ShapeError, match="dilation is"):
        call(ops.gated_block, case, tensors(case, torch.float32))
