"""Diagonal BiLSTM of taimir/pixel-rnn-lasagne, for images of one colour and two levels.

An .npz file whose arrays have numbers for names: a 7x7 stem, per layer the left-to-right and the right-to-left LSTM,
and three 1x1 convolutions. What lies under the stem's mask is not zero in the file. The state-to-state bias is one
number; the first state is zero.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pixelfast.checkpoints.layouts.base import Converted, Hints, Shapes, image_shape
from pixelfast.checkpoints.shapes import check_shapes
from pixelfast.errors import CheckpointError

NAME = "taimir"

STEM, HEAD = 2, 6
"""Arrays of the stem and of the three convolutions at the end."""
DIRECTION = 4
LAYER = 2 * DIRECTION
KERNEL = 7
SIDE = 28


def recognises(shapes: Shapes) -> bool:
    """Numbered arrays, as many as some number of layers has, the first a 7x7 kernel."""
    named = [f"arr_{i}" for i in range(len(shapes))]
    layers, rest = divmod(len(shapes) - STEM - HEAD, LAYER)
    return layers > 0 and rest == 0 and set(shapes) == set(named) and shapes["arr_0"][2:] == (KERNEL, KERNEL)


def convert(tensors: Mapping[str, Tensor], hints: Hints) -> Converted:
    """See `layouts.base.Layout`. The shape is 28 x 28 unless `hints` says otherwise."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if not recognises(shapes):
        raise CheckpointError(
            f"{len(shapes)} arrays are not those of a Diagonal BiLSTM, which are arr_0 and on, {STEM + HEAD} and "
            f"{LAYER} per layer"
        )
    if hints.dilations is not None:
        raise CheckpointError("a Diagonal BiLSTM has no dilations; leave `dilations` out")
    layers = (len(shapes) - STEM - HEAD) // LAYER
    hidden, head = shapes["arr_0"][0], (shapes[f"arr_{STEM + LAYER * layers}"] or (0,))[0]
    check_shapes(shapes, _needed_shapes(hidden, head, layers))
    arrays = [tensors[f"arr_{i}"] for i in range(len(tensors))]
    ours = {"stem.weight": arrays[0][:, :, : KERNEL // 2 + 1], "stem.bias": arrays[1]}
    for layer in range(layers):
        for direction in range(2):
            first = STEM + layer * LAYER + direction * DIRECTION
            name = f"blocks.{layer}.directions.{direction}"
            ours[f"{name}.input_to_state.weight"] = arrays[first]
            ours[f"{name}.input_to_state.bias"] = arrays[first + 1]
            ours[f"{name}.state_to_state.weight"] = arrays[first + 2]
            ours[f"{name}.state_to_state.bias"] = arrays[first + 3].repeat(4 * hidden)
            for state in ("hidden", "cell"):
                ours[f"{name}.state_to_state.{state}"] = arrays[first].new_zeros(hidden)
    for i, name in enumerate(("mix.0", "mix.1", "head")):
        first = STEM + layers * LAYER + 2 * i
        ours[f"{name}.weight"], ours[f"{name}.bias"] = arrays[first], arrays[first + 1]
    config = {
        "shape": image_shape(hints, 1, SIDE),
        "kind": "diagonal_bilstm",
        "levels": 2,
        "layers": layers,
        "hidden": hidden,
        "features": hidden,
        "head": head,
        "input": "unit",
    }
    return Converted("pixel_rnn", config, ours)


def _needed_shapes(hidden: int, head: int, layers: int) -> Shapes:
    direction = [(4 * hidden, hidden, 1, 1), (4 * hidden,), (4 * hidden, hidden, 2), (1,)]
    shapes = [
        (hidden, 1, KERNEL, KERNEL),
        (hidden,),
        *(2 * layers * direction),
        *((head, hidden, 1, 1), (head,), (head, head, 1, 1), (head,), (1, head, 1, 1), (1,)),
    ]
    return {f"arr_{i}": shape for i, shape in enumerate(shapes)}
