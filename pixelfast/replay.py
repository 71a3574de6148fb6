"""Runs recorded calls again, in another float type: the dense network as the recorder saw it."""

from __future__ import annotations

from typing import Any

import torch

from .errors import UnsupportedModelError
from .trace import Call, Recording, Ref, leaves_of, map_leaves


def replay_call(call: Call, flats: dict[int, torch.Tensor], numel: dict[int, int], dtype: torch.dtype) -> None:
    """Runs one call on the storages in `flats`, which it adds to or writes into."""

    def argument(a: Any) -> Any:
        if isinstance(a, Ref):
            return a.of(flats[a.storage])
        if isinstance(a, torch.dtype) and a.is_floating_point:
            return dtype
        return torch.device("cpu") if isinstance(a, torch.device) else a

    args, kwargs = map_leaves(argument, (call.args, call.kwargs))
    kwargs.pop("pin_memory", None)
    result = call.op(*args, **kwargs)
    if call.op._schema.is_mutable:
        return
    for output, value in zip(call.outputs, leaves_of(result), strict=True):
        if isinstance(output, Ref) and output.storage not in flats:
            flat = torch.zeros(numel[output.storage], dtype=float_kind(output.dtype, dtype))
            output.of(flat).copy_(value)
            flats[output.storage] = flat


def float_kind(recorded: torch.dtype, wanted: torch.dtype) -> torch.dtype:
    """`wanted` for float tensors; integers and truth values stay as recorded."""
    return wanted if recorded.is_floating_point else recorded


class Replay:
    """Callable like the recorded forward, at the recorded batch size."""

    def __init__(self, recording: Recording, dtype: torch.dtype) -> None:
        self.recording = recording
        self.dtype = dtype
        self._leaves = {
            number: leaf.detach().cpu().to(float_kind(leaf.dtype, dtype)) for number, leaf in recording.leaves.items()
        }
        written = {
            a.storage
            for call in recording.calls
            if call.op._schema.is_mutable
            for a in leaves_of(call.args)
            if isinstance(a, Ref)
        }
        self._written = written

    def __call__(self, x: torch.Tensor, conditions: list[torch.Tensor]) -> torch.Tensor:
        """x and the condition's tensors as recorded; the float ones in `dtype`."""
        recording = self.recording
        flats = {n: leaf.clone() if n in self._written else leaf for n, leaf in self._leaves.items()}
        for name, ref in recording.inputs.items():
            tensor = x if name == "x" else conditions[int(name.split("/")[1])]
            flat = torch.zeros(recording.numel[ref.storage], dtype=float_kind(ref.dtype, self.dtype))
            ref.of(flat).copy_(tensor)
            flats[ref.storage] = flat
        with torch.no_grad():
            for call in recording.calls:
                replay_call(call, flats, recording.numel, self.dtype)
        if not isinstance(recording.output, Ref):
            raise UnsupportedModelError(
                f"the model returned {type(recording.output).__name__}; give `outputs` to pick the parameters"
            )
        return recording.output.of(flats[recording.output.storage])
