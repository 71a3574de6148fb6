"""Damaged and hostile files: one line of CheckpointError, no code run, no memory taken on a file's word."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
import safetensors.torch
import torch
from foreign_networks import pclucas14_state, uvadlc_state

from pixelfast.checkpoints import containers, load
from pixelfast.errors import CheckpointError
from pixelfast.models import GatedPixelCNN, PixelCNNPlusPlus

CONFIG = {"shape": [1, 4, 5], "levels": 3, "hidden": 4, "dilations": [1, 2]}


def refused(path: Path, **arguments) -> str:
    """The message with which a file is refused; it names the file and is one printable line."""
    with pytest.raises(CheckpointError) as caught:
        load(path, **arguments)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < 1000
    return message


def native_bytes(description: object = None, tensors: dict[str, torch.Tensor] | None = None) -> bytes:
    """A file of our own format with this description (text, or an object to be written as JSON)."""
    if description is None:
        description = {"version": 1, "model": "gated_pixelcnn", "config": CONFIG}
    text = description if isinstance(description, str) else json.dumps(description)
    return safetensors.torch.save(
        GatedPixelCNN(**CONFIG).state_dict() if tensors is None else tensors, metadata={"pixelfast": text}
    )


def raw_safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one_tensor(shape: list[int], size: int, dtype: str = "F32") -> bytes:
    """A file that claims one tensor of `size` bytes and has at most 8."""
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
    return raw_safetensors({"a": entry}, bytes(min(size, 8)))


class TestHeaders:
    """Files that are not what they claim to be."""

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "neither a safetensors nor a PyTorch nor an .npz nor a TensorFlow file"),
            (b"\0" * 7, "neither"),
            (b"GIF89a not a checkpoint", "neither"),
            (pickle.dumps({"a": 1}, protocol=4), "neither"),
            (struct.pack("<Q", 1 << 62) + b"{", "damaged safetensors file"),
            (struct.pack("<Q", 99_000_000) + b"{}", "damaged safetensors file"),
            (raw_safetensors(b"{" * 5000), "damaged safetensors file"),
            (raw_safetensors(b'{"a":' * 5000 + b"1" + b"}" * 5000), "damaged safetensors file"),
            (raw_safetensors(b"{\xff\xfe}"), "damaged safetensors file"),
            (raw_safetensors({}), "no known layout"),
            (one_tensor([-1], 4), "damaged safetensors file"),
            (one_tensor([2**40, 2**40], 4), "damaged safetensors file"),
            (one_tensor([10**9], 4 * 10**9), "damaged safetensors file"),
            (one_tensor([1], 8, "I64"), "a is I64; accepted are"),
            (b"PK\x03\x04 and then nothing of a zip", "torch refuses"),
            (b"\x80\x02 and then nothing of a pickle", "torch refuses"),
        ],
    )
    def test_refused(self, content, message, tmp_path):
        (tmp_path / "m").write_bytes(content)
        assert message in refused(tmp_path / "m")

    def test_overlapping_tensors(self, tmp_path):
        entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        (tmp_path / "m").write_bytes(raw_safetensors({"a": entry, "b": entry}, b"0" * 8))
        assert "damaged" in refused(tmp_path / "m")

    def test_a_missing_file_a_directory_and_a_name_that_cannot_be(self, tmp_path):
        assert "there is no such file" in refused(tmp_path / "missing")
        assert "not a regular file" in refused(tmp_path)
        assert "cannot be read: File name too long" in refused(tmp_path / ("x" * 400))
        with pytest.raises(CheckpointError, match="cannot be read: embedded null byte"):
            load("a\0b")

    @pytest.mark.parametrize("kind", ["native", "zip", "legacy"])
    def test_every_truncation(self, kind, tmp_path):
        path = tmp_path / "m"
        if kind == "native":
            content = native_bytes()
        else:
            buffer = io.BytesIO()
            state = uvadlc_state(1, 2, 3, 1, 2)
            torch.save(state, buffer, _use_new_zipfile_serialization=kind == "zip")
            content = buffer.getvalue()
        step = len(content) // 60
        for length in {*range(0, len(content), step), *range(20), len(content) - 1}:
            path.write_bytes(content[:length])
            refused(path, **({} if kind == "native" else {"dilations": (1,)}))
        path.write_bytes(content)
        load(path, **({} if kind == "native" else {"dilations": (1,)}))


class TestDescriptions:
    """A well-formed safetensors file whose own description lies."""

    @pytest.mark.parametrize(
        ("description", "message"),
        [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[" * 60_000, "not JSON"),
            ('{"a":' * 8000 + "1" + "}" * 8000, "not JSON"),
            ("9" * 60_000, "not JSON"),
            ('{"version": NaN}', "not JSON"),
            ("x" * 100_000, "has 100000 characters; at most 65536"),
            ("[]", "must have version, model and config"),
            ("{}", "must have version, model and config"),
            ({"version": 2, "model": "gated_pixelcnn", "config": CONFIG}, "format version '2' is not 1"),
            ({"version": True, "model": "gated_pixelcnn", "config": CONFIG}, "format version 'True'"),
            ({"version": 1, "model": "os.system", "config": CONFIG}, "unknown model 'os.system'; known are "),
            ({"version": 1, "model": ["gated_pixelcnn"], "config": CONFIG}, "unknown model"),
            ({"version": 1, "model": "gated_pixelcnn", "config": [1]}, "not a JSON object"),
            ({"version": 1, "model": "gated_pixelcnn", "config": CONFIG | {"self": 1}}, "no argument 'self'"),
            ({"version": 1, "model": "gated_pixelcnn", "config": CONFIG | {"x\ny": 1}}, "no argument"),
        ],
    )
    def test_refused(self, description, message, tmp_path):
        (tmp_path / "m").write_bytes(native_bytes(description))
        assert message in refused(tmp_path / "m")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"hidden": -4}, "hidden must be from"),
            ({"hidden": 10**18}, "hidden must be from"),
            ({"hidden": 10**4000}, "hidden must be from"),
            ({"hidden": "4"}, "hidden must be an integer"),
            ({"hidden": 4.0}, "hidden must be an integer"),
            ({"hidden": None}, "hidden must be an integer"),
            ({"hidden": [4]}, "hidden must be an integer"),
            ({"hidden": 60_000}, "wrong shape: "),
            ({"hidden": 60_000, "shape": [3, 4, 5]}, "wrong shape: "),
            ({"levels": 0}, "levels must be from"),
            ({"levels": 60_000}, "wrong shape: head.weight"),
            ({"dilations": [1] * 20_000}, "must have from 1 to 128 entries, not 20000"),
            ({"dilations": [1] * 128}, "missing: blocks.2.vertical.weight"),
            ({"dilations": [1, -2]}, "dilations[1] must be from"),
            ({"dilations": {"0": 1}}, "must be a sequence"),
            ({"shape": [1, -4, 5]}, "height must be from"),
            ({"shape": [1, 10**9, 5]}, "height must be from"),
            ({"shape": []}, "shape must be"),
            ({"shape": {"a": 1, "b": 2, "c": 3}}, "shape must be"),
            ({"kernel_size": 10**6 + 1}, "kernel_size must be from"),
            ({"classes": 60_000}, "missing: "),
            ({"spatial_condition": 60_000, "shape": [1, 16_000, 16_000]}, "missing: "),
            ({"input": 3}, "input must be one of"),
        ],
    )
    def test_arguments(self, change, message, tmp_path):
        description = {"version": 1, "model": "gated_pixelcnn", "config": CONFIG | change}
        (tmp_path / "m").write_bytes(native_bytes(description))
        assert message in refused(tmp_path / "m")

    @pytest.mark.parametrize(
        "change", [{"filters": 60_000}, {"blocks": 32}, {"mixtures": 4000}, {"blocks": 10**9}]
    )
    def test_an_oversized_pixelcnn_plus_plus(self, change, tmp_path):
        model = PixelCNNPlusPlus((1, 4, 4), blocks=1, filters=2, mixtures=1)
        description = {"version": 1, "model": "pixelcnn_plus_plus", "config": model.config | change}
        (tmp_path / "m").write_bytes(native_bytes(description, model.state_dict()))
        refused(tmp_path / "m")


class TestTensors:
    """A true description with other tensors than it needs."""

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_weights_that_are_not_finite(self, value, tmp_path):
        state = GatedPixelCNN(**CONFIG).state_dict()
        state["blocks.1.mix.weight"][1, 2] = value
        (tmp_path / "m").write_bytes(native_bytes(tensors=state))
        assert "blocks.1.mix.weight holds NaN or infinite values" in refused(tmp_path / "m")

    def test_missing_unused_and_misshapen_in_one_report(self, tmp_path):
        state = GatedPixelCNN(**CONFIG).state_dict()
        del state["head.bias"]
        state["blocks.0.mix.bias"] = torch.zeros(2, 2)
        state["x\n" + "y" * 500] = torch.zeros(1)
        (tmp_path / "m").write_bytes(native_bytes(tensors=state))
        message = refused(tmp_path / "m")
        assert (
            "missing: head.bias; unused: x; wrong shape: blocks.0.mix.bias (2, 2) instead of (4,)" in message
        )

    def test_dtypes(self, tmp_path):
        state = GatedPixelCNN(**CONFIG).state_dict()
        state["head.bias"] = state["head.bias"].double()
        (tmp_path / "m").write_bytes(native_bytes(tensors=state))
        assert "tensors of several dtypes: torch.float32, torch.float64" in refused(tmp_path / "m")
        state["head.bias"] = torch.zeros(3, dtype=torch.uint8)
        (tmp_path / "m").write_bytes(native_bytes(tensors=state))
        assert "head.bias is U8; accepted are BF16, F16, F32, F64" in refused(tmp_path / "m")


class Bomb:
    """Unpickled without restriction, it creates a file."""

    def __init__(self, call: Callable, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


class TestPickles:
    """PyTorch files: only the restricted unpickler, only on a torch that has its fix, never a second try."""

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("call", [os.system, os.mkdir, eval, exec], ids=lambda call: call.__name__)
    def test_no_code_is_run(self, call, zipped, tmp_path):
        proof = tmp_path / "proof"
        argument = {
            os.system: f"touch {proof}",
            os.mkdir: str(proof),
            eval: f"open({str(proof)!r}, 'w')",
            exec: f"open({str(proof)!r}, 'w')",
        }[call]
        bomb = {"state_dict": uvadlc_state(1, 2, 3, 1, 2) | {"bomb": Bomb(call, argument)}}
        torch.save(bomb, tmp_path / "m.ckpt", _use_new_zipfile_serialization=zipped)
        assert "torch refuses to load it with weights_only=True" in refused(tmp_path / "m.ckpt")
        assert not proof.exists()
        # The bomb is live: the same reduction, called, leaves its proof.
        call(argument)
        assert proof.exists()

    def test_it_is_never_tried_without_restriction(self, tmp_path, monkeypatch):
        torch.save({"bomb": Bomb(os.mkdir, str(tmp_path / "proof"))}, tmp_path / "m.pt")
        calls = []
        original = torch.load

        def recorded(*arguments, **keywords):
            calls.append(keywords)
            return original(*arguments, **keywords)

        monkeypatch.setattr(torch, "load", recorded)
        refused(tmp_path / "m.pt")
        assert calls == [{"map_location": "cpu", "weights_only": True}]

    @pytest.mark.parametrize("version", ["2.5.1", "2.9.1+cpu"])
    def test_a_torch_without_the_fix_reads_no_pickle(self, version, tmp_path, monkeypatch):
        torch.save(uvadlc_state(1, 2, 3, 1, 2), tmp_path / "m.ckpt")
        (tmp_path / "m.safetensors").write_bytes(native_bytes())
        monkeypatch.setattr(torch, "__version__", version)
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
        assert "read with torch 2.10 or later only" in refused(tmp_path / "m.ckpt", dilations=(1,))
        load(tmp_path / "m.safetensors")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([1, 2], "holds no dictionary of tensors"),
            ({}, "holds no dictionary of tensors"),
            (torch.zeros(2), "holds no dictionary of tensors"),
            ({"state_dict": {}}, "holds no dictionary of tensors"),
            ({"a": 1}, "entry a of the state_dict is not a tensor"),
            ({1: torch.zeros(1)}, "entry 1 of the state_dict is not a tensor"),
            ({"a": torch.zeros(1, dtype=torch.int64)}, "a is not a dense float tensor"),
            ({"a": torch.zeros(2, 2).to_sparse()}, "a is not a dense float tensor"),
            ({"a": torch.zeros(2, device="meta")}, "a is not a dense float tensor"),
            (
                {"u_init.conv.weight_v": torch.zeros(1).expand(10**9, 4, 2, 3)},
                "claim more bytes than the file",
            ),
            ({"a": torch.full((3,), float("nan"))}, "a holds NaN"),
        ],
    )
    def test_other_contents(self, content, message, tmp_path):
        torch.save(content, tmp_path / "m.pt")
        assert message in refused(tmp_path / "m.pt")

    def test_a_compressed_zip_is_not_torchs_work(self, tmp_path):
        torch.save(uvadlc_state(1, 2, 3, 1, 2), tmp_path / "m.ckpt")
        with zipfile.ZipFile(tmp_path / "m.ckpt") as archive:
            entries = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(tmp_path / "m.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
            archive.writestr("archive/data/99", bytes(10**7))
        assert "is not compressed inside; this one is" in refused(tmp_path / "m.ckpt", dilations=(1,))

    def test_entries_that_share_bytes(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.ckpt", "w") as archive:
            archive.writestr("archive/data.pkl", bytes(1000))
            # Ten names in the directory for one stretch of the file.
            archive.filelist *= 10
        assert "its entries claim more bytes than the file has" in refused(tmp_path / "m.ckpt")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"u_init.conv.weight_v": torch.zeros(3, 4)}, "not a PixelCNN++ for 1 or 3 channels"),
            ({"u_init.conv.weight_v": torch.zeros(3, 3, 2, 3)}, "not a PixelCNN++ for 1 or 3 channels"),
            ({"nin_out.lin_a.weight_v": torch.zeros(0, 3)}, "nin_out has 0 outputs"),
            ({"nin_out.lin_a.weight_v": torch.zeros(21, 3)}, "nin_out has 21 outputs, not a multiple of 10"),
            (
                {f"up_layers.0.u_stream.{i}.x": torch.zeros(1) for i in range(99)},
                "blocks must be from 1 to 32",
            ),
        ],
    )
    def test_sizes_inferred_from_lies(self, change, message, tmp_path):
        torch.save(pclucas14_state(3, filters=3, blocks=1, mixtures=2) | change, tmp_path / "m.pth")
        assert message in refused(tmp_path / "m.pth")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"conv_vstack.conv.weight": torch.zeros(())}, "must be (hidden, channels, k, k), k odd"),
            ({"conv_vstack.conv.weight": torch.zeros(2, 0, 3, 3)}, "must be (hidden, channels, k, k), k odd"),
            ({"conv_out.bias": torch.zeros(())}, "conv_out has 0 outputs"),
            ({"conv_vstack.mask": torch.zeros(())}, "wrong shape: conv_vstack.mask"),
            ({"conv_layers.7.x": torch.zeros(1)}, "unused: conv_layers.7.x"),
        ],
    )
    def test_sizes_of_masked_stacks_inferred_from_lies(self, change, message, tmp_path):
        torch.save(uvadlc_state(1, 2, 3, 1, 2) | change, tmp_path / "m.ckpt")
        assert message in refused(tmp_path / "m.ckpt", dilations=(1,))


class TestFuzz:
    """Any bytes at all: a model, or a CheckpointError."""

    @staticmethod
    def load_or_refuse(path: Path, content: bytes) -> None:
        path.write_bytes(content)
        try:
            load(path, **({} if content[8:9] == b"{" else {"dilations": (1,)}))
        except CheckpointError as error:
            assert str(error).isprintable()

    @hypothesis.given(
        st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x40" + b"\0" * 7 + b"{"]), st.binary()
    )
    @hypothesis.settings(max_examples=150)
    def test_random_bytes(self, tmp_path_factory, start, content):
        self.load_or_refuse(tmp_path_factory.getbasetemp() / "fuzz", start + content)

    @pytest.mark.parametrize("kind", ["native", "zip", "legacy"])
    def test_mutations(self, kind, tmp_path):
        if kind == "native":
            original = native_bytes()
        else:
            torch.save(
                uvadlc_state(1, 2, 3, 1, 2), tmp_path / "o", _use_new_zipfile_serialization=kind == "zip"
            )
            original = (tmp_path / "o").read_bytes()

        @hypothesis.given(
            st.lists(
                st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), min_size=1, max_size=8
            )
        )
        @hypothesis.settings(max_examples=150)
        def mutate(changes):
            content = bytearray(original)
            for position, byte in changes:
                # Half of the changes near the start, where the structure is.
                content[position // 8 if position % 2 else position] = byte
            self.load_or_refuse(tmp_path / "m", bytes(content))

        mutate()


LIMITED = """
import resource, sys
from pixelfast.checkpoints import load
from pixelfast.errors import CheckpointError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        load(path)
    except CheckpointError as error:
        continue
    sys.exit(f"{path} was accepted")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_small_file_takes_little_memory_whatever_it_claims(tmp_path):
    claims = [
        {"version": 1, "model": "gated_pixelcnn", "config": CONFIG | {"hidden": 60_000, "shape": [3, 4, 5]}},
        {"version": 1, "model": "gated_pixelcnn", "config": CONFIG | {"levels": 60_000, "hidden": 60_000}},
        {"version": 1, "model": "pixelcnn_plus_plus", "config": {"filters": 60_000, "blocks": 32}},
    ]
    paths = []
    for index, claim in enumerate(claims):
        paths.append(tmp_path / f"{index}")
        paths[-1].write_bytes(native_bytes(claim))
    paths.append(tmp_path / "expanded")
    torch.save({"u_init.conv.weight_v": torch.zeros(1).expand(10**9, 4, 2, 3)}, paths[-1])
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, paths)], capture_output=True, text=True, check=True
    )
    # Kilobytes; what the claims ask for begins at 40 GB.
    assert int(result.stdout) < 200_000


def test_values_are_checked_by_the_same_rule_on_both_ways(tmp_path):
    with pytest.raises(CheckpointError, match="w holds NaN"):
        containers.check_values(tmp_path, {"v": torch.zeros(2), "w": torch.tensor([0.0, float("nan")])})
    containers.check_values(tmp_path, {"v": torch.zeros(0)})
