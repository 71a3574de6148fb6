"""A run between two steps: what changes, how a step changes it, and how it becomes a snapshot and back."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.models import registry
from pixelfast.models.initialise import initialise_from_data
from pixelfast.training import noise, overrides
from pixelfast.training.average import averaged
from pixelfast.training.blocks import recompute_blocks
from pixelfast.training.codebooks import forget, has_parameters_as_codebooks, update_codebooks
from pixelfast.training.distribution import Processes, replicate
from pixelfast.training.evaluate import Objective, network_input
from pixelfast.training.images import Batches, ImageSet
from pixelfast.training.noise import Use, derived_seed
from pixelfast.training.recipe import Recipe
from pixelfast.training.snapshot import Snapshot

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


class Run:
    """Model, average and optimiser of one process, and where the run stands.

    step: optimiser steps taken. reported: the last step whose validation and samples are done.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, images: ImageSet, processes: Processes) -> None:
        """Starts at step 0. `model` has just been made, and is from now on the run's own."""
        self.recipe = recipe
        self.step = 0
        self.reported = 0
        self.batches = Batches(images, recipe)
        self._images = len(images)
        self._fingerprint = images.fingerprint()
        self._processes = processes
        self._pieces = _pieces(recipe, processes)
        self._gathered: Callable[[Tensor], Tensor] = lambda tensor: tensor
        self._laid_out_as: Callable[[Tensor, Tensor], Tensor] = lambda tensor, parameter: tensor
        self._unread: list[Tensor] = []
        self._window: list[list[float]] = []

        self.model = model.to(processes.device)
        if recipe.data_init:
            self._initialise()
        processes.same_start(self.model)
        # Copied before anything is wrapped around the model: a copy of a wrapper would call the original.
        self.average = averaged(self.model, recipe.ema_decay)
        objective: nn.Module = Objective(self.model)
        replicated = processes.grouped and recipe.parallel == "ddp"
        unused = replicated and self._has_unused(objective)
        if recipe.checkpoint_activations:
            recompute_blocks(self.model)
        if recipe.compile:
            objective.compile()
        if replicated:
            objective = replicate(objective, processes.device, unused=unused)
        elif processes.grouped:
            if has_parameters_as_codebooks(objective):
                error = PixelfastError(
                    "parallel=fsdp does not shard a codebook that is learned by gradient: take parallel=ddp, or "
                    "config.codebook=ema"
                )
                raise processes.common(error)
            # Imported here for what the import costs every other run, and every other command.
            from pixelfast.training import sharding

            sharding.shard(objective, processes.device)
            sharding.shard(self.average.module, processes.device)
            self._gathered, self._laid_out_as = sharding.gathered, sharding.laid_out_as
        self._objective = objective
        self._optimizer = OPTIMIZERS[recipe.optimizer](
            self.model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )

    def advance(self) -> None:
        """One optimiser step."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.step)
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        size = self.recipe.batch_size // self._pieces
        mine = range(self._processes.rank, self._pieces, self._processes.world)
        total = torch.zeros((), device=self._processes.device)
        for piece in mine:
            images, condition = self._on_device(*self.batches.part(self.step, piece * size, (piece + 1) * size))
            # By piece and not by process: it does not matter which process takes it.
            torch.manual_seed(derived_seed(self.recipe.seed, Use.DROPOUT, self.step, piece))
            with self._gathering_gradients(last=piece == mine[-1]):
                with self._precision():
                    bits = self._objective(images, condition)
                (bits / len(mine)).backward()
            total += bits.detach() / self._pieces
        norm = self._clip()
        self._optimizer.step()
        update_codebooks(self.model, mine, self._pieces, self._processes)
        self.average.update_parameters(self.model)
        self.step += 1
        # Read later, all at once: looking at a number waits for the GPU.
        self._unread.append(torch.stack((total, norm.to(total) / self._processes.world)))

    def settle(self) -> None:
        """Reads the losses of the last steps. Raises PixelfastError when one is not a number.

        Every process has to call it.
        """
        if not self._unread:
            return
        read = self._processes.sum(torch.stack(self._unread).double().cpu())
        first = self.step - len(read)
        self._unread.clear()
        for index, (bits, norm) in enumerate(read.tolist()):
            if not (math.isfinite(bits) and math.isfinite(norm)):
                error = PixelfastError(
                    f"step {first + index}: the loss is {bits} and its gradient's norm {norm}; "
                    "lower the recipe's learning rate and start anew in another folder"
                )
                raise self._processes.common(error)
            self._window.append([bits, norm])

    def take_means(self) -> tuple[float, float]:
        """Mean loss and mean gradient norm of the steps since the last call."""
        self.settle()
        bits, norms = zip(*self._window, strict=True)
        self._window.clear()
        return math.fsum(bits) / len(bits), math.fsum(norms) / len(norms)

    def averaged_model(self) -> nn.Module:
        """The averaged weights as an ordinary model; every process has to ask for it."""
        average: Any = self.average.module
        if not self._sharded:
            return average
        model = registry.create(self.recipe.model, **self.recipe.config).to(self._processes.device)
        model.load_state_dict(self._whole(average.state_dict()))
        return model

    def snapshot(self) -> Snapshot:
        """All that the run depends on, whole in the first process; every process has to ask for it."""
        self.settle()
        keep = self._processes.first
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        optimizer = {
            f"{names[parameter]}/{key}": value
            for parameter, values in self._optimizer.state.items()
            for key, value in values.items()
        }
        state = {
            "recipe": overrides.as_json(self.recipe),
            "step": self.step,
            "images": self._images,
            "fingerprint": self._fingerprint,
            "noise": noise.VERSION,
            "reported": self.reported,
            "window": self._window,
        }
        tensors = {"model": self.model.state_dict(), "ema": self.average.state_dict(), "optimizer": optimizer}
        return Snapshot(state, {name: self._whole(part, keep) for name, part in tensors.items()})

    def load(self, snapshot: Snapshot) -> None:
        """Continues where a snapshot was taken. Raises CheckpointError when it is of another run, or incomplete."""
        state = snapshot.state
        try:
            different = overrides.differences(self.recipe, overrides.from_json(state["recipe"]))
            if different:
                raise CheckpointError(
                    f"the snapshot is of another recipe: {'; '.join(different)}; leave RECIPE out to go on with its own"
                )
            if state["images"] != self._images:
                raise CheckpointError(
                    f"the run was started on {state['images']} images and the data has {self._images}; use the same"
                )
            if state.get("fingerprint", self._fingerprint) != self._fingerprint:  # the first snapshots had none
                raise CheckpointError(
                    f"the run was started on {self._images} images and the data has as many other ones; use the same"
                )
            if state["noise"] != noise.VERSION:
                raise CheckpointError("the snapshot was written by another version of pixelfast; resume with that one")
            if state["step"] > self.recipe.steps:
                raise CheckpointError(
                    f"the snapshot is of step {state['step']}, which is past the {self.recipe.steps} steps asked for"
                )
            self._load(self.model, snapshot.tensors["model"])
            self._load(self.average, snapshot.tensors["ema"])
            self._load_optimizer(snapshot.tensors["optimizer"])
            self.step, self.reported = int(state["step"]), int(state["reported"])
            self._window = [[float(bits), float(norm)] for bits, norm in state["window"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"not a snapshot of this training: {error}") from error

    @property
    def _sharded(self) -> bool:
        return self._processes.grouped and self.recipe.parallel == "fsdp"

    def _initialise(self) -> None:
        torch.manual_seed(derived_seed(self.recipe.seed, Use.WEIGHTS, 1))
        images, condition = self._on_device(*self.batches.part(0, 0, self.recipe.batch_size))
        initialise_from_data(self.model, network_input(self.model, images), condition)

    def _has_unused(self, objective: nn.Module) -> bool:
        """Whether some parameter gets no gradient, which DDP has to be told."""
        objective(*self._on_device(*self.batches.part(0, 0, 1))).backward()
        unused = any(parameter.grad is None for parameter in objective.parameters())
        objective.zero_grad(set_to_none=True)
        forget(objective)
        return unused

    def _on_device(self, images: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        device = self._processes.device
        return images.to(device), None if condition is None else condition.to(device)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.recipe.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self._processes.device.type, dtype=torch.bfloat16)

    def _gathering_gradients(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """DDP sends gradients once per step; shards are summed piece by piece, which keeps memory small."""
        if isinstance(self._objective, DistributedDataParallel) and not last:
            return self._objective.no_sync()
        return contextlib.nullcontext()

    def _clip(self) -> Tensor:
        """Clips the gradient; its norm before, the same in every process."""
        limit = math.inf if self.recipe.clip_norm is None else self.recipe.clip_norm
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return self._gathered(norm)

    def _whole(self, state: Mapping[str, Any], keep: bool = True) -> dict[str, Tensor]:
        """A state dict on the CPU, each tensor gathered; empty unless this process wants to `keep` it."""
        result = {}
        for name, tensor in state.items():
            gathered = self._gathered(tensor.detach())
            if keep:
                result[name] = gathered.cpu().contiguous()
        return result

    def _load(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        own = module.state_dict()
        module.load_state_dict({name: self._laid_out_as(tensors[name], tensor) for name, tensor in own.items()})

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        unknown = set(tensors)
        for index, (name, parameter) in enumerate(self.model.named_parameters()):
            own = {key.removeprefix(f"{name}/"): key for key in tensors if key.startswith(f"{name}/")}
            unknown -= set(own.values())
            if own:
                state[index] = {short: self._laid_out_as(tensors[key], parameter) for short, key in own.items()}
        if unknown:
            raise KeyError(f"the optimiser's {sorted(unknown)[0]} belongs to no parameter")
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def _pieces(recipe: Recipe, processes: Processes) -> int:
    """How many pieces of equal size a batch is cut into; each process takes as many."""
    world = processes.world
    pieces = world if recipe.micro_batch_size is None else recipe.batch_size // recipe.micro_batch_size
    if recipe.batch_size % pieces or pieces % world:
        size = "equal size" if recipe.micro_batch_size is None else recipe.micro_batch_size
        error = PixelfastError(
            f"batch_size {recipe.batch_size} in pieces of {size} does not divide over {world} processes; "
            "change batch_size, micro_batch_size or the number of processes"
        )
        raise processes.common(error)
    return pieces
