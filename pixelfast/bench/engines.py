"""A model compiled for every backend and dtype that is asked for; what refuses is reported, not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pixelfast.bench.text import dtype_name
from pixelfast.errors import BackendError, UnsupportedModelError
from pixelfast.sampler import Sampler, compile

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "int8", "float64")}


@dataclass(frozen=True)
class Refusal:
    """Why a backend does not run a model in a dtype."""

    backend: str
    dtype: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} in {self.dtype}: {self.reason}"


def compile_each(
    model: Any, backends: Sequence[str], dtypes: Sequence[str], shape: tuple[int, int, int] | None = None
) -> tuple[list[Sampler], list[Refusal]]:
    """Samplers, by backend and then dtype, each combination once; "auto" may mean a backend that is also named.

    Raises BackendError when every combination is refused.
    """
    found: dict[tuple[str, torch.dtype], Sampler] = {}
    refusals = []
    for backend in backends:
        for dtype in dtypes:
            try:
                sampler = compile(model, shape, backend=backend, dtype=DTYPES[dtype])
            except (BackendError, UnsupportedModelError) as error:
                refusals.append(Refusal(backend, dtype, str(error)))
            else:
                found.setdefault((sampler.backend.name, sampler.dtype), sampler)
    if not found:
        raise BackendError(f"nothing to measure: {'; '.join(map(str, refusals))}")
    return list(found.values()), refusals


def label(sampler: Sampler) -> str:
    """Backend, instruction set where there is one, and dtype."""
    isa = getattr(sampler.backend, "isa", None)
    return " ".join(filter(None, (sampler.backend.name, isa, dtype_name(sampler.dtype))))
