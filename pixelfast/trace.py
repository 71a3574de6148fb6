"""Records what an eager model does: every ATen operation, with its storages, strides and source line."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .errors import PixelfastError, UnsupportedModelError

_TORCH_FOLDER = os.path.dirname(torch.__file__)
_OWN_FOLDER = os.path.dirname(__file__)


@dataclass(frozen=True)
class Ref:
    """A strided window of a storage; two tensors that share a storage share its number."""

    storage: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """This window of a flat tensor that stands for the storage."""
        return flat.as_strided(self.size, self.stride, self.offset)


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """The arguments of an operator with `function` applied inside tuples, lists and dicts."""
    if type(value) is tuple or type(value) is list:
        return type(value)([map_leaves(function, item) for item in value])
    if type(value) is dict:
        return {key: map_leaves(function, item) for key, item in value.items()}
    return function(value)


def leaves_of(value: Any) -> list[Any]:
    """Everything inside tuples, lists and dicts, in order."""
    found: list[Any] = []
    map_leaves(found.append, value)
    return found


@dataclass
class Call:
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Any]
    where: str

    @property
    def name(self) -> str:
        """The operator without its overload, such as `aten.mul`."""
        return f"{self.op.namespace}.{self.op._schema.name.split('::')[1]}"

    def __str__(self) -> str:
        return f"{self.name} ({self.where})"


@dataclass
class Recording:
    """The calls of one forward, in order."""

    calls: list[Call]
    inputs: dict[str, Ref]
    """`x`, and `condition/<i>` for the i-th tensor of the condition."""
    output: Any
    leaves: dict[int, torch.Tensor]
    """Flat contents, as first seen, of storages that no call made: parameters, buffers, constants."""
    numel: dict[int, int]
    output_tensor: torch.Tensor | None = None
    results: list[list[Any]] = field(default_factory=list)
    """Copies of what each call returned, when asked to keep them."""

    @property
    def tolerance(self) -> float:
        """Share of the largest parameter by which two ways of computing may differ: a few roundings of the coarsest
        float type that the model uses."""
        kinds = {
            o.dtype for call in self.calls for o in call.outputs if isinstance(o, Ref) and o.dtype.is_floating_point
        }
        return max([2e-3, *(8 * torch.finfo(kind).eps for kind in kinds)])


class Recorder(TorchDispatchMode):
    """Use `record`, which restores the model afterwards."""

    def __init__(self, model: torch.nn.Module | None, keep: bool) -> None:
        super().__init__()
        self.results: list[list[Any]] | None = [] if keep else None
        self.calls: list[Call] = []
        self.leaves: dict[int, torch.Tensor] = {}
        self.numel: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._alive: list[StorageWeakRef] = []
        """Keeps the identity of every storage from being used again, not its memory."""
        self._leaf_tensors: dict[int, torch.Tensor] = {}
        self.changed: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._path: list[str] = []
        self._op: Any = "the input"
        self._names = {id(module): name for name, module in model.named_modules()} if model is not None else {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Recording never happens under torch.compile; importing its machinery would take a second."""
        return False

    def ref(self, tensor: torch.Tensor, made: bool) -> Ref:
        """`made`: the tensor comes out of a call; otherwise a storage not seen before is a leaf."""
        if tensor.layout is not torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise UnsupportedModelError(
                f"{self._op} ({self._where()}) takes or gives a tensor of {tensor.dtype}, {tensor.layout}; only "
                "dense real tensors are supported"
            )
        storage = tensor.untyped_storage()
        number = self._numbers.get(storage._cdata)
        if number is None:
            number = self._numbers[storage._cdata] = len(self._numbers)
            self._alive.append(StorageWeakRef(storage))
            self.numel[number] = storage.nbytes() // tensor.element_size()
            if not made:
                flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage)
                self.leaves[number] = self._leaf_tensors[number] = flat
        return Ref(number, int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._op = op
        if torch.Tag.nondeterministic_seeded in op.tags and not _is_identity(op, args, kwargs):
            raise UnsupportedModelError(
                f"{op} ({self._where()}) draws random numbers in evaluation mode; its outcome would be frozen. "
                "Make the model deterministic in eval() (F.dropout needs training=self.training)"
            )
        refs, krefs = map_leaves(lambda a: self.ref(a, False) if isinstance(a, torch.Tensor) else a, (args, kwargs))
        self._keep_changed(op, args, kwargs)
        result = op(*args, **kwargs)
        outputs = [self.ref(r, True) if isinstance(r, torch.Tensor) else r for r in leaves_of(result)]
        self.calls.append(Call(op, refs, krefs, outputs, self._where()))
        if self.results is not None:
            self.results.append([r.clone() if isinstance(r, torch.Tensor) else r for r in leaves_of(result)])
        return result

    def _keep_changed(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a leaf is written to: keep what it was, for the recording and to give the model back unchanged."""
        if not op._schema.is_mutable:
            return
        for argument, value in zip(op._schema.arguments, [*args, *kwargs.values()], strict=False):
            if argument.alias_info is None or not argument.alias_info.is_write or not isinstance(value, torch.Tensor):
                continue
            number = self._numbers[value.untyped_storage()._cdata]
            flat = self._leaf_tensors.pop(number, None)
            if flat is not None:
                self.leaves[number] = flat.clone()
                self.changed.append((flat, self.leaves[number]))

    def _where(self) -> str:
        path = self._path[-1] if self._path else ""
        frame = sys._getframe(1)
        while frame is not None and frame.f_code is not record.__code__:
            file = frame.f_code.co_filename
            if not file.startswith((_TORCH_FOLDER, "<")) and file != __file__ and "contextlib" not in file:
                line = f"{os.path.basename(file)}:{frame.f_lineno}"
                return f"{path}, {line}" if path else line
            frame = frame.f_back  # type: ignore[assignment]
        return path or "?"

    def enter(self, module: torch.nn.Module, *_: Any) -> None:
        self._path.append(self._names.get(id(module), type(module).__name__))

    def leave(self, *_: Any) -> None:
        if self._path:
            self._path.pop()


def _is_identity(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Dropout outside training is tagged random too, and does nothing."""
    name = op._schema.name
    if name == "aten::native_dropout":
        return (args[2] if len(args) > 2 else kwargs.get("train")) is False
    return name in ("aten::dropout", "aten::feature_dropout") and (args[2] if len(args) > 2 else True) is False


def record(
    model: Callable[..., Any],
    x: torch.Tensor,
    condition: Any = None,
    outputs: Callable[[Any], Any] | None = None,
    flatten: Callable[[torch.Tensor], torch.Tensor] | None = None,
    keep: bool = False,
) -> Recording:
    """Runs `model(x, condition)` in evaluation mode and records it; the model is unchanged afterwards.

    `outputs` and `flatten` are traced along after `forward`.
    """
    module = model if isinstance(model, torch.nn.Module) else None
    leaves, spec = tree_flatten(condition)
    with torch.inference_mode(False), unchanged(module), torch.no_grad(), _plain_operations(module):
        recorder = Recorder(module, keep)
        x = x.clone(memory_format=torch.contiguous_format)
        leaves = [
            leaf.clone(memory_format=torch.contiguous_format) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in leaves
        ]
        inputs = {"x": recorder.ref(x, True)}
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                inputs[f"condition/{i}"] = recorder.ref(leaf, True)
        before = torch.nn.modules.module.register_module_forward_pre_hook(recorder.enter)
        after = torch.nn.modules.module.register_module_forward_hook(recorder.leave, always_call=True)
        try:
            with recorder:
                result = call_model(model, x, tree_unflatten(leaves, spec) if condition is not None else None)
                if outputs is not None:
                    result = outputs(result)
                if flatten is not None:
                    result = flatten(result)
        except PixelfastError:
            raise
        except Exception as error:
            raise UnsupportedModelError(
                f"the model's forward failed on an input of shape {tuple(x.shape)}, {x.dtype} ({_raised_at(error)}): "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error
        finally:
            before.remove()
            after.remove()
            with torch.no_grad():
                for flat, old in reversed(recorder.changed):
                    flat.copy_(old)
        output = tree_map(lambda r: recorder.ref(r, False) if isinstance(r, torch.Tensor) else r, result)
    final = result.detach().cpu() if isinstance(result, torch.Tensor) else None
    return Recording(recorder.calls, inputs, output, recorder.leaves, recorder.numel, final, recorder.results or [])


def _raised_at(error: BaseException) -> str:
    """The innermost line of the user's code."""
    lines = [
        f"{os.path.basename(entry.filename)}:{entry.lineno}"
        for entry in traceback.extract_tb(error.__traceback__)
        if not entry.filename.startswith((_TORCH_FOLDER, _OWN_FOLDER))
    ]
    return lines[-1] if lines else type(error).__name__


def call_model(model: Callable[..., Any], x: torch.Tensor, condition: Any) -> Any:
    """A tuple or list condition goes in as positional arguments, a dict as keywords, anything else as one argument."""
    if condition is None:
        return model(x)
    if isinstance(condition, dict):
        return model(x, **condition)
    if isinstance(condition, (tuple, list)):
        return model(x, *condition)
    return model(x, condition)


@contextlib.contextmanager
def unchanged(module: torch.nn.Module | None) -> Iterator[None]:
    """Puts the module in evaluation mode, and gives back every attribute, flag and registered tensor as it was.

    Modules are not copied: old-style weight norm cannot be.
    """
    if module is None:
        yield
        return
    saved = [(m, {k: _shallow(v) for k, v in m.__dict__.items()}) for m in module.modules()]
    try:
        for m, _ in saved:
            m.training = False
        yield
    finally:
        for m, attributes in saved:
            for name in [n for n in m.__dict__ if n not in attributes]:
                del m.__dict__[name]
            for name, (value, content) in attributes.items():
                if content is not None:
                    _refill(value, content)
                m.__dict__[name] = value


def _shallow(value: Any) -> tuple[Any, Any]:
    """The object itself, and its contents if it is a container that a forward may change in place."""
    if isinstance(value, (dict, list, set)):
        return value, value.copy()
    return value, None


def _refill(value: Any, content: Any) -> None:
    value.clear()
    if isinstance(value, list):
        value.extend(content)
    else:
        value.update(content)


@contextlib.contextmanager
def _plain_operations(module: torch.nn.Module | None) -> Iterator[None]:
    """Turns off the fused paths that hide arithmetic from the recorder."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    recurrent = module is not None and any(isinstance(m, torch.nn.RNNBase) for m in module.modules())
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH))
            if recurrent:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about TF32, which is left as it is
                    stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
