"""bfloat16 and int8: the cpu engine against the reference backend's rounding, on every instruction set; promise 3."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from gallery import IDIOMS, Idiom
from shared_data import shared_file
from torch import nn

import pixelfast
from pixelfast import _C, shipped
from pixelfast.backends.base import Job
from pixelfast.backends.cpu import CpuBackend
from pixelfast.backends.reference import ReferenceBackend
from pixelfast.data import load_mnist
from pixelfast.errors import BackendError, UnsupportedModelError
from pixelfast.precision import contraction_types
from pixelfast.program import k_blocks

NAMES = {torch.bfloat16: "bfloat16", torch.int8: "int8"}
KINDS = [(dtype, isa) for dtype, name in NAMES.items() for isa in _C.available_isas(name)]
of_every_kind = pytest.mark.parametrize(("dtype", "isa"), KINDS, ids=lambda value: NAMES.get(value, value))


class Chain(nn.Module):
    """Shifted convolutions of the given widths: the middle ones are computed in low precision."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, widths[0], (2, 3))
        self.middle = nn.ModuleList(nn.Conv2d(a, b, (1, 2)) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(nn.functional.pad(x, (1, 1, 2, 0)))[:, :, :-1]
        for layer in self.middle:
            x = layer(nn.functional.pad(torch.tanh(x), (1, 0)))
        return self.head(torch.tanh(x))


def chain(*widths: int, dtype: torch.dtype | str) -> pixelfast.Sampler:
    torch.manual_seed(0)
    likelihood = pixelfast.DiscretizedLogisticMixture(4)
    return pixelfast.compile(Chain(*widths), (1, 5, 6), likelihood, "signed", dtype=dtype)


def on(sampler: pixelfast.Sampler, backend: type, dtype: torch.dtype, **arguments: str) -> pixelfast.Sampler:
    """The sampler on another engine."""
    sampler.backend = backend(sampler.program, sampler.likelihood, dtype, **arguments)
    return sampler


def rms(x: torch.Tensor) -> float:
    return float(x.double().square().mean().sqrt())


@of_every_kind
@pytest.mark.parametrize(
    "widths", [(8, 16, 16), (2, 1, 1), (3, 7, 5), (8, 33, 70), (8, 160, 48), (8, 257, 50), (24, 24, 24, 24)], ids=str
)
def test_the_engine_rounds_as_the_reference_does(dtype: torch.dtype, isa: str, widths: tuple[int, ...]) -> None:
    sampler = chain(*widths, dtype=dtype)
    assert dtype in contraction_types(sampler.program, dtype)
    x = torch.randint(0, 256, (3, 1, 5, 6))
    exact = on(sampler, ReferenceBackend, torch.float32).params(x)
    expected = on(sampler, ReferenceBackend, dtype).params(x)
    actual = on(sampler, CpuBackend, dtype, isa=isa).params(x)
    rounding = rms(expected - exact)
    assert rounding > 0
    # A number next to the middle of two of low precision may be rounded to either.
    assert rms(actual - expected) <= 0.2 * rounding


@of_every_kind
def test_only_the_middle_is_rounded(dtype: torch.dtype, isa: str) -> None:
    """The image's own level and the parameters are computed in float32."""
    sampler = chain(24, dtype=dtype)
    assert set(contraction_types(sampler.program, dtype)) == {torch.float32}
    x = torch.randint(0, 256, (2, 1, 5, 6))
    exact = on(sampler, ReferenceBackend, torch.float32).params(x)
    torch.testing.assert_close(on(sampler, CpuBackend, dtype, isa=isa).params(x), exact, rtol=1e-5, atol=1e-5)


def types_of(sampler: pixelfast.Sampler, dtype: torch.dtype) -> dict[str, set[torch.dtype]]:
    """By the name of the module that a contraction comes from."""
    types: dict[str, set[torch.dtype]] = {}
    for kernel, taken in zip(sampler.program.kernels, contraction_types(sampler.program, dtype), strict=True):
        if kernel.contraction is not None:
            types.setdefault(kernel.name.partition("(")[2].partition(",")[0], set()).add(taken)
    return types


def test_what_contractions_take() -> None:
    whole, half, eighth = {torch.float32}, {torch.bfloat16}, {torch.int8}
    sampler = chain(4, 5, 6, 7, dtype=torch.float32)
    names = ["first", "middle.0", "middle.1", "middle.2", "head"]
    for dtype, middle in [(torch.bfloat16, [half] * 3), (torch.int8, [half, eighth, eighth])]:
        assert types_of(sampler, dtype) == dict(zip(names, [whole, *middle, whole], strict=True))
    assert types_of(sampler, torch.float64) == {name: {torch.float64} for name in names}


def test_a_level_is_followed_through_what_is_no_contraction() -> None:
    """PixelCNN++ adds two contractions of the image and stretches the sum before the next contraction."""
    model = pixelfast.models.PixelCNNPlusPlus((3, 8, 8), filters=8, blocks=1, mixtures=2)
    types = types_of(pixelfast.compile(model), torch.int8)
    assert all(types[f"encoder.0.{stack}.0.conv_in"] == {torch.bfloat16} for stack in ("vertical", "horizontal"))
    assert all(types[f"encoder.0.{stack}.0.conv_out"] == {torch.int8} for stack in ("vertical", "horizontal"))


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.bfloat16, 0.005), (torch.int8, 0.02)], ids=str)
def test_a_trained_network_loses_little(dtype: torch.dtype, allowed: float) -> None:
    images = load_mnist(shared_file("data", "mnist"), "test").images[-64:].long()
    model = pixelfast.load(shipped.weights(shipped.DEFAULT))
    exact, low = (pixelfast.compile(model, dtype=d).bits_per_dim(images).mean() for d in (torch.float32, dtype))
    assert abs(float(low - exact)) <= allowed


@of_every_kind
def test_images_do_not_depend_on_batch_threads_or_sharing(dtype: torch.dtype, isa: str) -> None:
    sampler = on(chain(16, 33, 70, 16, dtype=dtype), CpuBackend, dtype, isa=isa)

    def digest(batch: int, threads: int, sharing: str) -> str:
        parts = []
        for first in range(0, 17, batch):
            ids = np.arange(first, min(first + batch, 17), dtype=np.uint64)
            job = Job(len(ids), seed=3, sample_ids=ids, threads=threads, sharing=sharing)
            parts.append(sampler.backend.run(job).images)
        return hashlib.sha256(np.concatenate(parts).tobytes()).hexdigest()

    runs = [(17, 1, "auto"), (1, 1, "auto"), (1, 2, "tasks"), (3, 2, "images"), (16, 8, "tasks"), (17, 3, "images")]
    assert len({digest(*run) for run in runs}) == 1


@pytest.mark.parametrize("dtype", NAMES, ids=NAMES.get)
@pytest.mark.parametrize("idiom", IDIOMS.values(), ids=IDIOMS.keys())
def test_every_idiom_runs(dtype: torch.dtype, idiom: Idiom) -> None:
    """compile checks the parameters against the model's own."""
    condition = idiom.conditions(1)
    try:
        sampler = pixelfast.compile(idiom.build(), condition=condition, dtype=dtype, backend="cpu", **idiom.arguments())
    except BackendError as error:
        pytest.skip(str(error))
    assert sampler.sample(2, condition=idiom.conditions(2)).shape[0] == 2


def test_no_worse_than_torch_in_bfloat16() -> None:
    torch.manual_seed(0)
    model = pixelfast.models.GatedPixelCNN((1, 10, 9), 16, 24, (1, 2, 1)).eval()
    x = torch.randint(0, 16, (4, 1, 10, 9))
    sampler = pixelfast.compile(model, dtype=torch.bfloat16, backend="cpu")
    with torch.no_grad():
        signed = 2 * x / 15.0 - 1
        own = sampler.likelihood.flatten(model(signed), sampler.shape)
        with torch.autocast("cpu", torch.bfloat16):
            cast = sampler.likelihood.flatten(model(signed), sampler.shape).float()
    assert 0 < rms(sampler.params(x) - own) <= rms(cast - own)


@pytest.mark.parametrize("counts", [[1], [129], [320], [107, 160, 3], [64, 64, 300, 255]])
def test_blocks_end_between_pairs(counts: list[int]) -> None:
    pieces = [piece for block in k_blocks(counts, 2) for piece in block]
    for position, count in enumerate(counts):
        own = [(first, last) for at, first, last in pieces if at == position]
        assert own[0][0] == 0 and own[-1][1] == count
        assert all(a[1] == b[0] for a, b in pairwise(own))
        assert all(first % 2 == 0 for first, _ in own)
    assert all(sum(last - first for _, first, last in block) <= 128 for block in k_blocks(counts, 2))


def refuses(model: nn.Module, dtype: torch.dtype | str, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{reason}; compile it with dtype=torch.float32$"):
        pixelfast.compile(model, (1, 5, 6), pixelfast.DiscretizedLogisticMixture(4), "signed", dtype=dtype)


def test_weights_that_are_infinite_in_bfloat16() -> None:
    """float32 goes on a little further."""
    torch.manual_seed(0)
    model = Chain(16, 16, 16)
    with torch.no_grad():
        model.middle[0].weight[0, :2, 0, 0] = torch.tensor([3.4e38, -3.4e38])
    refuses(model, torch.bfloat16, "the rounding of bfloat16: parameters are not finite")


def test_weights_that_leave_the_others_no_codes() -> None:
    """Two large ones that cancel."""
    torch.manual_seed(0)
    model = Chain(16, 16, 16, 16)
    with torch.no_grad():
        for parameter in model.middle[0].parameters():
            parameter[1] = parameter[0]
        model.middle[1].weight *= 5
        model.middle[1].weight[:, 0], model.middle[1].weight[:, 1] = 1e4, -1e4
        for layer in (model.middle[1], model.head):
            layer.bias.zero_()
    refuses(model, "int8", r"int8: parameters are off by 0\.\d+ of their size, and at most 0\.05 is taken")


@pytest.mark.parametrize("dtype", [torch.float16, "int4"])
def test_other_types_are_refused_in_one_line(dtype: torch.dtype | str) -> None:
    with pytest.raises(BackendError, match=r"dtype is .*(float16|int4).*; it takes torch\.float32.*, torch\.int8$"):
        pixelfast.compile(Chain(4, 4), (1, 5, 6), pixelfast.Bernoulli(), "signed", dtype=dtype)


@pytest.mark.parametrize(("dtype", "name"), [*NAMES.items(), ("int8", "int8")])
def test_the_instruction_set_is_told(dtype: torch.dtype | str, name: str) -> None:
    sampler = chain(16, 16, dtype=dtype)
    sampler.sample(1)
    assert sampler.stats is not None
    assert (sampler.stats.isa, sampler.stats.dtype) == (_C.available_isas(name)[0], name)
