"""Folders and zip archives of images: pixels, classes, splits, sizes, memory."""

from __future__ import annotations

import multiprocessing
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import data_files
import numpy as np
import pytest
import torch
from data_files import class_tree, jpeg, pixels, png, write_tree, write_zip
from PIL import Image

from pixelfast.data import ImageData, image_files, open_data
from pixelfast.errors import PixelfastError, ShapeError


def refused(path: Path, split: str = "train", kind: type[PixelfastError] = PixelfastError) -> str:
    with pytest.raises(kind) as error:
        open_data(path, split)  # type: ignore[arg-type]
    message = str(error.value)
    assert message and "\n" not in message
    return message


def place(tmp_path: Path, files: dict[str, bytes], container: str) -> Path:
    if container == "folder":
        return write_tree(tmp_path / "set", files)
    method = zipfile.ZIP_DEFLATED if container == "packed zip" else zipfile.ZIP_STORED
    return write_zip(tmp_path / "set.zip", files, method)


CONTAINERS = pytest.mark.parametrize("container", ["folder", "zip", "packed zip"])


@CONTAINERS
@pytest.mark.parametrize("wrapper", ["", "pictures/", "a/b/"])
@pytest.mark.parametrize("grey", [False, True])
def test_splits_and_classes(tmp_path: Path, container: str, wrapper: str, grey: bool) -> None:
    files, images = class_tree((f"{wrapper}train/", f"{wrapper}test/"), grey=grey)
    path = place(tmp_path, files, container)
    for split in ("train", "test"):
        data = open_data(path, split)  # type: ignore[arg-type]
        names = sorted(name for name in files if f"{split}/" in name)
        assert data.shape == ((1 if grey else 3), 5, 7) and len(data) == 6
        assert data.classes == ("ant", "bee", "cat")
        assert data.labels is not None and data.labels.tolist() == [0, 0, 1, 1, 2, 2]
        order = torch.tensor([4, 0, 5, 5, 1])
        assert np.array_equal(data.images[order].numpy(), np.stack([images[names[at]] for at in order]))
        assert np.array_equal(data.images[:].numpy(), np.stack([images[name] for name in names]))


@CONTAINERS
def test_classes_without_splits(tmp_path: Path, container: str) -> None:
    files, images = class_tree(("",))
    path = place(tmp_path, files, container)
    data = open_data(path)
    assert data.classes == ("ant", "bee", "cat") and len(data) == 6
    assert np.array_equal(data.images[:].numpy(), np.stack([images[name] for name in sorted(files)]))
    assert "no test split" in refused(path, "test")


@CONTAINERS
def test_images_without_classes(tmp_path: Path, container: str) -> None:
    images = {f"{number}.png": pixels(5, 7, seed=number) for number in range(3)}
    data = open_data(place(tmp_path, {name: png(image) for name, image in images.items()}, container))
    assert data.labels is None and data.classes is None and data.shape == (1, 5, 7)
    assert np.array_equal(data.images[:].numpy()[:, 0], np.stack([images[name] for name in sorted(images)]))


@CONTAINERS
def test_splits_by_file_names(tmp_path: Path, container: str) -> None:
    files = {f"train_{number}.png": png(pixels(5, 7, seed=number)) for number in range(3)}
    files |= {f"test-{number}.png": png(pixels(5, 7, seed=9 + number)) for number in range(2)}
    path = place(tmp_path, files, container)
    assert len(open_data(path, "train")) == 3
    assert np.array_equal(open_data(path, "test").images[:].numpy()[0, 0], pixels(5, 7, seed=9))


def test_zips_by_split(tmp_path: Path) -> None:
    """train.zip and test.zip in one folder: one data set, whose classes are those of train."""
    train, images = class_tree(("",))
    test, _ = class_tree(("",), classes=("cat",))
    write_zip(tmp_path / "train.zip", train)
    write_zip(tmp_path / "test.zip", {name: train[name] for name in test})
    data = open_data(tmp_path, "test")
    assert data.classes == ("ant", "bee", "cat") and data.labels is not None and data.labels.tolist() == [2, 2]
    assert np.array_equal(data.images[:].numpy(), np.stack([images["cat/0.png"], images["cat/1.png"]]))
    assert len(open_data(tmp_path)) == 6 and len(open_data(tmp_path / "train.zip")) == 6
    assert "its parts are: train" in refused(tmp_path / "train.zip", "test")
    write_zip(tmp_path / "train_2.zip", train)
    assert "several zip archives of one split" in refused(tmp_path)


def test_a_zip_whose_folder_repeats_its_name(tmp_path: Path) -> None:
    files, _ = class_tree(("train/",))
    data = open_data(write_zip(tmp_path / "train.zip", files))
    assert data.classes == ("ant", "bee", "cat") and len(data) == 6


def test_a_zip_named_train_with_both_splits(tmp_path: Path) -> None:
    files, _ = class_tree()
    assert "test, train inside of a split" in refused(write_zip(tmp_path / "train.zip", files))


def test_validation_is_the_test_split_where_there_is_none(tmp_path: Path) -> None:
    files, _ = class_tree(("train/", "val/"))
    assert len(open_data(write_tree(tmp_path, files), "test")) == 6


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    files, _ = class_tree(("",), classes=("bus", "train", "tram"))
    data = open_data(write_tree(tmp_path, files))
    assert data.classes == ("bus", "train", "tram") and len(data) == 6


def test_a_split_without_classes(tmp_path: Path) -> None:
    files = {f"{split}/{number}.png": png(pixels(5, 7)) for split in ("train", "test") for number in range(2)}
    assert open_data(write_tree(tmp_path, files), "test").labels is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"train/ant/0.png": 1, "train/bee/0.png": 1, "test/images/0.png": 1}, "classes in test that its train"),
        ({"train/ant/0.png": 1, "train/0.png": 1, "test/ant/0.png": 1}, "both in sub-folders"),
        ({"ant/0.png": 1, "0.png": 1}, "both in sub-folders"),
    ],
)
@pytest.mark.parametrize("container", ["folder", "zip"])
def test_trees_that_say_two_things(tmp_path: Path, files: dict[str, int], words: str, container: str) -> None:
    path = place(tmp_path, dict.fromkeys(files, png(pixels(5, 7))), container)
    assert words in refused(path, "test" if "test/images/0.png" in files else "train")


@CONTAINERS
def test_different_sizes_are_named(tmp_path: Path, container: str) -> None:
    files = {f"{number}.png": png(pixels(5, 7)) for number in range(4)} | {"3.png": png(pixels(7, 5))}
    message = refused(place(tmp_path, files, container), kind=ShapeError)
    assert "'0.png' is 7x5" in message and "'3.png' 5x7" in message


def test_kinds_of_pixels(tmp_path: Path) -> None:
    """Grey among colour becomes colour; palettes and one bit are read; nothing is dropped in silence."""
    grey, colour = pixels(5, 7), pixels(5, 7, 3)
    palette = Image.fromarray(colour[..., 0] % 4, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    palette.save(tmp_path / "2.png")
    (tmp_path / "0.png").write_bytes(png(grey))
    (tmp_path / "1.png").write_bytes(png(colour))
    found = open_data(tmp_path).images[:].numpy()
    assert np.array_equal(found[0], np.stack([grey] * 3))
    assert np.array_equal(found[1], colour.transpose(2, 0, 1))
    table = np.arange(10, 130, 10).reshape(4, 3)
    assert np.array_equal(found[2], table[colour[..., 0] % 4].transpose(2, 0, 1))


def test_one_bit_images(tmp_path: Path) -> None:
    bits = pixels(5, 7) > 127
    Image.fromarray(bits).save(tmp_path / "0.png")
    assert np.array_equal(open_data(tmp_path).images[:].numpy()[0, 0], bits * 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "CMYK"])
def test_pixels_that_are_refused(tmp_path: Path, mode: str) -> None:
    ending = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (5, 7)).save(tmp_path / f"0.{ending}")
    message = refused(tmp_path)
    assert f"mode {mode}" in message and f"0.{ending}" in message


def test_a_transparent_palette_is_refused(tmp_path: Path) -> None:
    image = Image.new("P", (5, 7))
    image.putpalette([1, 2, 3] * 2)
    image.save(tmp_path / "0.png", transparency=0)
    assert "P with transparency" in refused(tmp_path)


def test_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    contents = [jpeg(pixels(16, 24, 3, seed=seed)) for seed in range(3)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.JPEG").write_bytes(content)
    found = open_data(tmp_path).images[:].numpy()
    expected = [np.asarray(Image.open(tmp_path / f"{number}.JPEG")).transpose(2, 0, 1) for number in range(3)]
    assert np.array_equal(found, np.stack(expected))


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_what_lies_beside_images_is_left_out(tmp_path: Path, container: str) -> None:
    files, _ = class_tree(("",))
    files |= {
        "README.md": b"text",
        "ant/.hidden.png": b"",
        "__MACOSX/ant/0.png": b"",
        ".DS_Store": b"",
        "ant/Thumbs.db": b"",
    }
    assert len(open_data(place(tmp_path, files, container))) == 6


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_other_formats_are_not_passed_over(tmp_path: Path, container: str) -> None:
    files, _ = class_tree(("",))
    assert "1.webp" in refused(place(tmp_path, files | {"ant/1.webp": b"RIFF"}, container))


def test_one_image_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(pixels(5, 7)))
    assert "is one image" in refused(tmp_path / "0.png")


@pytest.mark.parametrize("budget", [0, 5 * 7 * 3 * 2, 5 * 7 * 3 * 100])
def test_each_image_is_decoded_once_as_far_as_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    files, images = class_tree(("",))
    monkeypatch.setattr(image_files, "CACHE_BYTES", budget)
    data = open_data(write_zip(tmp_path / "set.zip", files))
    decoded: list[int] = []
    decode = image_files.DecodedImages._decode
    monkeypatch.setattr(
        image_files.DecodedImages, "_decode", lambda self, number: (decoded.append(number), decode(self, number))[1]
    )
    expected = np.stack([images[name] for name in sorted(files)])
    for _ in range(3):
        assert np.array_equal(data.images[:].numpy(), expected)
    kept = min(6, budget // (5 * 7 * 3))
    assert decoded == [*range(6), *list(range(kept, 6)) * 2]


def test_what_is_returned_is_not_the_cache(tmp_path: Path) -> None:
    files, _ = class_tree(("",))
    images = open_data(write_zip(tmp_path / "set.zip", files)).images
    first = images[:].clone()
    images[:].zero_()
    assert torch.equal(images[:], first)


def test_threads_and_forks_read_one_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are read at their own offsets: nobody shares a position in the file."""
    monkeypatch.setattr(image_files, "CACHE_BYTES", 0)
    files = {f"{number:03}.png": png(pixels(5, 7, seed=number)) for number in range(100)}
    data = open_data(write_zip(tmp_path / "set.zip", files))
    expected = np.stack([pixels(5, 7, seed=number) for number in range(100)])

    def agree(out: list[bool]) -> None:
        out += [bool(np.array_equal(data.images[:].numpy()[:, 0], expected)) for _ in range(5)]

    found: list[bool] = []
    threads = [threading.Thread(target=agree, args=(found,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_exit_by, args=(data, expected)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]


def _exit_by(data: ImageData, expected: np.ndarray) -> None:
    # Plain numpy: torch's threads do not survive a fork.
    rows = [data.images._image(number) for number in range(100)] * 5  # type: ignore[attr-defined]
    raise SystemExit(int(not np.array_equal(np.stack(rows)[:, 0], np.concatenate([expected] * 5))))


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    files, _ = class_tree(("",))
    write_tree(tmp_path / "elsewhere", files)
    (tmp_path / "set").mkdir()
    for kind in ("ant", "bee"):
        (tmp_path / "set" / kind).symlink_to(tmp_path / "elsewhere" / kind)
    assert open_data(tmp_path / "set").classes == ("ant", "bee")
    (tmp_path / "elsewhere" / "ant" / "up").symlink_to(tmp_path / "elsewhere")
    assert "links back" in refused(tmp_path / "elsewhere")


def test_a_file_that_is_replaced_after_opening(tmp_path: Path) -> None:
    files, _ = class_tree(("",))
    data = open_data(write_tree(tmp_path, files))
    (tmp_path / "ant" / "1.png").write_bytes(png(pixels(7, 7, 3)))
    (tmp_path / "bee" / "0.png").unlink()
    for number, words in ((1, "size has changed"), (2, "cannot read")):
        with pytest.raises(PixelfastError, match=words):
            data.images[torch.tensor([number])]
    assert data.images[torch.tensor([0])].shape == (1, 3, 5, 7)


def test_encrypted_and_strange_archives(tmp_path: Path) -> None:
    files, _ = class_tree(("",))
    path = write_zip(tmp_path / "set.zip", files, zipfile.ZIP_LZMA)
    assert "by method 14" in refused(path)
    content = bytearray(write_zip(path, files).read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in refused(path)
    with zipfile.ZipFile(path, "w"):
        pass
    assert "no JPEG or PNG" in refused(path)


def test_a_name_that_differs_between_the_directory_and_the_file(tmp_path: Path) -> None:
    """A flipped bit in a name is another class, and no checksum covers it."""
    path = write_zip(tmp_path / "set.zip", class_tree(("",))[0])
    content = path.read_bytes()
    at = content.rindex(b"bee/0.png")
    path.write_bytes(content[:at] + b"cee" + content[at + 3 :])
    assert "has another name" in refused(path)


def test_a_member_without_a_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"a": b""})
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    # The name's one byte becomes the comment, so that the directory keeps its length.
    content[at + 28], content[at + 32] = 0, 1
    path.write_bytes(content)
    assert "without a name" in refused(path)


def test_a_picture_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    Image.new("1", (8192, 8192)).save(path)
    assert path.stat().st_size < 50_000
    assert "8192x8192" in refused(tmp_path)


@pytest.mark.parametrize("where", ["", "test.zip"])
def test_real_cifar_as_jpeg(shared_file: Callable[..., Path], where: str) -> None:
    data = open_data(shared_file("data", "cifar10-jpeg") / where, "test")
    assert data.shape == (3, 32, 32) and len(data) == 10_000
    assert data.classes == tuple(data_files.CIFAR_CLASSES)
    assert data.labels is not None and data.labels.bincount().tolist() == [1000] * 10
    # The mean levels of CIFAR-10's test split, which JPEG hardly changes; every tenth image has nearly the same.
    means = data.images[torch.arange(0, 10_000, 10)].double().mean((0, 2, 3)) / 255
    assert torch.allclose(means, torch.tensor([0.494, 0.485, 0.450]).double(), atol=0.01)
