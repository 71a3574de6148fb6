"""Networks drawn at random that are causal by construction, and the one change that makes a network leak.

Each feature belongs to a *group*: a feature of group g at (y, x) depends on numbers below (y * W + x) * C + g only.
Channel c of the image is of group c + 1. A layer may read, at its own position, groups up to its own, and anything at
earlier positions; a shift makes every feature group 0. A map that is `scale` times smaller obeys the same rule at
(scale * y, scale * x).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from pixelfast import Bernoulli, Categorical, DiscretizedLogisticMixture
from pixelfast.likelihoods import Likelihood

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "tanh": torch.tanh,
    "elu": F.elu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class Map:
    """A feature map: which map of the network it is, the groups of its features, its scale and size."""

    index: int
    groups: tuple[int, ...]
    scale: int
    size: tuple[int, int]


class Step(nn.Module):
    """Makes one map out of others, given all maps so far."""

    def __init__(self, sources: list[int]) -> None:
        super().__init__()
        self.sources = sources

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.make(*(maps[i] for i in self.sources))


class Function(Step):
    def __init__(self, sources: list[int], make: Callable[..., Tensor]) -> None:
        super().__init__(sources)
        self.make = make


class Conv(Step):
    """A convolution with some of its weights masked; `style` says how the window is made causal."""

    def __init__(
        self, source: int, mask: Tensor, style: str, stride: int, dilation: int, activation: str, seed: int
    ) -> None:
        super().__init__([source])
        generator = torch.Generator().manual_seed(seed)
        fan_in = float(mask[0].sum().clamp(min=1))
        self.weight = nn.Parameter(torch.randn(mask.shape, generator=generator) * (1.5 / fan_in**0.5))
        self.bias = nn.Parameter(0.3 * torch.randn(len(mask), generator=generator))
        self.register_buffer("mask", mask)
        self.style, self.stride, self.dilation, self.activation = style, stride, dilation, activation

    def make(self, x: Tensor) -> Tensor:
        weight = self.weight * self.mask.to(self.weight.dtype)
        rows, columns = ((k - 1) * self.dilation for k in self.mask.shape[2:])
        options: dict[str, Any] = {"stride": self.stride, "dilation": self.dilation}
        if self.style == "centred":
            y = F.conv2d(x, weight, self.bias, padding=(rows // 2, columns // 2), **options)
        elif self.style == "padded above and left":
            y = F.conv2d(F.pad(x, (columns, 0, rows, 0)), weight, self.bias, **options)
        else:
            y = F.conv2d(x, weight, self.bias, padding=(rows, columns), **options)
            y = y[:, :, : -(-x.shape[2] // self.stride), : -(-x.shape[3] // self.stride)]
        return ACTIVATIONS[self.activation](y)


class Up(Step):
    """The ways back to a higher resolution."""

    def __init__(self, source: int, channels: int, factor: int, how: str, seed: int) -> None:
        super().__init__([source])
        generator = torch.Generator().manual_seed(seed)
        size = {"transposed": factor, "overlapping": factor + 1}.get(how, 1)
        outputs = channels * factor**2 if how == "shuffle" else channels
        shape = (channels, outputs, size, size) if how in ("transposed", "overlapping") else (outputs, channels, 1, 1)
        self.weight = nn.Parameter(torch.randn(shape, generator=generator) * 0.7)
        self.factor, self.how = factor, how

    def make(self, x: Tensor) -> Tensor:
        if self.how == "nearest":
            return F.interpolate(F.conv2d(x, self.weight), scale_factor=self.factor, mode="nearest")
        if self.how == "shuffle":
            return F.pixel_shuffle(F.conv2d(x, self.weight), self.factor)
        height, width = self.factor * x.shape[2], self.factor * x.shape[3]
        return F.conv_transpose2d(x, self.weight, stride=self.factor)[:, :, :height, :width]


class Network(nn.Module):
    """Steps in order, then a head that reads, for each output, the features it may.

    `levels`: of a categorical, whose parameters are (N, levels, C, H, W).
    """

    def __init__(self, steps: list[Step], head: Conv, levels: int | None) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.head = head
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for step in self.steps:
            maps.append(step(maps))
        params = self.head(maps)
        return params if self.levels is None else params.unflatten(1, (self.levels, -1))


@dataclass
class Drawn:
    """A network, what it is for, and how it was made, line by line."""

    model: Network
    shape: tuple[int, int, int]
    likelihood: Likelihood
    lines: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return "\n  ".join([f"{self.shape}, {self.likelihood}:", *self.lines])

    def arguments(self) -> dict[str, Any]:
        """Keywords of `compile` and its relatives."""
        return {"shape": self.shape, "likelihood": self.likelihood, "input": "signed"}


class _Drawing:
    """Draws steps one after the other and keeps track of what each map may be read for."""

    def __init__(self, draw: Any, leaky: bool) -> None:
        self.draw = draw
        self.leaks_left = 1 if leaky else 0
        self.channels = draw(st.sampled_from([1, 1, 2, 3]))
        self.size = (draw(st.sampled_from(range(1, 6))), draw(st.sampled_from(range(1, 7))))
        self.maps = [Map(0, tuple(range(1, self.channels + 1)), 1, self.size)]
        self.steps: list[Step] = []
        self.lines: list[str] = []

    def add(self, step: Step, groups: list[int], like: Map, line: str, scale: int | None = None) -> Map:
        scale = like.scale if scale is None else scale
        size = (self.size[0] // scale, self.size[1] // scale)
        self.steps.append(step)
        self.maps.append(Map(len(self.maps), tuple(groups), scale, size))
        self.lines.append(f"%{len(self.maps) - 1} = {line} of %{', %'.join(map(str, step.sources))} -> {groups}")
        return self.maps[-1]

    def source(self, scale: int | None = None) -> Map:
        found = [m for m in self.maps if scale is None or m.scale == scale]
        return self.draw(st.sampled_from(found))

    def seed(self) -> int:
        return self.draw(st.integers(0, 2**16))

    def mask(self, source: Map, groups: list[int], style: str, rows: int, columns: int) -> Tensor:
        """(out, in, rows, columns); with a leak left to make, perhaps one weight too many."""
        mask = torch.zeros(len(groups), len(source.groups), rows, columns)
        centre = (rows // 2, columns // 2) if style == "centred" else (rows - 1, columns - 1)
        allowed = torch.tensor(source.groups)[None] <= torch.tensor(groups)[:, None]
        for y in range(rows):
            for x in range(columns):
                mask[:, :, y, x] = float((y, x) < centre)
        mask[:, :, centre[0], centre[1]] = allowed.float()
        if self.leaks_left and self.draw(st.booleans()):
            closed = (mask == 0).nonzero()
            if len(closed):
                at = closed[self.draw(st.integers(0, len(closed) - 1))]
                mask[tuple(at.tolist())] = 1
                self.leaks_left -= 1
                self.lines.append(f"a weight let through at {at.tolist()} in the next step")
        return mask

    # -- steps -----------------------------------------------------------------------------------------------

    def conv(self) -> None:
        source = self.source()
        style = self.draw(st.sampled_from(["centred", "padded above and left", "padded and cropped"]))
        sizes = st.sampled_from([1, 3, 5]) if style == "centred" else st.integers(1, 3)
        rows, columns = self.draw(sizes), self.draw(sizes)
        dilation = self.draw(st.sampled_from([1, 1, 2]))
        width = self.draw(st.integers(1, 5))
        groups = self.draw(st.lists(st.integers(0, self.channels - 1), min_size=width, max_size=width))
        strides = [s for s in (2, 3) if all(n % s == 0 for n in source.size) and source.scale * s <= 6]
        stride = self.draw(st.sampled_from([1, 1, *strides]))
        activation = self.draw(st.sampled_from(list(ACTIVATIONS)))
        mask = self.mask(source, groups, style, rows, columns)
        step = Conv(source.index, mask, style, stride, dilation, activation, self.seed())
        line = f"{rows}x{columns} convolution ({style}, stride {stride}, dilation {dilation}, {activation})"
        self.add(step, groups, source, line, source.scale * stride)

    def gate(self) -> None:
        found = [m for m in self.maps if len(m.groups) > 1]
        if not found:
            return
        source = self.draw(st.sampled_from(found))
        half = len(source.groups) // 2
        if self.draw(st.booleans()):
            first, second, line = slice(0, half), slice(half, 2 * half), "gate of halves"
        else:
            first, second, line = slice(0, 2 * half, 2), slice(1, 2 * half, 2), "gate of even and odd"
        groups = [max(a, b) for a, b in zip(source.groups[first], source.groups[second], strict=True)]
        step = Function([source.index], lambda x: torch.tanh(x[:, first]) * torch.sigmoid(x[:, second]))
        self.add(step, groups, source, line)

    def concat(self) -> None:
        first = self.source()
        second = self.source(first.scale)
        step = Function([first.index, second.index], lambda a, b: torch.cat([a, b], dim=1))
        self.add(step, [*first.groups, *second.groups], first, "concatenation")

    def residual(self) -> None:
        first = self.source()
        found = [m for m in self.maps if m.scale == first.scale and len(m.groups) == len(first.groups)]
        second = self.draw(st.sampled_from(found))
        groups = [max(a, b) for a, b in zip(first.groups, second.groups, strict=True)]
        step = Function([first.index, second.index], lambda a, b: a + b)
        self.add(step, groups, first, "sum")

    def shift(self) -> None:
        source = self.source()
        if self.draw(st.booleans()):
            step = Function([source.index], lambda x: F.pad(x[:, :, :-1], (0, 0, 1, 0)))
            line = "shift down"
        else:
            step = Function([source.index], lambda x: F.pad(x, (1, 0))[:, :, :, :-1])
            line = "shift right"
        self.add(step, [0] * len(source.groups), source, line)

    def shuffle(self) -> None:
        source = self.source()
        order = self.draw(st.permutations(range(len(source.groups))))
        step = Function([source.index], lambda x: x[:, list(order)])
        self.add(step, [source.groups[i] for i in order], source, "shuffle of channels")

    def pool(self) -> None:
        source = self.source()
        rows, columns = self.draw(st.integers(1, 3)), self.draw(st.integers(1, 2))
        pads = (columns - 1, 0, rows - 1, 0)
        step = Function([source.index], lambda x: F.avg_pool2d(F.pad(x, pads), (rows, columns), stride=1))
        self.add(step, list(source.groups), source, f"mean of a {rows}x{columns} window")

    def wait(self) -> None:
        """At one column, a sum with another map's column further right, then read even further right."""
        source = self.source()
        second = self.source(source.scale)
        width = self.size[1] // source.scale
        other = self.draw(st.sampled_from(range(width)))
        column = self.draw(st.sampled_from(range(other + 1)))
        shift = self.draw(st.sampled_from(range(other - column + 1, width + 1)))

        def make(x: Tensor, y: Tensor) -> Tensor:
            late = torch.zeros_like(x)
            late[..., column] = y[:, :1, :, other]
            return F.pad(torch.sigmoid(x + late), (shift, -shift))

        line = f"column {other} added to column {column}, shift right by {shift}"
        self.add(Function([source.index, second.index], make), [0] * len(source.groups), source, line)

    def up(self) -> None:
        found = [m for m in self.maps if m.scale > 1]
        if not found:
            return
        source = self.draw(st.sampled_from(found))
        factor = self.draw(st.sampled_from([f for f in (2, 3, 4, 6) if source.scale % f == 0]))
        how = self.draw(st.sampled_from(["nearest", "shuffle", "transposed", "overlapping"]))
        step = Up(source.index, len(source.groups), factor, how, self.seed())
        groups = [max(source.groups)] * len(source.groups)
        self.add(step, groups, source, f"up-sampling by {factor} ({how})", source.scale // factor)

    def head(self) -> tuple[Conv, Likelihood]:
        """Reads every map of the full size. The levels of a categorical are the slow index of its outputs."""
        self.bring_up_the_last()
        channels = self.channels
        kinds = ["categorical", "bernoulli", *(["mixture"] if channels in (1, 3) else [])]
        kind = self.draw(st.sampled_from(kinds))
        likelihood: Likelihood
        if kind == "categorical":
            likelihood, groups = Categorical(3), list(range(channels)) * 3
        elif kind == "bernoulli":
            likelihood, groups = Bernoulli(), list(range(channels))
        else:
            likelihood = DiscretizedLogisticMixture(mixtures=2, levels=6)
            groups = [0] * likelihood.parameters(channels)
        everything = [m for m in self.maps if m.scale == 1]
        step = Function([m.index for m in everything], lambda *maps: torch.cat(maps, dim=1))
        source = self.add(step, [g for m in everything for g in m.groups], everything[0], "all maps")
        mask = self.mask(source, groups, "centred", 1, 1)
        return Conv(source.index, mask, "centred", 1, 1, "none", self.seed()), likelihood

    def bring_up_the_last(self) -> None:
        """So that what was computed at a low resolution reaches the outputs."""
        last = self.maps[-1]
        if last.scale > 1:
            step = Up(last.index, len(last.groups), last.scale, "nearest", self.seed())
            groups = [max(last.groups)] * len(last.groups)
            self.add(step, groups, last, f"up-sampling by {last.scale} (nearest)", 1)

    STEPS = ("conv", "conv", "conv", "gate", "concat", "residual", "shift", "shuffle", "pool", "up", "wait")

    def network(self) -> Drawn:
        for _ in range(self.draw(st.integers(1, 7))):
            getattr(self, self.draw(st.sampled_from(self.STEPS)))()
        head, likelihood = self.head()
        levels = likelihood.levels if isinstance(likelihood, Categorical) else None
        model = Network(self.steps, head, levels).eval()
        return Drawn(model, (self.channels, *self.size), likelihood, self.lines)


@st.composite
def networks(draw: Any, leaky: bool = False) -> Drawn:
    """A causal network; `leaky`: with, most often, one weight too many."""
    return _Drawing(draw, leaky).network()
