"""Sampling: images of a seed, completion, temperature, modes, progress, and that no batching changes a bit."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import sys
import weakref
from functools import cache
from typing import Any

import pytest
import torch
from backends import compile_or_skip
from comparators import assert_same_integers, sha256
from gallery import IDIOMS
from torch import Tensor

import pixelfast
from pixelfast import DiscretizedLogisticMixture, PixelfastError
from pixelfast.backends.registry import ORDER
from pixelfast.bars import row_bar

NAMES = [
    "two_stacks",
    "interleaved_groups",
    "mixture_of_three_channels",
    "bernoulli",
    "tuple_of_conditions",
    "gaussian_latents_in_turn",
]
every_backend = pytest.mark.parametrize("backend", ORDER)


@cache
def compiled(name: str, backend: str = "reference", dtype: torch.dtype = torch.float32) -> pixelfast.Sampler:
    idiom = IDIOMS[name]
    return compile_or_skip(
        idiom.build(), backend, condition=idiom.conditions(1), dtype=dtype, **idiom.arguments()
    )


def float64(name: str) -> pixelfast.Sampler:
    return compiled(name, "reference", torch.float64)


def naive(name: str, n: int, **arguments: Any) -> Tensor:
    idiom = IDIOMS[name]
    arguments = {"condition": idiom.conditions(n), "dtype": torch.float64} | arguments
    return pixelfast.naive_sample(idiom.build(), n, **(idiom.arguments() | arguments))


def rows(condition: Any, chosen: list[int]) -> Any:
    if condition is None:
        return None
    return tuple(t[chosen] for t in condition) if isinstance(condition, tuple) else condition[chosen]


# -- images of a seed ----------------------------------------------------------------------------------------


@every_backend
def test_dtype_shape_and_range(backend):
    images = compiled("two_stacks", backend).sample(3)
    assert images.shape == (3, 1, 4, 5) and images.dtype == torch.uint8
    assert int(images.max()) <= 3
    many = compiled("many_levels", backend).sample(2)
    assert many.dtype == torch.int64 and int(many.max()) > 255
    none = compiled("two_stacks", backend).sample(0)
    assert none.shape == (0, 1, 4, 5) and none.dtype == torch.uint8


@every_backend
def test_seeds_and_sample_ids_choose_images(backend):
    sampler = compiled("two_stacks", backend)
    images = sampler.sample(8, seed=9)
    assert len({sha256(image[None]) for image in images}) == 8
    assert torch.equal(sampler.sample(8, seed=9), images)
    assert not torch.equal(sampler.sample(8, seed=10), images)
    order = [5, 0, 7, 7, 2]
    assert torch.equal(sampler.sample(5, seed=9, sample_ids=order), images[order])
    assert torch.equal(sampler.sample(1, seed=9, sample_ids=torch.tensor([6])), images[6:7])


def test_largest_seed_and_ids():
    ids, seed = [2**32 - 1, 0], 2**64 - 1
    images = float64("two_stacks").sample(2, seed=seed, sample_ids=ids)
    assert_same_integers(images, naive("two_stacks", 2, seed=seed, sample_ids=ids))
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("name", NAMES)
@every_backend
def test_batches_and_threads_change_no_bit(name, backend):
    """Promise 3. The reference backend makes it in float64 only."""
    sampler = float64(name) if backend == "reference" else compiled(name, backend)
    condition = IDIOMS[name].conditions(17)
    expected = sampler.sample(17, seed=2, condition=condition, batch_size=17)
    hashes = set()
    for size in (1, 2, 3, 16, 17):
        for threads in (1, 2) if backend != "reference" else (1,):
            sampler._threads = threads
            hashes.add(sha256(sampler.sample(17, seed=2, condition=condition, batch_size=size)))
    sampler._threads = None
    assert hashes == {sha256(expected)}
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1)).tolist()
    permuted = sampler.sample(17, seed=2, sample_ids=order, condition=rows(condition, order))
    assert torch.equal(permuted, expected[order])


@pytest.mark.parametrize("name", NAMES)
def test_params_do_not_depend_on_the_batch(name):
    sampler = compiled(name, "cpu")
    x, condition = IDIOMS[name].images(5), IDIOMS[name].conditions(5)
    together = sampler.params(x, condition)
    for i in range(5):
        assert torch.equal(sampler.params(x[i : i + 1], rows(condition, [i])), together[i : i + 1])


def test_batch_sizes_of_the_naive_sampler():
    assert torch.equal(naive("two_stacks", 5, batch_size=2), naive("two_stacks", 5))


# -- completion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_completion_is_the_naive_sampler_s(name):
    idiom = IDIOMS[name]
    generator = torch.Generator().manual_seed(8)
    known, mask = idiom.images(3, seed=4), torch.rand(3, *idiom.shape, generator=generator) < 0.4
    condition = idiom.conditions(3)
    images = float64(name).sample(3, seed=1, condition=condition, known=known, mask=mask)
    assert torch.equal(images[mask].to(known.dtype), known[mask])
    assert_same_integers(images, naive(name, 3, seed=1, known=known, mask=mask))


@pytest.mark.parametrize("name", ["two_stacks", "interleaved_groups", "bernoulli"])
@every_backend
def test_own_numbers_given_back_change_nothing(name, backend):
    """Known positions use no noise: what is left draws what it would have drawn anyway."""
    sampler = compiled(name, backend)
    images = sampler.sample(4, seed=3)
    for seed in range(3):
        mask = torch.rand(4, *sampler.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
        assert torch.equal(sampler.sample(4, seed=3, known=images, mask=mask), images)


@every_backend
def test_given_past_determines_the_rest(backend):
    """The numbers before the gap are all that matters, not how they came about."""
    sampler = compiled("two_stacks", backend)
    one, two = sampler.sample(2, seed=1), sampler.sample(2, seed=2)
    upper = torch.zeros(4, 5, dtype=torch.bool)
    upper[:2] = True
    crossed = sampler.sample(2, seed=2, known=one, mask=upper)
    assert torch.equal(crossed[:, :, :2], one[:, :, :2])
    later = torch.where(upper, one, two)
    again = sampler.sample(2, seed=2, known=later, mask=upper)
    assert torch.equal(again, crossed)


@every_backend
def test_mask_and_known_broadcast(backend):
    sampler = compiled("interleaved_groups", backend)
    row = torch.tensor([True, False, False])[:, None]
    images = sampler.sample(3, seed=1, known=torch.tensor(2), mask=row)
    assert bool((images[:, :, 0] == 2).all())
    known = torch.full((3, 3, 3, 4), 2)
    assert torch.equal(sampler.sample(3, seed=1, known=known, mask=row.expand(3, 3, 3, 4)), images)
    assert torch.equal(sampler.sample(3, seed=1, known=known.to(torch.uint8), mask=row), images)


@every_backend
def test_nothing_known_and_everything_known(backend):
    sampler = compiled("two_stacks", backend)
    x = IDIOMS["two_stacks"].images(3, seed=6)
    assert torch.equal(sampler.sample(3, known=x, mask=torch.tensor(True)).long(), x)
    assert torch.equal(sampler.sample(3, known=x, mask=torch.tensor(False)), sampler.sample(3))


def test_known_values_outside_the_mask_do_not_matter():
    sampler = compiled("two_stacks")
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1, 1] = True
    known = torch.full((1, 1, 4, 5), 1)
    wild = torch.full((1, 1, 4, 5), 999)
    wild[..., 1, 1] = 1
    assert torch.equal(sampler.sample(1, known=known, mask=mask), sampler.sample(1, known=wild, mask=mask))


def test_mixture_component_after_a_known_channel():
    """R given: the component is drawn anew from its posterior, in the naive sampler and in the fast one alike."""
    name = "mixture_of_three_channels"
    mask = torch.tensor([True, False, False])[:, None, None]
    known = IDIOMS[name].images(6, seed=3)
    images = float64(name).sample(6, seed=5, known=known, mask=mask)
    assert_same_integers(images, naive(name, 6, seed=5, known=known, mask=mask))
    assert not torch.equal(images, float64(name).sample(6, seed=5))


# -- parameters and probabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_is_the_likelihood_of_the_parameters(name):
    idiom, sampler = IDIOMS[name], float64(name)
    x, condition = idiom.images(3), idiom.conditions(3)
    params = idiom.forward(idiom.build().double(), x, condition, torch.float64)
    layout = params if name != "interleaved_groups" else params.unflatten(1, (3, 3)).transpose(1, 2)
    expected = idiom.likelihood.log_prob(layout, x).sum(dim=(1, 2, 3))
    got = sampler.log_prob(x, condition)
    assert got.shape == (3,)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    if idiom.likelihood.continuous:
        return
    bits = sampler.bits_per_dim(x, condition)
    torch.testing.assert_close(bits, -expected / (math.prod(idiom.shape) * math.log(2)), rtol=1e-10, atol=1e-10)


def test_probabilities_sum_to_one():
    """All 2**6 images of a tiny Bernoulli network."""
    model = IDIOMS["bernoulli"].build()
    arguments = {"input": "unit", "backend": "reference", "dtype": torch.float64}
    sampler = pixelfast.compile(model, (1, 2, 3), pixelfast.Bernoulli(), **arguments)
    x = torch.cartesian_prod(*[torch.arange(2)] * 6).view(64, 1, 2, 3)
    assert float(sampler.log_prob(x).exp().sum()) == pytest.approx(1.0, abs=1e-12)


@every_backend
def test_params_of_no_images(backend):
    sampler = compiled("two_stacks", backend)
    assert sampler.params(torch.zeros(0, 1, 4, 5, dtype=torch.int64)).shape == (0, 4, 4, 5)


@every_backend
def test_params_take_any_integers(backend):
    sampler = compiled("two_stacks", backend)
    x = IDIOMS["two_stacks"].images(2)
    assert torch.equal(sampler.params(x.to(torch.uint8)), sampler.params(x))
    assert torch.equal(sampler.params(x.to(torch.int32)), sampler.params(x))


# -- temperature and modes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_temperature_is_the_naive_sampler_s(name, temperature):
    condition = IDIOMS[name].conditions(2)
    images = float64(name).sample(2, seed=4, temperature=temperature, condition=condition)
    assert_same_integers(images, naive(name, 2, seed=4, temperature=temperature))


@every_backend
def test_temperature_zero_is_the_mode(backend):
    sampler = compiled("two_stacks", backend)
    images = sampler.sample(3, seed=1, temperature=0)
    assert torch.equal(images, sampler.sample(3, seed=2, temperature=0))
    assert torch.equal(images.long(), sampler.params(images).argmax(dim=1, keepdim=True))


def test_low_temperature_approaches_the_mode():
    sampler = compiled("bernoulli")
    mode = sampler.sample(1, temperature=0)
    assert torch.equal(sampler.sample(4, temperature=1e-6), mode.expand(4, -1, -1, -1))


@pytest.mark.parametrize("name", ["mixture_of_three_channels", "mixture_of_one_channel"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_reference_mode_is_the_naive_sampler_s(name, temperature):
    images = float64(name).sample(3, seed=4, mode="reference", temperature=temperature)
    assert_same_integers(images, naive(name, 3, seed=4, mode="reference", temperature=temperature))
    assert not torch.equal(images, float64(name).sample(3, seed=4, temperature=temperature))


def test_reference_mode_with_known_numbers():
    name = "mixture_of_three_channels"
    known = IDIOMS[name].images(3, seed=4)
    mask = torch.rand(3, *IDIOMS[name].shape, generator=torch.Generator().manual_seed(2)) < 0.4
    images = float64(name).sample(3, seed=4, mode="reference", known=known, mask=mask)
    assert_same_integers(images, naive(name, 3, seed=4, mode="reference", known=known, mask=mask))


def test_modes_are_one_for_likelihoods_without_real_values():
    sampler = compiled("bernoulli")
    assert torch.equal(sampler.sample(3, mode="reference"), sampler.sample(3))


@pytest.mark.parametrize("name", ["embedding_of_index", "table_input"])
def test_reference_mode_needs_an_input_of_real_values(name):
    with pytest.raises(PixelfastError, match="unit"):
        compiled(name).sample(1, mode="reference")


# -- conditions ----------------------------------------------------------------------------------------------


@every_backend
def test_one_row_of_condition_serves_all(backend):
    sampler = compiled("tuple_of_conditions", backend)
    label, where = IDIOMS["tuple_of_conditions"].conditions(1)
    images = sampler.sample(4, seed=2, condition=(label, where))
    assert torch.equal(sampler.sample(4, seed=2, condition=(label.repeat(4), where.repeat(4, 1, 1, 1))), images)
    assert torch.equal(sampler.sample(4, seed=2, condition=(label[0], where[0])), images)


@every_backend
def test_each_image_has_its_own_condition(backend):
    sampler = compiled("tuple_of_conditions", backend)
    condition = IDIOMS["tuple_of_conditions"].conditions(4)
    images = sampler.sample(4, seed=2, condition=condition)
    for i in range(4):
        alone = sampler.sample(1, seed=2, sample_ids=[i], condition=rows(condition, [i]))
        assert torch.equal(alone, images[i : i + 1])
    other = (condition[0], -condition[1])
    x = IDIOMS["tuple_of_conditions"].images(4)
    assert not torch.equal(sampler.params(x, condition), sampler.params(x, other))


def test_example_values_of_a_condition_do_not_matter():
    idiom = IDIOMS["dict_of_conditions"]
    zeros = {"label": torch.zeros(1, dtype=torch.int64), "style": torch.zeros(1, 3)}
    one = pixelfast.compile(idiom.build(), condition=zeros, backend="reference", **idiom.arguments())
    two = pixelfast.compile(idiom.build(), condition=idiom.conditions(5), backend="reference", **idiom.arguments())
    x, condition = idiom.images(3), idiom.conditions(3, seed=9)
    assert torch.equal(one.params(x, condition), two.params(x, condition))


# -- progress ------------------------------------------------------------------------------------------------


@every_backend
def test_on_row_sees_the_image_appear(backend):
    sampler = compiled("two_stacks", backend)
    seen: list[tuple[int, Tensor]] = []
    images = sampler.sample(3, seed=1, batch_size=2, on_row=lambda y, so_far: seen.append((y, so_far.clone())))
    assert [y for y, _ in seen] == [0, 1, 2, 3] * 2
    for index, (y, so_far) in enumerate(seen):
        batch = slice(0, 2) if index < 4 else slice(2, 3)
        assert so_far.shape == images.shape and so_far.dtype == images.dtype
        assert torch.equal(so_far[batch, :, : y + 1], images[batch, :, : y + 1])
        assert not so_far[batch, :, y + 1 :].any()
        assert torch.equal(so_far[: batch.start], images[: batch.start])


@every_backend
def test_an_error_in_on_row_stops_the_sampling(backend):
    rows_seen = []

    def fail(y: int, images: Tensor) -> None:
        rows_seen.append(y)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compiled("two_stacks", backend).sample(2, on_row=fail)
    assert rows_seen == [0]
    assert torch.equal(compiled("two_stacks", backend).sample(1), compiled("two_stacks", backend).sample(1))


def test_progress_bar(capsys):
    sampler = compiled("two_stacks")
    sampler.sample(1, progress=False)
    sampler.sample(1, progress=None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("progress", [None, False, True])
def test_no_bar_without_standard_error(progress, monkeypatch):
    """A service has none: sys.stderr is None there, and a bar would end the sampling after a second."""
    monkeypatch.setattr(sys, "stderr", None)
    with row_bar(progress, 10) as bar:
        assert bar.disable
    assert len(compiled("two_stacks").sample(1, progress=progress)) == 1


@every_backend
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
def test_a_copy_samples_the_same(backend, copied):
    sampler = compiled("two_stacks", backend)
    images = sampler.sample(2)
    twin = copied(sampler)
    assert twin.stats.share_of_limit == sampler.stats.share_of_limit
    assert torch.equal(twin.sample(2), images)


@every_backend
def test_statistics_keep_no_sampler(backend):
    """Weights take up to hundreds of megabytes: they go with the sampler, without waiting for a garbage collection."""
    sampler = compile_or_skip(IDIOMS["two_stacks"].build(), backend, **IDIOMS["two_stacks"].arguments())
    sampler.sample(1)
    stats, gone = sampler.stats, weakref.ref(sampler)
    gc.disable()
    try:
        del sampler
        assert gone() is None
    finally:
        gc.enable()
    assert stats.share_of_limit > 0


@every_backend
def test_stats_of_the_last_call(backend):
    sampler = compiled("two_stacks", backend)
    sampler.sample(5)
    stats = sampler.stats
    assert (stats.backend, stats.images, stats.dtype) == (backend, 5, "float32")
    assert stats.seconds > 0 and stats.threads >= 1 and stats.bytes_per_image > 0
    assert stats.images_per_second == pytest.approx(5 / stats.seconds)
    assert stats.us_per_pixel == pytest.approx(1e6 * stats.seconds / (5 * 20))
    assert stats.gflops == pytest.approx(5 * sampler.program.flops / stats.seconds / 1e9)


# -- which backend -------------------------------------------------------------------------------------------


def test_auto_takes_the_first_that_can_and_says_why_others_cannot():
    idiom = IDIOMS["two_stacks"]
    assert compiled("two_stacks", "cpu").backend.name == "cpu"
    single = pixelfast.compile(idiom.build(), **idiom.arguments())
    assert single.backend.name == ORDER[0] and single.refused == {}
    double = pixelfast.compile(idiom.build(), dtype=torch.float64, **idiom.arguments())
    assert double.backend.name == "reference"
    assert "float32" in double.refused["cpu"][0]
    assert "float32" in double.describe()


def test_mixture_is_compiled_with_what_the_model_knows():
    """pixelfast's own models need no arguments; what is given goes before what the model says."""
    model = pixelfast.models.GatedPixelCNN((1, 3, 4), levels=4, hidden=4, dilations=(1,))
    sampler = pixelfast.compile(model)
    assert sampler.shape == (1, 3, 4) and sampler.likelihood == model.likelihood
    taller = pixelfast.compile(model, (1, 5, 4))
    assert taller.sample(1).shape == (1, 1, 5, 4)
    plus = pixelfast.models.PixelCNNPlusPlus((1, 4, 4), blocks=1, filters=2, mixtures=1)
    assert pixelfast.compile(plus, backend="reference").likelihood == DiscretizedLogisticMixture(1)


def test_a_slow_backend_is_never_taken_silently():
    model = torch.nn.Sequential(torch.nn.ZeroPad2d((2, -1, 0, 0)), torch.nn.Conv2d(1, 4, (1, 2)), torch.nn.Hardshrink())
    with pytest.warns(UserWarning, match="slow backend 'reference', because cpu: no kernel for aten.hardshrink"):
        sampler = pixelfast.compile(model, (1, 3, 4), pixelfast.Categorical(4), "signed")
    assert sampler.backend.name == "reference" and sampler.refused
    with pytest.raises(pixelfast.BackendError, match="hardshrink"):
        pixelfast.compile(model, (1, 3, 4), pixelfast.Categorical(4), "signed", backend="cpu")
