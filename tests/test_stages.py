"""Models in stages: noise of their own, what conditions what, and which arguments are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparators import assert_same_integers
from torch import Tensor, nn

import pixelfast
from pixelfast import rng
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import GatedPixelCNN
from pixelfast.stage import Stage
from pixelfast.stages import in_stages


class Coarse(nn.Module):
    """Draws a small map of codes, then the pixels given that map, up-sampled, and a label."""

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.levels = (1, 4, 6), 5
        self.top = GatedPixelCNN((1, 2, 3), levels=4, hidden=5, dilations=(1, 1), input="levels", classes=3)
        self.pixels = GatedPixelCNN(self.shape, levels=5, hidden=5, dilations=(1, 1), spatial_condition=1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage("top", self.top), Stage("pixels", self.pixels, self._given_top))

    @staticmethod
    def _given_top(drawn: Any, condition: Any) -> Tensor:
        return drawn["top"].float().repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.fixture(scope="module")
def model() -> Coarse:
    torch.manual_seed(3)
    return Coarse().eval()


@pytest.fixture(scope="module")
def sampler(model: Coarse) -> pixelfast.StagedSampler:
    return pixelfast.compile(model)


LABELS = torch.tensor([0, 2, 1, 0, 1])


def test_float64_cached_equals_naive(model: Coarse) -> None:
    cached = pixelfast.compile(model, backend="reference", dtype=torch.float64)
    images = cached.sample(5, seed=4, seeds={"top": 9}, condition=LABELS)
    naive = pixelfast.naive_sample(model, 5, seed=4, seeds={"top": 9}, condition=LABELS, dtype=torch.float64)
    assert_same_integers(images, naive)


def test_each_stage_is_given_what_was_drawn_before(model: Coarse, sampler: pixelfast.StagedSampler) -> None:
    drawn = sampler.draw(5, seed=1, condition=LABELS)
    assert {name: tuple(part.shape) for name, part in drawn.items()} == {"top": (5, 1, 2, 3), "pixels": (5, 1, 4, 6)}
    assert torch.equal(sampler.decode(drawn), drawn["pixels"])
    assert torch.equal(sampler.sample(5, seed=1, condition=LABELS), drawn["pixels"])
    alone = pixelfast.compile(model.pixels, stream=rng.STREAMS["pixels"])
    assert torch.equal(alone.sample(5, seed=1, condition=model._given_top(drawn, None)), drawn["pixels"])
    top = pixelfast.compile(model.top, stream=rng.STREAMS["top"])
    assert torch.equal(top.sample(5, seed=1, condition=LABELS), drawn["top"])


def test_seeds_vary_one_stage_alone(sampler: pixelfast.StagedSampler) -> None:
    base = sampler.draw(5, seed=1, condition=LABELS)
    other = sampler.draw(5, seed=1, seeds={"pixels": 2}, condition=LABELS)
    assert torch.equal(base["top"], other["top"]) and not torch.equal(base["pixels"], other["pixels"])
    other = sampler.draw(5, seed=2, seeds={"pixels": 1}, condition=LABELS)
    assert not torch.equal(base["top"], other["top"])
    both = sampler.draw(5, seeds={"top": 1, "pixels": 1}, condition=LABELS)
    assert all(torch.equal(base[name], both[name]) for name in base)


def test_one_image_per_seed_and_id(sampler: pixelfast.StagedSampler) -> None:
    images = sampler.sample(5, seed=9, condition=LABELS)
    assert len({image.numpy().tobytes() for image in images}) > 2
    for batch in (1, 2, 5):
        assert torch.equal(sampler.sample(5, seed=9, condition=LABELS, batch_size=batch), images)
    order = [4, 1, 1]
    assert torch.equal(sampler.sample(3, seed=9, condition=LABELS[order], sample_ids=order), images[order])


def test_stats_are_of_each_stage(sampler: pixelfast.StagedSampler) -> None:
    sampler.sample(2, condition=LABELS[:2])
    stats = sampler.stats
    assert stats is not None and list(stats.stages) == ["top", "pixels"] and stats.decode_seconds == 0
    assert stats.seconds == sum(one.seconds for one in stats.stages.values())
    assert stats.images == 2 and stats.images_per_second == 2 / stats.seconds
    assert sampler.compile_seconds == sum(one.compile_seconds for one in sampler.samplers.values()) > 0
    assert sampler.describe().startswith("top: ") and "\npixels: " in sampler.describe()
    assert "decoded" not in sampler.describe()


def test_streams_are_a_stage_s_own() -> None:
    assert len(set(rng.STREAMS.values())) == len(rng.STREAMS)


def test_attributes_called_stages_make_nobody_staged() -> None:
    module = nn.Module()
    module.stages = nn.ModuleList()
    assert not in_stages(module) and not in_stages(GatedPixelCNN) and not in_stages(None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": {"bottom": 1}}, "seeds names bottom; the stages of this model are top, pixels"),
        ({"seeds": 3}, "seeds is 3; it takes seeds by stage, such as {'top': 3}"),
        ({"seeds": {"pixels": -1}}, "seed is -1"),
        ({"condition": None}, "conditional"),
    ],
)
def test_bad_arguments(sampler: pixelfast.StagedSampler, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PixelfastError, match=message):
        sampler.sample(2, **{"condition": LABELS[:2], **arguments})


def test_what_else_is_refused(model: Coarse, sampler: pixelfast.StagedSampler) -> None:
    with pytest.raises(PixelfastError, match="decode needs what pixels drew too"):
        sampler.decode({"top": torch.zeros(1, 1, 2, 3)})
    with pytest.raises(PixelfastError, match=r"Coarse samples in stages \(top, then pixels\): leave likelihood out"):
        pixelfast.compile(model, likelihood=pixelfast.Categorical(levels=5))
    with pytest.raises(PixelfastError, match="does not sample in stages"):
        pixelfast.naive_sample(model.top, 1, condition=LABELS[:1], seeds={"top": 1})
    with pytest.raises(ShapeError):
        sampler.sample(2, condition=LABELS)
