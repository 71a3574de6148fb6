"""TensorFlow's checkpoints without TensorFlow: both formats, OpenAI's PixelCNN++ in them, and damaged files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import tensorflow_files
import torch
from foreign_networks import openai_forward, openai_state
from tensorflow_files import masked_crc, number, table, text, varint, write_bundle, write_slices
from torch import Tensor

import pixelfast
from pixelfast.checkpoints import load
from pixelfast.checkpoints.crc32c import crc32c, masked
from pixelfast.checkpoints.protobuf import Malformed
from pixelfast.checkpoints.sstable import entries
from pixelfast.checkpoints.tensor_bundle import read_bundle
from pixelfast.cli.main import main
from pixelfast.errors import CheckpointError

AVERAGE = "/ExponentialMovingAverage"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return openai_state(filters=3, blocks=1, mixtures=2)


@pytest.fixture(scope="module")
def bundle(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a whole checkpoint in the present format."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "params.ckpt", {**state, "global_step": torch.tensor(7)})


def averages(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removesuffix(AVERAGE): tensor for name, tensor in state.items() if name.endswith(AVERAGE)}


def images(channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return 2 * torch.rand(2, channels, 8, 12, generator=generator, dtype=torch.float64) - 1


class TestChecksum:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"", 0),
            (b"123456789", 0xE3069283),
            (bytes(32), 0x8A9136AA),  # these three: RFC 3720, appendix B.4
            (b"\xff" * 32, 0x62A8AB43),
            (bytes(range(32)), 0x46DD794E),
        ],
        ids=["nothing", "check", "zeros", "ones", "rising"],
    )
    def test_published_values(self, data: bytes, expected: int) -> None:
        assert crc32c(data) == expected

    @pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 1023, 1 << 14, (1 << 14) + 1, 1 << 15, (1 << 15) + 1, 50_001])
    def test_any_length(self, length: int) -> None:
        data = bytes(torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(length)).tolist())
        assert crc32c(data) == tensorflow_files.crc32c(data)
        assert masked(crc32c(data)).to_bytes(4, "little") == masked_crc(data)


class TestTable:
    ENTRIES = tuple((f"key/{i:03}/{'x' * (i % 5)}".encode(), bytes([i]) * (37 * i % 301)) for i in range(50))

    @pytest.mark.parametrize("compress", [False, True])
    @pytest.mark.parametrize("per_block", [1, 7, 100])
    def test_round_trip(self, per_block: int, compress: bool) -> None:
        content = table(list(self.ENTRIES), per_block, compress)
        assert tuple((key, bytes(value)) for key, value in entries(content)) == self.ENTRIES

    def test_an_empty_table(self) -> None:
        assert list(entries(table([]))) == []

    @pytest.mark.parametrize("compress", [False, True])
    def test_every_byte_counts(self, compress: bool) -> None:
        """A changed byte in a block never goes unnoticed; in the padding of the footer nothing depends on it."""
        content = table(list(self.ENTRIES[:9]), 4, compress)
        expected = list(entries(content))
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 0x41
            try:
                assert list(entries(changed)) == expected
            except Malformed:
                continue
            assert len(content) - 48 <= place < len(content) - 8, place


TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b/scalar": torch.tensor(2.5),
    "b/empty": torch.empty(0, 3),
    "c": torch.arange(5, dtype=torch.float64) / 3,
    "d": torch.arange(3).to(torch.bfloat16),
    "e": torch.arange(3).to(torch.float16),
}


class TestFormats:
    @pytest.mark.parametrize("shards", [1, 3])
    def test_a_bundle(self, tmp_path: Path, shards: int) -> None:
        index = write_bundle(tmp_path / "m", {**TENSORS, "step": torch.tensor(3, dtype=torch.int64)}, shards)
        found = read_bundle(index)
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[k], t) and found[k].dtype == t.dtype for k, t in TENSORS.items())

    @pytest.mark.parametrize("compress", [False, True])
    def test_slices(self, tmp_path: Path, compress: bool) -> None:
        given = {
            "zeros": torch.zeros(300),
            "a": torch.arange(6.0).view(2, 3),
            "b": torch.tensor(2.5),
            "c": torch.rand(7),
        }
        path = write_slices(tmp_path / "m", {**given, "step": torch.tensor([3])}, compress)
        found = read_bundle(path)
        assert found.keys() == given.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in given.items())


class TestOpenAI:
    @pytest.mark.parametrize(
        "sizes",
        [{"blocks": 1, "filters": 3, "mixtures": 2}, {"blocks": 2, "filters": 2, "mixtures": 1}],
        ids=["one block", "two blocks"],
    )
    @pytest.mark.parametrize("old", [False, True], ids=["bundle", "slices"])
    def test_its_own_outputs(self, tmp_path: Path, sizes: dict[str, int], old: bool) -> None:
        """The moving averages', and those of a norm per output channel, also where it is up-sampled."""
        given = openai_state(**sizes)
        path = write_slices(tmp_path / "m", given, True) if old else write_bundle(tmp_path / "m", given)
        model: Any = load(path, shape=(3, 8, 12))
        assert {name: model.config[name] for name in sizes} == sizes
        assert model.config["deconv_norm"] == "out" and model.config["classes"] is None
        x = images()
        found = model.double()(x)
        torch.testing.assert_close(found, openai_forward(averages(given), x), rtol=1e-9, atol=1e-9)
        plain = {name: tensor for name, tensor in given.items() if not name.endswith(AVERAGE)}
        assert not torch.allclose(found, openai_forward(plain, x), rtol=0.1)

    def test_a_norm_of_the_other_axis_would_show(self, bundle: Path, state: dict[str, Tensor]) -> None:
        """The comparison above can fail by the axis of the norm alone."""
        model: Any = load(bundle, shape=(3, 8, 12)).double()
        expected = openai_forward(averages(state), images())
        for layers in (model.up_vertical, model.up_horizontal):
            for layer in layers:
                layer.norm_axis = 0
        assert not torch.allclose(model(images()), expected, rtol=1e-3)

    def test_without_averages(self, tmp_path: Path) -> None:
        given = openai_state(filters=2, blocks=1, mixtures=1, averages=False)
        model = load(write_bundle(tmp_path / "m", given), shape=(3, 8, 12)).double()
        torch.testing.assert_close(model(images()), openai_forward(given, images()), rtol=1e-9, atol=1e-9)

    def test_grey_images_and_classes(self, tmp_path: Path) -> None:
        given = openai_state(filters=2, blocks=1, mixtures=2, channels=1, classes=4)
        model: Any = load(write_bundle(tmp_path / "m", given))
        assert (model.shape, model.config["classes"], model.config["mixtures"]) == ((1, 28, 28), 4, 2)
        # Blocks in the order of their calls: the third level's second horizontal one is the last.
        last = model.decoder[2].horizontal[1].condition.weight
        assert torch.equal(last, given[f"model/conditional_weights_15/hw{AVERAGE}"])
        weights = [module.weight for name, module in model.named_modules() if name.endswith("condition")]
        assert len(weights) == sum(name.endswith("/hw") for name in given)

    def test_every_name_of_its_files(self, bundle: Path) -> None:
        """The index, the data file, and what they have in common."""
        prefix = bundle.with_name("params.ckpt")
        expected = load(bundle).state_dict()
        for path in (prefix, bundle, Path(f"{prefix}.data-00000-of-00001")):
            found = load(path, layout="openai-tf1").state_dict()
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

    def test_convert_and_sample(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
    ) -> None:
        monkeypatch.chdir(tmp_path)
        prefix = str(bundle.with_name("params.ckpt"))
        assert main(["convert", prefix, "own.safetensors", "--shape", "3,8,8"]) == 0
        own, expected = pixelfast.load("own.safetensors"), load(bundle, shape=(3, 8, 8))
        assert all(torch.equal(t, expected.state_dict()[name]) for name, t in own.state_dict().items())
        assert main(["sample", prefix, "-n", "1", "--shape", "3,8,8", "-o", "a.png"]) == 0
        assert "wrote a.png" in capsys.readouterr().out


def refused(path: Path, **arguments: Any) -> str:
    """The message with which a checkpoint is refused; one printable line that names a file."""
    with pytest.raises(CheckpointError) as caught:
        load(path, **arguments)
    message = str(caught.value)
    assert message.startswith(f"{path.parent}/") and message.isprintable() and len(message) < 1000
    return message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model/conv2d_4/V"), "no moving average"),
        (lambda s: s.update({"a\nb": torch.ones(1)}), "a and 0 others have no moving average"),
        (lambda s: s.pop(f"model/conv2d_4/V{AVERAGE}"), "no moving average"),
        (lambda s: (s.pop("model/conv2d_4/g"), s.pop(f"model/conv2d_4/g{AVERAGE}")), "missing: model/conv2d_4/g"),
        (lambda s: s.update({"model/z": torch.ones(1), f"model/z{AVERAGE}": torch.ones(1)}), "unused: model/z"),
        (lambda s: s.update({"other": torch.ones(1), f"other{AVERAGE}": torch.ones(1)}), "unused: other"),
        (lambda s: s.update({f"model/conv2d_3/b{AVERAGE}": torch.ones(9)}), "wrong shape"),
        (lambda s: s.update({f"model/conv2d_3/b{AVERAGE}": torch.full((3,), torch.inf)}), "NaN or infinite"),
        (lambda s: [s.pop(name) for name in list(s) if "conv2d_38/" in name], "38 convolutions"),
        (lambda s: [s.pop(name) for name in list(s) if "deconv2d_0/" in name], "no known layout"),
        (lambda s: s.update({f"model/dense_13/V{AVERAGE}": torch.ones(3, 64)}), "the last layer has 64 outputs"),
    ],
)
def test_what_does_not_fit_is_named(
    state: dict[str, Tensor], tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    changed = dict(state)
    change(changed)
    assert message in refused(write_bundle(tmp_path / "m", changed))


def test_hints(bundle: Path) -> None:
    assert "leave it out" in refused(bundle, dilations=(1, 2))
    assert "2 channels, the file has 3" in refused(bundle, shape=(2, 8, 8))
    assert load(bundle).shape == (3, 32, 32)


def test_a_data_file_that_is_missing(bundle: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.index"
    alone.write_bytes(bundle.read_bytes())
    assert "alone.data-00000-of-00001, which belongs to it, is not beside it" in refused(alone)


def test_a_changed_number_is_found(bundle: Path, tmp_path: Path) -> None:
    for source in bundle.parent.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    data = tmp_path / "params.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert "the checksum of model/" in refused(tmp_path / bundle.name)
    content[len(content) // 2] ^= 1
    data.write_bytes(content[:-5])
    assert "does not have the bytes" in refused(tmp_path / bundle.name)


def one_entry(entry: bytes) -> bytes:
    """An index of one tensor."""
    return table([(b"", number(1, 1)), (b"a", entry)])


FLOAT, HUGE = number(1, 1), text(2, text(2, number(1, 1 << 40)))
EMPTY_AND_HUGE = text(2, text(2, number(1, 0)) + 2 * text(2, number(1, 1 << 40)))
DAMAGED = {
    "no table": b"x" * 60 + bytes.fromhex("57fb808b247547db"),
    "nothing but its end": bytes.fromhex("57fb808b247547db"),
    "empty": table([]),
    "no description": table([(b"a", b"")]),
    "description that is none": table([(b"", b"\xff\xff")]),
    "big-endian": table([(b"", number(1, 1) + number(2, 1))]),
    "no data files": table([(b"", number(2, 0))]),
    "too many data files": table([(b"", number(1, 1 << 40))]),
    "claims a terabyte": one_entry(FLOAT + HUGE + number(5, 1 << 42)),
    "nothing, of a shape with impossible strides": one_entry(
        FLOAT + EMPTY_AND_HUGE + varint(6 << 3 | 5) + masked_crc(b"")
    ),
    "negative size": one_entry(FLOAT + text(2, text(2, number(1, (1 << 64) - 1))) + number(5, 4)),
    "unknown shape": one_entry(FLOAT + text(2, number(3, 1))),
    "in parts": one_entry(FLOAT + text(7, b"")),
    "another data file": one_entry(FLOAT + number(3, 5)),
    "name that is no text": table([(b"", number(1, 1)), (b"\xff\xfe", FLOAT)]),
    "unsorted": table([(b"", number(1, 1)), (b"b", number(1, 9)), (b"a", number(1, 9))]),
    "slice without a tensor": table([(b"", text(1, b"")), (b"a", text(2, text(1, b"a")))]) + b"",
    "tensor without a slice": table([(b"", text(1, text(1, text(1, b"a") + number(3, 1))))]),
    "slice of a part": table(
        [
            (b"", text(1, text(1, text(1, b"a") + text(2, text(2, number(1, 4))) + number(3, 1)))),
            (b"a", text(2, text(1, b"a") + text(2, text(1, number(1, 0) + number(2, 2))))),
        ]
    ),
    "fewer numbers": table(
        [
            (b"", text(1, text(1, text(1, b"a") + text(2, text(2, number(1, 4))) + number(3, 1)))),
            (b"a", text(2, text(1, b"a") + text(3, text(5, bytes(12))))),
        ]
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_tables_are_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "m.index"
    path.write_bytes(DAMAGED[case])
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(16))
    assert "TensorFlow" in refused(path)


@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(1, 255), cut=st.booleans())
def test_any_damage_is_one_line(tmp_path: Path, place: float, byte: int, cut: bool) -> None:
    """To a file of the old format, whose numbers are in the table: refused, or read as it was."""
    path = tmp_path / "m"
    given = {"a": torch.arange(40.0), "zeros": torch.zeros(50)}
    content = bytearray(write_slices(path, given, True).read_bytes())
    at = int(place * len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= byte
    path.write_bytes(content)
    try:
        found = read_bundle(path)
    except Malformed:
        return
    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())
