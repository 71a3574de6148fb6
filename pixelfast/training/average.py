"""The moving average of the weights, which is what a run evaluates and saves."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows its weights; every update keeps `decay` of what it has.

    Early on it keeps (1 + n) / (10 + n) after n updates, if that is less, as TensorFlow's ExponentialMovingAverage
    does: the average of a short run is of its last part, and not of the random weights it began with.
    """

    def update(kept: Any, current: Any, updates: Any) -> None:
        n = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(kept, current, updates)

    return AveragedModel(model, multi_avg_fn=update)
