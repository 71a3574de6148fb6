"""Which split of a data set a file, a folder or an array belongs to, by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

from pixelfast.errors import PixelfastError

SplitName = Literal["train", "test"]
Named = TypeVar("Named")
SPLITS: tuple[SplitName, ...] = ("train", "test")

# A validation split stands in for the test split where there is none (ImageNet's is never published).
_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "t10k": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}


class NoSplitsError(PixelfastError):
    """A test split was asked for, and no name says of anything that it is one of train or test."""


def check_split(split: str) -> None:
    """Raises PixelfastError when `split` is no split's name."""
    if split not in SPLITS:
        raise PixelfastError(f"unknown split {split!r}; the splits are train and test")


def split_of_word(name: str) -> str | None:
    """'train', 'test' or 'validation' when the whole name says so (a folder `train`), else None."""
    return _WORDS.get(name.lower())


def split_of(name: str) -> str | None:
    """'train', 'test' or 'validation' when exactly one of them is a word of the name, else None.

    Words end at everything that is no letter or digit: `x_train`, `t10k-labels-idx1-ubyte`, `val_data.npz`.
    """
    found = {_WORDS[word] for word in _words(name) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def without_split(name: str) -> list[str]:
    """The words of a name but those that say a split: what `x_train` and `x_test` have in common."""
    return [word for word in _words(name) if word not in _WORDS]


def _words(name: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", name.lower())


def choose(named: Iterable[Named], split: SplitName, where: object, key: Callable[[Named], str | None]) -> list[Named]:
    """Those of `named` that belong to `split`; `key` gives the split of each, or None.

    Where no name says a split, all are the train split. Where some do, the others are left out. Raises
    PixelfastError when nothing is left, NoSplitsError for a test split where no name says one: it is never made of the
    images one trains on.
    """
    splits = [(each, key(each)) for each in named]
    present = {found for _, found in splits}
    if present == {None}:
        if split == "train":
            return [each for each, _ in splits]
        raise NoSplitsError(
            f"{where} has no test split: nothing in it is named train or test; name the parts so (such as "
            "folders train and test), or ask for train where a split can be chosen"
        )
    wanted = "validation" if split == "test" and "test" not in present and "validation" in present else split
    chosen = [each for each, found in splits if found == wanted]
    if not chosen:
        names = ", ".join(sorted(found for found in present if found)) or "nothing"
        raise PixelfastError(f"{where} has no {split} split; by their names its parts are: {names}")
    return chosen
