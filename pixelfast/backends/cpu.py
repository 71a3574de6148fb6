"""The CPU backend: the whole loop over numbers runs in the C++ extension, on all threads.

Images are bit-identical for any batch size, position in the batch and number of threads, within one
instruction set and dtype.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
import torch  # before the extension, which then shares torch's OpenMP threads

from ..errors import BackendError
from ..likelihoods import Likelihood
from ..program import Program
from ..rng import RNG_VERSION
from .base import Job, Result
from .cpu_instructions import reason_against
from .cpu_packing import PRECISIONS, build_engine, head_of


class CpuBackend:
    """Runs a program on the CPU. Weights are copied; `run` may be called from several threads at once.

    Args:
        program: what to run.
        likelihood: what the outputs are parameters of.
        dtype: float32, or bfloat16 or int8 for most contractions (see `precision`).
        isa: "avx512_bf16" (for bfloat16), "avx512_vnni" (for int8), "avx512", "avx2" or "baseline"; empty takes
            $PIXELFAST_ISA, or else the best that the CPU has.

    Raises:
        BackendError: the program cannot run here, or the CPU lacks the instruction set.
    """

    name: ClassVar[str] = "cpu"

    def __init__(
        self, program: Program, likelihood: Likelihood, dtype: torch.dtype = torch.float32, isa: str = ""
    ) -> None:
        reasons = self.unsupported_reasons(program, likelihood, dtype)
        if reasons:
            raise BackendError(f"the cpu backend cannot run this program: {'; '.join(reasons)}")
        try:
            self._engine = build_engine(program, likelihood, isa, dtype)
        except ValueError as error:
            raise BackendError(f"the cpu backend cannot run this program: {error}") from error
        self._program = program
        self._likelihood = likelihood
        self._dtype = dtype
        self._process = os.getpid()
        self.stats: dict[str, Any] = {}
        """Of the last run: seconds, threads, sharing, isa, weight_bytes, bytes_per_image; of predictive sampling
        forecasts (numbers that the network was run on before they were drawn), forecasts_accepted (right ones),
        evaluations (runs of the network on one image), plain_evaluations (what plain sampling takes)."""

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self._engine.isa

    @staticmethod
    def unsupported_reasons(program: Program, likelihood: Likelihood, dtype: torch.dtype) -> list[str]:
        """Why this backend cannot run the program; empty if it can."""
        reasons = []
        if dtype not in PRECISIONS:
            reasons.append(f"dtype {dtype}: the cpu backend computes in float32, bfloat16 or int8")
        if head_of(likelihood) is None:
            reasons.append(f"no kernel for {likelihood}")
        found = (reason_against(i) for kernel in program.kernels for i in kernel.instructions)
        reasons += dict.fromkeys(reason for reason in found if reason is not None)
        return reasons

    def run(self, job: Job) -> Result:
        """Samples images.

        Raises:
            BackendError: the network's outputs are not numbers.
            ValueError: the job does not fit the program.
        """
        forked = os.getpid() != self._process  # OpenMP's threads do not survive a fork; waiting for them would hang
        try:
            images, params, stats = self._engine.run(
                samples=job.samples,
                seed=job.seed,
                stream=RNG_VERSION << 16 | job.stream,
                sample_ids=np.asarray(job.sample_ids).astype(np.uint32),
                conditions=[(i, np.ascontiguousarray(data, dtype=np.float64)) for i, data in job.conditions],
                temperature=job.temperature,
                reference=job.mode == "reference",
                known=job.known,
                mask=job.mask,
                on_row=job.on_row,
                collect_parameters=job.collect_params,
                threads=1 if forked else job.threads or 0,
                last_number=self._program.numbers if job.last_number is None else job.last_number,
                sharing=job.sharing,
                lookahead=0 if job.lookahead is None else job.lookahead,
                profile=job.profile,
            )
        except FloatingPointError as error:
            raise BackendError(str(error)) from error
        stats |= {
            "isa": self.isa,
            "weight_bytes": self._engine.weight_bytes,
            "bytes_per_image": self._engine.arena_bytes,
        }
        self.stats = stats  # by the time of the next line perhaps another thread's
        return Result(images, params if job.collect_params else None, stats)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy packs the weights again, for the same instruction set: the same bits, or an error."""
        return CpuBackend, (self._program, self._likelihood, self._dtype, self.isa)

    def plan(self, samples: int) -> dict[str, Any]:
        """How threads would share a batch: `threads`, `sharing`, and the cost model's `seconds` of each way."""
        return self._engine.plan(samples)
