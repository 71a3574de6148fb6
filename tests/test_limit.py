"""The lower bounds that speeds are compared with, on graphs small enough to count by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pixelfast import limit, machine
from pixelfast.ir import Attend, Contract, Graph, Source, Span, Tap, Value

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


def graph_of_one_attention(asked: bool, to_rows_above: bool) -> tuple[Graph, list[np.ndarray]]:
    """A 3x2 image in which every pixel attends to those before it, or to the rows above. Keys are one channel wide and
    values two. `asked`: its query is the pixel before it; otherwise nothing asks, and every weight is alike."""
    pixels = WIDTH * HEIGHT
    graph = Graph((1, HEIGHT, WIDTH))
    sizes = [("input", 1), ("node", 3), ("node", 3)]
    graph.values = [Value(i, kind, pixels, channels, "") for i, (kind, channels) in enumerate(sizes)]
    graph.inputs, graph.outputs = [0], [2]
    seen = [list(range(i // WIDTH * WIDTH if to_rows_above else i)) for i in range(pixels)]
    first = np.cumsum([0, *(len(s) for s in seen)])
    sites = np.concatenate([np.array(s, dtype=np.int32) for s in seen])
    before = np.arange(pixels, dtype=np.int32) - 1
    query = Source(0, before if asked else np.full(pixels, -1, dtype=np.int32), np.zeros(1, dtype=np.int64))
    keys, values = Span(1, sites, np.array([0]), first), Span(1, sites, np.array([1, 2]), first)
    graph.nodes = [Attend(2, "", query, keys, values, 1, 1.0, 0.0, None)]
    known = np.arange(pixels, dtype=np.int32) + 1
    return graph, [known, known, np.array([max(s, default=-1) + 1 for s in seen])]


def test_keys_and_values_are_read_by_every_query() -> None:
    graph, ready = graph_of_one_attention(asked=True, to_rows_above=False)
    pairs = 0 + 1 + 2 + 3 + 4 + 5
    assert limit.fewest_attended_bytes(graph, ready) == pairs * 3 * 4


def test_queries_that_are_ready_together_share_what_they_read() -> None:
    graph, ready = graph_of_one_attention(asked=False, to_rows_above=True)
    assert limit.fewest_attended_bytes(graph, ready) == WIDTH * 3 * 4
    graph, ready = graph_of_one_attention(asked=True, to_rows_above=True)
    assert limit.fewest_attended_bytes(graph, ready) == WIDTH * WIDTH * 3 * 4


def test_what_is_attended_to_but_not_needed_is_not_read() -> None:
    graph, ready = graph_of_one_attention(asked=True, to_rows_above=False)
    graph.outputs = [1]
    assert limit.fewest_attended_bytes(graph, ready) == 0


def test_every_image_reads_its_own_keys_and_values() -> None:
    rates = machine.Machine(
        "test", 1, flops=100.0, bf16_flops=400.0, int8_flops=800, cache_bandwidth=10.0, memory_bandwidth=1.0
    )
    assert limit.limit_seconds(50.0, 20.0, 1, rates, attended_bytes=40.0) == 6.0
    assert limit.limit_seconds(50.0, 20.0, 8, rates, attended_bytes=40.0) == 34.0


def test_limit_is_the_slower_of_arithmetic_and_reading() -> None:
    rates = machine.Machine(
        "test", 1, flops=100.0, bf16_flops=400.0, int8_flops=800, cache_bandwidth=10.0, memory_bandwidth=1.0
    )
    assert limit.limit_seconds(flops=50.0, weight_bytes=20.0, batch=1, machine=rates) == 2.0
    assert limit.limit_seconds(flops=50.0, weight_bytes=20.0, batch=8, machine=rates) == 4.0


def test_limit_in_bfloat16_has_its_own_arithmetic_and_smaller_weights() -> None:
    rates = machine.Machine(
        "test", 1, flops=100.0, bf16_flops=400.0, int8_flops=800, cache_bandwidth=10.0, memory_bandwidth=1.0
    )
    assert limit.limit_seconds(50.0, 10.0, 16, rates, torch.bfloat16) == 2.0
    assert limit.limit_seconds(50.0, 10.0, 16, rates, torch.float64) == limit.limit_seconds(50.0, 10.0, 16, rates)
    graph, ready = graph_of_one_contraction([(0, 1), (1, 0)])
    sizes = [limit.weight_size(dtype) for dtype in (torch.bfloat16, torch.float32, torch.float64)]
    assert sizes == [2, 4, 4]
    assert 2 * limit.fewest_weight_bytes(graph, ready, sizes[0]) == limit.fewest_weight_bytes(graph, ready)


def test_best_of_two_measurements() -> None:
    before = machine.Machine(
        "test", 1, flops=3.0, bf16_flops=6.0, int8_flops=12, cache_bandwidth=1.0, memory_bandwidth=5.0
    )
    after = machine.Machine(
        "test", 1, flops=2.0, bf16_flops=7.0, int8_flops=14, cache_bandwidth=4.0, memory_bandwidth=5.0
    )
    assert before.best(after) == machine.Machine("test", 1, 3.0, 7.0, 14.0, 4.0, 5.0)


def test_fastest_leaves_the_first_call_out() -> None:
    calls = []
    assert machine.fastest(lambda: calls.append(1), seconds=0.0) < 1.0
    assert len(calls) == 2


def test_bfloat16_is_never_slower_than_widening(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without bfloat16 arithmetic multiplies it slowly in torch; it could widen it to float32."""
    monkeypatch.setattr(machine, "product_rate", lambda dtype, seconds: 5.0 if dtype == torch.bfloat16 else 7.0)
    monkeypatch.setattr(machine, "integer_product_rate", lambda seconds: 6.0)
    monkeypatch.setattr(machine, "reading_rate", lambda size, seconds: 1.0)
    measured = machine.measure()
    assert (measured.flops, measured.bf16_flops, measured.int8_flops) == (7.0, 7.0, 7.0)


def test_product_rate_counts_multiply_and_add(monkeypatch: pytest.MonkeyPatch) -> None:
    def fastest(work: Callable[[], object], seconds: float) -> float:
        work()
        return 0.5

    monkeypatch.setattr(machine, "MATRIX", 8)
    monkeypatch.setattr(machine, "fastest", fastest)
    for dtype in (torch.float32, torch.bfloat16):
        assert machine.product_rate(dtype) == 2 * 8**3 / 0.5
    assert machine.integer_product_rate() == 2 * 8**3 / 0.5
