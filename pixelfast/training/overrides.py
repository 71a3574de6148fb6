"""Recipes as text: NAME=VALUE on the command line, JSON in snapshots, a list of fields in --help."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, replace
from typing import Any, Literal, Union, get_args, get_origin

from pixelfast.errors import PixelfastError
from pixelfast.training.recipe import FIELDS, HINTS, Recipe


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """`recipe` with fields changed by texts like "steps=100", "clip_norm=none" or "config.hidden=16".

    A value is JSON (text needs no quotes), or `none` where a field may be None; `config.KEY` changes one argument
    of the model, `config` all. Raises PixelfastError for an unknown field, a wrong type or a value out of range.
    """
    changes: dict[str, Any] = {}
    config = dict(recipe.config)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise PixelfastError(f"{assignment!r} is not NAME=VALUE, as in steps=100 or config.hidden=16")
        value = text if HINTS.get(name) is str else _value(text)
        if name.startswith("config."):
            config[name.removeprefix("config.")] = value
        elif name == "config":
            config = dict(_converted(name, value))
        elif name in FIELDS:
            changes[name] = _converted(name, value)
        else:
            raise PixelfastError(f"a recipe has no field {name!r}; it has {', '.join(FIELDS)}")
    return replace(recipe, **changes, config=config)


def as_json(recipe: Recipe) -> dict[str, Any]:
    """Every field as JSON has it: tuples are lists."""
    return json.loads(json.dumps(asdict(recipe)))


def from_json(values: Mapping[str, Any]) -> Recipe:
    """The recipe that `as_json` described. Raises PixelfastError when it is none."""
    unknown = values.keys() - FIELDS.keys()
    missing = {name for name, one in FIELDS.items() if one.default is MISSING and one.default_factory is MISSING}
    missing -= values.keys()
    if unknown or missing:
        raise PixelfastError(f"not a recipe: unknown or missing fields: {', '.join(sorted(unknown | missing))}")
    return Recipe(**{name: _converted(name, value) for name, value in values.items()})


def differences(given: Recipe, found: Recipe) -> list[str]:
    """The fields that a resumed run must have the same and has not, each with both values."""
    one, other = as_json(given), as_json(found)
    return [
        f"{name} {json.dumps(one[name])} here, {json.dumps(other[name])} there"
        for name in sorted(FIELDS)
        if one[name] != other[name] and not FIELDS[name].metadata["free"]
    ]


def describe_fields() -> str:
    """All fields of a recipe with type, default and meaning, one after another, for --help."""
    lines = []
    for name, one in FIELDS.items():
        default = "" if one.default is MISSING else f", default {_text(one.default)}"
        lines.append(f"  {name} ({_type_text(HINTS[name])}{default})\n      {one.metadata['about']}")
    return "\n".join(lines)


def _value(text: str) -> Any:
    if text.lower() in ("none", "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return json.loads(text)
    except ValueError:
        return text


def _converted(name: str, value: Any) -> Any:
    """`value`, as JSON has it, in the type of field `name`."""
    hint = HINTS[name]
    optional = get_origin(hint) in (Union, types.UnionType)
    kind = next(part for part in get_args(hint) if part is not type(None)) if optional else hint
    origin = get_origin(kind) or kind
    if value is None and optional:
        return None
    if origin is Literal:
        if value in get_args(kind):
            return value
    elif origin is tuple:
        inner = get_args(kind)
        if isinstance(value, list | tuple) and len(value) == len(inner) and all(_is_number(part) for part in value):
            return tuple(float(part) for part in value)
    elif origin is float:
        if _is_number(value):
            return float(value)
    elif origin is str:
        if isinstance(value, str):
            return value
    elif origin is bool:
        if isinstance(value, bool):
            return value
    elif origin is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, Mapping):
        return dict(value)
    raise PixelfastError(f"{name} takes {_type_text(hint)}, not {_text(value)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return "none" if value is None else json.dumps(value)


def _type_text(hint: Any) -> str:
    origin = get_origin(hint) or hint
    if origin is Literal:
        return " or ".join(get_args(hint))
    if origin in (Union, types.UnionType):
        return " or ".join(_type_text(part) for part in get_args(hint))
    if origin is tuple:
        return "[" + ", ".join(_type_text(part) for part in get_args(hint)) + "]"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "none"}
    return names.get(origin, "a JSON object")
