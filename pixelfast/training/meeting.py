"""How processes that were started again find each other, and not those that were there before them."""

from __future__ import annotations

import secrets
import time
from datetime import timedelta

from torch.distributed import PrefixStore, Store

from pixelfast.errors import PixelfastError

_KEY = "pixelfast/meeting"
_POLL_SECONDS = 0.01
PATIENCE_SECONDS = 600.0
"""Processes of a large job start minutes apart."""


def fresh_store(store: Store, rank: int, world: int, seconds: float = PATIENCE_SECONDS) -> Store:
    """A part of `store` that no earlier start of these processes has written to; every process has to call it.

    torchrun keeps one store through all restarts (PyTorch's dynamic rendezvous creates it once). A process group
    made in it may read the addresses of processes that are gone, and then waits for them. How often processes
    were restarted is no help: on several machines each torchrun counts for itself. So each process leaves a number
    of its own, and the first one answers every number with the name of the part until all have taken it.

    Raises PixelfastError when a process does not come within `seconds`.
    """
    if rank > 0:
        number = secrets.token_hex(8)
        store.set(f"{_KEY}/{rank}", number)
        answer = f"{_KEY}/answer/{number}"
        try:
            store.wait([answer], timedelta(seconds=seconds))
        except RuntimeError as error:
            raise PixelfastError(f"process 0 of {world} has not come; look at what it said") from error
        name = store.get(answer).decode()
        store.set(f"{_KEY}/{name}/{rank}", "")
        return PrefixStore(name, store)
    name = secrets.token_hex(8)
    missing = set(range(1, world))
    deadline = time.monotonic() + seconds
    while missing:
        for other in sorted(missing):
            # A number may be of a process that is gone; nobody reads its answer.
            if store.check([f"{_KEY}/{other}"]):
                store.set(f"{_KEY}/answer/{store.get(f'{_KEY}/{other}').decode()}", name)
            if store.check([f"{_KEY}/{name}/{other}"]):
                missing.remove(other)
        if time.monotonic() > deadline:
            raise PixelfastError(f"processes {sorted(missing)} of {world} have not come; look at what they said")
        time.sleep(_POLL_SECONDS)
    return PrefixStore(name, store)
