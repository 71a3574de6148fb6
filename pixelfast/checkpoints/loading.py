"""load() and save()."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from pixelfast.checkpoints import native
from pixelfast.checkpoints.atomic import write_atomically
from pixelfast.checkpoints.containers import Contents, brief, check_values, read
from pixelfast.checkpoints.layouts.base import Converted, Hints
from pixelfast.checkpoints.recognise import by_name, recognise, without_data_parallel
from pixelfast.checkpoints.shapes import check_shapes
from pixelfast.checkpoints.tensor_bundle import index_of
from pixelfast.checkpoints.unfilled import Unfilled
from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.models import registry


def load(
    path: str | os.PathLike[str],
    layout: str | None = None,
    *,
    shape: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
) -> nn.Module:
    """The model in a checkpoint, in eval mode on the CPU, in the dtype of the file.

    Arguments:
        path: a file written by `save`, or a safetensors, .npz, PyTorch or TensorFlow file of a foreign layout. PyTorch
            files are read with weights_only=True and nothing else; loading never runs code. Of TensorFlow's several
            files any one, or their common prefix.
        layout: "pixelfast", "uvadlc", "pclucas14", "openai-tf1", "rosinality", "ritheshkumar95" or "taimir"; recognised
            from the names and shapes when left out.
        shape: (C, H, W), for foreign layouts, which do not record it.
        dilations: one per layer, for "uvadlc" files, which do not record them.

    Raises CheckpointError, in one line, for anything but a complete checkpoint of a known layout: every
    tensor must be used, none may be missing.
    """
    path = index_of(Path(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise CheckpointError(f"{path}: not a regular file; a checkpoint is one file")
    contents = read(path)
    try:
        converted = _convert(contents, layout, Hints(shape, dilations, contents.arguments))
        model = _build(converted)
    except PixelfastError as error:
        raise CheckpointError(f"{path}: {error}") from None
    # Finite numbers can be converted to others: a batch norm of negative variance, folded into its convolution.
    check_values(path, model.state_dict())
    return model


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes one of pixelfast's own models: weights and configuration in one safetensors file.

    The file appears whole or not at all; a link is followed. Raises CheckpointError when the weights are not finite or
    the file cannot be written, PixelfastError for a model of another class.
    """
    path = Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise CheckpointError(f"{path}: cannot be written: it is there and not a regular file")
    description = native.describe(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    check_values(path, tensors)
    content = safetensors.torch.save(tensors, metadata={native.NAME: description})
    try:
        write_atomically(path, content)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be written: {brief(error)}") from None


def _convert(contents: Contents, layout: str | None, hints: Hints) -> Converted:
    description = contents.metadata.get(native.NAME)
    if layout == native.NAME or (layout is None and description is not None):
        if description is None:
            raise CheckpointError(f"not a {native.NAME} file: its metadata has no description of a model")
        if (hints.shape, hints.dilations) != (None, None):
            raise CheckpointError("a pixelfast file records its shape and dilations; leave both out")
        return Converted(*native.parse(description), contents.tensors)
    tensors = without_data_parallel(contents.tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    foreign = recognise(shapes) if layout is None else by_name(layout)
    return foreign.convert(tensors, hints)


def _build(converted: Converted) -> nn.Module:
    # Sizes come from a file: the model is first built without memory, and built for good only when it needs
    # exactly the tensors that the file has.
    with torch.device("meta"), Unfilled():
        needed = registry.create(converted.model, **converted.config).state_dict()
    check_shapes(
        {name: tuple(tensor.shape) for name, tensor in converted.tensors.items()},
        {name: tuple(tensor.shape) for name, tensor in needed.items()},
    )
    dtypes = {tensor.dtype for tensor in converted.tensors.values()}
    if len(dtypes) != 1:
        raise CheckpointError(f"tensors of several dtypes: {', '.join(sorted(map(str, dtypes)))}")
    with Unfilled():
        model = registry.create(converted.model, **converted.config)
    model.to(dtypes.pop())
    model.load_state_dict(converted.tensors, strict=True)
    return model.eval()
