"""What is to be sampled: a model, its image shape, likelihood, input and condition, checked and completed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from .errors import PixelfastError, ShapeError, UnsupportedModelError
from .inputs import InputCode, input_code
from .likelihoods import Likelihood
from .trace import Recording, call_model, record, unchanged


@dataclass(frozen=True, eq=False)
class Problem:
    model: Callable[..., Any]
    shape: tuple[int, int, int]
    likelihood: Likelihood
    input: InputCode
    outputs: Callable[[Any], Any] | None
    condition: Any
    """An example with a leading axis of 1, or None."""

    @property
    def numbers(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """The float type the model computes in."""
        for tensor in _tensors(self.model):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.float32

    @property
    def device(self) -> torch.device:
        return next((t.device for t in _tensors(self.model)), torch.device("cpu"))

    def flatten(self, params: Any) -> torch.Tensor:
        """What `outputs` (or forward) returned as (N, P, H, W)."""
        if not isinstance(params, torch.Tensor):
            raise UnsupportedModelError(
                f"the model returned {type(params).__name__}, not a tensor; give outputs=, a function that picks the "
                f"parameters of {self.likelihood}"
            )
        try:
            return self.likelihood.flatten(params, self.shape)
        except ShapeError as error:
            raise ShapeError(f"{error}; outputs= can turn what the model returns into that") from None

    def record(self, levels: torch.Tensor, keep: bool = False, condition: Any = None) -> Recording:
        """Records a forward on levels (N, C, H, W); without a condition every image has the example's."""
        x = self.input.encode(levels.to(self.device, torch.float64), self.dtype)
        condition = _to(self.batch_condition(condition, len(levels)), self.device)
        return record(self.model, x, condition, self.outputs, self.flatten, keep)

    def forward(self, levels: torch.Tensor, condition: Any = None) -> torch.Tensor:
        """The model itself: parameters (N, P, H, W) of float64 levels (N, C, H, W), in the model's own type."""
        x = self.input.encode(levels.to(self.device, torch.float64), self.dtype)
        module = self.model if isinstance(self.model, torch.nn.Module) else None
        with torch.inference_mode(False), unchanged(module), torch.no_grad():
            result = call_model(self.model, x, _to(condition, self.device))
            if self.outputs is not None:
                result = self.outputs(result)
            return self.flatten(result)

    def batch_condition(self, condition: Any, samples: int) -> Any:
        """A condition for `samples` images: each tensor has that many rows, or one row that all share.

        None means the example, which is right only for recording.
        """
        given = self.condition if condition is None else condition
        if given is None:
            return None
        leaves, spec = tree_flatten(given)
        if isinstance(given, dict) and isinstance(self.condition, dict) and given.keys() == self.condition.keys():
            leaves, spec = tree_flatten({key: given[key] for key in self.condition})
        if self.condition is None:
            raise ShapeError(
                "a condition was given, but the model was compiled without one; pass condition= to compile"
            )
        example, example_spec = tree_flatten(self.condition)
        if spec != example_spec:
            raise ShapeError(
                f"the condition is {_describe(given)}; the model was compiled for {_describe(self.condition)}"
            )
        rows = []
        for leaf, like in zip(leaves, example, strict=True):
            if not isinstance(like, torch.Tensor):
                if leaf is not like and leaf != like:
                    raise ShapeError(
                        f"the condition holds {leaf!r}; the model was compiled with {like!r} there, for good"
                    )
                rows.append(like)
                continue
            if not isinstance(leaf, torch.Tensor):
                leaf = _tensor(leaf)
            if leaf.ndim == like.ndim - 1 and leaf.shape == like.shape[1:]:
                leaf = leaf[None]
            if leaf.ndim != like.ndim or leaf.shape[1:] != like.shape[1:] or len(leaf) not in (1, samples):
                wanted = (samples, *like.shape[1:])
                raise ShapeError(
                    f"the condition has a tensor of shape {tuple(leaf.shape)}; {samples} images take {wanted}"
                )
            if leaf.is_floating_point() != like.is_floating_point():
                raise ShapeError(
                    f"the condition has a tensor of {leaf.dtype}; the model was compiled with {like.dtype}"
                )
            if leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
                raise ShapeError("the condition holds NaN or infinite numbers; it takes finite ones")
            rows.append(leaf.to(like.dtype).expand(samples, *like.shape[1:]))
        self._check_labels(rows)
        return tree_unflatten(rows, spec)

    def varied_condition(self, samples: int) -> Any:
        """The example for image 0, and for the others the same with other float numbers."""
        generator = torch.Generator().manual_seed(20160616)

        def vary(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point() or not leaf.ndim:
                return leaf
            noise = torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
            noise[0] = 0
            return leaf.cpu() + noise

        leaves, spec = tree_flatten(self.batch_condition(None, samples))
        return None if self.condition is None else tree_unflatten([vary(leaf) for leaf in leaves], spec)

    def _check_labels(self, rows: list[Any]) -> None:
        config = getattr(self.model, "config", None)
        classes = config.get("classes") if isinstance(config, dict) else None
        if not isinstance(classes, int):
            return
        for row in rows:
            if isinstance(row, torch.Tensor) and not row.is_floating_point() and row.numel():
                low, high = int(row.min()), int(row.max())
                if low < 0 or high >= classes:
                    raise ShapeError(f"label {low if low < 0 else high} is out of range; labels are 0 to {classes - 1}")


def make_problem(
    model: Any,
    shape: tuple[int, int, int] | None,
    likelihood: Likelihood | None,
    input: Any,
    outputs: Callable[[Any], Any] | None,
    condition: Any,
) -> Problem:
    """Fills in what pixelfast's own models know of themselves, and refuses what cannot be."""
    if not callable(model):
        raise UnsupportedModelError(
            f"model is {type(model).__name__}; it must be a torch.nn.Module or a function of tensors"
        )
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    shape = getattr(model, "shape", None) if shape is None else shape
    likelihood = getattr(model, "likelihood", None) if likelihood is None else likelihood
    input = getattr(model, "input", None) if input is None else input
    condition = _example_of(model) if condition is None else condition
    missing = [n for n, v in (("shape", shape), ("likelihood", likelihood), ("input", input)) if v is None]
    if missing:
        raise PixelfastError(
            f"{type(model).__name__} does not say its {', '.join(missing)}; pass {'=, '.join(missing)}="
        )
    if not isinstance(likelihood, Likelihood):
        raise PixelfastError(f"likelihood is {type(likelihood).__name__}; it must be one of pixelfast's likelihoods")
    try:
        sizes = tuple(operator.index(s) for s in shape)  # type: ignore[union-attr]  # caught below
    except TypeError:
        sizes = ()
    if len(sizes) != 3 or min(sizes) < 1:
        raise ShapeError(f"shape is {shape!r}; it must be (channels, height, width), each at least 1")
    if isinstance(model, torch.nn.Module):
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if (
                tensor.is_floating_point()
                and tensor.numel()
                and not all(bool(t.isfinite()) for t in torch.aminmax(tensor.detach()))
            ):
                raise PixelfastError(f"the model's {name} holds NaN or infinite numbers; load sound weights")
    if condition is not None:
        leaves, spec = tree_flatten(condition)
        if any(isinstance(leaf, torch.Tensor) and not leaf.ndim for leaf in leaves):
            raise ShapeError("the condition holds a tensor without axes; its first axis must be the images")
        condition = tree_unflatten(
            [leaf[:1] if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf for leaf in leaves], spec
        )
    full: tuple[int, int, int] = (sizes[0], sizes[1], sizes[2])
    return Problem(model, full, likelihood, input_code(input, likelihood.levels, full[0]), outputs, condition)


def _example_of(model: Any) -> Any:
    """The example of one of pixelfast's own models, in the model's float type."""
    example = getattr(model, "condition_example", None)
    if not isinstance(example, torch.Tensor) or not example.is_floating_point():
        return example
    kinds = [t.dtype for t in _tensors(model) if t.is_floating_point()]
    return example.to(kinds[0]) if kinds else example


def _tensor(value: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"the condition holds {value!r}; it takes tensors or numbers") from None


def _tensors(model: Any) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()] if isinstance(model, torch.nn.Module) else []


def _to(condition: Any, device: torch.device) -> Any:
    leaves, spec = tree_flatten(condition)
    return tree_unflatten([leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], spec)


def _describe(condition: Any) -> str:
    leaves, _ = tree_flatten(condition)
    shapes = [f"{tuple(t.shape)} {t.dtype}" if isinstance(t, torch.Tensor) else repr(t) for t in leaves]
    return f"{type(condition).__name__} of {', '.join(shapes)}"
