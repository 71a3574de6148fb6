"""The CPU backend on whole programs: against the reference interpreter, and itself in other batches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from cpu_programs import int32, operation_program, random_program
from random_numbers import random_array

from pixelfast import _C
from pixelfast.backends.base import Job, Result
from pixelfast.backends.cpu import CpuBackend
from pixelfast.backends.reference import ReferenceBackend
from pixelfast.errors import BackendError
from pixelfast.likelihoods import Bernoulli, Categorical, DiagonalGaussian, DiscretizedLogisticMixture, Likelihood
from pixelfast.program import (
    Buffer,
    Contraction,
    Input,
    Kernel,
    Load,
    Operand,
    Output,
    Program,
    Store,
    Term,
    k_blocks,
)

ISAS = _C.available_isas()


def run(backend: Any, samples: int, **changes: Any) -> Result:
    """`backend.run` with everything at its simplest but `changes`."""
    arguments: dict[str, Any] = {
        "samples": samples,
        "seed": 7,
        "sample_ids": np.arange(samples, dtype=np.uint64),
        "conditions": [],
        "temperature": 1.0,
        "mode": "exact",
        "known": None,
        "mask": None,
        "on_row": None,
        "collect_params": True,
    }
    return backend.run(Job(**(arguments | changes)))


def condition_of(ids: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The condition of `random_program`, a function of the sample id."""
    return [(5, np.stack([np.random.default_rng(int(i)).normal(size=(1, 4)) for i in ids]))]


def run_random(backend: Any, ids: list[int], **changes: Any) -> Result:
    array = np.array(ids, dtype=np.uint64)
    return run(backend, len(ids), sample_ids=array, conditions=condition_of(array), **changes)


def digest(result: Result) -> str:
    """SHA-256 of images and parameters: what must not depend on batch or threads, to the bit."""
    sha = hashlib.sha256(result.images.tobytes())
    for values in result.params or []:
        sha.update(np.ascontiguousarray(values).tobytes())
    return sha.hexdigest()


# -- against the reference -----------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("seed", range(8))
def test_random_programs_give_the_reference_numbers(isa: str, seed: int) -> None:
    program, likelihood = random_program(np.random.default_rng(seed))
    exact = run_random(ReferenceBackend(program, likelihood, torch.float64), [0, 1, 2])
    single = run_random(
        ReferenceBackend(program, likelihood, torch.float32),
        [0, 1, 2],
        known=exact.images,
        mask=np.ones(exact.images.shape, dtype=bool),
    )
    actual = run_random(CpuBackend(program, likelihood, isa=isa), [0, 1, 2])
    assert np.array_equal(actual.images, exact.images)
    for ours, torchs, truth in zip(actual.params, single.params, exact.params, strict=True):
        largest = np.abs(truth).max()
        error = np.sqrt(np.mean((ours - truth) ** 2))
        assert error <= 2 * np.sqrt(np.mean((torchs - truth) ** 2)) + 2.0**-22 * largest


def sum_in_order(program: Program, inputs: np.ndarray) -> np.ndarray:
    """The first kernel's contraction at site 0, in the order that the program fixes, multiply-adds fused."""
    contraction = program.kernels[0].contraction
    assert contraction is not None
    counts = [len(t.weight) for t in contraction.terms]
    starts = np.cumsum([0, *counts])
    weight = np.concatenate([t.weight for t in contraction.terms]).astype(np.float32)
    total: np.ndarray | None = None
    for block in k_blocks(counts):
        part = np.zeros(weight.shape[1], dtype=np.float32)
        for term, first, last in block:
            for k in range(starts[term] + first, starts[term] + last):
                # A float64 product of two floats is exact; rounding its sum twice shows only in rare ties.
                part = (np.float64(inputs[k]) * weight[k].astype(np.float64) + part).astype(np.float32)
        total = part if total is None else total + part
    assert total is not None and contraction.bias is not None
    return total + contraction.bias.astype(np.float32)


def contraction_program(counts: list[int], outs: int, seed: int) -> tuple[Program, np.ndarray]:
    """One pixel, one contraction over a condition; and the condition."""
    generator = np.random.default_rng(seed)
    total = sum(counts)
    starts = np.cumsum([0, *counts])
    terms = tuple(Term(1, 0, int(starts[i]), generator.normal(size=(c, outs))) for i, c in enumerate(counts))
    contraction = Contraction(0, terms, generator.normal(size=outs), (tuple(range(len(counts))),), int32([0]))
    kernel = Kernel("all", 1, (outs,), contraction, (), (), (Store(0, 0, outs, 2, 0, 0),))
    program = Program(
        shape=(1, 1, 1),
        buffers=(
            Buffer("input", "input", 1, 1),
            Buffer("x", "condition", total, 1),
            Buffer("out", "state", outs, 1),
        ),
        tables=(int32([0]),),
        kernels=(kernel,),
        tasks=int32([[0, 0, 0, 1]]),
        sites=int32([0]),
        input=Input((0,), 1.0, 0.0, None),
        outputs=(Output(2, 0),),
        flops=0.0,
    )
    return program, generator.normal(size=total).astype(np.float32)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "baseline"])
@pytest.mark.parametrize(
    "counts", [[5], [128], [129], [300], [30, 40, 50, 60], [160, 160, 3, 160], [1, 1, 1]]
)
def test_sums_run_in_the_order_of_the_program(isa: str, counts: list[int]) -> None:
    program, x = contraction_program(counts, 70, len(counts))
    result = run(
        CpuBackend(program, Categorical(70), isa=isa),
        1,
        conditions=[(1, x.astype(np.float64).reshape(1, 1, -1))],
    )
    np.testing.assert_array_equal(result.params[0][0, 0], sum_in_order(program, x))


# -- promise: one image whatever the batch -------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("seed", [3, 4])
def test_images_do_not_depend_on_batch_threads_or_sharing(isa: str, seed: int) -> None:
    program, likelihood = random_program(np.random.default_rng(seed), height=3, width=9)
    backend = CpuBackend(program, likelihood, isa=isa)
    alone = {i: digest(run_random(backend, [i], threads=1)) for i in range(17)}
    for ids in ([0, 1], [2, 0, 1], list(range(16)), list(range(17))[::-1]):
        for threads in (1, 2, 3):
            for sharing in ("images", "tasks"):
                result = run_random(backend, ids, threads=threads, sharing=sharing)
                for row, i in enumerate(ids):
                    one = Result(result.images[row : row + 1], [p[row : row + 1] for p in result.params])
                    assert digest(one) == alone[i], (ids, threads, sharing)


def test_more_threads_than_cores_change_nothing() -> None:
    """Threads that wait for a core make the first one work alone now and then."""
    program, likelihood = random_program(np.random.default_rng(6), height=12, width=12)
    backend = CpuBackend(program, likelihood)
    ids = list(range(16))
    expected = digest(run_random(backend, ids, threads=1))
    assert digest(run_random(backend, ids, threads=8, sharing="tasks")) == expected
    rows: list[int] = []
    crowded = run_random(backend, ids, threads=8, sharing="tasks", on_row=lambda y, _: rows.append(y))
    assert digest(crowded) == expected
    assert rows == list(range(12))


def test_the_run_tells_how_threads_shared_it() -> None:
    program, likelihood = random_program(np.random.default_rng(6))
    backend = CpuBackend(program, likelihood)
    run_random(backend, [0, 1], threads=2, sharing="tasks")
    assert backend.stats["threads"] == 2 and backend.stats["sharing"] == "tasks"
    assert backend.stats["isa"] == backend.isa and backend.stats["seconds"] > 0
    # So little work is not worth a second thread.
    run_random(backend, [0, 1])
    assert backend.stats["threads"] == 1


def test_seeds_and_ids_change_images() -> None:
    program, likelihood = random_program(np.random.default_rng(0))
    backend = CpuBackend(program, likelihood)
    first = run_random(backend, [0, 1]).images
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, run_random(backend, [0, 1], seed=8).images)


def test_several_python_threads_may_use_one_backend() -> None:
    program, likelihood = random_program(np.random.default_rng(1))
    backend = CpuBackend(program, likelihood)
    expected = digest(run_random(backend, [0, 1, 2], threads=1))
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda _: digest(run_random(backend, [0, 1, 2], threads=1)), range(8))
        assert set(results) == {expected}


class Busy(CpuBackend):
    """Whenever a run puts down its figures, another thread's have just replaced them."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, {"seconds": -1.0} if name == "stats" else value)


def test_a_result_has_the_figures_of_its_own_run() -> None:
    backend = Busy(*random_program(np.random.default_rng(1)))
    assert run_random(backend, [0], threads=1).stats["seconds"] > 0
    assert backend.stats == {"seconds": -1.0}


# -- heads ---------------------------------------------------------------------------------------------------

HEADS: list[tuple[Likelihood, int]] = [
    (Categorical(2), 1),
    (Categorical(7), 3),
    (Categorical(256), 1),
    (Categorical(1000), 2),
    (Bernoulli(), 1),
    (Bernoulli(), 3),
    (DiscretizedLogisticMixture(10, 256), 3),
    (DiscretizedLogisticMixture(10, 256), 1),
    (DiscretizedLogisticMixture(3, 8), 3),
    (DiscretizedLogisticMixture(1, 2), 1),
    (DiagonalGaussian(), 1),
    (DiagonalGaussian(), 3),
]


def head_program(likelihood: Likelihood, channels: int, pixels: int) -> Program:
    """Parameters are conditions: a row of pixels, each with its own for every channel."""
    sizes = [len(needed) for needed in likelihood.needs(channels)]
    buffers = [Buffer(f"x{c}", "input", 1, pixels) for c in range(channels)]
    buffers += [Buffer(f"given{c}", "condition", size, pixels) for c, size in enumerate(sizes)]
    buffers += [Buffer(f"out{c}", "state", size, pixels) for c, size in enumerate(sizes)]
    kernels = [
        Kernel(
            f"copy{c}",
            pixels,
            (size,),
            None,
            (Load(0, channels + c, 0, (0, size)),),
            (),
            (Store(0, 0, size, 2 * channels + c, 0, 0),),
        )
        for c, size in enumerate(sizes)
    ]
    return Program(
        shape=(channels, 1, pixels),
        buffers=tuple(buffers),
        tables=(int32(np.arange(pixels)),),
        kernels=tuple(kernels),
        tasks=int32(
            [[pixel * channels + c, c, pixel, 1] for pixel in range(pixels) for c in range(channels)]
        ),
        sites=int32(np.arange(pixels)),
        input=Input(tuple(range(channels)), 1.0, 0.0, None),
        outputs=tuple(Output(2 * channels + c, 0) for c in range(channels)),
        flops=0.0,
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("likelihood", "channels"), HEADS, ids=str)
@pytest.mark.parametrize(
    ("temperature", "mode", "share_known"),
    [
        (1.0, "exact", 0.0),
        (0.6, "exact", 0.5),
        (0.0, "exact", 0.4),
        (1.0, "reference", 0.0),
        (1.3, "reference", 0.5),
    ],
)
def test_heads_draw_what_the_likelihood_draws(
    isa: str, likelihood: Likelihood, channels: int, temperature: float, mode: str, share_known: float
) -> None:
    pixels, samples = 60, 4
    program = head_program(likelihood, channels, pixels)
    generator = np.random.default_rng(channels)
    sizes = [len(needed) for needed in likelihood.needs(channels)]
    values = [
        (3 * generator.normal(size=(samples, pixels, size))).astype(np.float32).astype(np.float64)
        for size in sizes
    ]
    if isinstance(likelihood, DiscretizedLogisticMixture):
        # One set of parameters a pixel: narrow and wide scales, some below the floor.
        values = [values[0] / 2 for _ in values]
    if isinstance(likelihood, Categorical):
        values[0][:, :, 0] = -np.inf
    shape = (samples, channels, 1, pixels)
    changes: dict[str, Any] = {}
    if share_known:
        known = random_array(likelihood, shape, generator)
        changes = {"known": known, "mask": generator.random(shape) < share_known}
    changes |= {
        "conditions": [(channels + c, v) for c, v in enumerate(values)],
        "temperature": temperature,
        "mode": mode,
        "seed": 2**63 + 5,
        "sample_ids": np.array([0, 1, 2**32 - 1, 12345], dtype=np.uint64),
    }
    expected = run(ReferenceBackend(program, likelihood, torch.float64), samples, **changes)
    actual = run(CpuBackend(program, likelihood, isa=isa), samples, **changes)
    np.testing.assert_array_equal(actual.images, expected.images)


def test_what_the_network_reads_is_the_unrounded_value_in_mode_reference() -> None:
    likelihood = DiscretizedLogisticMixture(2, 256)
    program = head_program(likelihood, 1, 2)
    # The second pixel's parameters are the first pixel's value as the network reads it.
    feed = Kernel(
        "feed", 2, (6,), None, (Load(0, 0, 1, np.zeros(6, dtype=np.int64)),), (), (Store(0, 0, 6, 2, 0, 0),)
    )
    program = dataclasses.replace(
        program,
        tables=(int32([0, 1]), int32([-1, 0])),
        kernels=(program.kernels[0], feed),
        tasks=int32([[0, 0, 0, 1], [1, 1, 1, 1]]),
    )
    given = np.zeros((1, 2, 6))
    given[..., 4:] = -4  # narrow: far from the ends, where values are clipped to whole levels
    for mode, whole in (("exact", True), ("reference", False)):
        result = run(CpuBackend(program, likelihood), 1, conditions=[(1, given)], mode=mode)
        fed = result.params[0][0, 1, 0]
        assert abs(fed - result.images[0, 0, 0, 0]) <= 0.5
        assert (fed == np.round(fed)) == whole


def test_temperature_zero_of_a_categorical_is_the_first_largest_logit() -> None:
    program = head_program(Categorical(20), 1, 1)
    logits = np.zeros((1, 1, 20))
    logits[..., [5, 11, 19]] = 2
    result = run(CpuBackend(program, Categorical(20)), 1, conditions=[(1, logits)], temperature=0.0)
    assert result.images.item() == 5


def test_input_values_may_come_from_a_table() -> None:
    likelihood = Categorical(4)
    program = dataclasses.replace(
        head_program(likelihood, 1, 2), input=Input((0,), 1.0, 0.0, np.array([[0.5, -1.0, 7.0, 2.0]]))
    )
    load = Load(0, 0, 1, np.zeros(4, dtype=np.int64))
    feed = Kernel("feed", 2, (4,), None, (load,), (), (Store(0, 0, 4, 2, 0, 0),))
    program = dataclasses.replace(
        program,
        tables=(int32([0, 1]), int32([-1, 0])),
        kernels=(program.kernels[0], feed),
        tasks=int32([[0, 0, 0, 1], [1, 1, 1, 1]]),
    )
    logits = np.array([[[0.0, 0, 500, 0], [0, 0, 0, 0]]])
    backend = CpuBackend(program, likelihood)
    result = run(backend, 1, conditions=[(1, logits)])
    assert result.images[0, 0, 0, 0] == 2 and (result.params[0][0, 1] == 7.0).all()
    with pytest.raises(ValueError, match="reference"):
        run(backend, 1, conditions=[(1, logits)], mode="reference")


# -- behaviour of a run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", ["images", "tasks"])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_are_reported_when_all_images_have_them(sharing: str, threads: int) -> None:
    program, likelihood = random_program(np.random.default_rng(5))
    seen: list[tuple[int, np.ndarray]] = []
    backend = CpuBackend(program, likelihood)
    final = run_random(
        backend,
        [0, 1, 2],
        threads=threads,
        sharing=sharing,
        on_row=lambda y, images: seen.append((y, images.copy())),
    ).images
    assert [y for y, _ in seen] == [0, 1, 2, 3]
    for y, images in seen:
        assert np.array_equal(images[:, :, : y + 1], final[:, :, : y + 1])
        assert not images[:, :, y + 1 :].any()


@pytest.mark.parametrize("sharing", ["images", "tasks"])
def test_errors_of_the_callback_come_out_as_they_are(sharing: str) -> None:
    program, likelihood = random_program(np.random.default_rng(5))
    rows = []

    def stop(y: int, images: np.ndarray) -> None:
        rows.append(y)
        if y == 1:
            raise KeyboardInterrupt("enough")

    with pytest.raises(KeyboardInterrupt, match="enough"):
        run_random(CpuBackend(program, likelihood), [0, 1, 2], threads=2, sharing=sharing, on_row=stop)
    assert rows == [0, 1]


def test_last_number_stops_early() -> None:
    program, likelihood = random_program(np.random.default_rng(5))
    backend = CpuBackend(program, likelihood)
    whole, part = run_random(backend, [0, 1]).images, run_random(backend, [0, 1], last_number=7).images
    assert np.array_equal(part.reshape(2, -1)[:, :7], whole.reshape(2, -1)[:, :7])
    assert not part.reshape(2, -1)[:, 7:].any()


def test_no_samples_is_no_images() -> None:
    program, likelihood = random_program(np.random.default_rng(5))
    result = run(CpuBackend(program, likelihood), 0, conditions=[(5, np.zeros((0, 1, 4)))])
    assert result.images.shape == (0, 1, 4, 5)


@pytest.mark.parametrize(
    "likelihood", [Categorical(3), Bernoulli(), DiscretizedLogisticMixture(2), DiagonalGaussian()], ids=str
)
@pytest.mark.parametrize("sharing", ["images", "tasks"])
def test_parameters_that_are_not_numbers_are_an_error(likelihood: Likelihood, sharing: str) -> None:
    program = head_program(likelihood, 1, 5)
    given = np.zeros((2, 5, program.buffers[1].channels))
    given[1, 3] = np.nan
    with pytest.raises(BackendError, match="row 0, column 3 of sample 1"):
        run(CpuBackend(program, likelihood), 2, conditions=[(1, given)], sharing=sharing, threads=2)


def test_slots_that_nothing_wrote_are_not_numbers() -> None:
    program = operation_program("aten.exp.default", [None], {}, 4)
    with pytest.raises(BackendError, match="not numbers"):
        run(CpuBackend(program, Categorical(4)), 1)


def test_what_cannot_run_is_named() -> None:
    program = operation_program("aten.lgamma.default", [None], {}, 4)
    reasons = CpuBackend.unsupported_reasons(program, Categorical(4), torch.float64)
    assert any("float64" in r for r in reasons) and any("aten.lgamma.default" in r for r in reasons)
    with pytest.raises(BackendError, match=r"aten\.lgamma"):
        CpuBackend(program, Categorical(4))


# -- malformed programs --------------------------------------------------------------------------------------


def change_kernel(program: Program, number: int, **changes: Any) -> Program:
    kernels = list(program.kernels)
    kernels[number] = dataclasses.replace(kernels[number], **changes)
    return dataclasses.replace(program, kernels=tuple(kernels))


def change_contraction(program: Program, number: int, **changes: Any) -> Program:
    contraction = program.kernels[number].contraction
    assert contraction is not None
    return change_kernel(program, number, contraction=dataclasses.replace(contraction, **changes))


def change_first(items: tuple[Any, ...], **changes: Any) -> tuple[Any, ...]:
    return (dataclasses.replace(items[0], **changes), *items[1:])


def change_table(program: Program, number: int, entry: int, value: int) -> Program:
    tables = [t.copy() for t in program.tables]
    tables[number][entry] = value
    return dataclasses.replace(program, tables=tuple(tables))


DAMAGES: dict[str, Callable[[Program], Program]] = {
    "table beyond its buffer": lambda p: change_table(p, 0, 3, 20),
    "table below -1": lambda p: change_table(p, 0, 3, -2),
    "table too short": lambda p: dataclasses.replace(p, tables=(p.tables[0][:-1], *p.tables[1:])),
    "no such table": lambda p: change_kernel(p, 0, stores=change_first(p.kernels[0].stores, table=99)),
    "no such buffer": lambda p: change_kernel(p, 0, stores=change_first(p.kernels[0].stores, buffer=-1)),
    "store into a constant": lambda p: change_kernel(
        p, 0, stores=change_first(p.kernels[0].stores, buffer=4)
    ),
    "store beyond the register": lambda p: change_kernel(
        p, 2, stores=change_first(p.kernels[2].stores, start=1)
    ),
    "store beyond the slot": lambda p: change_kernel(
        p, 2, stores=change_first(p.kernels[2].stores, channel=1)
    ),
    "load beyond the slot": lambda p: change_kernel(
        p, 1, loads=change_first(p.kernels[1].loads, channels=(1, 9999))
    ),
    "load of a channel that is not there": lambda p: change_kernel(
        p, 0, loads=change_first(p.kernels[0].loads, channels=np.array([4]))
    ),
    "load into no register": lambda p: change_kernel(
        p, 0, loads=change_first(p.kernels[0].loads, register=17)
    ),
    "operand beyond its register": lambda p: change_kernel(
        p,
        0,
        registers=(p.kernels[0].registers[0], 10**6, *p.kernels[0].registers[2:]),
        instructions=change_first(p.kernels[0].instructions, width=10**6),
    ),
    "register read before it is written": lambda p: change_kernel(
        p, 0, instructions=p.kernels[0].instructions[1:]
    ),
    "operand far beyond its register": lambda p: change_kernel(
        p,
        0,
        instructions=change_first(p.kernels[0].instructions, args=(Operand(0, 2**31 - 1, 2**31 - 1),)),
    ),
    "field beyond 32 bits": lambda p: change_kernel(
        p, 0, instructions=change_first(p.kernels[0].instructions, args=(Operand(0, 2**40),))
    ),
    "image beyond the noise": lambda p: dataclasses.replace(p, shape=(1, 2**31, 2**31)),
    "buffer beyond memory": lambda p: dataclasses.replace(
        p, buffers=change_first(p.buffers, slots=2**30, channels=2**30)
    ),
    "negative width": lambda p: change_kernel(
        p, 0, instructions=change_first(p.kernels[0].instructions, width=-1)
    ),
    "contraction into a wider register": lambda p: change_kernel(
        p, 2, registers=(p.kernels[2].registers[0] + 1,)
    ),
    "pattern of no term": lambda p: change_contraction(p, 0, pattern_of_site=int32([99] * 20)),
    "pattern for too few sites": lambda p: change_contraction(p, 0, pattern_of_site=int32([0])),
    "term beyond its buffer": lambda p: change_contraction(
        p, 2, terms=change_first(p.kernels[2].contraction.terms, start=1)
    ),
    "bias of another length": lambda p: change_contraction(p, 2, bias=np.zeros(1000)),
    "no sites": lambda p: change_kernel(p, 0, sites=0),
    "task of no kernel": lambda p: dataclasses.replace(p, tasks=int32([[0, 9, 0, 1]])),
    "task beyond the sites": lambda p: dataclasses.replace(p, tasks=int32([[0, 0, 15, 6]])),
    "task of no sites": lambda p: dataclasses.replace(p, tasks=int32([[0, 0, 0, 0]])),
    "tasks out of order": lambda p: dataclasses.replace(p, tasks=p.tasks[::-1]),
    "task after the last number": lambda p: dataclasses.replace(p, tasks=int32([[20, 0, 0, 1]])),
    "site that is not there": lambda p: dataclasses.replace(p, sites=int32([20] * 20)),
    "input buffer too small": lambda p: dataclasses.replace(p, input=Input((5,), 1.0, 0.0, None)),
    "output of another width": lambda p: dataclasses.replace(p, outputs=(Output(0, 0),)),
    "no outputs": lambda p: dataclasses.replace(p, outputs=()),
    "empty buffer": lambda p: dataclasses.replace(p, buffers=change_first(p.buffers, slots=0)),
    "empty image": lambda p: dataclasses.replace(p, shape=(1, 0, 5)),
    "constant of another shape": lambda p: dataclasses.replace(
        p, buffers=(*p.buffers[:4], dataclasses.replace(p.buffers[4], data=np.zeros((2, 3))), p.buffers[5])
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_malformed_programs_are_refused(damage: Callable[[Program], Program]) -> None:
    program, likelihood = random_program(np.random.default_rng(2))
    CpuBackend(program, likelihood)
    with pytest.raises(BackendError):
        CpuBackend(damage(program), likelihood)


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_ids": np.zeros(2, dtype=np.uint64)},
        {"conditions": [(5, np.zeros((1, 1, 5)))]},
        {"conditions": [(4, np.zeros((1, 20, 3)))]},
        {"conditions": [(99, np.zeros((1, 1, 4)))]},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"last_number": 21},
        {"known": np.zeros((1, 1, 4, 5), dtype=np.int64)},
        {"known": np.full((1, 1, 4, 5), 9999), "mask": np.ones((1, 1, 4, 5), dtype=bool)},
        {"known": np.zeros((1, 1, 4, 4), dtype=np.int64), "mask": np.ones((1, 1, 4, 5), dtype=bool)},
        {"sharing": "everything"},
    ],
    ids=str,
)
def test_requests_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    program, likelihood = random_program(np.random.default_rng(2))
    backend = CpuBackend(program, likelihood)
    conditions = condition_of(np.zeros(1, dtype=np.uint64))
    with pytest.raises(ValueError):
        run(backend, 1, **({"conditions": conditions} | changes))
