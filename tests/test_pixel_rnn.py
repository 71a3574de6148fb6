"""PixelRNN: what each pixel sees, the naive sampler's integers, a network trained by others, and what is refused."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comparators import assert_same_integers
from test_cached_equals_naive import check, check_float32, randomised
from torch import Tensor

import pixelfast
from pixelfast import ops
from pixelfast.backends.registry import ORDER
from pixelfast.errors import CheckpointError, PixelfastError, ShapeError
from pixelfast.models import PixelRNN

ROW, DIAGONAL = "row_lstm", "diagonal_bilstm"
SMALL: dict[str, Any] = {"levels": 2, "layers": 2, "hidden": 4}
PUBLISHED = ("checkpoints", "taimir-diagonal-bilstm-mnist.npz")


def network(shape: tuple[int, int, int], kind: str, **changes: Any) -> PixelRNN:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return randomised(PixelRNN(shape, kind, **(SMALL | changes)))


@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((1, 5, 9), {}),
        ((1, 8, 4), {"levels": 5, "input": "signed"}),
        ((3, 4, 3), {"levels": 4, "hidden": 5}),
        ((3, 3, 5), {"features": 5, "hidden": 5, "head": 3}),
        ((2, 1, 6), {"layers": 1}),
        ((1, 6, 1), {}),
        ((3, 1, 1), {}),
    ],
)
def test_cached_is_naive(shape, changes, kind):
    check(network(shape, kind, **changes), samples=2)


@pytest.mark.parametrize("backend", ORDER)
@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
def test_float32(kind, backend):
    check_float32(network((3, 4, 5), kind, levels=4, hidden=12), backend)


@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
def test_float32_at_a_larger_size(kind):
    check_float32(network((1, 28, 20), kind, hidden=40), "cpu")


@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
@pytest.mark.parametrize("shape", [(1, 9, 12), (3, 5, 4)])
def test_one_image_per_seed_and_id(shape, kind):
    sampler = pixelfast.compile(network(shape, kind, hidden=8), backend="cpu")
    together = sampler.sample(5, seed=3)
    assert_same_integers(sampler.sample(5, seed=3, batch_size=2), together)
    for i in (4, 1):
        assert_same_integers(sampler.sample(1, seed=3, sample_ids=[i]), together[i : i + 1])
    sampler._threads = 2
    assert_same_integers(sampler.sample(5, seed=3), together)
    assert len(together.flatten(1).unique(dim=0)) == 5


@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
def test_completion_keeps_what_is_given(kind):
    sampler = pixelfast.compile(network((1, 6, 5), kind), backend="cpu")
    image, mask = torch.ones(1, 1, 6, 5, dtype=torch.int64), torch.zeros(1, 1, 6, 5, dtype=torch.bool)
    mask[:, :, :3] = True
    completed = sampler.sample(4, seed=1, known=image, mask=mask)
    assert (completed[:, :, :3] == 1).all()
    assert not (completed[:, :, 3:] == 1).all()


# -- what a pixel sees ----------------------------------------------------------------------------------------------

Place = tuple[int, int]


def before(place: Place, size: Place) -> set[Place]:
    """What a 7x7 kernel under mask A reads there."""
    y, x = place
    rows, columns = range(max(0, y - 3), y + 1), range(max(0, x - 3), min(size[1], x + 4))
    return {(row, column) for row in rows for column in columns if row < y or column < x}


def states_above(kind: str, place: Place, size: Place) -> set[Place]:
    """Where the gates are that the states of one layer depend on, both directions together, by the paper's figure 2."""
    y, x = place
    height, width = size
    everywhere = [(row, column) for row in range(height) for column in range(width)]
    if kind == ROW:
        return {(row, column) for row, column in everywhere if row <= y and abs(column - x) <= y - row}
    left = {(row, column) for row, column in everywhere if row <= y and column <= x}
    return left | {(row, column) for row, column in everywhere if row < y and column >= x}


def seen(kind: str, layers: int, size: Place) -> Tensor:
    """bool (pixels, pixels): what each output depends on, layer after layer, as sets of positions."""
    height, width = size
    places = [(row, column) for row in range(height) for column in range(width)]
    features = {place: before(place, size) for place in places}
    for _ in range(layers):
        gates = dict(features)
        if kind == ROW:
            gates = {(y, x): features[y, x] | features.get((y, x - 1), set()) for y, x in places}
        features = {
            place: set().union(features[place], *(gates[at] for at in states_above(kind, place, size)))
            for place in places
        }
    out = torch.zeros(len(places), len(places), dtype=torch.bool)
    for i, place in enumerate(places):
        for row, column in features[place]:
            out[i, row * width + column] = True
    return out


def by_gradients(model: PixelRNN) -> Tensor:
    """bool (outputs, numbers): whether there is a gradient, of several images: units may be off in one of them."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(6, *model.shape, generator=generator, dtype=torch.float64).requires_grad_()
    logits = model.double()(x).flatten(1).sum(0)
    found = [torch.autograd.grad(one, x, retain_graph=True)[0] for one in logits]
    return torch.stack([(gradient != 0).any(0).flatten() for gradient in found])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("size", [(4, 11), (7, 5)])
@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
def test_a_pixel_sees_what_the_paper_says(kind, size, layers):
    model = network((1, *size), kind, layers=layers)
    assert torch.equal(by_gradients(model), seen(kind, layers, size))


@pytest.mark.parametrize("size", [(3, 9), (6, 5), (3, 3)])
def test_a_diagonal_bilstm_sees_all_that_comes_before(size):
    """All but the end of the row above, where the first layer's mask leaves nobody to its right who has read it."""
    height, width = size
    expected = torch.ones(height * width, height * width).tril(-1).bool().view(height, width, height, width)
    for y in range(1, height):
        for x in range(width - 4):
            expected[y, x, y - 1, width - 1] = False
    assert torch.equal(by_gradients(network((1, *size), DIAGONAL)).view(expected.shape), expected)


@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
def test_channels_of_a_pixel_come_in_turn(kind):
    model = network((3, 3, 4), kind, hidden=9, head=40)
    sees = by_gradients(model).view(3, 12, 3, 12).permute(1, 0, 3, 2).reshape(36, 36)
    assert not sees.triu().any()
    within = torch.stack([sees[3 * p : 3 * p + 3, 3 * p : 3 * p + 3] for p in range(12)])
    assert torch.equal(within, torch.ones(3, 3).tril(-1).bool().expand(12, -1, -1))


@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
def test_causality_is_checked(kind):
    model = network((1, 4, 5), kind)
    assert pixelfast.check_causality(model).causal
    model.stem.mask[:, :, -1, 3] = True
    report = pixelfast.check_causality(model)
    assert not report.causal
    assert report.output == report.reads == (0, 0, 0)


def test_an_unshifted_right_to_left_direction_is_refused():
    """The mistake of others: it has seen the rest of its own row."""
    model = network((1, 4, 5), DIAGONAL)
    model.blocks[1].directions[1].reverse = False
    assert pixelfast.check_causality(model).causal

    class Unshifted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = network((1, 4, 5), DIAGONAL)

        def forward(self, x: Tensor) -> Tensor:
            direction = self.model.blocks[0].directions[1]
            state = direction.state_to_state
            h = self.model.stem(x)
            h = h + ops.diagonal_lstm(direction.input_to_state(h), state.weight, state.bias, reverse=True).repeat(
                1, 2, 1, 1
            )
            return self.model.head(self.model.mix[1](self.model.mix[0](h)))

    report = pixelfast.check_causality(Unshifted(), (1, 4, 5), pixelfast.Bernoulli(), "unit")
    assert not report.causal


# -- training and files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
def test_learns(kind):
    model = network((1, 6, 5), kind, layers=1).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 1, 6, 1, generator=generator).round().expand(-1, -1, -1, 5)  # rows of one colour
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(30):
        loss = model.likelihood.loss(model(images), images.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("kind", [ROW, DIAGONAL])
def test_save_and_load(kind, tmp_path):
    model = network((3, 4, 5), kind, levels=6)
    pixelfast.save(model, tmp_path / "rnn.safetensors")
    other = pixelfast.load(tmp_path / "rnn.safetensors")
    x = torch.rand(1, 3, 4, 5)
    assert torch.equal(other.eval()(x), model(x))
    assert other.config == model.config


@pytest.mark.parametrize(
    ("error", "text", "changes"),
    [
        (ShapeError, "shape", {"shape": (1, 4)}),
        (PixelfastError, "kind must be one of row_lstm, diagonal_bilstm", {"kind": "lstm"}),
        (PixelfastError, "hidden must be from 3", {"shape": (3, 4, 4), "hidden": 2}),
        (PixelfastError, "layers", {"layers": 0}),
        (PixelfastError, "levels", {"levels": 1}),
        (PixelfastError, "input must be one of", {"input": "levels"}),
    ],
)
def test_bad_arguments(error, text, changes):
    with pytest.raises(error, match=text):
        PixelRNN(**changes)


def test_bad_inputs():
    model = PixelRNN((1, 4, 4), **SMALL)
    with pytest.raises(ShapeError, match="float"):
        model(torch.zeros(1, 1, 4, 4, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"\(N, 1, H, W\)"):
        model(torch.zeros(1, 3, 4, 4))


# -- taimir's files -------------------------------------------------------------------------------------------------


def taimir_arrays(hidden: int, head: int, layers: int) -> list[np.ndarray]:
    """Arrays in the order of the published file, of any size; those under the mask are not zero."""
    generator = np.random.default_rng(3)
    direction = [(4 * hidden, hidden, 1, 1), (4 * hidden,), (4 * hidden, hidden, 2), (1,)]
    shapes = [(hidden, 1, 7, 7), (hidden,), *(direction * 2 * layers)]
    shapes += [(head, hidden, 1, 1), (head,), (head, head, 1, 1), (head,), (1, head, 1, 1), (1,)]
    return [(0.3 * generator.standard_normal(shape)).astype(np.float32) for shape in shapes]


def taimir_forward(arrays: list[np.ndarray], x: Tensor) -> Tensor:
    """Logits of images (N, 1, H, W) of zeros and ones, from nothing but the arrays: the map skewed with zeros, every
    column of it walked through."""
    a = [torch.from_numpy(array).double() for array in arrays]
    mask = torch.zeros(7, 7, dtype=torch.float64)
    mask[:3] = 1
    mask[3, :3] = 1
    h = F.conv2d(x, a[0] * mask, a[1], padding=3)
    _, hidden, height, width = h.shape

    def walk(features: Tensor, w: Tensor, b: Tensor, states: Tensor, shared: Tensor) -> Tensor:
        gates = F.conv2d(features, w, b)
        skewed = gates.new_zeros(len(x), 4 * hidden, height, width + height - 1)
        for y in range(height):
            skewed[:, :, y, y : y + width] = gates[:, :, y]
        out = torch.zeros_like(features)
        last = cell = features.new_zeros(len(x), hidden, height)
        for column in range(width + height - 1):
            above = F.pad(last, (1, 0))[:, :, :height]
            total = skewed[..., column] + shared
            total = total + torch.einsum("ok,nky->noy", states[:, :, 0], above)
            total = total + torch.einsum("ok,nky->noy", states[:, :, 1], last)
            o, f, i, g = total.split(hidden, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            last = o.sigmoid() * cell.tanh()
            for y in range(height):
                if 0 <= column - y < width:
                    out[:, :, y, column - y] = last[:, :, y]
        return out

    layers = (len(a) - 8) // 8
    for layer in range(layers):
        first = a[2 + 8 * layer : 10 + 8 * layer]
        left = walk(h, *first[:4])
        right = walk(h.flip(3), *first[4:]).flip(3)
        h = h + left + torch.cat([torch.zeros_like(right[:, :, :1]), right[:, :, :-1]], dim=2)
    for i in (6, 4):
        h = F.relu(F.conv2d(h, a[-i], a[-i + 1]))
    return F.conv2d(h, a[-2], a[-1])


def written(arrays: list[np.ndarray], path: Any) -> Any:
    np.savez(path, **{f"arr_{i}": array for i, array in enumerate(arrays)})
    return path


@pytest.mark.parametrize(("size", "layers"), [((5, 8), 1), ((7, 4), 3)])
def test_taimir_s_layout_at_any_size(size, layers, tmp_path):
    arrays = taimir_arrays(3, 5, layers)
    model = pixelfast.load(written(arrays, tmp_path / "m.npz"), shape=(1, *size)).double()
    x = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1)).round().double()
    torch.testing.assert_close(model(x), taimir_forward(arrays, x), rtol=0, atol=1e-12)
    pixelfast.save(model, tmp_path / "m.safetensors")
    assert pixelfast.load(tmp_path / "m.safetensors").config["layers"] == layers


def thresholded(images: Tensor) -> Tensor:
    """Levels of 256 to zeros and ones, at more than a half."""
    return (images > 127).long()


@pytest.fixture
def digits(shared_file) -> Tensor:
    raw = gzip.decompress(shared_file("data", "mnist", "t10k-images-idx3-ubyte.gz").read_bytes())
    return thresholded(torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)[:500])


def test_the_published_network_gives_its_own_logits(shared_file, digits):
    path = shared_file(*PUBLISHED)
    with np.load(path, allow_pickle=False) as file:
        arrays = [file[f"arr_{i}"] for i in range(24)]
    x = digits[:4].double()
    torch.testing.assert_close(pixelfast.load(path).double()(x), taimir_forward(arrays, x), rtol=0, atol=1e-10)


def test_the_published_network_on_500_images(shared_file, digits):
    """54.80 nats: 72.82 would be the state that starts anew in every row. Through the engine, step by step."""
    sampler = pixelfast.compile(pixelfast.load(shared_file(*PUBLISHED)), backend="cpu")
    assert -sampler.log_prob(digits).double().mean().item() == pytest.approx(54.80, abs=0.02)


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("no known layout", lambda arrays: arrays[:-1]),
        ("wrong shape: arr_4 ", lambda arrays: [*arrays[:4], arrays[4][..., :1], *arrays[5:]]),
        ("arr_3 is int64; accepted are", lambda arrays: [*arrays[:3], arrays[3].astype(np.int64), *arrays[4:]]),
        ("arr_3 holds NaN", lambda arrays: [*arrays[:3], arrays[3] * np.nan, *arrays[4:]]),
        ("holds Python objects", lambda arrays: [*arrays[:3], np.array([{}]), *arrays[4:]]),
    ],
)
def test_files_that_are_not_complete_are_refused(text, change, tmp_path):
    path = written(change(taimir_arrays(3, 5, 1)), tmp_path / "m.npz")
    with pytest.raises(CheckpointError, match=text) as caught:
        pixelfast.load(path)
    assert "\n" not in str(caught.value)


def test_packed_zeros_are_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "m.npz", arr_0=np.zeros(1 << 22, dtype=np.float32))
    with pytest.raises(CheckpointError, match="unpacks to 16,777,216 bytes, more than 8 times the file"):
        pixelfast.load(tmp_path / "m.npz")


def test_damaged_npz_files_are_refused(tmp_path):
    path = written(taimir_arrays(3, 5, 1), tmp_path / "m.npz")
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged \.npz file"):
        pixelfast.load(path)
    path.write_bytes(content[:3000])
    with pytest.raises(CheckpointError):
        pixelfast.load(path)
    with pytest.raises(CheckpointError, match="no dilations"):
        pixelfast.load(written(taimir_arrays(3, 5, 1), tmp_path / "n.npz"), dilations=(1,))
