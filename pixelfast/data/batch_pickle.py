"""CIFAR-10's Python batches read without unpickling them.

A pickle is a program for a stack machine, and Python's own machine calls whatever the file names. The one here
knows only the instructions that build what these files hold: dicts, lists, tuples, byte strings, text, small
integers and numpy arrays of unsigned bytes. It calls nothing, imports nothing, and refuses any other instruction or
class by name.

The instructions are those of pickle protocols 2 to 4, as Python 2 and 3 write them; the standard library's
pickletools takes them apart.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelfast.errors import PixelfastError

# How numpy writes an array: _reconstruct(ndarray, (0,), b"b") makes an empty one, its state fills it.
_RECONSTRUCT = ("numpy.core.multiarray", "_reconstruct")
_RECONSTRUCT_NUMPY_2 = ("numpy._core.multiarray", "_reconstruct")
_NDARRAY = ("numpy", "ndarray")
_DTYPE = ("numpy", "dtype")
_KNOWN = (_RECONSTRUCT, _RECONSTRUCT_NUMPY_2, _NDARRAY, _DTYPE)


@dataclass(frozen=True)
class _Name:
    """A class or function that the file names. Never looked up."""

    module: str
    name: str


class _Bytes:
    """Stands for numpy's dtype of unsigned bytes."""


class _Array:
    """An array that its state has not filled yet, or has."""

    values: np.ndarray | None = None


class _Mark:
    """A mark on the stack."""


def read_batch_pickle(content: bytes, where: object) -> dict[Any, Any]:
    """The dict in a pickle of a CIFAR-10 batch; arrays are uint8, text of Python 2 is bytes.

    Raises PixelfastError for a damaged file, and for a pickle that holds anything else: then the message names the
    class or the instruction, and nothing was built or called.
    """
    try:
        value = _unwrap(_Machine(where).run(content))
    # pickletools and the machine say so where the bytes are no pickle; the rest are values in the wrong place.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise PixelfastError(f"{where} is a damaged pickle ({reason}); copy it again") from error
    if not isinstance(value, dict):
        raise PixelfastError(f"{where} holds a {type(value).__name__}; a CIFAR-10 batch is a dict")
    return value


def _unwrap(value: Any) -> Any:
    """The dict at the top with arrays as numpy arrays. Below it CIFAR-10's files hold none."""
    if not isinstance(value, dict):
        return value
    return {key: each.values if isinstance(each, _Array) else each for key, each in value.items()}


class _Machine:
    """One run over one file."""

    def __init__(self, where: object) -> None:
        self._where = where
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                break
            if opcode.name in _LITERALS:
                self._stack.append(_LITERALS[opcode.name](argument))
            elif opcode.name in _INSTRUCTIONS:
                _INSTRUCTIONS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME"):
                raise PixelfastError(
                    f"{self._where} is refused: its pickle has the instruction {opcode.name}, which no CIFAR-10 batch "
                    "needs; nothing of it was run"
                )
        if len(self._stack) != 1:
            raise ValueError(f"{len(self._stack)} values at its end")
        return self._stack.pop()

    def _pop(self) -> Any:
        value = self._stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("a mark where a value belongs")
        return value

    def _pop_to_mark(self) -> list[Any]:
        places = range(len(self._stack) - 1, -1, -1)
        at = next((place for place in places if isinstance(self._stack[place], _Mark)), None)
        if at is None:
            raise ValueError("a mark is missing")
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _put(self, number: int | None) -> None:
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    def _get(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def _tuple(self, length: int) -> None:
        values = [self._pop() for _ in range(length)]
        self._stack.append(tuple(reversed(values)))

    def _append(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise ValueError("items for what is no list")
        self._stack[-1].extend(values)

    def _set(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict) or len(values) % 2:
            raise ValueError("pairs for what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, bytes | str):
                raise ValueError("a key that is no text")
            self._stack[-1][key] = value

    def _name(self, argument: Any) -> None:
        """`argument` is 'module name'. Refuses all but numpy's array, which is not looked up either."""
        module, _, name = argument.partition(" ")
        if (module, name) not in _KNOWN:
            raise PixelfastError(
                f"{self._where} is refused: its pickle asks for {module}.{name}, and a CIFAR-10 batch holds only "
                "dicts, lists, byte strings and uint8 arrays; nothing of it was run"
            )
        self._stack.append(_Name(module, name))

    def _stack_name(self) -> None:
        name, module = self._pop(), self._pop()
        self._name(f"{_text(module)} {_text(name)}")

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        called = (function.module, function.name) if isinstance(function, _Name) else None
        if called == _DTYPE and arguments and _text(arguments[0]) == "u1":
            self._stack.append(_Bytes())
        elif called in (_RECONSTRUCT, _RECONSTRUCT_NUMPY_2) and arguments and arguments[0] == _Name(*_NDARRAY):
            self._stack.append(_Array())
        elif called == _DTYPE and arguments:
            raise PixelfastError(f"{self._where} holds an array of {_text(arguments[0])!r}; CIFAR-10 has u1 (uint8)")
        else:
            raise ValueError("a call of what is no array")

    def _build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, _Bytes):
            return
        if not isinstance(target, _Array) or target.values is not None:
            raise ValueError("a state for what is no array")
        _, shape, dtype, fortran_order, values = state
        if not isinstance(dtype, _Bytes) or not isinstance(values, bytes):
            raise ValueError("an array without bytes")
        target.values = np.frombuffer(values, dtype=np.uint8).reshape(shape, order="F" if fortran_order else "C")


def _text(value: Any) -> str:
    if not isinstance(value, bytes | str):
        raise ValueError(f"a {type(value).__name__} where text belongs")
    return value.decode("latin-1") if isinstance(value, bytes) else value


# pickletools gives the byte strings of Python 2 as text of the same code points.
_LITERALS: dict[str, Callable[[Any], Any]] = {
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "MARK": lambda _: _Mark(),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "BININT": lambda argument: argument,
    "BININT1": lambda argument: argument,
    "BININT2": lambda argument: argument,
    "BINSTRING": lambda argument: argument.encode("latin-1"),
    "SHORT_BINSTRING": lambda argument: argument.encode("latin-1"),
    "BINBYTES": lambda argument: argument,
    "SHORT_BINBYTES": lambda argument: argument,
    "BINUNICODE": lambda argument: argument,
    "SHORT_BINUNICODE": lambda argument: argument,
}

_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._put,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine._pop_to_mark())),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "APPEND": lambda machine, _: machine._append([machine._pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._pop_to_mark()),
    "SETITEM": lambda machine, _: machine._set([machine._pop(), machine._pop()][::-1]),
    "SETITEMS": lambda machine, _: machine._set(machine._pop_to_mark()),
    "GLOBAL": _Machine._name,
    # The old way to make an object. CIFAR-10 has none, and so it is refused by its class.
    "INST": _Machine._name,
    "STACK_GLOBAL": lambda machine, _: machine._stack_name(),
    "REDUCE": lambda machine, _: machine._reduce(),
    "BUILD": lambda machine, _: machine._build(),
}
