"""The processes of a run, on torch.distributed: who writes, what is agreed on, how gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from pixelfast.errors import PixelfastError
from pixelfast.training.meeting import fresh_store

_DONE, _FAILED = "+", "-"


class SaidByFirst(PixelfastError):
    """What ends this process is an error that the first one reports."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    rank, world: its number and how many there are. grouped: whether there is a process group, that is torchrun.
    restarted: whether torchrun has started the processes again after one of them failed.
    """

    rank: int
    world: int
    device: torch.device
    grouped: bool
    restarted: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether some process has it set."""
        if not self.grouped:
            return flags
        shared = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in shared)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor of the CPU over all processes."""
        if self.grouped:
            dist.all_reduce(values)
        return values

    def shared(self, text: str) -> str:
        """The first process's text, in every process."""
        if not self.grouped:
            return text
        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor(len(content))
        dist.broadcast(length, src=0)
        if not self.first:
            content = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, src=0)
        return bytes(content.tolist()).decode()

    def by_first(self, work: Callable[[], str]) -> str:
        """Runs `work` in the first process; every process gets its text.

        A PixelfastError of it is raised in the first process, and in the others SaidByFirst.
        """
        if not self.grouped:
            return work()
        try:
            outcome = _DONE + work() if self.first else ""
        except PixelfastError as error:
            self.shared(_FAILED + str(error))
            raise
        outcome = self.shared(outcome)
        if outcome.startswith(_FAILED):
            raise SaidByFirst(outcome.removeprefix(_FAILED))
        return outcome.removeprefix(_DONE)

    def common(self, error: PixelfastError) -> PixelfastError:
        """What to raise for an error that every process meets at the same time, so that it is said once."""
        return error if self.first else SaidByFirst(str(error))

    def same_start(self, module: nn.Module) -> None:
        """Gives every process the first one's parameters and buffers."""
        if self.grouped:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


@contextmanager
def processes(device: str | torch.device | None) -> Iterator[Processes]:
    """Joins the processes that torchrun has started, or is alone; leaves them at the end.

    device: None takes a GPU of its own where there is one, else the CPU. Collectives run over gloo on the CPU and
    NCCL on GPUs. A process group that exists already is used and left open.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None:
        device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise PixelfastError(f"device {device!r} is none that torch knows; cpu and cuda are accepted") from error
    if device.type not in ("cpu", "cuda"):
        raise PixelfastError(f"device {device} was asked for; training runs on cpu and cuda")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise PixelfastError(f"device {device} was asked for, and torch sees no GPU; leave it out to use the CPU")
        if str(device) == "cuda":
            device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    found = dist.is_available() and dist.is_initialized()
    if not found and "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Processes(0, 1, device, grouped=False)
        return
    if not found:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store, rank, world = next(rendezvous("env://"))
        dist.init_process_group(backend, store=fresh_store(store, rank, world), rank=rank, world_size=world)
    try:
        restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        yield Processes(dist.get_rank(), dist.get_world_size(), device, grouped=True, restarted=restarted)
        if not found:
            # A process that leaves early closes connections on which the others may still wait: gloo then aborts them.
            dist.barrier()
    finally:
        if not found:
            dist.destroy_process_group()


def replicate(module: nn.Module, device: torch.device, *, unused: bool) -> DistributedDataParallel:
    """The module with gradients averaged over all processes (DDP). unused: whether a parameter gets none."""
    return DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=unused,
    )
