"""The lower bounds that speeds are compared with, on graphs small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import pixelfast
from pixelfast import limit, machine, rng
from pixelfast.bench import agreement, naive, sampling
from pixelfast.ir import Contract, Graph, Source, Tap, Value
from pixelfast.models import GatedPixelCNN, PixelCNNPlusPlus
from pixelfast.problem import make_problem

WIDTH, HEIGHT = 3, 2


def graph_of_one_contraction(offsets: list[tuple[int, int]], channels: int = 2) -> tuple[Graph, list[np.ndarray]]:
    """A 3x2 image and one contraction, a tap of `channels` weights per (rows up, columns left)."""
    pixels = WIDTH * HEIGHT
    graph = Graph((1, HEIGHT, WIDTH))
    graph.values = [Value(0, "input", pixels, 1, "input"), Value(1, "node", pixels, channels, "conv")]
    graph.inputs, graph.outputs = [0], [1]
    taps = []
    ready = np.zeros(pixels, dtype=np.int64)
    for up, left in offsets:
        sites = np.array(
            [(y - up) * WIDTH + x - left if y >= up and x >= left else -1 for y in range(HEIGHT) for x in range(WIDTH)]
        )
        taps.append(Tap(Source(0, sites, np.zeros(1, dtype=np.int64)), np.ones((1, channels))))
        ready = np.maximum(ready, sites + 1)
    graph.nodes = [Contract(1, "conv", tuple(taps), None)]
    return graph, [np.arange(1, pixels + 1), ready]


@pytest.mark.parametrize(
    ("intervals", "moments"),
    [([], 0), ([(0, 3), (1, 2), (2, 5)], 1), ([(0, 0), (1, 1), (2, 2)], 3), ([(0, 2), (3, 5), (2, 3)], 2)],
)
def test_fewest_moments(intervals: list[tuple[int, int]], moments: int) -> None:
    first, last = np.array(intervals, dtype=np.int64).reshape(-1, 2).T
    assert limit.fewest_moments(first, last) == moments


def test_newest_neighbour_is_read_once_per_pixel() -> None:
    graph, ready = graph_of_one_contraction([(0, 1)])
    readings = 4  # The first column of each row has no left neighbour.
    assert limit.fewest_weight_bytes(graph, ready) == readings * 2 * 4


def test_row_above_is_read_once_per_row() -> None:
    graph, ready = graph_of_one_contraction([(1, 0)])
    assert limit.fewest_weight_bytes(graph, ready) == 1 * 2 * 4


def test_what_no_output_needs_is_not_read() -> None:
    graph, ready = graph_of_one_contraction([(0, 1)])
    graph.values.append(Value(2, "node", WIDTH * HEIGHT, 2, "unused"))
    graph.nodes.append(Contract(2, "unused", graph.nodes[0].taps, None))
    assert limit.fewest_weight_bytes(graph, [*ready, ready[1]]) == 4 * 2 * 4


def test_limit_is_the_slower_of_arithmetic_and_reading() -> None:
    rates = machine.Machine("test", 1, flops=100.0, cache_bandwidth=10.0, memory_bandwidth=1.0)
    assert limit.limit_seconds(flops=50.0, weight_bytes=20.0, batch=1, machine=rates) == 2.0
    assert limit.limit_seconds(flops=50.0, weight_bytes=20.0, batch=8, machine=rates) == 4.0


def test_best_of_two_measurements() -> None:
    before = machine.Machine("test", 1, flops=3.0, cache_bandwidth=1.0, memory_bandwidth=5.0)
    after = machine.Machine("test", 1, flops=2.0, cache_bandwidth=4.0, memory_bandwidth=5.0)
    assert before.best(after) == machine.Machine("test", 1, 3.0, 4.0, 5.0)


def test_spread_is_of_all_repeats_and_the_rest_of_the_median() -> None:
    torch.manual_seed(0)
    sampler = pixelfast.compile(GatedPixelCNN((1, 2, 3), levels=2, hidden=2, dilations=(1,)))
    rates = machine.Machine("test", 1, flops=1e9, cache_bandwidth=1e9, memory_bandwidth=1e9)
    row = sampling.measurement(sampler, 4, [1.0, 2.0, 5.0], naive.Naive(60.0, 3, 6), 1e9, rates)
    assert (row.seconds, row.spread, row.ratio, row.share) == (2.0, 2.0, 30.0, 0.5)
    assert row.us_per_pixel == pytest.approx(2e6 / (4 * 6))


def test_naive_forwards_are_counted_as_naive_sampling_makes_them() -> None:
    """One per pixel for a mixture, one per number where the channels' parameters differ."""
    pixelcnnpp = PixelCNNPlusPlus((3, 4, 4), blocks=1, filters=2, mixtures=2)
    problem = make_problem(pixelcnnpp, None, None, None, None, None)
    assert naive.extrapolate(problem, 1).forwards == 16
    sequential = GatedPixelCNN((3, 2, 2), levels=2, hidden=3, dilations=(1,))
    assert naive.forwards_per_batch(make_problem(sequential, None, None, None, None, None)) == 12


class Constant(nn.Module):
    """Logits of one pixel with two levels, whatever the input."""

    def __init__(self, gap: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, gap], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.view(1, 2, 1, 1, 1).expand(len(x), 2, 1, 1, 1)


class TestAgreement:
    SEED = 3

    def compare_constants(self, ours: float, theirs: float) -> agreement.Agreement:
        """Image 0 of a sampler whose second logit is `ours`, and of naive sampling where it is `theirs`.

        Both are relative to the logit at which the noise of that image hangs in the balance.
        """
        setting = {"shape": (1, 1, 1), "likelihood": pixelfast.Categorical(2), "input": "unit"}
        gumbel = -torch.log(-torch.log(rng.uniforms(self.SEED, [0], [0], 2)[0, 0]))
        balance = float(gumbel[0] - gumbel[1])
        fast = pixelfast.compile(Constant(balance + ours), backend="reference", dtype=torch.float64, **setting)
        slow = make_problem(Constant(balance + theirs), outputs=None, condition=None, **setting)
        images = fast.sample(1, seed=self.SEED)
        naive_images = pixelfast.naive_sample(slow.model, 1, seed=self.SEED, **setting)
        return agreement.compare(fast, slow, images, naive_images, self.SEED)

    def test_same_images(self) -> None:
        assert self.compare_constants(1.0, 2.0) == agreement.Agreement(1, 1, 0, 0)

    def test_near_tie(self) -> None:
        found = self.compare_constants(-1e-7, 1e-7)
        assert found == agreement.Agreement(1, 1, 1, 1)
        assert "1 of 1 others part at a near-tie" in str(found)

    def test_other_parameters_are_no_near_tie(self) -> None:
        assert self.compare_constants(-1.0, 1.0) == agreement.Agreement(1, 1, 1, 0)

    def test_wrong_draw_from_the_same_parameters_is_no_near_tie(self) -> None:
        torch.manual_seed(0)
        model = GatedPixelCNN((3, 4, 5), levels=8, hidden=6, dilations=(1,)).eval()
        problem = make_problem(model, None, None, None, None, None)
        sampler = pixelfast.compile(model)
        images = sampler.sample(3, seed=self.SEED)
        other = images.clone()
        other[1, 2, 2, 2] ^= 1
        assert agreement.compare(sampler, problem, images, images, self.SEED).different == 0
        found = agreement.compare(sampler, problem, images, other, self.SEED)
        assert found == agreement.Agreement(3, 180, 1, 0)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_draw_is_the_samplers(self, channels: int) -> None:
        """Redrawing every number from the parameters along an image gives the image."""
        torch.manual_seed(0)
        model = PixelCNNPlusPlus((channels, 4, 4), blocks=1, filters=2, mixtures=2).double().eval()
        problem = make_problem(model, None, None, None, None, None)
        sampler = pixelfast.compile(model, backend="reference", dtype=torch.float64)
        image = sampler.sample(1, seed=self.SEED).long()
        params = sampler.params(image).flatten(2)[0]
        redrawn = [
            [agreement.draw(problem, params[:, pixel], pixel, channel, self.SEED, 0) for pixel in range(16)]
            for channel in range(channels)
        ]
        assert redrawn == image[0].flatten(1).tolist()


def test_fastest_leaves_the_first_call_out() -> None:
    calls = []
    assert machine.fastest(lambda: calls.append(1), seconds=0.0) < 1.0
    assert len(calls) == 2
