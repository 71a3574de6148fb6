"""Turns a recording into a graph: folds constants in float64, follows every element, and adds nodes by `rules`.

Storages hold one of four things: constants, codes of input-dependent elements, values that depend on the condition only
(computed by a prologue, once per call), or something no rule can follow, kept until somebody reads it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .builder import Builder
from .errors import CausalityError, PixelfastError, UnsupportedModelError
from .ir import Graph
from .readiness import input_ready
from .rules import RULES
from .rules.attention import Deferred, follow, followed, turned, viewed
from .rules.common import Codes, Opaque, is_creation, is_pointwise
from .trace import Call, Recording, Ref, leaves_of, map_leaves, record


def _row_major(ref: Ref) -> bool:
    expected = 1
    for size, stride in zip(reversed(ref.size), reversed(ref.stride), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _covers(ref: Ref, content: torch.Tensor, numel: int) -> bool:
    """The tensor, as it lies, is the whole storage."""
    whole = (
        content.is_contiguous() and ref.offset == 0 and content.numel() == numel and tuple(content.shape) == ref.size
    )
    same = content.stride() == ref.stride or all(
        s == 1 or a == b for s, a, b in zip(ref.size, content.stride(), ref.stride, strict=True)
    )
    return whole and same and content.untyped_storage().nbytes() == numel * content.element_size()


_METADATA = {f"aten.{name}_" for name in "transpose t squeeze unsqueeze swapaxes swapdims as_strided detach".split()}
"""In-place operations that change how a tensor reads its storage, not what is in it."""


def _seen(content: Deferred, ref: Ref) -> Deferred | None:
    """A deferred tensor through a view of its storage, the last two axes exchanged or not."""
    if ref.offset != 0:
        return None
    if _row_major(ref):
        return viewed(content, ref.size)
    if len(ref.size) < 2:
        return None
    size, stride = list(ref.size), list(ref.stride)
    size[-2:], stride[-2:] = size[:-3:-1], stride[:-3:-1]
    straight = dataclasses.replace(ref, size=tuple(size), stride=tuple(stride))
    whole = viewed(content, straight.size) if _row_major(straight) else None
    return None if whole is None else turned(whole)


_PRODUCTS = ("aten.mm", "aten.bmm", "aten.addmm", "aten.baddbmm")


@functools.cache
def range_checks() -> frozenset[str]:
    """Operations by which this torch's one_hot checks that its levels are in range, before it reads their result."""
    calls = record(lambda x: torch.nn.functional.one_hot(x, 2), torch.zeros(1, dtype=torch.int64)).calls
    return frozenset(c.name for c in calls if c.name in ("aten.aminmax", "aten.min", "aten.max"))


@dataclass
class Conditional:
    """Marks a storage that depends on the condition but not on the image."""


@dataclass
class Prologue:
    """What depends on the condition alone: replayed once per image, in order."""

    steps: list[tuple[str, Any]] = field(default_factory=list)
    """("constant", (storage, flat)), ("call", Call) or ("capture", (value, Ref))."""
    inputs: dict[str, Ref] = field(default_factory=dict)
    numel: dict[int, int] = field(default_factory=dict)


class Simplifier:
    def __init__(self, recording: Recording, shape: tuple[int, int, int]) -> None:
        self.recording = recording
        total = sum(recording.numel.values())
        self.builder = Builder(Graph(shape), np.int32 if 4 * total < 2**31 else np.int64)
        self.graph = self.builder.graph
        self.storages: dict[int, Any] = {}
        self.prologue = Prologue(inputs=dict(recording.inputs), numel=recording.numel)
        self._given: dict[int, Any] = {}
        self._captured: dict[tuple[int, int, Ref], np.ndarray] = {}
        self._version: dict[int, int] = {}
        self._range_checks: set[int] = set()
        self._index_input()

    def _index_input(self) -> None:
        channels, height, width = self.graph.shape
        ref = self.recording.inputs["x"]
        flat = np.zeros(self.recording.numel[ref.storage], dtype=self.builder.space.dtype)
        self.builder.where = "input"
        for channel in range(channels):
            value = self.builder.value("input", height * width, 1, input_ready(self.graph.shape, channel))
            self.graph.inputs.append(value)
            codes = self.builder.space.codes(value, height * width)
            flat[channel * height * width : (channel + 1) * height * width] = codes[0]
        self.storages[ref.storage] = Codes(flat, ref.dtype)
        for name, ref in self.recording.inputs.items():
            if name != "x":
                self.storages[ref.storage] = Conditional()

    # -- reading and writing ----------------------------------------------------------------------------------------

    def content(self, ref: Ref) -> Any:
        if ref.storage not in self.storages:
            leaf = self.recording.leaves[ref.storage].detach().cpu()
            if leaf.is_floating_point():
                leaf = leaf.to(torch.float64)
            self.storages[ref.storage] = leaf
        return self.storages[ref.storage]

    def read(self, ref: Ref) -> Any:
        """A constant tensor, `Codes` or `Opaque`."""
        content = self.content(ref)
        if isinstance(content, torch.Tensor):
            return ref.of(content)
        if isinstance(content, Codes):
            flat = content.array
            strides = tuple(s * flat.itemsize for s in ref.stride)
            return Codes(np.lib.stride_tricks.as_strided(flat[ref.offset :], ref.size, strides), ref.dtype)
        if isinstance(content, Conditional):
            return Codes(self._capture(ref), ref.dtype)
        if isinstance(content, Deferred):
            seen = _seen(content, ref)
            if seen is not None:
                return seen
            codes = followed(self.builder, content).array
            self.storages[ref.storage] = Codes(np.ascontiguousarray(codes).reshape(-1), content.dtype)
            return self.read(ref)
        return content

    def _capture(self, ref: Ref) -> np.ndarray:
        """Codes of a condition-dependent tensor that an image-dependent operation reads."""
        key = (ref.storage, self._version.get(ref.storage, 0), ref)
        if key not in self._captured:
            channels = ref.size[1] if len(ref.size) > 2 else int(np.prod(ref.size))
            sites = int(np.prod(ref.size)) // max(channels, 1)
            value = self.builder.value("condition", sites, channels, np.zeros(sites))
            self.prologue.steps.append(("capture", (value, ref)))
            self._captured[key] = self.builder.space.codes(value, sites).reshape(ref.size)
        return self._captured[key]

    def write(self, ref: Ref, content: Any) -> None:
        """Puts a tensor, codes, or an opaque mark where the recorded result lies."""
        if isinstance(content, Opaque):
            self.storages[ref.storage] = content
            return
        if isinstance(content, Deferred):
            if self.recording.numel[ref.storage] != int(np.prod(ref.size)) or not _row_major(ref):
                raise NotImplementedError("a product of two image-dependent tensors, written into a part of a tensor")
            self.storages[ref.storage] = content
            return
        old = self.storages.get(ref.storage)
        numel = self.recording.numel[ref.storage]
        if isinstance(content, torch.Tensor):
            if content.is_floating_point():
                content = content.to(torch.float64)
            if isinstance(old, Codes):
                content = Codes(self.builder.constant(content.to(torch.float64).numpy()), ref.dtype)
            else:
                if old is None and _covers(ref, content, numel):
                    self.storages[ref.storage] = content.reshape(-1)
                    return
                kind = torch.float64 if ref.dtype.is_floating_point else ref.dtype
                flat = old.clone() if isinstance(old, torch.Tensor) else torch.zeros(numel, dtype=kind)
                ref.of(flat).copy_(content)
                self.storages[ref.storage] = flat
                return
        if isinstance(old, torch.Tensor):
            codes = self.builder.constant(old.to(torch.float64).numpy())
        elif isinstance(old, Codes):
            codes = old.array.copy()
        elif isinstance(old, Conditional):
            codes = self._capture(Ref(ref.storage, 0, (numel,), (1,), ref.dtype)).copy()
        elif content.array.size == numel and ref.offset == 0 and _row_major(ref):
            self.storages[ref.storage] = Codes(np.ascontiguousarray(content.array).reshape(-1), ref.dtype)
            self._version[ref.storage] = self._version.get(ref.storage, 0) + 1
            return
        else:
            codes = np.zeros(numel, dtype=self.builder.space.dtype)
        strides = tuple(s * codes.itemsize for s in ref.stride)
        window = np.lib.stride_tricks.as_strided(codes[ref.offset :], ref.size, strides)
        window[...] = np.broadcast_to(content.array, ref.size)
        self.storages[ref.storage] = Codes(codes, ref.dtype)
        self._version[ref.storage] = self._version.get(ref.storage, 0) + 1

    # -- calls ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        last_use = self._last_use()
        for number, call in enumerate(self.recording.calls):
            self.builder.where = str(call)
            try:
                self._call(call)
            except (PixelfastError, MemoryError):
                raise
            except Exception as error:
                detail = f": {str(error).splitlines()[0]}" if str(error) else ""
                raise UnsupportedModelError(f"{call} is not supported{detail}") from error
            for storage in last_use.get(number, ()):
                self.storages.pop(storage, None)

    def _last_use(self) -> dict[int, list[int]]:
        """Storages that no call after this one names; dropping them keeps the memory of folded weights small."""
        last: dict[int, int] = {}
        for number, call in enumerate(self.recording.calls):
            for ref in [*leaves_of((call.args, call.kwargs)), *call.outputs]:
                if isinstance(ref, Ref):
                    last[ref.storage] = number
        for ref in leaves_of(self.recording.output):
            if isinstance(ref, Ref):
                last.pop(ref.storage, None)
        at: dict[int, list[int]] = {}
        for storage, number in last.items():
            at.setdefault(number, []).append(storage)
        return at

    def _call(self, call: Call) -> None:
        refs = [r for r in leaves_of((call.args, call.kwargs)) if isinstance(r, Ref)]
        outputs = [o for o in call.outputs if isinstance(o, Ref)]
        mutable = call.op._schema.is_mutable
        contents = [self.content(r) for r in refs]
        if call.outputs and not outputs:
            self._number_read(call, refs, contents)
            return
        if call.name in _METADATA:
            return
        if call.name in range_checks() and len(call.args) == 1 and not refs[0].dtype.is_floating_point:
            self._range_checks |= {o.storage for o in outputs}
        if not mutable and outputs and all(o.storage in self.storages for o in outputs):
            return
        if is_creation(call.name) or not any(isinstance(c, (Codes, Opaque, Deferred)) for c in contents):
            if any(isinstance(c, Conditional) for c in contents) and not is_creation(call.name):
                self._postpone(call, refs, outputs)
            else:
                self._evaluate(call, outputs)
            return
        if not outputs:
            return
        for content in contents:
            if isinstance(content, Opaque):
                for output in outputs:
                    self.write(output, content)
                return
        self._lower(call, outputs)

    def _number_read(self, call: Call, refs: list[Ref], contents: list[Any]) -> None:
        """A Python number made of a tensor would be frozen. Only range checks of integers, as in one_hot, are none."""
        if all(isinstance(c, torch.Tensor) for c in contents) or all(r.storage in self._range_checks for r in refs):
            return
        of = "the image" if any(isinstance(c, (Codes, Opaque, Deferred)) for c in contents) else "the condition"
        raise UnsupportedModelError(
            f"{call} reads a number of {of} into Python, where it would be frozen; "
            "keep it a tensor (torch.where, not if)"
        )

    def _evaluate(self, call: Call, outputs: list[Ref]) -> None:
        """A constant: computed now, in float64."""

        def argument(a: Any) -> Any:
            if isinstance(a, Ref):
                content = self.content(a)
                if not isinstance(content, torch.Tensor):
                    kind = torch.float64 if a.dtype.is_floating_point else a.dtype
                    return torch.zeros(a.size, dtype=kind)
                return a.of(content)
            if isinstance(a, torch.dtype) and a.is_floating_point:
                return torch.float64
            return torch.device("cpu") if isinstance(a, torch.device) else a

        if call.op._schema.is_mutable:
            for output in outputs:
                content = self.content(output)
                if isinstance(content, torch.Tensor):
                    self.storages[output.storage] = content.clone()
                    self._version[output.storage] = self._version.get(output.storage, 0) + 1
        args, kwargs = map_leaves(argument, (call.args, call.kwargs))
        kwargs.pop("pin_memory", None)
        result = call.op(*args, **kwargs)
        if call.op._schema.is_mutable:
            return
        if call.name in (
            "aten.empty",
            "aten.empty_like",
            "aten.new_empty",
            "aten.empty_strided",
            "aten.new_empty_strided",
        ):
            result = torch.zeros_like(result)
        flat = leaves_of(result)
        for output, value in zip(call.outputs, flat, strict=True):
            if isinstance(output, Ref):
                self.write(output, value)

    def _postpone(self, call: Call, refs: Sequence[Ref], outputs: Sequence[Ref]) -> None:
        for ref in refs:
            content = self.content(ref)
            if isinstance(content, torch.Tensor) and self._given.get(ref.storage) is not content:
                self._given[ref.storage] = content
                self.prologue.steps.append(("constant", (ref.storage, content)))
        self.prologue.steps.append(("call", call))
        for output in outputs:
            self.storages[output.storage] = Conditional()
            self._version[output.storage] = self._version.get(output.storage, 0) + 1

    def _lower(self, call: Call, outputs: list[Ref]) -> None:
        args, kwargs = map_leaves(lambda a: self.read(a) if isinstance(a, Ref) else a, (call.args, call.kwargs))
        name = call.name
        rule: Callable[..., Any] | None = RULES.get(name)
        if rule is None and call.op._schema.is_mutable and name.endswith("_"):
            name = name[:-1]
            rule = RULES.get(name)
        if any(isinstance(a, Deferred) for a in leaves_of((args, kwargs))) and name not in _PRODUCTS:
            result = follow(self.builder, call, name, args, kwargs)
            if result is None:
                args, kwargs = map_leaves(lambda a: followed(self.builder, a), (args, kwargs))
        else:
            result = None
        if result is not None:
            pass
        elif rule is not None:
            result = rule(self.builder, call, *args, **kwargs)
        elif is_pointwise(name):
            result = RULES["pointwise"](self.builder, call, name, args, kwargs)
        else:
            raise NotImplementedError
        results = result if isinstance(result, (list, tuple)) else [result]
        if call.op._schema.is_mutable:
            outputs = outputs[:1]
        for output, item in zip(outputs, results, strict=False):
            if item is not None:
                self.write(output, item)

    # -- the end ----------------------------------------------------------------------------------------------------

    def outputs(self, needs: Sequence[Sequence[int]]) -> None:
        """Makes one value per channel of the parameters (P, H, W) that its number needs."""
        output = self.recording.output
        self.builder.where = "output"
        if not isinstance(output, Ref):
            raise UnsupportedModelError(
                f"the model returned {type(output).__name__}; give `outputs` to pick the parameters"
            )
        content = followed(self.builder, self.read(output))
        if isinstance(content, Opaque) and not content.leak:
            raise UnsupportedModelError(f"{content.where} is not supported: it {content.reason}")
        if isinstance(content, Opaque):
            channels, height, width = self.graph.shape
            raise CausalityError(
                f"{content.where} {content.reason}: the output at channel 0, row 0, column 0 reads the whole input, "
                f"up to channel {channels - 1}, row {height - 1}, column {width - 1}",
                content.where,
                (0, 0, 0),
                (channels - 1, height - 1, width - 1),
            )
        if isinstance(content, torch.Tensor):
            content = Codes(self.builder.constant(content.to(torch.float64).numpy()), output.dtype)
        codes = content.array.reshape(-1, self.graph.pixels)
        made: dict[tuple[int, ...], int] = {}
        for need in needs:
            key = tuple(need)
            if key not in made:
                made[key] = self.builder.materialise(np.ascontiguousarray(codes[list(need)]))
            self.graph.outputs.append(made[key])
