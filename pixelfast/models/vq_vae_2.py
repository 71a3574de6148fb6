"""VQ-VAE-2: an autoencoder between images and two maps of codes, a coarse one and a fine one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast.errors import ShapeError
from pixelfast.models import checks
from pixelfast.models.autoencoder_parts import Decoder, ResidualBlock
from pixelfast.models.vector_quantizer import Quantised, VectorQuantizer
from pixelfast.models.vq_vae import MAX_HALVINGS, levels_of_signed


class Features(nn.Module):
    """(N, channels, H, W) -> (N, hidden, H / 2**halvings, W / 2**halvings), none of them negative.

    Each halving is a convolution of kernel 4 and stride 2, the first to half of the features; then one of kernel 3
    and residual blocks.
    """

    def __init__(self, channels: int, hidden: int, blocks: int, inner: int, halvings: int) -> None:
        super().__init__()
        widths = [channels, max(1, hidden // 2), *[hidden] * (halvings - 1)]
        self.halvings = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.near = nn.Conv2d(widths[-1], hidden, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, inner) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for halving in self.halvings:
            x = F.relu(halving(x))
        x = self.near(x)
        for block in self.blocks:
            x = block(x)
        return F.relu(x)


class VQVAE2(nn.Module):
    """VQ-VAE-2's autoencoder of two levels (Razavi, van den Oord and Vinyals 2019), as in the PyTorch port most
    people have.

    The bottom map has a code per square of 2**halvings pixels, the top map one per four of those; the bottom's
    features are quantised given the top's codes. Input x: float (N, C, H, W), levels scaled to [-1, 1]. Output: the
    reconstruction, the same shape, not clamped. What samples codes is `VQVAE2WithPriors`.

    Arguments:
        shape: (C, H, W) of the images; H and W multiples of 2**(halvings + 1).
        levels: number of values a channel takes, 2 to 65536.
        hidden, residual_blocks, residual_hidden: features, residual blocks of every encoder and decoder, and
            features inside a block.
        halvings: how often height and width are halved down to the bottom map.
        codes: size of each of the two codebooks.
        code_width: length of their vectors.
        codebook, decay, commitment: see `VectorQuantizer`.
        bottom_dropout: share of the images in training whose bottom codes the decoder does not see. 0 is the paper's;
            of images as small as MNIST's the bottom map then tells everything and the top map nothing.

    Source: "Generating Diverse High-Fidelity Images with VQ-VAE-2", section 3.1. Raises ShapeError for a bad shape or
    input, PixelfastError for any other bad argument.
    """

    loss_unit = "squared error"
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
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        self.levels = checks.integer("levels", levels, 2, 1 << 16)
        hidden = checks.integer("hidden", hidden, 1, checks.MAX_WIDTH)
        blocks = checks.integer("residual_blocks", residual_blocks, 0, 128)
        inner = checks.integer("residual_hidden", residual_hidden, 1, checks.MAX_WIDTH)
        halvings = checks.integer("halvings", halvings, 1, MAX_HALVINGS)
        self.bottom_dropout = checks.fraction("bottom_dropout", bottom_dropout)
        channels, height, width = self.shape
        self.stride = 2 ** (halvings + 1)
        if height % self.stride or width % self.stride:
            raise ShapeError(f"height and width must be multiples of {self.stride}, not {height}x{width}")
        top = (1, height // self.stride, width // self.stride)
        self.code_shapes = {"top": top, "bottom": (1, 2 * top[1], 2 * top[2])}
        """(1, h, w) of both maps of codes."""
        self.quantizer_top = VectorQuantizer(codes, code_width, codebook, decay, commitment)
        self.quantizer_bottom = VectorQuantizer(codes, code_width, codebook, decay, commitment)
        self.encoder_bottom = Features(channels, hidden, blocks, inner, halvings)
        self.encoder_top = Features(hidden, hidden, blocks, inner, 1)
        self.to_top = nn.Conv2d(hidden, code_width, 1)
        self.decoder_top = Decoder(code_width, hidden, blocks, inner, code_width, 1)
        self.to_bottom = nn.Conv2d(code_width + hidden, code_width, 1)
        self.doubling_top = nn.ConvTranspose2d(code_width, code_width, 4, stride=2, padding=1)
        self.decoder = Decoder(2 * code_width, hidden, blocks, inner, channels, halvings)
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
            "bottom_dropout": self.bottom_dropout,
        }

    @property
    def quantizers(self) -> dict[str, VectorQuantizer]:
        """The codebook of each map."""
        return {"top": self.quantizer_top, "bottom": self.quantizer_bottom}

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = self._quantised(x)
        return self._image(top.vectors, bottom.vectors)

    def loss(self, x: Tensor, condition: None = None) -> Tensor:
        """What training minimises: mean squared error per number of x, plus both quantisers'. In training mode those
        note what they see, see `VectorQuantizer.update`."""
        top, bottom = self._quantised(x)
        seen = bottom.vectors
        if self.training and self.bottom_dropout:
            seen = seen * (torch.rand(len(x), 1, 1, 1, device=x.device) >= self.bottom_dropout)
        image = self._image(top.vectors, seen)
        return F.mse_loss(image.to(x.dtype), x) + top.loss + bottom.loss

    @torch.no_grad()
    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """The codes of images x, float (N, C, H, W) in [-1, 1]: int64 (N, 1, h, w) for "top" and "bottom"."""
        features = self._bottom_features(x)
        kind = self.quantizer_top.vectors.dtype
        top = self.quantizer_top.nearest(self._top_features(features).to(kind))
        given = self.decoder_top(self.quantizer_top.lookup(top))
        bottom = self.quantizer_bottom.nearest(self._joined(given, features).to(kind))
        return {"top": top[:, None], "bottom": bottom[:, None]}

    @torch.no_grad()
    def decode(self, top: Tensor, bottom: Tensor) -> Tensor:
        """The images of codes, integers (N, 1, h, w) of both maps: int64 levels (N, C, H, W)."""
        vectors = []
        for (name, quantizer), codes in zip(self.quantizers.items(), (top, bottom), strict=True):
            shape = self.code_shapes[name]
            if tuple(codes.shape[1:]) != shape or codes.is_floating_point():
                raise ShapeError(
                    f"the {name} codes must be integers (N, {', '.join(map(str, shape))}), got {codes.dtype} "
                    f"{tuple(codes.shape)}"
                )
            vectors.append(quantizer.lookup(codes[:, 0].long()))
        return levels_of_signed(self._image(*vectors), self.levels)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The images of the codes of images x, float (N, C, H, W) in [-1, 1]: int64 levels (N, C, H, W)."""
        return self.decode(**self.encode(x))

    def _quantised(self, x: Tensor) -> tuple[Quantised, Quantised]:
        """What the quantisers make of the features of both maps."""
        features = self._bottom_features(x)
        top = self.quantizer_top(self._top_features(features))
        return top, self.quantizer_bottom(self._joined(self.decoder_top(top.vectors), features))

    def _bottom_features(self, x: Tensor) -> Tensor:
        checks.float_images(x, self.shape[0])
        if x.shape[2] % self.stride or x.shape[3] % self.stride:
            raise ShapeError(f"height and width must be multiples of {self.stride}, not {x.shape[2]}x{x.shape[3]}")
        return self.encoder_bottom(x)

    def _top_features(self, features: Tensor) -> Tensor:
        return self.to_top(self.encoder_top(features))

    def _joined(self, given: Tensor, features: Tensor) -> Tensor:
        """The bottom's features, which know what the top's codes say already."""
        return self.to_bottom(torch.cat((given, features), dim=1))

    def _image(self, top: Tensor, bottom: Tensor) -> Tensor:
        return self.decoder(torch.cat((self.doubling_top(top), bottom), dim=1))
