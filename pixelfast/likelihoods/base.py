"""What every likelihood offers: parameters, log-probability, loss, and exact sampling from given uniforms."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pixelfast.errors import PixelfastError, ShapeError

MODES = ("exact", "reference")
"""Sampling modes. They differ only for the mixture, see `DiscretizedLogisticMixture.draw`."""


@dataclass
class PixelState:
    """What the numbers of one pixel know of each other while the pixel is being sampled, for N images.

    Attributes:
        values: float64 (N, C), the channels already settled, in levels (whole numbers in mode "exact") or real.
        known: bool (N, C), channels that were given rather than drawn.
        component: int64 (N,), the mixture component in use, -1 if there is none to choose; only the mixture
            reads or writes it.
    """

    values: torch.Tensor
    known: torch.Tensor
    component: torch.Tensor

    @classmethod
    def start(cls, images: int, channels: int, device: torch.device | None = None) -> PixelState:
        """A pixel of which nothing is settled or given."""
        return cls(
            values=torch.zeros(images, channels, dtype=torch.float64, device=device),
            known=torch.zeros(images, channels, dtype=torch.bool, device=device),
            component=torch.zeros(images, dtype=torch.int64, device=device),
        )


class Likelihood(ABC):
    """Distribution of an image's numbers given the network's output.

    Images are integers x of shape (N, C, H, W), 0 <= x < levels, or, where `continuous`, float32 numbers. `params`
    is what the network returns, in any layout that `flatten` accepts. Numbers are sampled in the order
    (y * W + x) * C + c.
    """

    levels: int
    """0 where numbers are real."""

    @property
    def continuous(self) -> bool:
        """Whether numbers are real, `log_prob` then that of a density."""
        return False

    @property
    def dtype(self) -> torch.dtype:
        """Of sampled images: uint8 for up to 256 levels, else int64; float32 where numbers are real."""
        return torch.uint8 if self.levels <= 256 else torch.int64

    def check(self, x: torch.Tensor) -> None:
        """Refuse what are no images (N, C, H, W) of this likelihood, with a ShapeError."""
        check_images(x, self.levels)

    @abstractmethod
    def parameters(self, channels: int) -> int:
        """P, the number of parameters of one pixel of `channels` channels."""

    @abstractmethod
    def flatten(self, params: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """`params` in the canonical layout (N, P, H, W), by view, permute and reshape alone.

        Args:
            params: floating point, a layout that this likelihood accepts.
            shape: (C, H, W) of the images.

        Raises:
            ShapeError: another layout or dtype; the message names those accepted.
        """

    def unflatten(self, flat: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """The canonical (N, P, H, W) in a layout that `log_prob` and `sample` take; `shape` is (C, H, W)."""
        return flat

    @abstractmethod
    def needs(self, channels: int) -> list[list[int]]:
        """For each channel, the indices into the P parameters that drawing its number takes."""

    @abstractmethod
    def draws(self, channels: int) -> int:
        """D, the number of uniforms that each number takes."""

    @abstractmethod
    def log_prob(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Log-probability in nats of every number given the channels before it, (N, C, H, W).

        In the dtype of `params`, but at least float32. Differentiable in `params`.

        Raises:
            ShapeError: `params` or `x` has a wrong shape, dtype or range.
        """

    @abstractmethod
    def pmf(self, params: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        """Probability of each level of every number, (N, levels, C, H, W).

        Args:
            params: as for `log_prob`.
            x: integers (N, C, H, W). Where a number depends on the channels before it in its pixel, they are
                read from here, and `x` is required.
        """

    @abstractmethod
    def draw(
        self,
        channel: int,
        params: torch.Tensor,
        pixel: PixelState,
        uniforms: torch.Tensor,
        temperature: float = 1.0,
        mode: str = "exact",
    ) -> torch.Tensor:
        """Draw number `channel` of one pixel of N images; the step that every torch sampler uses.

        Computed in float64 whatever the dtype of `params`. `pixel.component` is updated; `pixel.values` is
        the caller's to update. Arguments are trusted, see `check_sampling`.

        Args:
            channel: which channel.
            params: (N, len(needs(C)[channel])), the parameters that `needs` names, in that order.
            pixel: the other channels of the pixel.
            uniforms: float64 (N, D), strictly between 0 and 1.
            temperature: at least 0. Logits are divided by it, scales multiplied by it; 0 gives the mode.
            mode: "exact" or "reference".

        Returns:
            float64 (N,), the value in levels, or real; NaN where the parameters are NaN and define no distribution.
        """

    def settle(self, values: torch.Tensor) -> torch.Tensor:
        """float64 numbers as `draw` gives them, any shape, as an image has them: rounded, int64, or real, float32."""
        return values.round().to(torch.int64)

    def loss(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Mean over images of the negative log-likelihood of an image, in nats. A scalar."""
        return -self.log_prob(params, x).sum() / x.shape[0]

    def sample(
        self, params: torch.Tensor, uniforms: torch.Tensor, temperature: float = 1.0, mode: str = "exact"
    ) -> torch.Tensor:
        """Draw every number of N images of which all parameters are known.

        Args:
            params: as for `log_prob`.
            uniforms: float64 (N, C, H, W, D), strictly between 0 and 1.
            temperature: at least 0; logits are divided by it, scales multiplied by it after their floor.
            mode: "exact" or "reference".

        Returns:
            int64 (N, C, H, W), levels, or float32, real numbers.

        Raises:
            ShapeError: a wrong shape, dtype or range of a tensor.
            PixelfastError: a temperature or mode that does not exist, or parameters that are NaN.
        """
        check_sampling(temperature, mode)
        if uniforms.ndim != 5 or uniforms.dtype != torch.float64:
            raise ShapeError(
                f"uniforms have dtype {uniforms.dtype} and shape {tuple(uniforms.shape)}; "
                "they must be float64 (N, C, H, W, D)"
            )
        n, channels, height, width, draws = uniforms.shape
        if draws != self.draws(channels):
            raise ShapeError(f"uniforms have {draws} draws per number; {self} takes {self.draws(channels)}")
        if not bool(((uniforms > 0) & (uniforms < 1)).all()):
            raise ShapeError("uniforms must lie strictly between 0 and 1")
        flat = self.flatten(params, (channels, height, width))
        if flat.shape[0] != n:
            raise ShapeError(f"params are of {flat.shape[0]} images but uniforms of {n}; they must agree")

        drawn = self.draw_all(flat, uniforms, temperature, mode)
        if bool((drawn.isnan() if self.continuous else drawn < 0).any()):
            raise PixelfastError("params contain NaN: check the model's weights and its condition")
        return drawn

    def draw_all(self, flat: torch.Tensor, uniforms: torch.Tensor, temperature: float, mode: str) -> torch.Tensor:
        """`sample` for checked arguments and the canonical layout, (N, C, H, W).

        Where `draw` gives NaN, levels are -1 and real numbers NaN.
        """
        n, channels, height, width, draws = uniforms.shape
        rows = flat.permute(0, 2, 3, 1).reshape(n * height * width, -1)
        noise = uniforms.permute(1, 0, 2, 3, 4).reshape(channels, n * height * width, draws)
        pixel = PixelState.start(len(rows), channels, rows.device)
        for channel, needed in enumerate(self.needs(channels)):
            own = rows if len(needed) == rows.shape[1] else rows[:, needed]
            pixel.values[:, channel] = self.draw(channel, own, pixel, noise[channel], temperature, mode)
        drawn = self.settle(pixel.values if self.continuous else pixel.values.nan_to_num(nan=-1.0))
        return drawn.reshape(n, height, width, channels).permute(0, 3, 1, 2).contiguous()


def check_sampling(temperature: float, mode: str) -> None:
    """Refuse a temperature that is negative or not finite, and an unknown mode, with a PixelfastError."""
    number = isinstance(temperature, (int, float, np.floating, np.integer)) and not isinstance(temperature, bool)
    if not (number and math.isfinite(temperature) and temperature >= 0):
        raise PixelfastError(f"temperature is {temperature!r}; it must be 0 (the mode) or a positive number")
    if mode not in MODES:
        raise PixelfastError(f"mode is {mode!r}; it must be one of {', '.join(map(repr, MODES))}")


def check_drawn(drawn: torch.Tensor, given: npt.NDArray[np.bool_], number: int, shape: Sequence[int]) -> None:
    """Refuse numbers drawn from parameters that define no distribution, with a PixelfastError.

    Args:
        drawn: float64 (N,), NaN where `draw` found no distribution.
        given: bool (N,), where the number is known and `drawn` is not used.
    """
    bad = torch.isnan(drawn) & ~torch.from_numpy(given)
    if bool(bad.any()):
        pixel, channel = divmod(number, shape[0])
        row, column = divmod(pixel, shape[2])
        image = int(bad.nonzero()[0])
        raise PixelfastError(
            f"the parameters of image {image} at channel {channel}, row {row}, column {column} are NaN or leave no "
            "level possible; check the model's weights and its condition"
        )


def check_images(x: torch.Tensor, levels: int) -> None:
    """Refuse images that are not integers (N, C, H, W) with 0 <= x < levels, with a ShapeError."""
    if x.ndim != 4 or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ShapeError(f"images have dtype {x.dtype} and shape {tuple(x.shape)}; they must be integers (N, C, H, W)")
    if x.numel() and not (x.dtype == torch.uint8 and levels >= 256):
        lowest, highest = (int(end) for end in torch.aminmax(x))
        if lowest < 0 or highest >= levels:
            raise ShapeError(f"images have values from {lowest} to {highest}; they must be from 0 to {levels - 1}")


def check_params(params: torch.Tensor, accepted: Sequence[tuple[int, ...]], name: str) -> None:
    """Refuse params that are not floating point (N, *shape) for an accepted shape, with a ShapeError."""
    if params.ndim > 0 and params.is_floating_point() and tuple(params.shape[1:]) in accepted:
        return
    layouts = " or ".join("(N, " + ", ".join(map(str, shape)) + ")" for shape in accepted)
    raise ShapeError(
        f"params have dtype {params.dtype} and shape {tuple(params.shape)}; {name} takes floating point {layouts}"
    )


def check_batch(params: torch.Tensor, x: torch.Tensor) -> None:
    """Refuse params and images of different numbers of images, with a ShapeError."""
    if params.shape[0] != x.shape[0]:
        raise ShapeError(f"params are of {params.shape[0]} images but x of {x.shape[0]}; they must agree")


def check_levels(levels: int) -> None:
    """Refuse fewer than two levels, with a PixelfastError."""
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
        raise PixelfastError(f"levels is {levels!r}; it must be at least 2, a whole number")


def at_least_float32(params: torch.Tensor) -> torch.Tensor:
    """`params`, in float32 if their own precision is lower: half precisions cannot resolve 256 levels."""
    return params if params.dtype in (torch.float32, torch.float64) else params.float()
