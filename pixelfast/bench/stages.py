"""Times a model in stages: what each network takes of a batch, and what decoding takes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pixelfast.bench.sampling import Measurement, time_repeats
from pixelfast.bench.text import Column, table
from pixelfast.stages import Decoder


@dataclass(frozen=True)
class Pipeline:
    """One batch through all stages with one engine: median seconds of each, and of decoding, 0 where there is none."""

    batch: int
    backend: str
    dtype: str
    stages: Mapping[str, float]
    decoding: float

    @property
    def seconds(self) -> float:
        return sum(self.stages.values()) + self.decoding


def time_decoding(model: Any, batch: int, repeats: int) -> float:
    """Median seconds of decoding a batch of random codes; 0 where the last stage draws pixels."""
    decoder = Decoder(model)
    if not decoder.needed:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    drawn = {
        stage.name: torch.randint(stage.network.likelihood.levels, (batch, *stage.network.shape), generator=generator)
        for stage in model.stages
    }
    return statistics.median(time_repeats(lambda *_: decoder(drawn), repeats).seconds)


def pipelines(rows: Mapping[str, Sequence[Measurement]], decoding: Mapping[int, float]) -> list[Pipeline]:
    """What was measured of every stage, put together by batch and engine; engines that run all stages only.

    rows: by stage. decoding: seconds by batch.
    """
    by_stage = {name: {(row.batch, row.backend, row.dtype): row.seconds for row in of} for name, of in rows.items()}
    first, *others = by_stage.values()
    return [
        Pipeline(*engine, {name: seconds[engine] for name, seconds in by_stage.items()}, decoding[engine[0]])
        for engine in first
        if all(engine in other for other in others)
    ]


def pipeline_table(rows: Sequence[Pipeline]) -> str:
    """Whole batches as text: seconds of every stage with its share, and images per second."""

    def part(seconds: float, row: Pipeline) -> str:
        return f"{seconds:.4g} ({seconds / row.seconds:.0%})"

    def of_stage(name: str) -> Column:
        return (f"{name} s", lambda row: part(row.stages[name], row))

    columns: list[Column] = [
        ("batch", lambda row: str(row.batch)),
        ("backend", lambda row: row.backend),
        ("dtype", lambda row: row.dtype),
        *map(of_stage, rows[0].stages),
        ("decoding s", lambda row: part(row.decoding, row)),
        ("seconds", lambda row: f"{row.seconds:.4g}"),
        ("images/s", lambda row: f"{row.batch / row.seconds:.2f}"),
    ]
    return table(columns, rows)
