"""VQ-VAE: an autoencoder between images and small maps of codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import checks
from pixelfast.models.autoencoder_parts import Decoder, Encoder, RectifiedDecoder, RectifiedEncoder
from pixelfast.models.vector_quantizer import VectorQuantizer

MAX_HALVINGS = 8
FORMS = ("plain", "rectified")


class VQVAE(nn.Module):
    """VQ-VAE (van den Oord et al. 2017, "Neural Discrete Representation Learning"): images to codes and back.

    Input x: float (N, C, H, W), levels scaled to [-1, 1]. Output: the reconstruction, the same shape, not clamped. It
    is no distribution of images: what samples codes is `VQVAEWithPrior`.

    Arguments:
        shape: (C, H, W) of the images; H and W multiples of 2**halvings.
        levels: number of values a channel takes, 2 to 65536.
        hidden, residual_blocks, residual_hidden: features, residual blocks of encoder and decoder, and features
            inside a block.
        halvings: how often the encoder halves height and width.
        codes: size of the codebook.
        code_width: length of its vectors.
        codebook, decay, commitment: see `VectorQuantizer`.
        form: "plain", the paper's network, or "rectified", the PyTorch one most people have: residual blocks pass on
            what is not negative only, features are the code vectors' own (code_width is hidden), and images end in
            a tanh.

    Raises ShapeError for a bad shape or input, PixelfastError for any other bad argument.
    """

    loss_unit = "squared error"
    input = "signed"
    condition_example = None

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
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        self.levels = checks.integer("levels", levels, 2, 1 << 16)
        hidden = checks.integer("hidden", hidden, 1, checks.MAX_WIDTH)
        residual_blocks = checks.integer("residual_blocks", residual_blocks, 0, 128)
        residual_hidden = checks.integer("residual_hidden", residual_hidden, 1, checks.MAX_WIDTH)
        halvings = checks.integer("halvings", halvings, 1, MAX_HALVINGS)
        channels, height, width = self.shape
        self.stride = 2**halvings
        if height % self.stride or width % self.stride:
            raise ShapeError(f"height and width must be multiples of {self.stride}, not {height}x{width}")
        self.code_shape = (1, height // self.stride, width // self.stride)
        """(1, h, w) of the map of codes."""
        self.quantizer = VectorQuantizer(codes, code_width, codebook, decay, commitment)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if checks.choice("form", form, FORMS) == "rectified":
            if code_width != hidden:
                raise PixelfastError(f"form='rectified' has code vectors of its features' width: code_width={hidden}")
            self.encoder = RectifiedEncoder(channels, hidden, residual_blocks, residual_hidden, halvings)
            self.decoder = RectifiedDecoder(hidden, residual_blocks, residual_hidden, channels, halvings)
        else:
            self.encoder = Encoder(channels, hidden, residual_blocks, residual_hidden, code_width, halvings)
            self.decoder = Decoder(code_width, hidden, residual_blocks, residual_hidden, channels, halvings)
        self.config: dict[str, Any] = {
            "shape": list(self.shape),
            "levels": self.levels,
            "hidden": hidden,
            "residual_blocks": residual_blocks,
            "residual_hidden": residual_hidden,
            "halvings": halvings,
            "codes": codes,
            "code_width": code_width,
            "codebook": codebook,
            "decay": decay,
            "commitment": commitment,
            "form": form,
        }

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.quantizer(self._features(x)).vectors)

    def loss(self, x: Tensor, condition: None = None) -> Tensor:
        """What training minimises: mean squared error per number of x, plus the quantiser's. In training mode the
        quantiser notes what it sees, see `VectorQuantizer.update`."""
        quantised = self.quantizer(self._features(x))
        return F.mse_loss(self.decoder(quantised.vectors).to(x.dtype), x) + quantised.loss

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The codes of images x, float (N, C, H, W) in [-1, 1]: int64 (N, 1, h, w)."""
        features = self._features(x)
        return self.quantizer.nearest(features.to(self.quantizer.vectors.dtype))[:, None]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes, integers (N, 1, h, w): int64 levels (N, C, H, W)."""
        if tuple(codes.shape[1:]) != self.code_shape or codes.is_floating_point():
            raise ShapeError(
                f"codes must be integers (N, {', '.join(map(str, self.code_shape))}), got {codes.dtype} "
                f"{tuple(codes.shape)}"
            )
        return levels_of_signed(self.decoder(self.quantizer.lookup(codes[:, 0].long())), self.levels)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The images of the codes of images x, float (N, C, H, W) in [-1, 1]: int64 levels (N, C, H, W)."""
        return self.decode(self.encode(x))

    @property
    def quantizers(self) -> dict[str, VectorQuantizer]:
        """The codebook of each map of codes, of which there is one here."""
        return {"codes": self.quantizer}

    def _features(self, x: Tensor) -> Tensor:
        checks.float_images(x, self.shape[0])
        if x.shape[2] % self.stride or x.shape[3] % self.stride:
            raise ShapeError(f"height and width must be multiples of {self.stride}, not {x.shape[2]}x{x.shape[3]}")
        return self.encoder(x)


def levels_of_signed(signed: Tensor, levels: int) -> Tensor:
    """Floats as an autoencoder reconstructs them, levels scaled to [-1, 1] -> the nearest levels, int64."""
    return ((signed + 1) * (0.5 * (levels - 1))).round().clamp(0, levels - 1).long()
