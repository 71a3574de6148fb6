"""What the names of image files say: their split and their classes. Folders and zip archives are read alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixelfast.data.splits import SplitName, choose, split_of, split_of_word
from pixelfast.errors import PixelfastError


@dataclass(frozen=True)
class Arranged:
    """The files of one split, by their numbers in the list given, with a class number each, or no classes at all."""

    files: list[int]
    labels: list[int] | None
    classes: tuple[str, ...] | None


def arrange(names: Sequence[str], split: SplitName, where: object) -> Arranged:
    """Choose a split of the files `names`, paths with '/', and read their classes off the sub-folders, sorted.

    Sub-folders `train` and `test` (or `val`) are the splits, below them as without them sub-folders are the classes.
    Files without sub-folders are split by their own names where these tell. Folders that hold nothing but one other
    folder are passed through.

    Raises PixelfastError when the split is missing, when files lie both in classes and beside them, or when test
    has a class that train lacks.
    """
    paths = [tuple(name.split("/")) for name in names]
    start = _wrappers(paths, range(len(paths)), 0, through_splits=False)
    tops = {path[start] for path in paths if len(path) > start + 1}
    splits = {top: split_of_word(top) for top in tops}
    says = set(splits.values()) - {None}
    # A class may be called `train`: a folder is a split beside another one, or where there are no other folders.
    by_folder = ("train" in says and len(says) > 1) or (tops and None not in splits.values())
    if not by_folder:
        numbers = list(range(len(paths)))
        if not tops and any(split_of(path[-1]) for path in paths):
            numbers = choose(numbers, split, where, lambda number: split_of(paths[number][-1]))
        elif split == "test" and says:
            # It may be meant as a split; so nothing is set aside in its place.
            named = ", ".join(sorted(top for top in tops if splits[top]))
            raise PixelfastError(
                f"{where} has no test split: its folder {named} counts as a class, because others lie beside it; put "
                "the classes into folders train and test"
            )
        else:
            numbers = choose(numbers, split, where, lambda number: None)
        return _classify(paths, numbers, start, _classes(paths, numbers, start, where))
    inside = [number for number, path in enumerate(paths) if len(path) > start + 1]
    chosen = choose(inside, split, where, lambda number: splits[paths[number][start]])
    train = [number for number in inside if splits[paths[number][start]] == "train"]
    inner = _wrappers(paths, chosen, start + 1, through_splits=True)
    classes = _classes(paths, chosen, inner, where)
    of_train = _classes(paths, train, _wrappers(paths, train, start + 1, through_splits=True), where) or classes
    if not set(classes) <= set(of_train):
        unknown = ", ".join(sorted(set(classes) - set(of_train))[:5])
        raise PixelfastError(f"{where} has classes in {split} that its train split lacks: {unknown}")
    return _classify(paths, chosen, inner, of_train if classes else ())


def _wrappers(paths: Sequence[tuple[str, ...]], numbers: Sequence[int], start: int, *, through_splits: bool) -> int:
    """The depth from `start` on where these paths stop lying all in one folder of folders."""
    depth = start
    while (
        numbers
        and len({paths[number][depth] for number in numbers}) == 1
        and all(len(paths[number]) > depth + 2 for number in numbers)
        and (through_splits or split_of_word(paths[numbers[0]][depth]) is None)
    ):
        depth += 1
    return depth


def _classes(paths: Sequence[tuple[str, ...]], numbers: Sequence[int], start: int, where: object) -> tuple[str, ...]:
    folders = sorted({paths[number][start] for number in numbers if len(paths[number]) > start + 1})
    beside = next(("/".join(paths[number]) for number in numbers if len(paths[number]) == start + 1), None)
    if folders and beside is not None:
        raise PixelfastError(
            f"{where} holds images both in sub-folders ({folders[0]!r}) and beside them ({beside!r}); sub-folders are "
            "classes: put every image into one, or none"
        )
    if len(folders) > 1 and all(split_of_word(folder) for folder in folders):
        raise PixelfastError(
            f"{where} holds the folders {', '.join(folders)} inside of a split; give the folder or archive that "
            "has them at its top"
        )
    return tuple(folders)


def _classify(paths: Sequence[tuple[str, ...]], numbers: list[int], start: int, classes: tuple[str, ...]) -> Arranged:
    if not classes:
        return Arranged(numbers, None, None)
    order = {name: at for at, name in enumerate(classes)}
    return Arranged(numbers, [order[paths[number][start]] for number in numbers], classes)
