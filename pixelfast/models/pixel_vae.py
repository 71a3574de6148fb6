"""PixelVAE with one level of latents: a VAE whose pixels also see those before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pixelfast.models import checks
from pixelfast.models.conditional_layers import ConditionalLayers
from pixelfast.models.one_level import OneLevel
from pixelfast.models.pixel_likelihood import pixel_likelihood
from pixelfast.models.vector_coders import Coding

FORMS = ("features", "bias")


class PixelVAE(OneLevel):
    """PixelVAE (Gulrajani et al. 2017, "PixelVAE: A Latent Variable Model for Natural Images"), one level of latents.

    A few gated PixelCNN layers draw the pixels: details are theirs, and the latents say what the image is of.
    `forward` takes integers (N, C, H, W). `compile` samples in two stages, "latents" and "pixels".

    Arguments, beside those of `VAE`:
        layers: gated PixelCNN layers after a first masked 7x7 convolution of the image. 0: a `VAE`.
        form: "features": the latents are decoded to a map that the layers read beside the image; "bias": a linear map
            of them is added before the gates of every layer, without a decoder, as the paper does for MNIST.
        features: of the decoder's map.
        pixel_hidden: features of the layers.

    Raises ShapeError for a bad shape or input, PixelfastError for any other bad argument.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        likelihood: str = "bernoulli",
        levels: int = 2,
        mixtures: int = 5,
        latents: int = 32,
        network: str = "convolutional",
        hidden: int = 64,
        blocks: int = 1,
        halvings: int = 2,
        layers: int = 1,
        form: str = "features",
        features: int = 32,
        pixel_hidden: int = 32,
        kl_weight: float = 1.0,
    ) -> None:
        shape = checks.image_shape(shape)
        latents = checks.integer("latents", latents, 1, checks.MAX_WIDTH)
        coding = Coding(network, hidden, blocks, halvings)
        pixels = pixel_likelihood(likelihood, levels, mixtures, shape[0])
        layers = checks.integer("layers", layers, 0, 128)
        form = checks.choice("form", form, FORMS)
        features = checks.integer("features", features, 1, checks.MAX_WIDTH)
        decoder = None
        if form == "features":
            channels = features if layers else pixels.parameters(shape[0])
            decoder = coding.decoder(latents, (channels, *shape[1:]))
        config: dict[str, Any] = {
            "shape": list(shape),
            "likelihood": likelihood,
            "levels": levels,
            "mixtures": mixtures,
            "latents": latents,
            "network": network,
            "hidden": hidden,
            "blocks": blocks,
            "halvings": halvings,
            "layers": layers,
            "form": form,
            "features": features,
            "pixel_hidden": pixel_hidden,
            "kl_weight": kl_weight,
        }
        network_of_pixels = ConditionalLayers(shape, pixels, (latents, 1, 1), decoder, features, layers, pixel_hidden)
        super().__init__(coding.encoder(shape, 2 * latents), network_of_pixels, kl_weight, config)
