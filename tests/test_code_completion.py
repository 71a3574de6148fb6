"""Completions by models of codes: they hold what is given, decide the right codes, and do not depend on the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pixelfast
from pixelfast.cli.main import main
from pixelfast.code_completion import GivenCodes
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import VQVAE2WithPriors, VQVAEWithPrior
from pixelfast.stages import one_thread

SHAPE = (1, 16, 12)
PRIOR = {"features": 6, "hidden": 4, "parts": 1, "blocks": 1, "kernel_size": 3}


def one_map() -> VQVAEWithPrior:
    return VQVAEWithPrior(SHAPE, 256, 6, 1, 4, 1, codes=8, code_width=3, prior_hidden=6, prior_dilations=(1,))


def two_maps() -> VQVAE2WithPriors:
    top, bottom = {**PRIOR, "heads": 1}, {**PRIOR, "condition_hidden": 4, "condition_blocks": 0}
    return VQVAE2WithPriors(SHAPE, 256, 6, 1, 4, 1, codes=8, code_width=3, top=top, bottom=bottom)


@pytest.fixture(scope="module", params=[one_map, two_maps])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(5)
    made = request.param()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.fixture(scope="module")
def sampler(model: Any) -> pixelfast.StagedSampler:
    return pixelfast.compile(model)


def some_images(n: int) -> torch.Tensor:
    return torch.randint(256, (n, *SHAPE), generator=torch.Generator().manual_seed(2))


UPPER = (torch.arange(16) < 8)[:, None]


def test_what_is_given_is_kept_and_the_rest_drawn(sampler: pixelfast.StagedSampler) -> None:
    images = some_images(4)
    completed = sampler.sample(4, seed=1, known=images, mask=UPPER)
    assert completed.dtype == torch.uint8
    assert torch.equal(completed[:, :, :8].long(), images[:, :, :8])
    assert not torch.equal(completed[0], completed[1])
    another = sampler.sample(4, seed=2, known=images, mask=UPPER)
    assert not torch.equal(completed[:, :, 8:], another[:, :, 8:])


def test_an_image_does_not_depend_on_the_others(sampler: pixelfast.StagedSampler) -> None:
    images = some_images(3)
    completed = sampler.sample(3, seed=1, known=images, mask=UPPER)
    alone = sampler.sample(1, seed=1, sample_ids=[2], known=images[2:], mask=UPPER)
    assert torch.equal(completed[2:], alone)
    assert torch.equal(completed, sampler.sample(3, seed=1, known=images, mask=UPPER, batch_size=2))


def test_the_naive_sampler_gives_the_same(model: Any) -> None:
    images = some_images(2)
    given = {"seed": 3, "known": images, "mask": UPPER}
    cached = pixelfast.compile(model, backend="reference", dtype=torch.float64).sample(2, **given)
    assert torch.equal(cached, pixelfast.naive_sample(model, 2, dtype=torch.float64, **given))


def test_codes_of_whole_cells_are_given_and_no_others(model: Any) -> None:
    """Rows 0 to 8: the cells of the finest map are 2x2, of the coarse one of two 4x4."""
    images = some_images(2)
    mask = (torch.arange(16) < 9)[:, None].expand(images.shape)
    given = GivenCodes(model, one_thread)(images, mask)
    encoded = model.double().encode(images.double() / 127.5 - 1)
    model.float()
    encoded = encoded if isinstance(encoded, dict) else {"codes": encoded}
    assert given.keys() == encoded.keys()
    for name, codes in given.items():
        rows = codes["known"].shape[2]
        assert torch.equal(codes["known"], encoded[name])
        whole = (torch.arange(rows) < 9 * rows // 16)[:, None]
        assert torch.equal(codes["mask"], whole.expand_as(codes["mask"]))


def test_everything_and_nothing_given(sampler: pixelfast.StagedSampler) -> None:
    images = some_images(2)
    assert torch.equal(sampler.sample(2, known=images, mask=torch.tensor(True)).long(), images)
    free = sampler.sample(2, seed=4, known=images, mask=torch.tensor(False))
    assert torch.equal(free, sampler.sample(2, seed=4))
    assert sampler.sample(0, known=images[:1], mask=UPPER).shape == (0, *SHAPE)


def test_statistics_count_every_turn(sampler: pixelfast.StagedSampler) -> None:
    sampler.sample(2, known=some_images(1), mask=UPPER)
    assert sampler.stats.images == 2
    assert sampler.stats.decode_seconds > 0
    assert all(stats.seconds > 0 for stats in sampler.stats.stages.values())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"known": some_images(1)}, "known and mask go together"),
        ({"mask": UPPER}, "known and mask go together"),
        ({"known": some_images(1), "mask": UPPER.long()}, "it must be bool"),
        ({"known": some_images(1)[:, :, :5], "mask": UPPER}, "must broadcast to images"),
        ({"known": torch.tensor(256), "mask": UPPER}, "256"),
    ],
)
def test_bad_arguments(sampler: pixelfast.StagedSampler, given: dict[str, Any], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        sampler.sample(2, **given)


def test_without_an_encoder() -> None:
    class Decoding(nn.Module):
        def decode(self, codes: torch.Tensor) -> torch.Tensor:
            return codes

    model = one_map()
    model.autoencoder = Decoding()
    with pytest.raises(PixelfastError, match="cannot encode a part of an image"):
        GivenCodes(model, one_thread)


def test_command(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixelfast.save(model, "codes.safetensors")
    assert main(["sample", "codes.safetensors", "-n", "1", "--npz", "one.npz", "-o", "one.png"]) == 0
    image = np.load("one.npz")["images"]
    words = ["complete", "codes.safetensors", "--image", "one.png", "-n", "3", "--npz", "all.npz"]
    Image.fromarray(image[0, 0]).save("one.png")
    assert main(words) == 0
    completed = np.load("all.npz")["images"]
    assert completed.shape == (3, *SHAPE)
    assert (completed[:, :, :8] == image[:, :, :8]).all()
