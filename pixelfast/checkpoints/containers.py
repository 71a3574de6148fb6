"""Reading named tensors from a file: safetensors, NumPy's .npz, a PyTorch file through its restricted unpickler, or
TensorFlow's.

Nothing read here can run code, and no tensor may claim more bytes than its file has.
"""

from __future__ import annotations

import argparse
import math
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import safe_globals

from pixelfast.checkpoints.protobuf import Malformed
from pixelfast.checkpoints.tensor_bundle import is_table, read_bundle
from pixelfast.errors import CheckpointError, PixelfastError

FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
NUMPY_DTYPES = ("float64", "float32", "float16")
ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02"
MOST_TENSORS = 1 << 16
MOST_PACKED = 8
"""So many times larger than its file may what it unpacks to be."""
PLAIN = (int, float, str, bool)


@dataclass(frozen=True)
class Contents:
    """What a file holds: float tensors on the CPU by name, and text metadata (safetensors only).

    arguments: of an argparse.Namespace beside the tensors (PyTorch files only), by name, unchecked.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    arguments: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> Contents:
    """The tensors of a safetensors, .npz, PyTorch or TensorFlow file: by its first or last bytes, and what a zip holds.

    Raises CheckpointError, in one line, for a file that is missing, unreadable, damaged or of another kind.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        size = path.stat().st_size
        table = is_table(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {brief(error)}") from None
    if start.startswith(ZIP_MAGIC) and _holds_arrays(path):
        contents = Contents(_read_npz(path), {})
    elif start.startswith((ZIP_MAGIC, LEGACY_MAGIC)):
        contents = _read_torch(path, size)
    elif start[8:] == b"{":
        contents = _read_safetensors(path)
    elif table:
        contents = Contents(_read_tensorflow(path), {})
    else:
        raise CheckpointError(
            f"{path}: neither a safetensors nor a PyTorch nor an .npz nor a TensorFlow file; save the model with "
            "pixelfast.save"
        )
    check_values(path, contents.tensors)
    return contents


def check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """CheckpointError naming the first tensor that holds a NaN or an infinity."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: {brief(name)} holds NaN or infinite values")


def brief(value: object) -> str:
    """Text of an error or a name from a file, cut to one printable line of at most 200 characters."""
    text = (value.strerror if isinstance(value, OSError) else None) or str(value).strip()
    text = text or type(value).__name__
    line = text.splitlines()[0][:201]
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= 200 else line[:197] + "..."


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            if len(names) > MOST_TENSORS:
                raise CheckpointError(f"{path}: has {len(names)} tensors, more than {MOST_TENSORS}")
            tensors = {}
            for name in names:
                dtype = file.get_slice(name).get_dtype()
                if dtype not in FLOAT_DTYPES:
                    accepted = ", ".join(sorted(FLOAT_DTYPES))
                    raise CheckpointError(f"{path}: {brief(name)} is {brief(dtype)}; accepted are {accepted}")
                tensors[name] = file.get_tensor(name)
            return Contents(tensors, file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"{path}: damaged safetensors file: {brief(error)}") from None


def _read_tensorflow(path: Path) -> dict[str, Tensor]:
    try:
        return read_bundle(path)
    except Malformed as error:
        raise CheckpointError(f"{path}: damaged TensorFlow checkpoint: {brief(error)}") from None
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise CheckpointError(f"{path}: {missing}, which belongs to it, is not beside it") from None
    except (OSError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"{path}: cannot be read: {brief(error)}") from None


def _holds_arrays(path: Path) -> bool:
    """Whether all members of a zip archive are NumPy arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path) -> dict[str, Tensor]:
    # Here, because importing pixelfast does not load the data sets and the library of pictures.
    from pixelfast.data.named_arrays import NpzFile

    try:
        arrays = NpzFile(path)
        if len(arrays.headers) > MOST_TENSORS:
            raise CheckpointError(f"{path}: has {len(arrays.headers)} arrays, more than {MOST_TENSORS}")
        unpacked = sum(math.prod(header.shape) * header.dtype.itemsize for header in arrays.headers.values())
        if unpacked > MOST_PACKED * path.stat().st_size:
            raise CheckpointError(
                f"{path}: unpacks to {unpacked:,} bytes, more than {MOST_PACKED} times the file; weights do not pack "
                "so well"
            )
        tensors = {}
        for name, header in arrays.headers.items():
            if header.dtype.newbyteorder("=").name not in NUMPY_DTYPES:
                accepted = ", ".join(NUMPY_DTYPES)
                raise CheckpointError(f"{path}: {brief(name)} is {brief(header.dtype)}; accepted are {accepted}")
            tensors[name] = torch.from_numpy(np.array(arrays.array(name), dtype=header.dtype.newbyteorder("=")))
        return tensors
    except CheckpointError:
        raise
    except (PixelfastError, OSError, ValueError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"{path}: damaged .npz file: {brief(error)}") from None


def _read_torch(path: Path, size: int) -> Contents:
    _require_safe_torch(path)
    _refuse_compressed(path, size)
    try:
        # Its warnings about odd files would stand before our one line.
        with warnings.catch_warnings(), safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    # The restricted unpickler raises almost any exception on damaged files; every one means "refused".
    except Exception as error:
        raise CheckpointError(
            f"{path}: torch refuses to load it with weights_only=True (damaged, or more than plain tensors): "
            f"{brief(error)}"
        ) from None
    tensors = _state_dict(path, loaded)
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > size:
        raise CheckpointError(f"{path}: its tensors claim more bytes than the file has")
    return Contents(tensors, {}, _arguments(loaded))


def _arguments(loaded: Any) -> dict[str, Any]:
    """What people keep of their command line beside the tensors, as far as it is numbers and words."""
    given = loaded.get("args") if isinstance(loaded, dict) else None
    if not isinstance(given, argparse.Namespace):
        return {}
    return {name: value for name, value in vars(given).items() if isinstance(name, str) and type(value) in PLAIN}


def _require_safe_torch(path: Path) -> None:
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 10):
        raise CheckpointError(
            f"{path}: PyTorch files are read with torch 2.10 or later only (CVE-2026-24747), this is "
            f"{torch.__version__}; update torch, or convert the file to safetensors elsewhere"
        )


def _refuse_compressed(path: Path, size: int) -> None:
    """torch.save stores without compression; anything else is not its work and could be a zip bomb."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged PyTorch file: {brief(error)}") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path}: a PyTorch file is not compressed inside; this one is")
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(f"{path}: its entries claim more bytes than the file has")


def _state_dict(path: Path, loaded: Any) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(f"{path}: holds no dictionary of tensors (a state_dict)")
    # How many batches a batch norm has seen, the one whole number in common checkpoints: nothing is computed with it.
    loaded = {name: value for name, value in loaded.items() if not str(name).endswith(".num_batches_tracked")}
    if len(loaded) > MOST_TENSORS:
        raise CheckpointError(f"{path}: has {len(loaded)} tensors, more than {MOST_TENSORS}")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: entry {brief(name)} of the state_dict is not a tensor")
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or not tensor.is_floating_point():
            raise CheckpointError(
                f"{path}: {brief(name)} is not a dense float tensor, as all are in the layouts known "
                "here; for a network of your own, load it into its module and use pixelfast.compile"
            )
    return {name: tensor.detach() for name, tensor in loaded.items()}
