"""VQ-VAE: the quantiser's arithmetic, the autoencoder, the prior of its codes, and sampling them in stages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from comparators import assert_same_integers
from torch import Tensor, nn

import pixelfast
from pixelfast import rng
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import VQVAE, GatedPixelCNN, VectorQuantizer, VQVAEWithPrior
from pixelfast.models.vector_quantizer import DEAD_SHARE, Seen, perplexity

SMALL: dict[str, Any] = {"hidden": 6, "residual_blocks": 1, "residual_hidden": 3, "codes": 7, "code_width": 5}
PRIOR: dict[str, Any] = {"prior_hidden": 6, "prior_dilations": (1, 2)}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


def scramble(model: nn.Module) -> nn.Module:
    """Every number random, so that the codes of random images differ and depend on all of the network."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.4 * torch.randn_like(tensor))
    return model.eval()


def with_prior(shape: tuple[int, int, int] = (1, 12, 8), **changes: Any) -> VQVAEWithPrior:
    model = scramble(VQVAEWithPrior(shape, **(SMALL | PRIOR | changes)))
    assert isinstance(model, VQVAEWithPrior)
    return model


def quantizer(codebook: str = "ema", **changes: Any) -> VectorQuantizer:
    return VectorQuantizer(**({"codes": 6, "width": 3, "codebook": codebook, "decay": 0.9} | changes)).double()


def features(images: int = 2) -> Tensor:
    return torch.randn(images, 3, 4, 5, dtype=torch.float64)


class TestQuantiser:
    def test_the_nearest_vector_is_taken(self) -> None:
        codebook, z = quantizer(), features()
        result = codebook(z)
        for n in range(2):
            for y in range(4):
                for x in range(5):
                    squares = [(z[n, :, y, x] - vector).square().sum() for vector in codebook.vectors]
                    code = min(range(6), key=lambda k: float(squares[k]))
                    assert result.codes[n, y, x] == code
                    assert torch.equal(result.vectors[n, :, y, x], codebook.vectors[code])
        assert torch.equal(codebook.lookup(result.codes), result.vectors)

    @pytest.mark.parametrize("codebook", ["ema", "gradient"])
    def test_gradients_pass_straight_through(self, codebook: str) -> None:
        layer, z = quantizer(codebook), features().requires_grad_()
        weights = torch.randn_like(z)
        (gradient,) = torch.autograd.grad((layer(z).vectors * weights).sum(), z)
        assert torch.equal(gradient, weights)

    def test_commitment_pulls_features_and_nothing_else(self) -> None:
        layer, z = quantizer(commitment=0.5), features().requires_grad_()
        result = layer(z)
        (gradient,) = torch.autograd.grad(result.loss, z)
        torch.testing.assert_close(gradient, 2 * 0.5 * (z - result.vectors).detach() / z.numel())
        assert not list(layer.parameters())

    def test_by_gradient_the_loss_pulls_vectors_too(self) -> None:
        layer, z = quantizer("gradient", commitment=0.5), features().requires_grad_()
        result = layer(z)
        for_z, for_vectors = torch.autograd.grad(result.loss, [z, layer.vectors])
        torch.testing.assert_close(for_z, 2 * 0.5 * (z - result.vectors).detach() / z.numel())
        expected = torch.zeros_like(layer.vectors)
        for code, vector in zip(result.codes.flatten(), z.detach().movedim(1, -1).flatten(0, -2), strict=True):
            expected[code] += 2 * (layer.vectors.detach()[code] - vector) / z.numel()
        torch.testing.assert_close(for_vectors, expected)

    def test_averages_are_those_of_a_slow_loop(self) -> None:
        """Appendix A.1 of the paper, feature by feature, over several steps of several pieces."""
        layer = quantizer()
        layer.usage.fill_(1.0)
        layer.sums.copy_(layer.vectors)
        counts, sums = [1.0] * 6, [vector.clone() for vector in layer.vectors]
        for _ in range(4):
            new_counts, new_sums = [0.0] * 6, [torch.zeros(3, dtype=torch.float64) for _ in range(6)]
            for _ in range(2):
                z = features()
                vectors = layer.vectors.clone()
                for vector in z.movedim(1, -1).flatten(0, -2):
                    code = int((vectors - vector).square().sum(1).argmin())
                    new_counts[code] += 1
                    new_sums[code] += vector
                layer(z)
            seen = layer.take_seen()
            assert len(seen) == 2
            layer.update(Seen(*(sum(parts) for parts in zip(*seen, strict=True))))
            counts = [0.9 * old + 0.1 * new for old, new in zip(counts, new_counts, strict=True)]
            sums = [0.9 * old + 0.1 * new for old, new in zip(sums, new_sums, strict=True)]
            assert min(counts) > DEAD_SHARE * sum(counts) / 6
            torch.testing.assert_close(layer.usage, torch.tensor(counts, dtype=torch.float64))
            expected = torch.stack([s / c for s, c in zip(sums, counts, strict=True)])
            torch.testing.assert_close(layer.vectors, expected)

    @pytest.mark.parametrize("codebook", ["ema", "gradient"])
    def test_dead_codes_start_anew_and_others_stay(self, codebook: str) -> None:
        layer = quantizer(codebook, decay=0.5)
        layer.usage.copy_(torch.tensor([10.0, 10, 10, 1e-3, 10, 0]))
        if codebook == "ema":
            layer.sums.copy_(10 * layer.vectors)
        before = layer.vectors.detach().clone()
        counts = torch.tensor([10.0, 10, 10, 0, 10, 0], dtype=torch.float64)
        candidates = torch.randn(6, 3, dtype=torch.float64)
        layer.update(Seen(counts, 10 * before, candidates))
        dead = torch.tensor([False, False, False, True, False, True])
        assert torch.equal(layer.vectors[dead], candidates[dead])
        torch.testing.assert_close(layer.vectors[~dead].detach(), before[~dead])
        average = (40 + 0.5e-3) / 6
        assert layer.usage[dead].tolist() == pytest.approx([average] * 2)
        if codebook == "ema":  # so that the next step starts from the new vector
            torch.testing.assert_close(layer.sums[dead], average * candidates[dead])

    def test_an_unused_codebook_is_filled_by_the_first_step(self) -> None:
        layer = quantizer()
        layer.vectors.add_(1e3)
        z = features()
        for _ in range(3):
            layer(z)
            (seen,) = layer.take_seen()
            layer.update(seen)
        layer.eval()
        assert len(layer(z).codes.unique()) == 6
        rows = z.movedim(1, -1).flatten(0, -2)
        assert all(bool((rows == candidate).all(1).any()) for candidate in seen.candidates)

    def test_nothing_moves_in_eval_mode(self) -> None:
        layer = quantizer().eval()
        before = [tensor.clone() for tensor in layer.buffers()]
        layer(features())
        assert layer.take_seen() == []
        assert all(torch.equal(a, b) for a, b in zip(before, layer.buffers(), strict=True))

    def test_perplexity(self) -> None:
        assert perplexity([5, 5, 5, 5, 0]) == pytest.approx(4)
        assert perplexity([7, 0]) == 1
        assert perplexity(torch.tensor([3, 1])) == pytest.approx(
            math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
        )


class TestAutoencoder:
    @pytest.mark.parametrize(("shape", "halvings"), [((1, 12, 8), 2), ((3, 4, 6), 1), ((2, 8, 16), 3)])
    def test_shapes(self, shape: tuple[int, int, int], halvings: int) -> None:
        model = VQVAE(shape, levels=11, halvings=halvings, **SMALL)
        x = torch.rand(5, *shape) * 2 - 1
        codes = model.encode(x)
        assert codes.shape == (5, 1, shape[1] >> halvings, shape[2] >> halvings) and codes.dtype == torch.int64
        assert 0 <= int(codes.min()) and int(codes.max()) < 7
        assert model(x).shape == x.shape
        images = model.decode(codes)
        assert images.shape == x.shape and images.dtype == torch.int64
        assert 0 <= int(images.min()) and int(images.max()) < 11

    def test_decoding_codes_is_the_reconstruction(self) -> None:
        model = scramble(VQVAE((1, 12, 8), levels=4, **SMALL)).double()
        x = torch.rand(3, 1, 12, 8, dtype=torch.float64) * 2 - 1
        unit = (model(x).clamp(-1, 1) + 1) / 2
        assert torch.equal(model.decode(model.encode(x)), (3 * unit).round().long())

    def test_the_loss_is_squared_error_and_commitment(self) -> None:
        model = scramble(VQVAE((1, 12, 8), commitment=0.5, **SMALL)).double()
        x = torch.rand(3, 1, 12, 8, dtype=torch.float64) * 2 - 1
        z = model.encoder(x)
        distance = (z - model.quantizer.lookup(model.encode(x)[:, 0])).square().mean()
        expected = (model(x) - x).square().mean() + 0.5 * distance
        torch.testing.assert_close(model.loss(x), expected)

    def test_gradients_reach_every_parameter(self) -> None:
        for codebook in ("ema", "gradient"):
            model = VQVAE((1, 12, 8), codebook=codebook, **SMALL)
            model.loss(torch.rand(3, 1, 12, 8)).backward()
            assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"shape": (1, 10, 8)}, "multiples of 4, not 10x8"),
            ({"shape": (1, 8)}, "shape must be"),
            ({"codes": 1}, "codes must be from 2"),
            ({"codebook": "moving"}, "codebook must be one of ema, gradient"),
            ({"commitment": 0}, "commitment must be a number above 0"),
            ({"decay": 1.0}, "decay must be"),
            ({"halvings": 0}, "halvings must be from 1"),
            ({"form": "square"}, "form must be one of plain, rectified"),
            ({"form": "rectified", "code_width": 3}, "code vectors of its features' width: code_width=64"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(PixelfastError, match=message):
            VQVAE(**({"shape": (1, 12, 8)} | arguments))

    def test_bad_inputs(self) -> None:
        model = VQVAE((1, 12, 8), **SMALL)
        for x in (torch.zeros(1, 2, 12, 8), torch.zeros(1, 1, 12, 8, dtype=torch.int64), torch.zeros(1, 1, 12, 6)):
            with pytest.raises(ShapeError):
                model(x)
        with pytest.raises(ShapeError, match="codes must be integers"):
            model.decode(torch.zeros(1, 1, 2, 3, dtype=torch.int64))


class TestPrior:
    def test_float64_cached_equals_naive(self) -> None:
        model = with_prior(classes=3)
        labels = torch.tensor([0, 1, 2])
        sampler = pixelfast.compile(model, backend="reference", dtype=torch.float64)
        codes = sampler.samplers["codes"].sample(3, seed=2, condition=labels)
        stream = rng.STREAMS["codes"]
        naive = pixelfast.naive_sample(model.prior, 3, seed=2, condition=labels, dtype=torch.float64, stream=stream)
        assert_same_integers(codes, naive)
        images = pixelfast.naive_sample(model, 3, seed=2, condition=labels, dtype=torch.float64)
        assert torch.equal(sampler.sample(3, seed=2, condition=labels), images)

    @pytest.mark.parametrize("classes", [None, 3])
    def test_a_gated_stem(self, classes: int | None) -> None:
        model = with_prior(classes=classes, prior_form="gated_stem", form="rectified", code_width=6)
        labels = None if classes is None else torch.tensor([0, 1, 2])
        sampler = pixelfast.compile(model, backend="reference", dtype=torch.float64)
        naive = pixelfast.naive_sample(model, 3, seed=2, condition=labels, dtype=torch.float64)
        assert_same_integers(sampler.sample(3, seed=2, condition=labels), naive)
        codes = torch.randint(7, (3, 1, 3, 2))
        plain = model.prior.double()(codes, labels)
        torch.testing.assert_close(model.prior.train()(codes, labels), plain)

    def test_the_prior_is_causal_and_reads_every_code_before(self) -> None:
        prior = with_prior((1, 8, 12), prior_dilations=(1, 1, 1)).prior.double()
        codes = torch.zeros(1, 1, 2, 3, dtype=torch.int64)
        base = prior(codes)
        for number in range(6):
            changed = codes.clone().flatten()
            changed[number] = 4
            moved = (prior(changed.view_as(codes)) != base).any(1).flatten()
            assert moved.tolist() == [False] * (number + 1) + [True] * (5 - number)

    def test_the_loss_is_bits_per_code(self) -> None:
        model = with_prior(classes=3).double()
        x = torch.rand(4, 1, 12, 8, dtype=torch.float64) * 2 - 1
        labels = torch.tensor([0, 1, 2, 0])
        codes = model.encode(x)
        sampler = pixelfast.compile(model.prior, backend="reference", dtype=torch.float64)
        bits = sampler.log_prob(codes, labels).mean() / -math.log(2) / 6
        assert model.loss(x, labels).item() == pytest.approx(float(bits), rel=1e-6)

    def test_the_autoencoder_is_frozen(self) -> None:
        model = with_prior().train()
        before = {name: tensor.clone() for name, tensor in model.autoencoder.state_dict().items()}
        model.loss(torch.rand(4, 1, 12, 8)).backward()
        assert all(parameter.grad is None for parameter in model.autoencoder.parameters())
        # A layer's gate of the last block reads no vertical features any more.
        assert sum(parameter.grad is not None for parameter in model.prior.parameters()) > 10
        assert model.autoencoder.quantizer.take_seen() == []
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.autoencoder.state_dict().items())

    def test_what_the_prior_refuses(self) -> None:
        prior = GatedPixelCNN((1, 3, 3), levels=4, hidden=4, dilations=(1,), input="levels")
        with pytest.raises(ShapeError, match="int64"):
            prior(torch.zeros(1, 1, 3, 3))
        with pytest.raises(PixelfastError, match="form='gated_stem' is for codes"):
            GatedPixelCNN((1, 3, 3), levels=4, hidden=4, form="gated_stem")
        with pytest.raises(PixelfastError, match="one channel"):
            GatedPixelCNN((3, 3, 3), levels=4, hidden=4, input="levels")


class TestSampling:
    def test_one_image_per_seed_and_id(self) -> None:
        sampler = pixelfast.compile(with_prior(classes=3))
        labels = torch.arange(7) % 3
        images = sampler.sample(7, seed=9, condition=labels)
        assert images.shape == (7, 1, 12, 8) and images.dtype == torch.uint8
        assert len({image.numpy().tobytes() for image in images}) > 3
        for batch in (1, 2, 3, 7, 16):
            assert torch.equal(sampler.sample(7, seed=9, condition=labels, batch_size=batch), images)
        order = [6, 2, 2, 0]
        some = sampler.sample(4, seed=9, condition=labels[order], sample_ids=order)
        assert torch.equal(some, images[order])
        assert not torch.equal(sampler.sample(7, seed=8, condition=labels), images)

    def test_threads_change_nothing(self) -> None:
        """Large enough for torch to use several threads."""
        sampler = pixelfast.compile(with_prior((1, 64, 64), hidden=32))
        threads = torch.get_num_threads()
        try:
            images = []
            for count in (1, 2, 4):
                torch.set_num_threads(count)
                images.append(sampler.sample(2, seed=1))
                assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])

    def test_codes_have_noise_of_their_own(self) -> None:
        assert (rng.STREAMS["pixels"], rng.STREAMS["codes"]) == (0, 1)  # what a seed means depends on them
        model = with_prior()
        pixels = pixelfast.compile(model.prior)
        codes = pixelfast.compile(model.prior, stream=rng.STREAMS["codes"])
        assert torch.equal(pixelfast.compile(model).samplers["codes"].sample(5), codes.sample(5))
        assert not torch.equal(pixels.sample(5), codes.sample(5))
        assert torch.equal(pixels.sample(5), pixelfast.compile(model.prior, stream=rng.PIXELS).sample(5))

    def test_the_images_are_those_of_the_codes(self) -> None:
        model = with_prior()
        sampler = pixelfast.compile(model)
        codes = sampler.samplers["codes"].sample(4, seed=3)
        images = sampler.sample(4, seed=3)
        assert torch.equal(sampler.decode({"codes": codes}), images)
        # The model itself decodes in float32, all at once: the same but for levels at an edge of rounding.
        assert int((model.decode(codes) - images.long()).abs().max()) <= 1

    def test_weights_are_copied(self) -> None:
        model = with_prior()
        sampler = pixelfast.compile(model)
        images = sampler.sample(2)
        scramble(model)
        assert torch.equal(sampler.sample(2), images)
        assert next(model.parameters()).dtype == torch.float32

    def test_more_levels_than_a_byte_holds(self) -> None:
        images = pixelfast.compile(with_prior(levels=1000)).sample(3)
        assert images.dtype == torch.int64 and int(images.max()) > 255

    def test_stats_and_description(self) -> None:
        sampler = pixelfast.compile(with_prior())
        assert sampler.stats is None
        sampler.sample(3)
        assert sampler.stats.images == sampler.stats.stages["codes"].images == 3
        assert sampler.stats.seconds == sampler.stats.stages["codes"].seconds + sampler.stats.decode_seconds
        assert "then decoded to images (1, 12, 8)" in sampler.describe()

    def test_what_makes_no_sense_is_refused(self) -> None:
        model = with_prior()
        with pytest.raises(PixelfastError, match=r"VQVAEWithPrior samples in stages \(codes\): leave shape out"):
            pixelfast.compile(model, (1, 12, 8))
        with pytest.raises(PixelfastError, match="they must be integers"):
            pixelfast.naive_sample(model, 1, known=torch.zeros(1, 12, 8), mask=torch.ones(1, dtype=torch.bool))
        with pytest.raises(PixelfastError, match="VQVAE does not say its likelihood"):
            pixelfast.compile(model.autoencoder)


@pytest.mark.parametrize("kind", ["vq_vae", "with_prior"])
def test_saved_and_loaded(tmp_path: Path, kind: str) -> None:
    model = with_prior(classes=3, codebook="gradient") if kind == "with_prior" else VQVAE((1, 12, 8), **SMALL)
    pixelfast.save(model, tmp_path / "model.safetensors")
    loaded = pixelfast.load(tmp_path / "model.safetensors")
    assert type(loaded) is type(model) and loaded.config == model.config and not loaded.training
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    if isinstance(loaded, VQVAEWithPrior):
        labels = torch.tensor([0, 2])
        images = pixelfast.compile(model).sample(2, condition=labels)
        assert torch.equal(pixelfast.compile(loaded).sample(2, condition=labels), images)
