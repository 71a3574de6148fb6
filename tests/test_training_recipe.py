"""Recipes and their text forms, the order of batches, and the noise of a run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from training_runs import TINY

from pixelfast.data import HorizontalFlip, ImageData, StochasticBinarise
from pixelfast.errors import PixelfastError
from pixelfast.models import registry
from pixelfast.training import RECIPES, Recipe, find_recipe, override
from pixelfast.training.batches import BatchOrder
from pixelfast.training.images import Batches, ImageSet
from pixelfast.training.noise import Use, derived_seed
from pixelfast.training.overrides import as_json, describe_fields, differences, from_json


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def test_recipes_are_found_by_name() -> None:
    assert find_recipe("gated-pixelcnn-mnist") is RECIPES["gated-pixelcnn-mnist"]
    with pytest.raises(PixelfastError) as error:
        find_recipe("gated")
    assert "gated-pixelcnn-mnist" in one_line(error)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_a_model_that_can_be_made(name: str) -> None:
    with torch.device("meta"):
        model: Any = registry.create(RECIPES[name].model, **RECIPES[name].config)
    # A model of codes gets its size from the autoencoder that the run is given.
    if type(model) not in registry.AUTOENCODER_OF:
        assert model.shape in ((1, 28, 28), (3, 32, 32), (3, 64, 64))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"steps": -1},
        {"steps": 10**12},
        {"batch_size": 0},
        {"batch_size": -4},
        {"batch_size": 10**12},
        {"sample_images": 10**12},
        {"micro_batch_size": 0},
        {"micro_batch_size": 3},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"warmup_steps": -1},
        {"learning_rate_decay": 1.5},
        {"schedule": "linear"},
        {"optimizer": "sgd"},
        {"binarise": "dither"},
        {"levels": 1},
        {"precision": "float16"},
        {"parallel": "horovod"},
        {"betas": (0.9, 1.0)},
        {"weight_decay": -0.1},
        {"clip_norm": 0.0},
        {"ema_decay": 1.0},
        {"seed": -1},
        {"seed": 2**64},
        {"log_every": 0},
        {"snapshot_every": 0},
        {"keep_snapshots": 0},
        {"sample_every": -1},
        {"model": "pixelrnn"},
        {"config": {"hiden": 4}},
    ],
    ids=str,
)
def test_recipes_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(PixelfastError) as error:
        replace(TINY, **change)
    assert next(iter(change)) in one_line(error)


def test_the_learning_rate() -> None:
    cosine = replace(TINY, steps=1000, warmup_steps=9, learning_rate=1.0)
    rates = [cosine.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1) and rates[4] == pytest.approx(0.5, rel=1e-3)
    assert max(rates) == rates[9] and rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[500] == pytest.approx(0.5) and 0 < rates[-1] < 1e-5
    constant = replace(cosine, schedule="constant")
    assert {constant.learning_rate_at(step) for step in range(9, 1000)} == {1.0}
    decaying = replace(constant, learning_rate_decay=0.999)
    assert decaying.learning_rate_at(500) == 0.999**500


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("steps=100", "steps", 100),
        ("learning_rate=1e-4", "learning_rate", 1e-4),
        ("learning_rate=1", "learning_rate", 1.0),
        ("schedule=constant", "schedule", "constant"),
        ('schedule="constant"', "schedule", "constant"),
        ("betas=[0.95, 0.9995]", "betas", (0.95, 0.9995)),
        ("clip_norm=none", "clip_norm", None),
        ("micro_batch_size=2", "micro_batch_size", 2),
        ("flip=true", "flip", True),
        ("compile=False", "compile", False),
        ("name=5", "name", "5"),
        ("name=true", "name", "true"),
        ("config.hidden=16", "config", {**TINY.config, "hidden": 16}),
        ("config.input=unit", "config", {**TINY.config, "input": "unit"}),
        ("config.classes=none", "config", {**TINY.config, "classes": None}),
        ('config={"hidden": 8}', "config", {"hidden": 8}),
    ],
)
def test_overrides(text: str, name: str, value: Any) -> None:
    changed = override(TINY, [text])
    assert getattr(changed, name) == value and type(getattr(changed, name)) is type(value)
    assert replace(changed, **{name: getattr(TINY, name)}) == TINY


def test_overrides_together() -> None:
    changed = override(TINY, ["steps=5", "config.hidden=2", "steps=6", "config.levels=2"])
    assert changed == replace(TINY, steps=6, config={**TINY.config, "hidden": 2, "levels": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps", "NAME=VALUE"),
        ("step=5", "no field 'step'; it has name, model, steps"),
        ("steps=five", 'steps takes an integer, not "five"'),
        ("steps=5.5", "steps takes an integer, not 5.5"),
        ("steps=true", "steps takes an integer, not true"),
        ("steps=", "steps takes an integer"),
        ("steps=none", "steps takes an integer, not none"),
        ("steps=0", "steps must be at least 1, not 0"),
        ("learning_rate=fast", "learning_rate takes a number"),
        ("learning_rate=NaN", "learning_rate must be positive and at most 1e+30"),
        ("learning_rate=1e300", "learning_rate must be positive and at most 1e+30"),
        ("flip=1", "flip takes true or false, not 1"),
        ("betas=0.9", "betas takes [a number, a number]"),
        ("betas=[0.9]", "betas takes [a number, a number]"),
        ("schedule=linear", "schedule takes cosine or constant"),
        ("clip_norm=x", "clip_norm takes a number or none"),
        ("config=5", "config takes a JSON object"),
        ("config.hiden=5", "config.hiden: gated_pixelcnn takes shape, levels, hidden"),
        ("config.=5", "config.: gated_pixelcnn takes"),
    ],
)
def test_wrong_overrides(text: str, message: str) -> None:
    with pytest.raises(PixelfastError) as error:
        override(TINY, [text])
    assert message in one_line(error)


def test_the_help_names_every_field() -> None:
    text = describe_fields()
    for field in dataclasses.fields(Recipe):
        assert f"  {field.name} (" in text and field.metadata["about"] in text
    assert "micro_batch_size (an integer or none, default none)" in text
    assert "betas ([a number, a number], default [0.9, 0.99])" in text


@pytest.mark.parametrize("name", RECIPES)
def test_json_and_back(name: str) -> None:
    recipe = replace(RECIPES[name], learning_rate=0.1 + 0.2, clip_norm=None)
    assert from_json(json.loads(json.dumps(as_json(recipe)))) == recipe
    assert differences(recipe, recipe) == []


def test_json_that_is_no_recipe() -> None:
    values = as_json(TINY)
    for broken in ({**values, "new": 1}, {"name": "x"}, {**values, "steps": "9"}, {**values, "config": []}):
        with pytest.raises(PixelfastError):
            from_json(broken)
    # A field that an older recipe did not have has its default.
    del values["clip_norm"]
    assert from_json(values) == TINY


def test_differences_leave_out_what_may_change() -> None:
    assert differences(replace(TINY, parallel="fsdp", keep_snapshots=9), TINY) == []
    (one,) = differences(replace(TINY, log_every=7), TINY)
    assert one == "log_every 7 here, 2 there"


def test_batches_show_every_image_once_per_epoch() -> None:
    order = BatchOrder(images=10, batch_size=4, seed=0)
    seen = torch.cat([order.batch(step) for step in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_batches_larger_than_the_data_set() -> None:
    batch = BatchOrder(images=3, batch_size=8, seed=0).batch(1)
    assert len(batch) == 8 and sorted(torch.bincount(batch).tolist()) in ([2, 3, 3], [2, 2, 4])


def test_a_batch_depends_on_its_step_alone() -> None:
    forwards, backwards = BatchOrder(10, 4, seed=0), BatchOrder(10, 4, seed=0)
    there = [forwards.batch(step).tolist() for step in range(9)]
    back = [backwards.batch(step).tolist() for step in reversed(range(9))]
    assert there == back[::-1]
    assert there != [BatchOrder(10, 4, seed=1).batch(step).tolist() for step in range(9)]


def image_set(recipe: Recipe) -> ImageSet:
    """64 images, each of its own kind, with their numbers as labels."""
    images = torch.arange(64 * 6, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(64, 1, 2, 3)
    data = ImageData("numbers", images, torch.arange(64), tuple(map(str, range(64))))
    transforms = [HorizontalFlip()] if recipe.flip else [StochasticBinarise()]
    return ImageSet(data, transforms, recipe.seed, conditional=True)


def test_flips_do_not_depend_on_how_the_batch_is_cut() -> None:
    recipe = replace(TINY, batch_size=32, flip=True)
    images = image_set(recipe)
    batches = Batches(images, recipe)
    whole, labels = batches.part(3, 0, 32)
    assert labels is not None
    cut = [batches.part(3, first, first + 8)[0] for first in (24, 0, 16, 8)]
    assert torch.equal(torch.cat([cut[1], cut[3], cut[2], cut[0]]), whole)
    plain = images._data.images[labels]
    is_plain = (whole == plain).flatten(1).all(1)
    is_mirrored = (whole == plain.flip(3)).flatten(1).all(1)
    assert bool((is_plain ^ is_mirrored).all())
    # 32 fair coins: outside of 6 to 26 once in 5,000 seeds.
    assert 6 <= int(is_plain.sum()) <= 26


def test_noise_changes_from_step_to_step_but_not_for_the_test_set() -> None:
    recipe = replace(TINY, binarise="stochastic")
    images, index = image_set(recipe), torch.tensor([5, 9, 5])
    one, other, again = (images.augmented(index, step, 0)[0] for step in (1, 2, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert not torch.equal(one[0], one[2]), "two places of a batch have noise of their own"
    fixed = images.always_the_same(index)[0]
    assert torch.equal(fixed[0], fixed[2])
    assert torch.equal(fixed, torch.cat([images.always_the_same(index[i : i + 1])[0] for i in range(3)]))
    assert set(fixed.unique().tolist()) == {0, 1}


def test_noise_has_a_seed_for_every_place() -> None:
    places = [(use, place, part) for use in Use for place in range(40) for part in range(10)]
    seeds = {derived_seed(seed, *place) for seed in (0, 1, 2**63) for place in places}
    assert len(seeds) == 3 * len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # The low half is what torch's CPU generator is seeded with.
    assert len({seed & 0xFFFFFFFF for seed in seeds}) > 0.999 * len(seeds)
    assert derived_seed(7, Use.DROPOUT, 3, 2) == derived_seed(7, Use.DROPOUT, 3, 2)
