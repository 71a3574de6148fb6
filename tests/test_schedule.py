"""The schedule of programs: everything once, when it is ready and before it is needed, in memory that is freed."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from gallery import IDIOMS
from gallery.causal import MaskedConv
from torch import nn

import pixelfast
from pixelfast.causality import analyse
from pixelfast.ir import Graph, reads
from pixelfast.models import GatedPixelCNN, PixelCNNPlusPlus, PixelRNN
from pixelfast.problem import make_problem
from pixelfast.program import K_BLOCK, Program, k_blocks
from pixelfast.readiness import NEVER
from pixelfast.sampler import lower_program
from pixelfast.schedule import Schedule, schedule
from pixelfast.split import split_early

NAMES = [
    "two_stacks",
    "contiguous_groups",
    "transposed_conv_cropped",
    "concat_elu",
    "two_levels",
    "diagonal_skew",
    "row_lstm",
    "row_lstm_of_rows_above",
    "diagonal_bi_lstm",
    "diagonal_lstm_of_colours",
]


@cache
def compiled(name: str) -> pixelfast.Sampler:
    idiom = IDIOMS[name]
    return pixelfast.compile(
        idiom.build(), backend="reference", dtype=torch.float64, condition=idiom.conditions(1), **idiom.arguments()
    )


def tasks_of(program: Program) -> list[tuple[int, int, np.ndarray]]:
    """(step, kernel, sites) in order."""
    return [(step, kernel, program.sites[first : first + n]) for step, kernel, first, n in program.tasks.tolist()]


@pytest.mark.parametrize("name", NAMES)
def test_every_site_is_computed_once(name):
    program = compiled(name).program
    count = Counter((kernel, site) for _, kernel, sites in tasks_of(program) for site in sites.tolist())
    assert max(count.values()) == 1
    for kernel, site in count:
        assert 0 <= site < program.kernels[kernel].sites


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_in_order_of_steps(name):
    program = compiled(name).program
    steps = program.tasks[:, 0]
    assert (np.diff(steps) >= 0).all()
    assert steps.min() >= 0 and steps.max() < program.numbers


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_read_before_it_is_written(name):
    program = compiled(name).program
    channels = program.shape[0]
    inputs = {buffer: channel for channel, buffer in enumerate(program.input.buffers) if buffer is not None}
    written: set[tuple[int, int]] = set()
    for step, index, sites in tasks_of(program):
        kernel = program.kernels[index]
        reads = [(load.buffer, load.table) for load in kernel.loads]
        if kernel.contraction is not None:
            reads += [(term.buffer, term.table) for term in kernel.contraction.terms]
        for buffer, table in reads:
            slots = [0] if table is None else program.tables[table][sites].tolist()
            for slot in slots:
                if buffer in inputs and slot >= 0:
                    assert slot * channels + inputs[buffer] < step, "reads a number that is not sampled yet"
                elif program.buffers[buffer].kind == "state" and slot >= 0:
                    assert (buffer, slot) in written
        for store in kernel.stores:
            slots = program.tables[store.table][sites]
            assert slots.min() >= 0 and slots.max() < program.buffers[store.buffer].slots
            written |= {(store.buffer, slot) for slot in slots.tolist()}


@cache
def scheduled(name: str) -> tuple[Graph, list[np.ndarray], Schedule]:
    idiom = IDIOMS[name]
    analysis = analyse(make_problem(idiom.build(), condition=idiom.conditions(1), **idiom.arguments()))
    graph, ready = split_early(analysis.graph, analysis.ready)
    return graph, ready, schedule(graph, ready)


@pytest.mark.parametrize("name", NAMES)
def test_activations_are_computed_between_ready_and_need(name):
    graph, ready, made = scheduled(name)
    for group in made.groups:
        done = group.step != NEVER
        assert done.any(), "a kernel that nobody needs"
        for node in group.nodes:
            assert (group.step[done] >= ready[node.out][done]).all()
            for source in reads(node):
                writer = made.group_of.get(source.value)
                used = (source.sites >= 0) & done
                if writer is not None:
                    assert (made.groups[writer].step[source.sites[used]] <= group.step[used]).all()
    for channel, value in enumerate(graph.outputs):
        numbers = np.arange(graph.pixels) * graph.channels + channel
        assert (made.groups[made.group_of[value]].step <= numbers).all()


@pytest.mark.parametrize("name", NAMES)
def test_slots_are_free_before_they_are_used_again(name):
    """No two sites of a value share a slot while both are waited for."""
    graph, _, made = scheduled(name)
    for value, slots in made.slots.items():
        writer = made.groups[made.group_of[value]]
        last = writer.step.astype(np.int64)
        for group in made.groups:
            for node in group.nodes:
                for source in reads(node):
                    if source.value == value:
                        used = (source.sites >= 0) & (group.step != NEVER)
                        np.maximum.at(last, source.sites[used], group.step[used])
        for channel, output in enumerate(graph.outputs):
            if output == value:
                np.maximum(last, np.arange(graph.pixels) * graph.channels + channel, out=last)
        live = np.flatnonzero(writer.step != NEVER)
        assert slots[live].min() >= 0 and slots[live].max() < made.slot_count[value]
        for slot in np.unique(slots[live]):
            mine = live[slots[live] == slot]
            mine = mine[np.argsort(writer.step[mine])]
            assert (writer.step[mine][1:] > last[mine][:-1]).all()


def test_rows_that_are_ready_run_together():
    """A stack of full rows above: each row of it is one task, not one task per pixel."""

    class Above(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, (1, 3), padding=(0, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.conv(nn.functional.pad(x, (0, 0, 1, -1))))

    sampler = pixelfast.compile(Above(), (1, 6, 8), pixelfast.Categorical(4), "signed", backend="reference")
    assert {len(sites) for _, _, sites in tasks_of(sampler.program)} == {8}


def test_taps_on_rows_above_are_summed_early():
    """Of a 2x2 window, the two taps on the row above run a row at a time, the two newest with the pixel."""
    model = nn.Sequential(
        nn.ZeroPad2d((2, -1, 1, 0)), nn.Conv2d(1, 3, 2), nn.Tanh(), nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(3, 4, 2)
    )
    sampler = pixelfast.compile(model, (1, 6, 8), pixelfast.Categorical(4), "signed", backend="reference")
    taps = {index: len(k.contraction.terms) for index, k in enumerate(sampler.program.kernels) if k.contraction}
    assert sorted(taps.values()) == [2, 2, 2, 2]
    count = Counter(kernel for _, kernel, _ in tasks_of(sampler.program))
    assert sorted(count[kernel] for kernel in taps)[:2] == [6, 6], "one task a row"
    assert min(sorted(count[kernel] for kernel in taps)[2:]) > 40, "one task a pixel"


def test_a_row_lstm_sums_the_row_above_many_pixels_at_once():
    program = pixelfast.compile(PixelRNN((1, 5, 20), "row_lstm", layers=1, hidden=3), backend="reference").program
    from_states = [i for i, k in enumerate(program.kernels) if k.contraction and len(k.contraction.terms) == 3]
    sizes = [len(sites) for _, kernel, sites in tasks_of(program) if kernel == from_states[-1]]
    assert sum(sizes) == 100 and len(sizes) <= 10, "two tasks a row"


def test_a_diagonal_lstm_goes_from_pixel_to_pixel():
    """Within a row every state waits for the one before: no steps are merged, and from right to left, where a whole
    row is ready at once, it runs as one wave after another."""
    program = pixelfast.compile(PixelRNN((1, 6, 8), layers=1, hidden=3), backend="reference").program
    assert program.lookahead == 1
    of_step = Counter((step, kernel) for step, kernel, _ in tasks_of(program))
    assert max(of_step.values()) == 8


def test_a_recurrence_is_a_few_kernels_whatever_the_size():
    def kernels(side: int) -> int:
        model = PixelRNN((1, side, side), layers=2, hidden=3)
        return len(pixelfast.compile(model, backend="cpu").program.kernels)

    assert kernels(5) == kernels(17) < 30


def test_steps_of_a_loop_side_by_side_are_positions():
    """What the columns of a skewed map have made is read back as a map: a kernel or two per step, none per pixel."""
    loop = IDIOMS["skewed_lstm_loop"].build()
    arguments = IDIOMS["skewed_lstm_loop"].arguments() | {"shape": (1, 10, 9)}
    program = pixelfast.compile(loop, backend="reference", **arguments).program
    steps = 2 * (10 + 9 - 1)
    assert len(program.kernels) < 3 * steps


def test_a_weight_that_a_loop_uses_again_is_kept_once():
    class Down(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs = MaskedConv("A", 1, 4)
            self.state = nn.Conv1d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = [torch.tanh(row) for row in self.inputs(x).unbind(2)[:1]]
            for row in self.inputs(x).unbind(2)[1:]:
                rows.append(torch.tanh(row + self.state(rows[-1])))
            return torch.stack(rows, dim=2)

    def weights(height: int) -> set[int]:
        sampler = pixelfast.compile(Down(), (1, height, 4), pixelfast.Categorical(4), "signed", backend="reference")
        kernels = [k.contraction for k in sampler.program.kernels if k.contraction]
        return {id(term.weight) for contraction in kernels for term in contraction.terms}

    assert len(weights(3)) == len(weights(7))


def gated(height: int) -> nn.Module:
    return GatedPixelCNN((1, height, 16), levels=4, hidden=4, dilations=(1, 2))


def plus(height: int) -> nn.Module:
    return PixelCNNPlusPlus((1, height, 16), blocks=1, filters=4, mixtures=1)


@pytest.mark.parametrize("make", [gated, plus])
def test_buffers_are_lines_not_images(make):
    """Doubling the height adds less than a tenth to what is kept, beyond the image itself."""

    def kept(height: int) -> int:
        problem = make_problem(make(height), None, None, None, None, None)
        analysis = analyse(problem)
        program = lower_program(*split_early(analysis.graph, analysis.ready), problem).program
        return sum(b.slots * b.channels for b in program.buffers if b.kind == "state")

    assert kept(32) < 1.1 * kept(16)


def test_flops_are_those_of_one_forward():
    """Two per weight and position, padding left out."""
    model = nn.Sequential(MaskedConv("A", 1, 4), nn.ReLU(), nn.Conv2d(4, 4, 1))
    program = pixelfast.compile(model, (1, 4, 5), pixelfast.Categorical(4), "signed", backend="reference").program
    above = (4 - 1) * (3 * 5 - 2)
    left = 4 * (5 - 1)
    assert program.flops == 2 * 4 * (above + left) + 2 * 4 * 4 * 20


class BesideCoordinates(nn.Module):
    """Features and maps of coordinates, in either order, through an activation and a 1x1 convolution."""

    def __init__(self, maps_first: bool) -> None:
        super().__init__()
        self.stem, self.head = MaskedConv("A", 1, 6), nn.Conv2d(8, 4, 1)
        self.maps_first = maps_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.stem(x)
        rows, columns = (torch.linspace(-1, 1, size) for size in h.shape[2:])
        maps = torch.stack([rows[:, None].expand(h.shape[2:]), columns.expand(h.shape[2:])]).expand(len(x), -1, -1, -1)
        both = torch.cat([maps, h] if self.maps_first else [h, maps], dim=1)
        return self.head(nn.functional.elu(both) + both)


@pytest.mark.parametrize("maps_first", [True, False])
def test_constants_beside_features_do_not_part_them(maps_first):
    """Every kernel is of the positions, all its channels together, whatever numbers the constants are."""
    model = BesideCoordinates(maps_first).eval()
    arguments = {"likelihood": pixelfast.Categorical(4), "input": "signed", "backend": "reference"}
    small, large = (pixelfast.compile(model, shape=(1, *size), **arguments).program for size in ((4, 5), (9, 7)))
    assert len(small.kernels) == len(large.kernels)
    assert {kernel.sites for kernel in large.kernels} == {9 * 7}
    assert len(large.tasks) <= len(large.kernels) * 9 * 7


def test_programs_are_reproducible():
    idiom = IDIOMS["two_levels"]
    one, two = (
        pixelfast.compile(idiom.build(), backend="reference", **idiom.arguments()).program.fingerprint()
        for _ in range(2)
    )
    assert one == two
    other = idiom.build()
    with torch.no_grad():
        other.head.bias[0] += 1
    assert pixelfast.compile(other, backend="reference", **idiom.arguments()).program.fingerprint() != one


def test_describe_names_buffers_kernels_and_backend():
    text = compiled("two_stacks").describe()
    assert "reference" in text and "float64" in text
    assert "convolution" in text


@pytest.mark.parametrize("counts", [[1], [128], [129], [160, 160], [30, 30, 30, 60], [1280], [3] * 100, [127, 2, 500]])
def test_sums_are_cut_into_blocks_of_at_most_128(counts):
    blocks = k_blocks(counts)
    assert [sum(last - first for _, first, last in block) for block in blocks] and all(
        0 < sum(last - first for _, first, last in block) <= K_BLOCK for block in blocks
    )
    covered = [(position, i) for block in blocks for position, first, last in block for i in range(first, last)]
    assert covered == [(position, i) for position, count in enumerate(counts) for i in range(count)]


def test_blocks_of_one_term_are_of_like_size():
    for count in range(1, 600):
        sizes = [last - first for block in k_blocks([count]) for _, first, last in block]
        assert max(sizes) - min(sizes) <= 1 and len(sizes) == -(-count // K_BLOCK)
