"""The header of NumPy's .npy format: what is in an array before any of it is read.

Format: "\\x93NUMPY", version, length of the header, a Python literal with dtype, order and shape (NumPy
Enhancement Proposal 1). Arrays of Python objects, which are pickles, are refused.
"""

from __future__ import annotations

import math
import tokenize
from dataclasses import dataclass
from typing import IO

import numpy as np

from pixelfast.errors import PixelfastError

MAGIC = b"\x93NUMPY"
# Longest start of a file that a header is looked for in. NumPy itself reads at most 10,000 characters.
MAX_HEADER = 16_384


@dataclass(frozen=True)
class Header:
    """An array's dtype, shape and order, and where in the file its values start."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool
    offset: int

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, buffer: object) -> np.ndarray:
        """The array over a buffer of its values, without a copy."""
        order = "F" if self.fortran_order else "C"
        return np.frombuffer(buffer, dtype=self.dtype).reshape(self.shape, order=order)  # type: ignore[call-overload]  # "C" or "F"


def read_header(file: IO[bytes], length: int, where: object) -> Header:
    """The header at the start of `file`, which is `length` bytes long with its values.

    Raises PixelfastError when it is damaged, announces objects, or values that do not fill the file exactly.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"version {version}")
    # What numpy lets through when the literal in the header is damaged.
    except (ValueError, SyntaxError, TypeError, KeyError, tokenize.TokenError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise PixelfastError(f"{where} is no readable .npy array ({reason}); save it again with numpy.save") from error
    if dtype.hasobject:
        raise PixelfastError(f"{where} holds Python objects, which are not read; save it as an array of numbers")
    header = Header(dtype, shape, fortran_order, file.tell())
    found = length - header.offset
    if any(size < 0 for size in shape) or header.bytes != found:
        what = "truncated" if found < header.bytes else "too long"
        raise PixelfastError(
            f"{where} is {what}: {dtype} {shape} needs {header.bytes} bytes, it holds {found}; save it again"
        )
    return header
