"""The lower bounds that speeds are compared with, on graphs small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pixelfast
from pixelfast.bench import agreement, limit, machine, naive, sampling
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


class TestAgreement:
    @pytest.fixture
    def sampled(self) -> tuple:
        torch.manual_seed(0)
        model = GatedPixelCNN((1, 4, 5), levels=8, hidden=4, dilations=(1,)).eval()
        problem = make_problem(model, None, None, None, None, None)
        sampler = pixelfast.compile(model)
        return sampler, problem, sampler.sample(3)

    def test_same_images(self, sampled: tuple) -> None:
        sampler, problem, images = sampled
        assert agreement.compare(sampler, problem, images, images) == agreement.Agreement(3, 60, 0, 0)

    def test_other_numbers_from_the_same_parameters_are_near_ties(self, sampled: tuple) -> None:
        sampler, problem, images = sampled
        other = images.clone()
        other[1, 0, 2, 2] ^= 1
        assert agreement.compare(sampler, problem, images, other) == agreement.Agreement(3, 60, 1, 1)

    def test_other_parameters_are_not(self, sampled: tuple) -> None:
        sampler, problem, images = sampled
        with torch.no_grad():
            for parameter in problem.model.parameters():
                parameter.mul_(1.01)
        other = images.clone()
        other[1, 0, 2, 2] ^= 1
        found = agreement.compare(sampler, problem, images, other)
        assert (found.different, found.near_ties) == (1, 0)
        assert "0 of 1 others part at a near-tie" in str(found)


def test_fastest_leaves_the_first_call_out() -> None:
    calls = []
    assert machine.fastest(lambda: calls.append(1), seconds=0.0) < 1.0
    assert len(calls) == 2
