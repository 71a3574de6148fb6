"""What is saved is what is loaded, and the weights of foreign layouts give their own outputs."""

from __future__ import annotations

import gzip
import json
import math
import os

import pytest
import safetensors.torch
import torch
from foreign_networks import pclucas14_forward, pclucas14_state, uvadlc_forward, uvadlc_state
from safetensors import safe_open
from torch import nn

from pixelfast.checkpoints import load, save
from pixelfast.errors import CheckpointError, PixelfastError
from pixelfast.models import GatedPixelCNN, PixelCNNPlusPlus

TUTORIAL_DILATIONS = (1, 2, 1, 4, 1, 2, 1)


def gated(**arguments) -> GatedPixelCNN:
    torch.manual_seed(0)
    return GatedPixelCNN(**({"shape": (1, 4, 5), "levels": 3, "hidden": 4, "dilations": (1, 2)} | arguments))


def plus_plus(**arguments) -> PixelCNNPlusPlus:
    torch.manual_seed(0)
    return PixelCNNPlusPlus(**({"shape": (3, 4, 8), "blocks": 1, "filters": 4, "mixtures": 2} | arguments))


def signed_images(*shape: int) -> torch.Tensor:
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1


def data_parallel(state):
    return {f"module.{name}": value for name, value in state.items()}


def present_names(state):
    renamed = {
        "weight_g": "parametrizations.weight.original0",
        "weight_v": "parametrizations.weight.original1",
    }
    return {
        next(
            (name.removesuffix(old) + new for old, new in renamed.items() if name.endswith(old)), name
        ): value
        for name, value in state.items()
    }


class TestNative:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    @pytest.mark.parametrize(
        "model",
        [
            gated(),
            gated(shape=(3, 4, 5), classes=3, kernel_size=5),
            gated(spatial_condition=2, channel_order="independent", input="unit"),
            plus_plus(),
            plus_plus(classes=2, deconv_norm="in", dropout=0.25),
        ],
        ids=["gated", "gated_rgb_classes", "gated_map", "plus_plus", "plus_plus_classes"],
    )
    def test_round_trip(self, model, dtype, tmp_path):
        path = tmp_path / "model.safetensors"
        model.to(dtype)
        save(model, path)
        again = load(path)
        assert type(again) is type(model) and again.config == model.config
        assert not again.training
        before, after = model.state_dict(), again.state_dict()
        assert list(before) == list(after)
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert {value.dtype for value in after.values()} == {dtype}

    def test_outputs_are_the_same_bits(self, tmp_path):
        model = gated(shape=(3, 4, 5), classes=3).eval()
        save(model, tmp_path / "m")
        x, labels = signed_images(2, 3, 4, 5).float(), torch.tensor([0, 2])
        assert torch.equal(model(x, labels), load(tmp_path / "m")(x, labels))

    def test_the_file_is_safetensors_with_json(self, tmp_path):
        save(gated(), tmp_path / "m.safetensors")
        with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
            description = json.loads(file.metadata()["pixelfast"])
        assert description == {"version": 1, "model": "gated_pixelcnn", "config": gated().config}

    def test_arguments_left_out_of_the_file_take_their_defaults(self, tmp_path):
        model = gated()
        config = {key: value for key, value in model.config.items() if key not in ("input", "channel_order")}
        text = json.dumps({"version": 1, "model": "gated_pixelcnn", "config": config})
        safetensors.torch.save_file(model.state_dict(), tmp_path / "m", metadata={"pixelfast": text})
        assert load(tmp_path / "m").config == model.config

    def test_loading_leaves_the_random_state_alone(self, tmp_path):
        save(gated(), tmp_path / "m")
        before = torch.get_rng_state()
        load(tmp_path / "m")
        assert torch.equal(torch.get_rng_state(), before)

    def test_string_paths_and_the_layout_by_name(self, tmp_path):
        save(gated(), str(tmp_path / "m"))
        assert load(str(tmp_path / "m"), layout="pixelfast").config == gated().config

    @pytest.mark.parametrize("hint", [{"shape": (1, 4, 5)}, {"dilations": (1, 2)}])
    def test_hints_are_refused_for_a_file_that_records_everything(self, hint, tmp_path):
        save(gated(), tmp_path / "m")
        with pytest.raises(CheckpointError, match="leave both out"):
            load(tmp_path / "m", **hint)

    def test_other_modules_are_not_ours_to_save(self, tmp_path):
        with pytest.raises(PixelfastError, match="Linear is not one of pixelfast's models"):
            save(nn.Linear(1, 1), tmp_path / "m")
        assert not list(tmp_path.iterdir())


class TestNothingHalfWritten:
    @pytest.mark.parametrize("failing", ["fsync", "replace"])
    def test_a_failure_leaves_the_old_file_and_nothing_else(self, failing, tmp_path, monkeypatch):
        path = tmp_path / "m"
        save(gated(), path)
        before = path.read_bytes()

        def fail(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, failing, fail)
            with pytest.raises(CheckpointError, match="m: cannot be written: No space left on device"):
                save(gated(hidden=8), path)
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["m"]

    def test_an_interrupt_leaves_nothing(self, tmp_path, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(gated(), tmp_path / "m")
        assert not list(tmp_path.iterdir())

    def test_saving_over_a_file_replaces_it(self, tmp_path):
        save(gated(), tmp_path / "m")
        save(gated(hidden=8), tmp_path / "m")
        assert load(tmp_path / "m").config["hidden"] == 8
        assert [entry.name for entry in tmp_path.iterdir()] == ["m"]

    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path):
        model = gated()
        model.head.bias.data[1] = math.inf
        with pytest.raises(CheckpointError, match=r"head\.bias holds NaN or infinite values"):
            save(model, tmp_path / "m")
        assert not list(tmp_path.iterdir())

    def test_a_place_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "missing" / "m", tmp_path / "file" / "m", tmp_path):
            with pytest.raises(CheckpointError, match="cannot be written: ") as caught:
                save(gated(), path)
            assert "\n" not in str(caught.value)
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


class TestUvadlc:
    @pytest.fixture
    def published(self, shared_file):
        return shared_file("checkpoints", "uvadlc-gated-pixelcnn-mnist.ckpt")

    def test_the_published_network_gives_its_own_logits(self, published):
        model = load(published).double()
        state = torch.load(published, weights_only=True, map_location="cpu")["state_dict"]
        state = {name: value.double() for name, value in state.items()}
        x = signed_images(2, 1, 28, 28)
        expected = uvadlc_forward(state, x, TUTORIAL_DILATIONS)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
        assert model.shape == (1, 28, 28) and model.likelihood.levels == 256
        # Which dilations a file was trained with shows in its outputs.
        other = load(published, dilations=(1, 2, 1, 2, 1, 2, 1)).double()
        assert (other(x) - expected).abs().max() > 1e-2

    def test_the_published_network_saved_natively(self, published, tmp_path):
        model = load(published, layout="uvadlc", shape=(1, 20, 28))
        save(model, tmp_path / "m.safetensors")
        again = load(tmp_path / "m.safetensors")
        assert again.shape == (1, 20, 28)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        assert (tmp_path / "m.safetensors").stat().st_size < published.stat().st_size

    @pytest.mark.slow
    def test_the_published_network_on_2000_images(self, published, shared_file):
        raw = gzip.decompress(shared_file("data", "mnist", "t10k-images-idx3-ubyte.gz").read_bytes())
        pixels = torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)[:2000]
        model = load(published)
        with torch.no_grad():
            losses = [
                model.likelihood.loss(model(batch / 127.5 - 1), batch.long()) for batch in pixels.split(100)
            ]
        bits = torch.stack(losses).double().mean().item() / (784 * math.log(2))
        assert bits == pytest.approx(0.807327, abs=1e-5)

    @pytest.mark.parametrize(("channels", "kernel"), [(1, 3), (3, 5)])
    def test_any_sizes_and_values_under_the_masks(self, channels, kernel, tmp_path):
        state = uvadlc_state(channels, hidden=5, kernel=kernel, layers=2, levels=4)
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / "m.ckpt")
        model = load(tmp_path / "m.ckpt", dilations=(1, 3), shape=(channels, 6, 9))
        x = signed_images(2, channels, 6, 9)
        expected = uvadlc_forward(state, x, (1, 3))
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
        assert model.shape == (channels, 6, 9) and expected.std() > 0.1

    @pytest.mark.parametrize(
        ("dilations", "message"),
        [
            (None, "has 2 layers and does not record their dilations: give `dilations`"),
            ((1, 2, 1), "`dilations` has 3 entries, the file has 2 layers"),
            ((1, 0), r"dilations\[1\] must be from 1"),
        ],
    )
    def test_dilations_that_do_not_fit(self, dilations, message, tmp_path):
        torch.save(uvadlc_state(1, 4, 3, 2, 4), tmp_path / "m.ckpt")
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / "m.ckpt", dilations=dilations)

    def test_another_mask_is_another_network(self, tmp_path):
        state = uvadlc_state(1, 4, 3, 2, 4)
        state["conv_layers.1.conv_horiz.mask"][..., 2] = 1
        torch.save(state, tmp_path / "m.ckpt")
        with pytest.raises(CheckpointError, match=r"conv_layers.1.conv_horiz.mask is not the tutorial's"):
            load(tmp_path / "m.ckpt", dilations=(1, 1))


class TestPclucas14:
    @pytest.mark.parametrize(
        "rename", [dict, data_parallel, present_names, lambda s: data_parallel(present_names(s))]
    )
    @pytest.mark.parametrize(("channels", "blocks"), [(1, 1), (3, 2)])
    def test_gives_its_own_outputs_and_saves_natively(self, channels, blocks, rename, tmp_path):
        state = pclucas14_state(channels, filters=3, blocks=blocks, mixtures=2)
        torch.save(rename(state), tmp_path / "m.pth")
        model = load(tmp_path / "m.pth")
        x = signed_images(2, channels, 8, 12)
        expected = pclucas14_forward(state, x)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-11)
        assert expected.std() > 0.1
        side = 28 if channels == 1 else 32
        assert model.config == {
            "shape": [channels, side, side],
            "blocks": blocks,
            "filters": 3,
            "mixtures": 2,
            "classes": None,
            "dropout": 0.5,
            "deconv_norm": "in",
        }
        save(model, tmp_path / "m.safetensors")
        assert torch.equal(load(tmp_path / "m.safetensors")(x), model(x))

    def test_the_norm_per_output_channel_is_another_network(self, tmp_path):
        state = pclucas14_state(1, filters=3, blocks=1, mixtures=2)
        torch.save(state, tmp_path / "m.pth")
        model = load(tmp_path / "m.pth")
        other = PixelCNNPlusPlus(**(model.config | {"deconv_norm": "out"})).double().eval()
        other.load_state_dict(model.state_dict())
        x = signed_images(1, 1, 8, 8)
        assert (other(x) - pclucas14_forward(state, x)).abs().max() > 1e-2

    def test_from_safetensors_and_with_a_shape(self, tmp_path):
        state = pclucas14_state(3, filters=3, blocks=1, mixtures=2)
        safetensors.torch.save_file(state, tmp_path / "m")
        assert load(tmp_path / "m", shape=(3, 64, 48)).shape == (3, 64, 48)

    def test_a_report_of_what_is_missing_unused_and_misshapen(self, tmp_path):
        state = pclucas14_state(3, filters=3, blocks=1, mixtures=2)
        del state["up_layers.1.ul_stream.0.nin_skip.lin_a.bias"]
        state["extra.weight"] = torch.zeros(1, dtype=torch.float64)
        state["downsize_u_stream.0.conv.bias"] = torch.zeros(4, dtype=torch.float64)
        torch.save(state, tmp_path / "m.pth")
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path / "m.pth")
        assert str(caught.value) == (
            f"{tmp_path / 'm.pth'}: missing: up_layers.1.ul_stream.0.nin_skip.lin_a.bias; "
            "unused: extra.weight; wrong shape: downsize_u_stream.0.conv.bias (4,) instead of (3,)"
        )

    @pytest.mark.parametrize(
        ("hint", "message"),
        [
            ({"shape": (3, 30, 32)}, "multiples of 4"),
            ({"shape": (1, 32, 32)}, "shape says 1 channels, the file has 3"),
            ({"dilations": (1, 2)}, "`dilations` does not apply"),
        ],
    )
    def test_hints_that_do_not_fit(self, hint, message, tmp_path):
        torch.save(pclucas14_state(3, filters=3, blocks=1, mixtures=2), tmp_path / "m.pth")
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / "m.pth", **hint)

    def test_both_namings_at_once(self, tmp_path):
        state = pclucas14_state(3, filters=3, blocks=1, mixtures=2)
        torch.save(state | present_names(state), tmp_path / "m.pth")
        with pytest.raises(CheckpointError, match="under the old and the present name"):
            load(tmp_path / "m.pth")


class TestRecognition:
    def test_an_unknown_layout_lists_the_known(self, tmp_path):
        torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "m.pt")
        with pytest.raises(
            CheckpointError, match=r"2 tensors \(the first: weight\) of no known layout; known are "
        ):
            load(tmp_path / "m.pt")

    def test_an_unknown_name(self, tmp_path):
        torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "m.pt")
        with pytest.raises(
            CheckpointError, match="unknown layout 'x'; known are pixelfast, uvadlc, pclucas14"
        ):
            load(tmp_path / "m.pt", layout="x")

    @pytest.mark.parametrize("layout", ["pixelfast", "uvadlc", "pclucas14"])
    def test_a_layout_forced_on_the_wrong_file(self, layout, tmp_path):
        torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "m.pt")
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path / "m.pt", layout=layout)
        assert "\n" not in str(caught.value)


def test_saving_never_replaces_a_device_or_a_link(tmp_path):
    model = GatedPixelCNN((1, 4, 4), levels=2, hidden=4, dilations=(1,))
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(CheckpointError, match="not a regular file"):
        save(model, pipe)
    assert pipe.is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    save(model, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").is_file()


@pytest.mark.parametrize("path", [".", "/"])
def test_a_folder_without_a_name_is_refused(path):
    with pytest.raises(CheckpointError, match="not a regular file"):
        load(path)
