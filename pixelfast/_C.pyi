"""The extension built from csrc/: the engine of the CPU backend."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

class Engine:
    """A program packed for one instruction set. The arguments are `pixelfast.program.Program`'s, as tuples:

    buffers: (constant, channels, slots, data or None).
    kernels: (sites, register widths, contraction or None, loads, instructions, stores), where
        contraction: (register, columns, terms, bias or None, segments of each pattern, pattern of each site, precision
            of sources and weights, scales of the columns or None);
        term: (buffer, table, start, count, weight float64 (count, columns), for int8 integers from -127 to 127);
        segments: int32 (n, 4), each (term, first channel, channels, whether a block of the sum ends);
        load: (register, buffer, table or -1, start, count, channel numbers or None);
        instruction: (operation, register, start, width, arguments, reduction or None);
        reduction: (outer, inner, count);
        argument: a number or (register, start, stride);
        store: (register, start, count, buffer, table, channel).
    input: (buffers by channel or -1, scale, offset, table or None).
    outputs: (buffer, table) by channel.
    head: ("categorical" | "mixture" | "bernoulli" | "gaussian", levels or 0, mixtures or 0).

    Raises ValueError for a malformed program and for an instruction set that the CPU lacks.
    """

    def __init__(
        self,
        *,
        isa: str,
        precision: str,
        shape: Sequence[int],
        buffers: list[Any],
        tables: list[Any],
        kernels: list[Any],
        tasks: npt.NDArray[np.int32],
        sites: npt.NDArray[np.int32],
        input: tuple[Any, ...],
        outputs: Sequence[tuple[int, int]],
        head: tuple[str, int, int],
        lookahead: int,
        ahead_tables: list[Any],
    ) -> None: ...
    def run(
        self,
        *,
        samples: int,
        seed: int,
        stream: int,
        sample_ids: npt.NDArray[np.uint32],
        conditions: list[tuple[int, npt.NDArray[np.float64]]],
        temperature: float,
        reference: bool,
        known: npt.NDArray[np.int64 | np.float32] | None,
        mask: npt.NDArray[np.bool_] | None,
        on_row: Callable[[int, npt.NDArray[Any]], None] | None,
        collect_parameters: bool,
        threads: int,
        last_number: int,
        sharing: str,
        lookahead: int,
        profile: bool,
    ) -> tuple[npt.NDArray[Any], list[npt.NDArray[np.float32]], dict[str, Any]]:
        """Images (samples, C, H, W), int64 or float32 for "gaussian", parameters by channel, and figures of the run.

        Raises ValueError for arguments that do not fit the program, FloatingPointError where the network's
        outputs are not numbers, KeyboardInterrupt, and whatever on_row raises.
        """

    def plan(self, samples: int) -> dict[str, Any]:
        """`threads` and `sharing` of a batch, and estimated `seconds` of either way of sharing."""

    @property
    def isa(self) -> str: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def arena_bytes(self) -> int: ...

def available_isas(precision: str = "float32") -> list[str]:
    """Instruction sets that this CPU runs, best first. `precision`: "float32", "bfloat16" or "int8"."""

def largest_tile(isa: str, precision: str) -> tuple[int, int]:
    """Rows, and vectors of columns, of the largest tile of a contraction."""

def time_tiles(
    isa: str, precision: str, rows: int, vectors: int, channels: int, bytes: int
) -> tuple[float, int]:
    """Seconds of multiplying about `bytes` of weights by such tiles on one thread, and the number of weights."""

def elementwise_names() -> dict[str, int]:
    """Elementwise operations and how many arguments each takes."""

def philox4x32(counter: npt.NDArray[np.uint32], key: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Philox4x32-10 of counters (n, 4) under a key (2,)."""

def noise_words(seed: int, sample: int, number: int, draws: int, stream: int, isa: str) -> npt.NDArray[np.uint32]:
    """The first draws of one number, as the kernels of an instruction set make them."""

def max_threads() -> int:
    """Threads that OpenMP would give to a parallel region."""

# Convolutions and gates. A tensor is its address and its four strides in elements; the memory is trusted.

_Tensor = tuple[int, tuple[int, ...]] | None

def conv(
    *,
    dtype: str,
    activation: str,
    sizes: tuple[int, int, int, int, int],
    kernel: tuple[int, int, int, int, int, int],
    dropout: tuple[int, float, int] | None,
    x: _Tensor,
    condition: _Tensor,
    weight: int,
    threads: int,
    bias: int | None,
    added: _Tensor,
    out: _Tensor,
) -> None:
    """out <- bias + added + the convolution of activation(x); see csrc/ops_conv.h.

    dtype: "float32" | "float64" | "bfloat16" | "float16", of every tensor; activation: "none" | "concat_elu" | "tanh" |
    "linear"; sizes: (images, channels of x, outputs, height, width); kernel: (rows, columns, top, left, row dilation,
    column dilation); dropout: (threshold, scale, seed); weight, bias: addresses of dense memory.
    """

def conv_gradient(
    *,
    dtype: str,
    activation: str,
    sizes: tuple[int, int, int, int, int],
    kernel: tuple[int, int, int, int, int, int],
    dropout: tuple[int, float, int] | None,
    x: _Tensor,
    condition: _Tensor,
    weight: int,
    threads: int,
    out_gradient: _Tensor,
    x_gradient: _Tensor,
    weight_gradient: int | None,
    bias_gradient: int | None,
) -> None:
    """The gradients that are asked for, from that of `conv`'s result."""

def conv_scratch_bytes(
    *, dtype: str, activation: str, sizes: tuple[int, int, int, int, int], kernel: tuple[int, int, int, int, int, int]
) -> int:
    """Bytes that each thread works in."""

def gate(
    *,
    dtype: str,
    activation: str,
    sizes: tuple[int, int, int, int],
    x: _Tensor,
    condition: _Tensor,
    threads: int,
    residual: _Tensor,
    out: _Tensor,
) -> None:
    """out <- residual + the gate of x + condition; sizes: (images, channels of out, height, width)."""

def gate_gradient(
    *,
    dtype: str,
    activation: str,
    sizes: tuple[int, int, int, int],
    x: _Tensor,
    condition: _Tensor,
    threads: int,
    out_gradient: _Tensor,
    x_gradient: _Tensor,
) -> None:
    """x_gradient <- the gradient in x, from that of `gate`'s result."""

def mixture_loss(
    *,
    shape: tuple[int, ...],
    mixtures: int,
    levels: int,
    params: tuple[int, str, tuple[int, ...]],
    x: tuple[int, str, tuple[int, ...]],
    nats: tuple[int, str, tuple[int, ...]],
    threads: int,
) -> None:
    """Writes -log p of each pixel of images of a shape (N, C, H, W) under their mixtures.

    Tensors are (address, dtype, strides in elements of image, plane, row and column); the memory is trusted. `params`:
    10 or 3 planes per component; `nats`: one plane, float64 if `params` is and else float32.
    """

def mixture_loss_gradient(
    *,
    shape: tuple[int, ...],
    mixtures: int,
    levels: int,
    params: tuple[int, str, tuple[int, ...]],
    x: tuple[int, str, tuple[int, ...]],
    nats_gradient: tuple[int, str, tuple[int, ...]],
    gradient: tuple[int, str, tuple[int, ...]],
    threads: int,
) -> None:
    """Writes the gradient with respect to `params`, of their dtype, given that with respect to `nats`."""

# Gated blocks; see csrc/ops_gated_block.h. Weights and biases in the order vertical, horizontal, link, mix.

_Addresses = tuple[int | None, ...]

def gated_block(
    *,
    dtype: str,
    gates_v: bool,
    sizes: tuple[int, int, int, int],
    reach: int,
    dilation: int,
    v: _Tensor,
    v_condition: _Tensor,
    h: _Tensor,
    h_condition: _Tensor,
    weights: _Addresses,
    threads: int,
    biases: _Addresses,
    above: _Tensor,
    left: _Tensor,
    out: _Tensor,
) -> None:
    """above, left, out <- the block of v and h; sizes: those of h."""

def gated_block_gradient(
    *,
    dtype: str,
    gates_v: bool,
    sizes: tuple[int, int, int, int],
    reach: int,
    dilation: int,
    v: _Tensor,
    v_condition: _Tensor,
    h: _Tensor,
    h_condition: _Tensor,
    weights: _Addresses,
    threads: int,
    above: _Tensor,
    left: _Tensor,
    above_gradient: _Tensor,
    out_gradient: _Tensor,
    v_gradient: _Tensor,
    h_gradient: _Tensor,
    left_gradient: _Tensor,
    weight_gradients: _Addresses,
    bias_gradients: _Addresses,
) -> None:
    """The gradients that are asked for, from those of above (None where it is zero) and out."""

def gated_block_scratch_bytes(
    *, dtype: str, gates_v: bool, sizes: tuple[int, int, int, int], reach: int, dilation: int
) -> int:
    """Bytes that each thread works in."""
