"""int8: codes, and contractions of codes against integers added in numpy, on every instruction set."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cpu_programs import int32

from pixelfast import _C
from pixelfast.backends.base import Job
from pixelfast.backends.cpu import CpuBackend
from pixelfast.backends.reference import ReferenceBackend
from pixelfast.errors import BackendError
from pixelfast.likelihoods import Categorical
from pixelfast.precision import coded_slots, coded_weights, contraction_types
from pixelfast.program import Buffer, Contraction, Input, Kernel, Load, Output, Program, Store, Term

ISAS = _C.available_isas("int8")
FUSED = [isa for isa in ISAS if isa != "baseline"]
"""Those with a fused multiply-add, which must agree to the last bit."""
SLOTS = 3
Tap = tuple[int, int, np.ndarray]
"""(slot, first channel, weight)"""


def contraction_program(channels: int, taps: list[Tap], bias: np.ndarray | None = None) -> Program:
    """One pixel: slots of a condition are copied, then contracted in low precision; the sums are the parameters."""
    columns = taps[0][2].shape[1]
    state, sums, out = 2, 3, 4
    terms = tuple(Term(state, 1 + i, start, weight) for i, (_, start, weight) in enumerate(taps))
    pattern = tuple(range(len(terms)))
    kernels = (
        Kernel(
            "copy", SLOTS, (channels,), None, (Load(0, 1, 0, (0, channels)),), (), (Store(0, 0, channels, state, 0, 0),)
        ),
        Kernel(
            "sum",
            1,
            (columns,),
            Contraction(0, terms, bias, (pattern,), int32([0])),
            (),
            (),
            (Store(0, 0, columns, sums, 1 + len(terms), 0),),
        ),
        Kernel(
            "out",
            1,
            (columns,),
            None,
            (Load(0, sums, None, (0, columns)),),
            (),
            (Store(0, 0, columns, out, 1 + len(terms), 0),),
        ),
    )
    return Program(
        shape=(1, 1, 1),
        buffers=(
            Buffer("input", "input", 1, 1),
            Buffer("condition", "condition", channels, SLOTS),
            Buffer("state", "state", channels, SLOTS),
            Buffer("sums", "state", columns, 1),
            Buffer("out", "state", columns, 1),
        ),
        tables=(int32(range(SLOTS)), *(int32([slot]) for slot, _, _ in taps), int32([0])),
        kernels=kernels,
        tasks=int32([[0, 0, 0, SLOTS], [0, 1, 0, 1], [0, 2, 0, 1]]),
        sites=int32(range(SLOTS)),
        input=Input((0,), 1.0, 0.0, None),
        outputs=(Output(out, 1 + len(terms)),),
        flops=0.0,
    )


def sums(program: Program, slots: np.ndarray, backend: type = CpuBackend, **arguments: str) -> np.ndarray:
    """What the contraction gives, (images, columns), for slots (images, SLOTS, channels)."""
    images = len(slots)
    # Given numbers are not drawn, so that parameters may be anything.
    job = Job(
        samples=images,
        sample_ids=np.arange(images, dtype=np.uint64),
        conditions=[(1, slots.astype(np.float64))],
        known=np.zeros((images, 1, 1, 1), dtype=np.int64),
        mask=np.ones((images, 1, 1, 1), dtype=bool),
        collect_params=True,
        threads=1,
    )
    likelihood = Categorical(program.buffers[-1].channels)
    params = backend(program, likelihood, torch.int8, **arguments).run(job).params
    return params[0][:, 0]


def by_hand(slots: np.ndarray, taps: list[Tap], bias: np.ndarray) -> np.ndarray:
    """The same in integers and float64."""
    largest = np.abs(np.concatenate([weight for _, _, weight in taps])).max(axis=0)
    out = np.zeros((len(slots), len(bias)))
    for slot, start, weight in taps:
        if slot < 0:
            continue
        values = slots[:, slot].astype(np.float32)
        top = np.abs(values).max(axis=1, keepdims=True)
        codes = np.rint(values * (np.float32(127) / top)).astype(np.int64)[:, start : start + len(weight)]
        out += (codes @ np.rint(weight / largest * 127).astype(np.int64)) * (top.astype(np.float64) / 127)
    return out * (largest / 127) + bias


def random_taps(rng: np.random.Generator, channels: int, columns: int) -> list[Tap]:
    """A whole slot, part of one, a missing one, and the first one again."""
    start = channels // 3
    counts = [channels, channels - start, channels, 1]
    places = [(0, 0), (1, start), (-1, 0), (0, channels - 1)]
    return [(*place, rng.normal(size=(count, columns))) for place, count in zip(places, counts, strict=True)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 60, 64, 160, 321])
@pytest.mark.parametrize("columns", [2, 17, 48, 100])
def test_sums_are_those_of_integers(isa: str, channels: int, columns: int) -> None:
    rng = np.random.default_rng(channels * columns)
    taps, bias = random_taps(rng, channels, columns), rng.normal(size=columns)
    program = contraction_program(channels, taps, bias)
    assert contraction_types(program, torch.int8)[1] == torch.int8
    for images in range(1, 9):
        slots = rng.normal(size=(images, SLOTS, channels)) * rng.lognormal(sigma=3, size=(images, SLOTS, 1))
        slots = slots.astype(np.float32).astype(np.float64)
        expected = by_hand(slots, taps, bias)
        # What is left is the rounding of floats; a code that is off by one makes a difference of at least 1e-4.
        tolerance = 1e-6 * (1 + channels * np.abs(slots).max(axis=(1, 2)))[:, None]
        assert (np.abs(sums(program, slots, isa=isa) - expected) <= tolerance).all()
        assert (np.abs(sums(program, slots, ReferenceBackend) - expected) <= tolerance).all()


def test_instruction_sets_agree_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    program = contraction_program(161, random_taps(rng, 161, 70), rng.normal(size=70))
    slots = rng.normal(size=(11, SLOTS, 161))
    results = [sums(program, slots, isa=isa) for isa in FUSED]
    assert all(result.tobytes() == results[0].tobytes() for result in results)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_fit(isa: str, sign: int) -> None:
    """Every product is the largest there is: one rounded to 16 bits on the way would show."""
    channels = 132_000
    weight = np.full((channels, 2), 0.5) * [1, -1]
    slots = np.full((1, SLOTS, channels), 127.0 * sign)
    result = sums(contraction_program(channels, [(0, 0, weight)]), slots, isa=isa)
    np.testing.assert_allclose(result, [np.array([1, -1]) * sign * 63.5 * channels], rtol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("nothing", [0.0, -0.0, 1e-38, 1e-45])
def test_an_empty_slot_gives_the_bias(isa: str, nothing: float) -> None:
    rng = np.random.default_rng(0)
    bias = rng.normal(size=20)
    program = contraction_program(33, [(0, 0, rng.normal(size=(33, 20)))], bias)
    expected = np.broadcast_to(bias.astype(np.float32), (2, 20))
    slots = np.full((2, SLOTS, 33), nothing)
    np.testing.assert_array_equal(sums(program, slots, isa=isa), expected)
    np.testing.assert_array_equal(sums(program, slots, ReferenceBackend), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 15, 32])
def test_a_broken_slot_gives_nan(isa: str, broken: float, channel: int) -> None:
    rng = np.random.default_rng(0)
    program = contraction_program(33, [(0, 0, rng.normal(size=(33, 20))), (1, 0, rng.normal(size=(33, 20)))])
    slots = rng.normal(size=(2, SLOTS, 33))
    slots[1, 1, channel] = broken
    slots[0, 2, channel] = broken  # read by nobody
    for result in (sums(program, slots, isa=isa), sums(program, slots, ReferenceBackend)):
        assert np.isfinite(result[0]).all() and np.isnan(result[1]).all()


@pytest.mark.parametrize("isa", ISAS)
def test_what_lies_behind_a_slot_does_not_count(isa: str) -> None:
    """Slots are read and written by whole vectors."""
    rng = np.random.default_rng(0)
    taps = [(0, 0, rng.normal(size=(5, 20)))]
    slots = rng.normal(size=(3, SLOTS, 5))
    before = sums(contraction_program(5, taps), slots, isa=isa)
    slots[:, 1:] = 1e30
    np.testing.assert_array_equal(sums(contraction_program(5, taps), slots, isa=isa), before)


def test_columns_without_weights() -> None:
    weight = np.array([[0.0, 1.0], [0.0, 2.0]])
    codes, scales = coded_weights([weight, 3 * weight])
    np.testing.assert_array_equal(codes[1], [[0, 64], [0, 127]])
    np.testing.assert_array_equal(scales, [0, np.float32(6 / 127)])
    result = sums(contraction_program(2, [(0, 0, weight)]), np.ones((1, SLOTS, 2)))
    np.testing.assert_allclose(result, [[0, 3]], rtol=0.01)


def test_codes_of_slots_round_to_even() -> None:
    codes, scales = coded_slots(torch.tensor([[127.0, 0.5, 1.5, -2.5, -127.0], [0.0] * 5]))
    assert codes.tolist() == [[127, 0, 2, -2, -127], [0] * 5]
    assert scales.tolist() == [[1], [0]]


def test_sums_that_may_not_fit_are_refused() -> None:
    program = contraction_program(140_000, [(0, 0, np.ones((140_000, 2)))])
    with pytest.raises(BackendError, match="may not fit 32 bits"):
        CpuBackend(program, Categorical(2), torch.int8)
    CpuBackend(program, Categorical(2), torch.float32)


def test_a_slot_written_in_parts_is_refused() -> None:
    """Its scale is that of all channels."""
    program = contraction_program(6, [(0, 0, np.ones((6, 2)))])
    copy = program.kernels[0]
    parts = tuple(Store(0, first, 3, 2, 0, first) for first in (0, 3))
    program = dataclasses.replace(program, kernels=(dataclasses.replace(copy, stores=parts), *program.kernels[1:]))
    with pytest.raises(BackendError, match="a store of some channels"):
        CpuBackend(program, Categorical(2), torch.int8)
    CpuBackend(program, Categorical(2), torch.float32)
