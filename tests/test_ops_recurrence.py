"""Row and diagonal LSTMs against the papers' equations, one position at a time; gradients; what torch asks of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pixelfast.errors import ShapeError
from pixelfast.ops import diagonal_lstm, diagonal_lstm_reference, row_lstm, row_lstm_reference
from pixelfast.ops.diagonal_lstm import skew, unskew

SIZES = [(3, 5), (5, 3), (4, 4), (1, 6), (6, 1), (1, 1), (7, 2)]
FEATURES = 3
ROW, DIAGONAL = "row", "diagonal"
KINDS = [ROW, DIAGONAL, "diagonal, reverse"]


def case(kind, size, *, images=2, states="line", seed=0, dtype=torch.float64):
    """Gates, weight, bias and the state before the first line."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    line = size[1] if kind == ROW else size[0]
    shape = (FEATURES, line) if states == "line" else (FEATURES,)
    weight = draw(4 * FEATURES, FEATURES, 3 if kind == ROW else 2)
    return draw(images, 4 * FEATURES, *size), weight, draw(4 * FEATURES), draw(*shape), draw(*shape)


def operation(kind, reference=False):
    if kind == ROW:
        function, extra = row_lstm_reference if reference else row_lstm, {}
    else:
        function = diagonal_lstm_reference if reference else diagonal_lstm
        extra = {"reverse": kind.endswith("reverse")}
    return lambda gates, weight, bias, hidden, cell: function(gates, weight, bias, hidden=hidden, cell=cell, **extra)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def one_cell(gates, bias, products, cell):
    """New cell and hidden state of one position: lists of numbers, the gates in the order o, f, i, g."""
    total = [g + b + p for g, b, p in zip(gates, bias, products, strict=True)]
    o, f, i, g = (total[k * FEATURES : (k + 1) * FEATURES] for k in range(4))
    new = [sigmoid(a) * c + sigmoid(b) * math.tanh(d) for a, b, c, d in zip(f, i, cell, g, strict=True)]
    return new, [sigmoid(a) * math.tanh(c) for a, c in zip(o, new, strict=True)]


def row_slowly(gates, weight, bias, hidden, cell):
    """Section 3.1: at every row, every column, a convolution of the states above it."""
    _, _, height, width = gates.shape
    reach = weight.shape[2] // 2
    out = torch.zeros(len(gates), FEATURES, height, width, dtype=torch.float64)
    for n in range(len(gates)):
        above_h = {x: hidden[:, x].tolist() for x in range(width)}
        above_c = {x: cell[:, x].tolist() for x in range(width)}
        for y in range(height):
            h, c = {}, {}
            for x in range(width):
                products = [0.0] * (4 * FEATURES)
                for tap in range(weight.shape[2]):
                    for k, value in enumerate(above_h.get(x + tap - reach, [])):
                        products = [p + float(w) * value for p, w in zip(products, weight[:, k, tap], strict=True)]
                c[x], h[x] = one_cell(gates[n, :, y, x].tolist(), bias.tolist(), products, above_c[x])
                out[n, :, y, x] = torch.tensor(h[x], dtype=torch.float64)
            above_h, above_c = h, c
    return out


def diagonal_slowly(gates, weight, bias, hidden, cell, reverse):
    """Section 3.2: the skewed map of zeros written out, column after column, every position of it computed."""
    _, _, height, width = gates.shape
    out = torch.zeros(len(gates), FEATURES, height, width, dtype=torch.float64)
    for n in range(len(gates)):
        before_h = {y: hidden[:, y].tolist() for y in range(height)}
        before_c = {y: cell[:, y].tolist() for y in range(height)}
        for column in range(width + height - 1):
            h, c = {}, {}
            for y in range(height):
                x = column - y
                inside = 0 <= x < width
                at = width - 1 - x if reverse else x
                own = gates[n, :, y, at].tolist() if inside else [0.0] * (4 * FEATURES)
                products = [0.0] * (4 * FEATURES)
                for tap, row in ((0, y - 1), (1, y)):
                    for k, value in enumerate(before_h.get(row, [])):
                        products = [p + float(w) * value for p, w in zip(products, weight[:, k, tap], strict=True)]
                c[y], h[y] = one_cell(own, bias.tolist(), products, before_c[y])
                if inside:
                    out[n, :, y, at] = torch.tensor(h[y], dtype=torch.float64)
            before_h, before_c = h, c
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_equations_of_the_paper(kind, size):
    arguments = case(kind, size)
    if kind == ROW:
        expected = row_slowly(*arguments)
    else:
        expected = diagonal_slowly(*arguments, reverse=kind.endswith("reverse"))
    for reference in (True, False):
        got = operation(kind, reference)(*arguments)
        assert got.shape == expected.shape
        assert (got - expected).abs().max() < 1e-10


def test_a_wide_kernel_of_the_row_above():
    gates, _, bias, hidden, cell = case(ROW, (4, 7))
    weight = torch.randn(12, 3, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    expected = row_slowly(gates, weight, bias, hidden, cell)
    assert (row_lstm(gates, weight, bias, hidden=hidden, cell=cell) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_is_zero_and_what_is_short_is_spread(kind):
    gates, weight, bias, hidden, cell = case(kind, (3, 4), states="one")
    run = operation(kind)
    zeros = [torch.zeros_like(t) for t in (bias, hidden, cell)]
    assert torch.equal(run(gates, weight, None, None, None), run(gates, weight, *zeros))
    line = 4 if kind == ROW else 3
    spread = [bias[:1].expand(12).clone(), *(t[:, None].expand(-1, line).clone() for t in (hidden, cell))]
    assert torch.equal(run(gates, weight, bias[:1], hidden, cell), run(gates, weight, *spread))


@pytest.mark.parametrize("size", [(3, 4), (4, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, size):
    arguments = [t.requires_grad_() for t in case(kind, size)]
    assert torch.autograd.gradcheck(operation(kind), arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_reference_s(kind):
    arguments = case(kind, (5, 6), states="one")
    upstream = torch.randn(2, FEATURES, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for reference in (False, True):
        leaves = [t.clone().requires_grad_() for t in arguments]
        found.append(torch.autograd.grad(operation(kind, reference)(*leaves), leaves, upstream))
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("needs", range(5))
def test_gradients_of_one_argument_alone(needs):
    arguments = list(case(DIAGONAL, (3, 4)))
    arguments[needs] = arguments[needs].requires_grad_()
    operation(DIAGONAL)(*arguments).sum().backward()
    assert arguments[needs].grad is not None


def test_second_derivatives_are_refused_in_words():
    gates, weight, *_ = (t.requires_grad_() for t in case(ROW, (2, 3)))
    (gradient,) = torch.autograd.grad(row_lstm(gates, weight).sum(), gates, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_in_lower_precision(kind, dtype):
    """No more than twice those of plain torch in the same dtype; gradients three times."""
    exact = case(kind, (6, 5))
    upstream = torch.randn(2, FEATURES, 6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for reference, kinds in ((False, dtype), (True, dtype), (True, torch.float64)):
        leaves = [t.to(dtype).to(kinds).requires_grad_() for t in exact]
        out = operation(kind, reference)(*leaves)
        assert out.dtype == kinds
        results.append([out.detach(), *torch.autograd.grad(out, leaves, upstream.to(dtype).to(kinds))])
    for place, (mine, torchs, truth) in enumerate(zip(*results, strict=True)):
        error, plain = ((t.double() - truth).square().mean().sqrt() for t in (mine, torchs))
        assert error <= (3 if place else 2) * plain + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(kind):
    gates, weight, bias, hidden, cell = case(kind, (3, 4), dtype=torch.float32)
    line = 4 if kind == ROW else 3
    gates = gates if kind == ROW else skew(gates).transpose(2, 3).contiguous()
    for optional in ((bias, hidden[:, :line], cell[:, :line]), (None, None, None)):
        arguments = [gates, weight, *optional]
        arguments = [t if t is None else t.clone().requires_grad_() for t in arguments]
        torch.library.opcheck(torch.ops.pixelfast.lstm.default, (*arguments, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_as_one_graph(kind):
    arguments = [t.requires_grad_() for t in case(kind, (3, 4))]
    run = operation(kind)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    out = compiled(*arguments)
    assert torch.equal(out, run(*arguments))
    for mine, expected in zip(
        torch.autograd.grad(out.sum(), arguments), torch.autograd.grad(run(*arguments).sum(), arguments), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)


def test_under_autocast_the_gates_say_the_dtype():
    gates, weight, bias, hidden, cell = case(ROW, (3, 4), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = row_lstm(gates.bfloat16(), weight, bias, hidden=hidden, cell=cell)
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_strides_and_empty_batches(kind):
    gates, weight, bias, hidden, cell = case(kind, (3, 5))
    run = operation(kind)
    expected = run(gates, weight, bias, hidden, cell)
    other = gates.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)
    assert torch.equal(run(other, weight.mT.contiguous().mT, bias, hidden, cell), expected)
    assert run(gates[:0], weight, bias, hidden, cell).shape == (0, FEATURES, 3, 5)


def test_skewing():
    x = torch.arange(1, 7).view(1, 2, 3)
    assert skew(x).tolist() == [[[1, 2, 3, 0], [0, 4, 5, 6]]]
    tall = torch.arange(1, 7).view(3, 2)
    assert skew(tall).tolist() == [[1, 2, 0, 0], [0, 3, 4, 0], [0, 0, 5, 6]]
    for size in SIZES:
        y = torch.randn(2, 3, *size)
        assert torch.equal(unskew(skew(y)), y)


def seen_by(kind, size, position) -> Tensor:
    """Positions whose gates the state at a position depends on, bool (H, W)."""
    gates, weight, bias, hidden, cell = case(kind, size, images=1)
    gates.requires_grad_()
    out = operation(kind)(gates, weight, bias, hidden, cell)
    (gradient,) = torch.autograd.grad(out[0, :, *position].sum(), gates)
    return (gradient[0] != 0).any(0)


def test_the_row_lstm_sees_a_triangle():
    height, width, (row, column) = 6, 9, (4, 5)
    expected = torch.tensor([[y <= row and abs(x - column) <= row - y for x in range(width)] for y in range(height)])
    assert torch.equal(seen_by(ROW, (height, width), (row, column)), expected)


@pytest.mark.parametrize("size", [(6, 9), (7, 4)])
def test_a_diagonal_lstm_sees_all_above_to_its_side(size):
    height, width = size
    row, column = 4, 2
    corner = torch.tensor([[y <= row and x <= column for x in range(width)] for y in range(height)])
    assert torch.equal(seen_by(DIAGONAL, size, (row, column)), corner)
    other = torch.tensor([[y <= row and x >= column for x in range(width)] for y in range(height)])
    assert torch.equal(seen_by("diagonal, reverse", size, (row, column)), other)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("only the number of images|only N may be 0", {"gates": torch.zeros(1, 12, 0, 3)}),
        ("12 channels|the weight is for 12", {"gates": torch.zeros(1, 8, 2, 3)}),
        ("must be floats", {"gates": torch.zeros(1, 12, 2, 3, dtype=torch.int64)}),
        (r"must be \(4 C, C", {"weight": torch.zeros(12, 3)}),
        (r"must be \(4 C, C", {"weight": torch.zeros(12, 3, 4)}),
        (r"must be \(4 C, C", {"weight": torch.zeros(9, 3, 3), "diagonal": False}),
        (r"bias has shape \(3,\)", {"bias": torch.zeros(3)}),
        (r"hidden has shape \(4,\)", {"hidden": torch.zeros(4)}),
        (r"cell has shape \(3, 9\)", {"cell": torch.zeros(3, 9)}),
        ("must be alike", {"bias": torch.zeros(12, dtype=torch.float64)}),
    ],
)
def test_what_does_not_fit_is_refused(text, changes):
    given = dict(changes)
    both = given.pop("diagonal", True)
    for function, taps in ((row_lstm, 3), (diagonal_lstm, 2)) if both else ((row_lstm, 3),):
        arguments = {"gates": torch.zeros(1, 12, 2, 3), "weight": torch.zeros(12, 3, taps)} | given
        with pytest.raises(ShapeError, match=text):
            function(**arguments)
