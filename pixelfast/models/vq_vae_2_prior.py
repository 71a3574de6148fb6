"""VQ-VAE-2 with priors: PixelSNAILs draw the coarse map of codes and the fine one given it, and a decoder the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelfast.errors import PixelfastError
from pixelfast.models import checks
from pixelfast.models.conditional_pixel_snail import ConditionalPixelSNAIL
from pixelfast.models.vq_vae_2 import VQVAE2
from pixelfast.stage import Drawn, Stage

DERIVED = ("shape", "levels", "condition_shape", "condition_levels")
"""Arguments of the priors that the autoencoder decides."""
BOTTOM: dict[str, Any] = {"heads": 0}
"""What the bottom prior has unless told otherwise: its map is too large for attention (section 3.2)."""


class VQVAE2WithPriors(nn.Module):
    """A VQ-VAE-2 and the distribution of its codes (Razavi, van den Oord and Vinyals 2019), for sampling.

    The top prior is a `ConditionalPixelSNAIL` with attention, the bottom prior one without, conditional on the top
    map. Training fits the priors alone: the autoencoder is trained before, and frozen.

    Arguments: those of `VQVAE2`, and
        top, bottom: arguments of the priors by name, see `ConditionalPixelSNAIL`, but for shapes and levels, which
            follow from the maps.

    Raises ShapeError for a bad shape, PixelfastError for any other bad argument.
    """

    loss_unit = "bits/code"
    input = "signed"
    condition_example = None

    def __init__(
        self,
        shape: Sequence[int] = (3, 256, 256),
        levels: int = 256,
        hidden: int = 128,
        residual_blocks: int = 2,
        residual_hidden: int = 32,
        halvings: int = 2,
        codes: int = 512,
        code_width: int = 64,
        codebook: str = "ema",
        decay: float = 0.99,
        commitment: float = 0.25,
        bottom_dropout: float = 0.0,
        top: Mapping[str, Any] | None = None,
        bottom: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.autoencoder = VQVAE2(
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
            bottom_dropout,
        ).requires_grad_(False)
        self.shape, self.levels = self.autoencoder.shape, self.autoencoder.levels
        shapes = self.autoencoder.code_shapes
        self.top = _prior("top", top, {"shape": shapes["top"], "levels": codes})
        self.bottom = _prior(
            "bottom",
            {**BOTTOM, **(bottom or {})} if isinstance(bottom, Mapping | None) else bottom,
            {"shape": shapes["bottom"], "levels": codes, "condition_shape": shapes["top"]},
        )
        self.config: dict[str, Any] = {
            **self.autoencoder.config,
            "top": _given(self.top),
            "bottom": _given(self.bottom),
        }
        self.train(self.training)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What samples: the top prior, then the bottom prior given its codes."""
        return (Stage("top", self.top), Stage("bottom", self.bottom, _top_of))

    def train(self, mode: bool = True) -> VQVAE2WithPriors:
        """As any module, but the autoencoder stays in eval mode: its codebooks must not move."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def forward(self, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        """The priors' logits (N, codes, 1, h, w) of codes int64 (N, 1, h, w), of both maps."""
        return self.top(top), self.bottom(bottom, top)

    def loss(self, x: Tensor, condition: None = None) -> Tensor:
        """What training minimises: bits per code of all codes of images x, float (N, C, H, W) in [-1, 1]."""
        # In low precision some features would fall to other codes than those the model is used with.
        with torch.autocast(x.device.type, enabled=False):
            codes = self.encode(x)
        numbers = {name: map_[0].numel() for name, map_ in codes.items()}
        bits = self.bits_per_code(codes)
        return sum((bits[name] * numbers[name] for name in bits), x.new_zeros(())) / sum(numbers.values())

    def bits_per_code(self, codes: Mapping[str, Tensor], condition: None = None) -> dict[str, Tensor]:
        """What each prior gives a code of its map on average, in bits."""
        logits = dict(zip(codes, self(codes["top"], codes["bottom"]), strict=True))
        bits = {}
        for stage in self.stages:
            nats = stage.network.likelihood.loss(logits[stage.name].float(), codes[stage.name])
            bits[stage.name] = nats / (codes[stage.name][0].numel() * math.log(2))
        return bits

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """The codes of images x, see `VQVAE2.encode`."""
        return self.autoencoder.encode(x)

    def decode(self, top: Tensor, bottom: Tensor) -> Tensor:
        """The images of codes, see `VQVAE2.decode`."""
        return self.autoencoder.decode(top, bottom)


def _top_of(drawn: Drawn, condition: Any) -> Tensor:
    return drawn["top"].long()


def _prior(name: str, given: Mapping[str, Any] | None, derived: dict[str, Any]) -> ConditionalPixelSNAIL:
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise PixelfastError(f"{name} must be arguments of its prior by name, not {type(given).__name__}")
    accepted = checks.arguments(ConditionalPixelSNAIL)
    for key in given:
        if key in DERIVED or key not in accepted:
            known = ", ".join(one for one in accepted if one not in DERIVED)
            raise PixelfastError(f"{name} has {str(key)[:40]!r}; its prior takes {known}")
    return ConditionalPixelSNAIL(**derived, **given)


def _given(prior: ConditionalPixelSNAIL) -> dict[str, Any]:
    return {key: value for key, value in prior.config.items() if key not in DERIVED}
