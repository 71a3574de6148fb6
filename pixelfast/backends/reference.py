"""A plain-torch interpreter of programs: the oracle for every other backend.

In float64, float32, or as bfloat16 and int8 are computed elsewhere: in float32, with the inputs and weights of most
contractions rounded (see `precision`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from ..builder import evaluate
from ..likelihoods import Likelihood
from ..likelihoods.base import PixelState, check_drawn
from ..precision import LOW_PRECISION, coded_slots, coded_weights, contraction_types
from ..program import Attended, Attention, Contraction, Instruction, Kernel, Operand, Program, Reduction
from ..rng import uniforms
from .base import Job, Result


class ReferenceBackend:
    name: ClassVar[str] = "reference"

    def __init__(self, program: Program, likelihood: Likelihood, dtype: torch.dtype = torch.float32) -> None:
        self.program = program
        self.likelihood = likelihood
        self.dtype = torch.float32 if dtype in LOW_PRECISION else dtype
        types = contraction_types(program, dtype)
        self._tables = [torch.from_numpy(t.astype(np.int64)) for t in program.tables]
        self._sites = torch.from_numpy(program.sites.astype(np.int64))
        weights: dict[Any, torch.Tensor] = {}
        self._kernels = [
            _Runner(k, self._tables, self.dtype, precision, weights)
            for k, precision in zip(program.kernels, types, strict=True)
        ]
        self._constants = {
            i: torch.from_numpy(np.concatenate([b.data, np.zeros((1, b.channels))])).to(self.dtype)[None]
            for i, b in enumerate(program.buffers)
            if b.data is not None
        }
        kernel_tasks: dict[int, list[tuple[int, int, int]]] = {}
        for step, kernel, first, count in program.tasks.tolist():
            kernel_tasks.setdefault(step, []).append((kernel, first, count))
        self._steps = kernel_tasks

    @staticmethod
    def unsupported_reasons(program: Program, likelihood: Likelihood, dtype: torch.dtype) -> list[str]:
        if dtype not in (torch.float32, torch.float64, *LOW_PRECISION):
            return [f"dtype {dtype}: the reference backend computes in float32, float64, bfloat16 or int8"]
        return []

    def run(self, job: Job) -> Result:
        program = self.program
        channels, height, width = program.shape
        buffers = self._fresh_buffers(job.samples, job.conditions)
        nothing = torch.zeros(job.samples, channels, height, width, dtype=torch.float64)
        images = self.likelihood.settle(nothing).numpy()
        collected: list[list[torch.Tensor]] = [[] for _ in range(channels)]
        draws = self.likelihood.draws(channels)
        pixel = PixelState.start(job.samples, channels)
        end = program.numbers if job.last_number is None else job.last_number
        for number in range(end):
            position, channel = divmod(number, channels)
            row, column = divmod(position, width)
            for kernel, first, count in self._steps.get(number, ()):
                self._kernels[kernel].run(buffers, self._sites[first : first + count])
            output = program.outputs[channel]
            params = buffers[output.buffer][:, int(self._tables[output.table][position])].clone()
            if job.collect_params:
                collected[channel].append(params)
            if channel == 0:
                pixel = PixelState.start(job.samples, channels)
            given = np.zeros(job.samples, dtype=bool) if job.mask is None else job.mask[:, channel, row, column]
            noise = uniforms(job.seed, job.sample_ids, [number], draws, job.stream)[:, 0]
            drawn = self.likelihood.draw(channel, params, pixel, noise, job.temperature, job.mode)
            check_drawn(drawn, given, number, program.shape)
            if job.known is not None:
                fixed = torch.from_numpy(job.known[:, channel, row, column].astype(np.float64))
                drawn = torch.where(torch.from_numpy(given), fixed, drawn)
                pixel.known[:, channel] = torch.from_numpy(given)
            pixel.values[:, channel] = drawn
            images[:, channel, row, column] = self.likelihood.settle(drawn).numpy()
            self._feed(buffers, channel, position, drawn)
            if job.on_row is not None and channel == channels - 1 and column == width - 1:
                job.on_row(row, images)
        params_out = [torch.stack(c, dim=1).numpy() for c in collected] if job.collect_params else None
        return Result(images, params_out, {"isa": "torch"})

    def _fresh_buffers(self, samples: int, conditions: Sequence[tuple[int, np.ndarray]]) -> list[torch.Tensor]:
        """(N, slots + 1, channels) each. The last row stays zero: slot -1 reads it. Unwritten slots are NaN."""
        buffers = []
        for i, b in enumerate(self.program.buffers):
            if i in self._constants:
                buffers.append(self._constants[i].expand(samples, -1, -1))
                continue
            new = torch.full((samples, b.slots + 1, b.channels), torch.nan, dtype=self.dtype)
            new[:, -1] = 0
            buffers.append(new)
        for index, data in conditions:
            buffers[index][:, :-1] = torch.from_numpy(data).to(self.dtype)
        return buffers

    def _feed(self, buffers: list[torch.Tensor], channel: int, position: int, drawn: torch.Tensor) -> None:
        code = self.program.input
        buffer = code.buffers[channel]
        if buffer is None:
            return
        if code.table is not None:
            value = torch.from_numpy(code.table[channel])[drawn.to(torch.int64)]
        else:
            value = drawn * code.scale + code.offset
        buffers[buffer][:, position, 0] = value.to(self.dtype)


class _Runner:
    """One kernel with its weights in the run's dtype; `precision` is what its contraction takes.

    `known`: weights of the other kernels, by the identity of the program's arrays.
    """

    def __init__(
        self,
        kernel: Kernel,
        tables: list[torch.Tensor],
        dtype: torch.dtype,
        precision: torch.dtype,
        known: dict[Any, torch.Tensor],
    ) -> None:
        self.kernel = kernel
        self.precision = precision
        self.tables = tables
        self.dtype = dtype
        self.weights: list[torch.Tensor] = []
        if kernel.contraction is not None:
            terms = kernel.contraction.terms
            for pattern in kernel.contraction.patterns:
                key = (precision, *(id(terms[t].weight) for t in pattern))
                if key not in known:
                    stacked = np.concatenate([terms[t].weight for t in pattern]) if pattern else np.zeros((0, 1))
                    known[key] = self._rounded(torch.from_numpy(stacked).to(dtype))
                self.weights.append(known[key])
            if precision == torch.int8:
                codes, scales = coded_weights([t.weight for t in terms])
                self.codes = [torch.from_numpy(c) for c in codes]
                self.scales = torch.from_numpy(scales).to(dtype)
            self.bias = None if kernel.contraction.bias is None else torch.from_numpy(kernel.contraction.bias).to(dtype)

    def run(self, buffers: list[torch.Tensor], sites: torch.Tensor) -> None:
        samples = next((b.shape[0] for b in buffers), 1)
        registers: dict[int, torch.Tensor] = {}
        if self.kernel.contraction is not None:
            registers[self.kernel.contraction.register] = self._contract(
                self.kernel.contraction, buffers, sites, samples
            )
        if self.kernel.attention is not None:
            registers[self.kernel.attention.register] = self._attend(self.kernel.attention, buffers, sites, samples)
        for load in self.kernel.loads:
            source = buffers[load.buffer]
            at = torch.zeros_like(sites) if load.table is None else self.tables[load.table][sites]
            rows = source[:, at]
            if isinstance(load.channels, tuple):
                start, count = load.channels
                registers[load.register] = rows[:, :, start : start + count]
            else:
                registers[load.register] = rows[:, :, torch.from_numpy(load.channels)]
        for instruction in self.kernel.instructions:
            if instruction.register not in registers:
                width = self.kernel.registers[instruction.register]
                registers[instruction.register] = torch.empty(samples, len(sites), width, dtype=self.dtype)
            target = registers[instruction.register]
            target[:, :, instruction.start : instruction.start + instruction.width] = self._compute(
                instruction, registers
            )
        for store in self.kernel.stores:
            rows = registers[store.register][:, :, store.start : store.start + store.count]
            buffers[store.buffer][:, self.tables[store.table][sites], store.channel : store.channel + store.count] = (
                rows
            )

    def _contract(
        self, contraction: Contraction, buffers: list[torch.Tensor], sites: torch.Tensor, samples: int
    ) -> torch.Tensor:
        out = torch.zeros(samples, len(sites), contraction.out_channels, dtype=self.dtype)
        pattern_of_site = torch.from_numpy(contraction.pattern_of_site)[sites]
        for number, pattern in enumerate(contraction.patterns):
            chosen = (pattern_of_site == number).nonzero()[:, 0]
            if not len(chosen) or not pattern:
                continue
            rows = []
            for t in pattern:
                term = contraction.terms[t]
                slots = buffers[term.buffer][:, self.tables[term.table][sites[chosen]]]
                channels = slice(term.start, term.start + len(term.weight))
                if self.precision == torch.int8:
                    codes, scales = coded_slots(slots)
                    # Below 2^53 float64 adds integers exactly.
                    out[:, chosen] += scales * (codes[..., channels] @ self.codes[t]).to(self.dtype)
                else:
                    rows.append(slots[..., channels])
            if rows:
                out[:, chosen] = self._rounded(torch.cat(rows, dim=-1)) @ self.weights[number]
        if self.precision == torch.int8:
            out = out * self.scales
        return out if self.bias is None else out + self.bias

    def _attend(
        self, attention: Attention, buffers: list[torch.Tensor], sites: torch.Tensor, samples: int
    ) -> torch.Tensor:
        heads = attention.heads

        def read(part: Attended, entries: slice | torch.Tensor) -> torch.Tensor:
            """(N, entries, heads, width)."""
            slots = buffers[part.buffer][:, self.tables[part.table][entries]]
            return slots[..., part.start : part.start + heads * part.width].unflatten(-1, (heads, part.width))

        out = torch.zeros(samples, len(sites), heads * attention.values.width, dtype=self.dtype)
        for row, site in enumerate(sites.tolist()):
            pairs = slice(int(attention.first[site]), int(attention.first[site + 1]))
            if pairs.start == pairs.stop:
                continue
            query = read(attention.query, sites[row : row + 1])
            scores = attention.scale * (query * read(attention.keys, pairs)).sum(dim=-1)
            if attention.bias is not None:
                scores = scores + torch.from_numpy(attention.bias[:, pairs].T).to(self.dtype)
            top = scores.amax(dim=1, keepdim=True)
            nothing = torch.isneginf(top)
            weights = torch.exp(scores - torch.where(nothing, 0.0, top))
            total = torch.where(nothing[:, 0], 1.0, attention.epsilon + weights.sum(dim=1))
            values = (weights[..., None] * read(attention.values, pairs)).sum(dim=1)
            out[:, row] = (values / total[..., None]).flatten(1)
        return out

    def _rounded(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16).to(x.dtype) if self.precision == torch.bfloat16 else x

    def _compute(self, instruction: Instruction, registers: dict[int, torch.Tensor]) -> Any:
        width = instruction.width

        def argument(a: Any) -> Any:
            if not isinstance(a, Operand):
                return a
            part = registers[a.register][:, :, a.start :]
            return part[:, :, :1] if a.stride == 0 else part[:, :, : (width - 1) * a.stride + 1 : a.stride]

        if instruction.op == "copy":
            return argument(instruction.args[0])
        if instruction.op.startswith("reduce."):
            r = instruction.args[0]
            assert isinstance(r, Reduction)
            index = r.start + torch.arange(width)[:, None] * r.outer + torch.arange(r.count)[None] * r.inner
            part = registers[r.register][:, :, index]
            return getattr(torch, instruction.op.removeprefix("reduce."))(part, dim=-1)
        return evaluate(instruction.op, [argument(a) for a in instruction.args], dict(instruction.kwargs), self.dtype)
