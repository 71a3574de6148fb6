"""VQ-VAE with a prior: a Gated PixelCNN draws codes, the VQ-VAE's decoder turns them into an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelfast.models import checks
from pixelfast.models.gated_pixelcnn import GatedPixelCNN
from pixelfast.models.vq_vae import VQVAE
from pixelfast.stage import Stage


class VQVAEWithPrior(nn.Module):
    """A VQ-VAE and the distribution of its codes (van den Oord et al. 2017, section 3.2), for sampling.

    The prior is a `GatedPixelCNN` of the map of codes, each code read through an embedding. Training fits the prior
    alone: the autoencoder is trained before, and frozen.

    Arguments: those of `VQVAE`, and
        prior_hidden, prior_dilations, prior_kernel_size, prior_form: of the prior, see `GatedPixelCNN`.
        classes: number of classes; `condition` is then int64 labels (N,).

    Raises ShapeError for a bad shape or condition, PixelfastError for any other bad argument.
    """

    loss_unit = "bits/code"
    input = "signed"

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int = 256,
        hidden: int = 64,
        residual_blocks: int = 2,
        residual_hidden: int = 32,
        halvings: int = 2,
        codes: int = 128,
        code_width: int = 32,
        codebook: str = "ema",
        decay: float = 0.99,
        commitment: float = 0.25,
        form: str = "plain",
        prior_hidden: int = 64,
        prior_dilations: Sequence[int] = (1, 1, 1, 1),
        prior_kernel_size: int = 3,
        classes: int | None = None,
        prior_form: str = "plain",
    ) -> None:
        super().__init__()
        self.autoencoder = VQVAE(
            shape,
            levels,
            hidden,
            residual_blocks,
            residual_hidden,
            halvings,
            codes,
            code_width,
            codebook,
            decay,
            commitment,
            form,
        ).requires_grad_(False)
        self.shape, self.levels = self.autoencoder.shape, self.autoencoder.levels
        self.prior = GatedPixelCNN(
            self.autoencoder.code_shape,
            levels=codes,
            hidden=checks.integer("prior_hidden", prior_hidden, 1, checks.MAX_WIDTH),
            dilations=checks.integers("prior_dilations", prior_dilations, 1, checks.MAX_SIDE, 128),
            kernel_size=checks.odd("prior_kernel_size", prior_kernel_size, 3, 63),
            classes=classes,
            input="levels",
            form=prior_form,
        )
        self.config: dict[str, Any] = {
            **self.autoencoder.config,
            "prior_hidden": prior_hidden,
            "prior_dilations": list(prior_dilations),
            "prior_kernel_size": prior_kernel_size,
            "classes": classes,
            "prior_form": prior_form,
        }
        self.train(self.training)

    @property
    def condition_example(self) -> Tensor | None:
        """A zero condition for one image, or None."""
        return self.prior.condition_example

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What samples: the prior."""
        return (Stage("codes", self.prior),)

    def train(self, mode: bool = True) -> VQVAEWithPrior:
        """As any module, but the autoencoder stays in eval mode: its codebook must not move."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def forward(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """The prior's logits (N, codes, 1, h, w) of codes int64 (N, 1, h, w)."""
        return self.prior(codes, condition)

    def loss(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """What training minimises: bits per code of the codes of images x, float (N, C, H, W) in [-1, 1]."""
        # In low precision some features would fall to other codes than those the model is used with.
        with torch.autocast(x.device.type, enabled=False):
            codes = self.encode(x)
        return self.bits_per_code({"codes": codes}, condition)["codes"]

    def bits_per_code(self, codes: Mapping[str, Tensor], condition: Tensor | None = None) -> dict[str, Tensor]:
        """What the prior gives a code of a map int64 (N, 1, h, w) on average, in bits, by the map's name."""
        (map_,) = codes.values()
        nats = self.prior.likelihood.loss(self.prior(map_, condition).float(), map_)
        return {"codes": nats / (map_[0].numel() * math.log(2))}

    def encode(self, x: Tensor) -> Tensor:
        """The codes of images x, see `VQVAE.encode`."""
        return self.autoencoder.encode(x)

    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes, see `VQVAE.decode`."""
        return self.autoencoder.decode(codes)
