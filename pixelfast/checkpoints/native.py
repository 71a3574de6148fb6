"""pixelfast's own format: safetensors, with the model's name and configuration as JSON in its metadata."""

from __future__ import annotations

import inspect
import json
from typing import Any

from torch import nn

from pixelfast.errors import CheckpointError
from pixelfast.models import registry

NAME = "pixelfast"
VERSION = 1
LONGEST_DESCRIPTION = 1 << 16


def describe(model: nn.Module) -> str:
    """The JSON text that goes into the metadata under "pixelfast"."""
    name = registry.name_of(model)
    return json.dumps({"version": VERSION, "model": name, "config": model.config}, sort_keys=True)


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Model name and configuration from the metadata's JSON text, with every argument's name checked.

    Values are checked by the model's constructor. Raises CheckpointError.
    """
    if len(text) > LONGEST_DESCRIPTION:
        raise CheckpointError(f"the description has {len(text)} characters; at most {LONGEST_DESCRIPTION} are accepted")
    try:
        description = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise CheckpointError("the description in the metadata is not JSON") from None
    if not isinstance(description, dict) or set(description) != {"version", "model", "config"}:
        raise CheckpointError("the description must have version, model and config, and nothing else")
    version, name, config = description["version"], description["model"], description["config"]
    if version != VERSION or isinstance(version, bool):
        raise CheckpointError(f"format version {str(version)[:20]!r} is not {VERSION}, which this pixelfast reads")
    if not isinstance(name, str) or name not in registry.MODELS:
        raise CheckpointError(f"unknown model {str(name)[:40]!r}; known are {', '.join(registry.MODELS)}")
    if not isinstance(config, dict):
        raise CheckpointError("the configuration is not a JSON object")
    accepted = inspect.signature(registry.MODELS[name]).parameters
    unknown = [key for key in config if key not in accepted]
    if unknown:
        raise CheckpointError(f"{name} has no argument {unknown[0][:40]!r}; it has {', '.join(accepted)}")
    return name, config


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
