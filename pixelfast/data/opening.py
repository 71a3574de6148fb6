"""One function that opens any data set."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from pixelfast.data.cifar import open_cifar
from pixelfast.data.idx import open_idx
from pixelfast.data.image_data import ImageData
from pixelfast.data.image_files import files_in_folder, files_in_zip, open_images, side_by_side
from pixelfast.data.imagenet import is_imagenet, open_imagenet
from pixelfast.data.named_arrays import NpyFiles, NpzFile, open_arrays
from pixelfast.data.recognise import Kind, kind_of
from pixelfast.data.splits import SplitName, check_split, choose, split_of
from pixelfast.data.zip_archive import ZipArchive, is_hidden
from pixelfast.errors import PixelfastError

ACCEPTED = (
    "IDX files (MNIST), CIFAR-10's binary or Python batches, down-sampled ImageNet .npz batches, .npy or .npz arrays, "
    "and a folder or zip archive of JPEG or PNG images"
)


def open_data(path: str | Path, split: SplitName = "train") -> ImageData:
    """Open one split of a data set, whatever it is: the kind is recognised from the content.

    path: a file or a folder. Read are IDX files, gzipped or not (MNIST, Fashion-MNIST); CIFAR-10's binary and Python
        batches, the latter without running what a pickle may hold; down-sampled ImageNet's .npz batches; .npy and
        .npz arrays, uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), with labels where there are any; a folder or
        zip archive of JPEG or PNG images of one size, whose sub-folders are classes in sorted order.
    split: "train" or "test", told apart by the names of files, sub-folders and arrays. Where they say nothing,
        everything is the train split.

    Large files are mapped, images are decoded when they are asked for: opening costs one look at every header, and
    one reading of .npz files for their checksums. Do not change the files while they are open.

    Raises PixelfastError when nothing is recognised, the split is missing, or a file is damaged; ShapeError when
    images have different sizes, or labels do not fit them.
    """
    check_split(split)
    path = Path(path)
    if path.name in ("", ".."):  # data sets are called what their folder is called
        path = path.resolve()
    try:
        if path.is_dir():
            return _open_folder(path, split, path)
        if not path.exists():
            raise PixelfastError(f"{path} does not exist; give a file or folder of data: {ACCEPTED}")
        kind = kind_of(path)
        if kind is None:
            raise PixelfastError(
                f"{path} is not recognised; {ACCEPTED} are read (unpack .tar and other archives first)"
            )
        return _open_files(kind, [path], split, path)
    except OSError as error:
        raise PixelfastError(f"cannot read {error.filename or path}: {error.strerror or error}") from error


def _open_folder(folder: Path, split: SplitName, where: Path) -> ImageData:
    """A folder with files of one kind, a tree of images, or a folder around such a folder of files."""
    entries = _entries(folder)
    found: dict[Kind, list[Path]] = defaultdict(list)
    for entry in entries:
        if entry.is_file() and (kind := kind_of(entry)):
            found[kind].append(entry)
    if len(found) > 1:
        kinds = ", ".join(f"{kind} ({paths[0].name})" for kind, paths in found.items())
        raise PixelfastError(f"{where} holds several kinds of data: {kinds}; give the file or folder of one of them")
    if found and "image" not in found:
        ((kind, paths),) = found.items()
        return _open_files(kind, paths, split, where)
    inside = [] if found else [place for place in _places(folder, entries) if _holds_arrays(place)]
    if len(inside) > 1:
        names = ", ".join(str(place.relative_to(folder)) for place in inside)
        raise PixelfastError(f"{where} holds several data sets: {names}; give one of these folders")
    if inside:
        return _open_folder(inside[0], split, where)
    return open_images(files_in_folder(folder), split, where)


def _open_files(kind: Kind, paths: list[Path], split: SplitName, where: Path) -> ImageData:
    match kind:
        case "IDX":
            return open_idx(paths, split, where)
        case "CIFAR-10":
            return open_cifar(paths, split, where)
        case "npy":
            return open_arrays(NpyFiles(paths), split, where)
        case "zip":
            return _open_zips(paths, split, where)
        case "image":
            raise PixelfastError(f"{where} is one image; give the folder or zip archive it lies in")


def _open_zips(paths: list[Path], split: SplitName, where: Path) -> ImageData:
    """Archives of arrays (.npz) or of images. Where their names say a split, they hold that one."""
    archives = {path: ZipArchive(path) for path in paths}
    of_arrays = [bool(each.names) and all(name.endswith(".npy") for name in each.names) for each in archives.values()]
    if any(of_arrays) and not all(of_arrays):
        raise PixelfastError(f"{where} holds zip archives both of arrays and of images; give one of them")
    by_name = len(paths) > 1 or split_of(paths[0].stem) is not None
    if all(of_arrays):
        return _open_npz(choose(paths, split, where, _split_of_file) if by_name else paths, split, where)
    if not by_name:
        return open_images(files_in_zip(archives[paths[0]]), split, where)
    parts = {_split_of_file(path) or path.stem: files_in_zip(archive) for path, archive in archives.items()}
    if len(parts) < len(paths):
        raise PixelfastError(
            f"{where} holds several zip archives of one split ({', '.join(path.name for path in paths)}); give one"
        )
    return open_images(side_by_side(parts), split, where)


def _open_npz(paths: list[Path], split: SplitName, where: Path) -> ImageData:
    batches = [(path, NpzFile(path)) for path in paths]
    if all(is_imagenet(arrays) for _, arrays in batches):
        return open_imagenet(batches, split, where)
    if len(batches) > 1:
        names = ", ".join(path.name for path in paths)
        raise PixelfastError(f"{where} holds several .npz files of the {split} split ({names}); give one")
    arrays = batches[0][1]
    # Where the file's own name has said the split, its arrays need not say it again.
    inside = any(split_of(name) for name in arrays.headers) or _split_of_file(paths[0]) is None
    return open_arrays(arrays, split if inside else "train", where)


def _split_of_file(path: Path) -> str | None:
    return split_of(path.stem)


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))


def _places(folder: Path, entries: list[Path]) -> list[Path]:
    """Folders one level down, or two where torchvision puts them (MNIST/raw)."""
    folders = [entry for entry in entries if entry.is_dir()]
    return folders + [each / "raw" for each in folders if (each / "raw").is_dir()]


def _holds_arrays(folder: Path) -> bool:
    """Whether the first file in it that is data is of another kind than an image."""
    kinds = (kind_of(entry) for entry in _entries(folder) if entry.is_file())
    return next((kind for kind in kinds if kind), "image") != "image"
