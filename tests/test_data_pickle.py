"""CIFAR-10's Python batches are read without unpickling: nothing that a file names is imported or called."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest

from pixelfast.data import open_data
from pixelfast.data.batch_pickle import read_batch_pickle
from pixelfast.errors import PixelfastError, ShapeError


def refusal(content: bytes) -> str:
    with pytest.raises(PixelfastError) as error:
        read_batch_pickle(content, "the batch")
    message = str(error.value)
    assert message.startswith("the batch ") and "\n" not in message
    return message


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def test_what_the_file_holds_comes_back() -> None:
    values = data_files.pixels(4, 6)
    batch = {"labels": [1, 2, 300, -1], "data": values, "none": None, "yes": True, "pair": (1, "a")}
    found = read_batch_pickle(data_files.Python2Pickle().dump(batch), "the batch")
    assert list(found) == [b"labels", b"data", b"none", b"yes", b"pair"]
    assert np.array_equal(found[b"data"], values) and found[b"data"].dtype == np.uint8
    assert found[b"labels"] == [1, 2, 300, -1] and found[b"none"] is None and found[b"yes"] is True
    assert found[b"pair"] == (1, b"a")


def test_it_agrees_with_pythons_own_unpickler() -> None:
    """On harmless content, of Python 2 and of Python 3."""
    values = data_files.pixels(5, 7)
    batch = {"data": values, "labels": list(range(5)), "filenames": ["a" * 300, "b"]}
    contents = [data_files.Python2Pickle().dump({**batch, "filenames": ["a", "b"]})]
    contents += [pickle.dumps(batch, protocol=protocol) for protocol in (3, 4)]
    contents += [pickle.dumps({**batch, "data": np.asfortranarray(values)}, protocol=4)]
    for content in contents:
        expected, found = pickle.loads(content, encoding="bytes"), read_batch_pickle(content, "the batch")
        assert expected.keys() == found.keys()
        for key in expected:
            assert np.array_equal(expected[key], found[key]) if "data" in str(key) else expected[key] == found[key]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["whole", "value", "key", "label"])
def test_a_malicious_pickle_executes_nothing(tmp_path: Path, protocol: int, place: str) -> None:
    trap = tmp_path / "sprung"
    call = Call(os.mkdir, str(trap))
    value: Any = {
        "whole": call,
        "value": {"data": call, "labels": [1]},
        "key": {("k", call): 1},
        "label": {"data": data_files.pixels(1, 3072), "labels": [call]},
    }[place]
    content = pickle.dumps(value, protocol=protocol)
    pickle.loads(content)
    assert trap.exists(), "Python's own unpickler falls into it, or the trap is none"
    trap.rmdir()

    message = refusal(content)
    assert not trap.exists()
    # What CIFAR-10 does not need is refused where it comes first: in protocols 0, 1 and 5 that may be an instruction,
    # in protocol 2 the way in which Python 3 writes an array's bytes.
    assert any(name in message for name in ("posix.mkdir", "instruction", "_codecs.encode", "numpy._core.numeric"))
    if protocol in (2, 3, 4) and (place, protocol) != ("label", 2):
        assert "posix.mkdir" in message

    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(PixelfastError, match="data_batch_1"):
        open_data(tmp_path / "data_batch_1")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (subprocess.Popen, "subprocess.Popen"),
        (np.load, "numpy.load"),
        (np.frombuffer, "frombuffer"),
        (bytearray, "builtins.bytearray"),
    ],
)
def test_the_class_is_named(function: Any, name: str) -> None:
    message = refusal(pickle.dumps({"data": Call(function, "x")}, protocol=4))
    assert name in message and "nothing of it was run" in message


def test_no_module_is_imported() -> None:
    assert "antigravity" not in sys.modules
    for content in (b"\x80\x02cantigravity\nfly\n)R.", b"\x80\x04\x8c\x0bantigravity\x8c\x03fly\x93)R."):
        assert "antigravity.fly" in refusal(content)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02(S'echo'\nios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nU\x04echoo.",  # OBJ
        b"\x80\x02cos\nsystem\nU\x04echo\x85\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02U\x01aQ.",  # BINPERSID
        b"\x80\x02Pid\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
    ],
)
def test_other_ways_to_make_objects_are_refused(content: bytes) -> None:
    message = refusal(content)
    assert "os.system" in message or "instruction" in message


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cnumpy\nndarray\nN}b.",  # a state for a class
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x01aU\x01bsb.",  # ... for a function
        b"\x80\x02cnumpy\nndarray\n)R.",  # numpy.ndarray called directly
        b"\x80\x02cnumpy\ndtype\n(U\x02f8K\x00K\x01tR.",  # another dtype
        b"\x80\x02U\x01a)R.",  # a call of text
        b"\x80\x02}(U\x01aU\x01b.",  # stops inside of a dict
        b"\x80\x02}U\x01a.",  # two values
        b"\x80\x02].",  # a list
        b"\x80\x02",  # no end
        b"\x80\x02t.",  # no mark
        b"\x80\x02h\x05.",  # nothing remembered there
        b"\x80\x02e.",
        b"\x80\x02(u.",
        b"\x80\x02}(U\x01au.",  # a key without a value
        b"\x80\x02}(]U\x01au.",  # a list as key
        b"\x80\x02}q\x00(h\x00U\x01au.",  # a dict as its own key
        b"\x80\x02U\xff",
        b"\x80\x02T\xff\xff\xff\xff.",  # a negative length
        b"\x80\x04B\xff\xff\xff\xff.",  # 4 GiB that are not there
        b"\x80\x04\x8c\x01\xff.",  # no UTF-8
        b"\x80\x09.",
        b"",
        b".",
    ],
)
def test_damaged_or_contrived_pickles(content: bytes) -> None:
    refusal(content)


def test_a_pickle_that_grows_is_not_written_out() -> None:
    """A tuple doubled 60 times takes a minute of memory to print; nothing here prints it."""
    doubled = b"U\x01a\x85" + b"q\x00h\x00\x86" * 60
    for content in (
        b"\x80\x02cnumpy\ndtype\n" + doubled + b"R.",
        b"\x80\x04" + doubled + doubled + b"\x93.",
        b"\x80\x02}(U\x04data" + doubled + b"U\x06labels" + doubled + b"u.",
    ):
        try:
            read_batch_pickle(content, "the batch")
        except PixelfastError as error:
            assert len(str(error)) < 400


def batch_file(tmp_path: Path, batch: dict[str, Any]) -> Path:
    path = tmp_path / "data_batch_1"
    path.write_bytes(data_files.Python2Pickle().dump(batch))
    return path


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"labels": [1]}, "holds labels; CIFAR-10's batches hold data and labels"),
        ({"fine_labels": [1], "data": np.zeros((1, 3072), np.uint8)}, "fine_labels, data"),
        ({"labels": [1], "data": [0] * 10}, "a list as data"),
        ({"labels": [1], "data": np.zeros((1, 3071), np.uint8)}, "(1, 3071)"),
        ({"labels": [1], "data": np.zeros((1, 3072), np.float32)}, "array of 'f4'"),
        ({"labels": [1, 2], "data": np.zeros((1, 3072), np.uint8)}, "(2,) labels for 1 images"),
        ({"labels": [10], "data": np.zeros((1, 3072), np.uint8)}, "integers 0 to 9"),
        ({"labels": ["1"], "data": np.zeros((1, 3072), np.uint8)}, "integers 0 to 9"),
        ({"labels": [], "data": np.zeros((0, 3072), np.uint8)}, "(0, 3, 32, 32)"),
    ],
)
def test_batches_of_another_make(tmp_path: Path, batch: dict[str, Any], words: str) -> None:
    with pytest.raises(PixelfastError) as error:
        open_data(batch_file(tmp_path, batch))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_class_names_must_be_there(tmp_path: Path) -> None:
    data_files.write_cifar(tmp_path, binary=False)
    (tmp_path / "batches.meta").write_bytes(data_files.Python2Pickle().dump({"label_names": [1, 2]}))
    with pytest.raises(PixelfastError, match="label_names"):
        open_data(tmp_path)


def test_a_batch_that_is_cut_off(tmp_path: Path) -> None:
    images, labels = data_files.cifar_batch(2, 0)
    content = data_files.Python2Pickle().dump({"labels": labels, "data": images.reshape(2, -1)})
    path = tmp_path / "data_batch_1"
    for length in [1, 2, 3, 20, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(PixelfastError) as error:
            open_data(path)
        assert "data_batch_1" in str(error.value)
    path.write_bytes(content)
    assert len(open_data(path)) == 2
    assert ShapeError.__mro__[1] is PixelfastError
