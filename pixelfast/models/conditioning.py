"""What an image may be conditioned on: a class label, a vector, or a map of the image's own size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import checks


class ConditionKind:
    """One kind of condition, its check and its zero example.

    At most one of the three is set. `classes`: int64 labels (N,) in [0, classes). `vector`: floats
    (N, vector). `spatial`: floats (N, spatial, H, W).
    """

    def __init__(self, classes: int | None, spatial: int | None, vector: int | None) -> None:
        given = [value for value in (classes, spatial, vector) if value is not None]
        if len(given) > 1:
            raise PixelfastError("a model takes one kind of condition: classes, spatial_condition or vector_condition")
        self.classes = checks.optional_integer("classes", classes, 1, checks.MAX_WIDTH)
        self.spatial = checks.optional_integer("spatial_condition", spatial, 1, checks.MAX_WIDTH)
        self.vector = checks.optional_integer("vector_condition", vector, 1, checks.MAX_WIDTH)

    def __bool__(self) -> bool:
        return (self.classes or self.spatial or self.vector) is not None

    def projection(self, width: int) -> nn.Module | None:
        """A bias-free linear map of the condition to `width` features, or None when there is none."""
        if self.classes is not None:
            embedding = nn.Embedding(self.classes, width)
            nn.init.normal_(embedding.weight, std=0.05)
            return embedding
        if self.spatial is not None:
            return nn.Conv2d(self.spatial, width, 1, bias=False)
        if self.vector is not None:
            return nn.Linear(self.vector, width, bias=False)
        return None

    def example(self, height: int, width: int) -> Tensor | None:
        """A zero condition for one image."""
        if self.classes is not None:
            return torch.zeros(1, dtype=torch.int64)
        if self.spatial is not None:
            return torch.zeros(1, self.spatial, height, width)
        if self.vector is not None:
            return torch.zeros(1, self.vector)
        return None

    def check(self, condition: Tensor | None, x: Tensor) -> None:
        """ShapeError unless `condition` is what a model of this kind takes for images x (N, C, H, W)."""
        images, _, height, width = x.shape
        if not self:
            if condition is not None:
                raise ShapeError("this model takes no condition; leave it out")
            return
        if condition is None:
            raise ShapeError(f"this model needs a condition: {self.describe()}")
        if not isinstance(condition, Tensor):
            raise ShapeError(f"the condition must be {self.describe()}, not a {type(condition).__name__}")
        if self.classes is not None:
            shape: tuple[int, ...] = (images,)
            fits = condition.dtype == torch.int64
        elif self.spatial is not None:
            shape, fits = (images, self.spatial, height, width), condition.is_floating_point()
        else:
            shape, fits = (images, self.vector or 0), condition.is_floating_point()
        if tuple(condition.shape) != shape or not fits:
            given = f"{condition.dtype} {tuple(condition.shape)}"
            raise ShapeError(f"the condition must be {self.describe()} for N = {images} images, not {given}")

    def describe(self) -> str:
        """The accepted dtype, shape and range in words."""
        if self.classes is not None:
            return f"int64 labels (N,) from 0 to {self.classes - 1}"
        if self.spatial is not None:
            return f"a float map (N, {self.spatial}, H, W) of the image's height and width"
        if self.vector is not None:
            return f"a float vector (N, {self.vector})"
        return "none"


def project(projection: nn.Module, condition: Tensor) -> Tensor:
    """The projected condition, broadcastable over (N, width, H, W).

    A label out of range is a ShapeError (on a CPU; other devices have checks of their own, which abort).
    """
    if isinstance(projection, nn.Embedding):
        try:
            features = F.embedding(condition, projection.weight)
        except IndexError:
            low, high = int(condition.min()), int(condition.max())
            raise ShapeError(
                f"class labels must be from 0 to {projection.num_embeddings - 1}, got {low} to {high}"
            ) from None
        return features[:, :, None, None]
    if isinstance(projection, nn.Linear):
        return projection(condition)[:, :, None, None]
    return projection(condition)
