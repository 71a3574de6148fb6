"""Foreign checkpoints of models of codes: their own outputs from our models, and files that are refused."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from comparators import assert_agree_in_float64, assert_same_integers
from torch import Tensor
from vq_vae_networks import (
    ritheshkumar95_prior_forward,
    ritheshkumar95_prior_state,
    ritheshkumar95_vq_vae_forward,
    ritheshkumar95_vq_vae_state,
    rosinality_prior_forward,
    rosinality_prior_state,
    rosinality_vq_vae_forward,
    rosinality_vq_vae_state,
)

import pixelfast
from pixelfast.checkpoints import load
from pixelfast.errors import CheckpointError
from pixelfast.models import VQVAE, VQVAE2, ConditionalPixelSNAIL, GatedPixelCNN

TOP: dict[str, Any] = {
    "size": (4, 6), "codes": 5, "channel": 32, "hidden": 6, "kernel": 5, "parts": 2, "blocks": 2, "out_blocks": 2,
}  # fmt: skip
BOTTOM: dict[str, Any] = {
    "size": (8, 6), "codes": 5, "channel": 6, "hidden": 4, "kernel": 3, "parts": 2, "blocks": 1, "attention": False,
    "condition": (4, 2),
}  # fmt: skip


def arguments(**changes: Any) -> argparse.Namespace:
    """What a prior's file keeps of its training."""
    return argparse.Namespace(
        **{"batch": 32, "hier": "top", "lr": 3e-4, "channel": 32, "n_res_block": 2, "n_res_channel": 6, "dropout": 0.25}
        | {"sched": None, "path": "codes/", **changes}
    )


def map_of(size: tuple[int, int], codes: int, n: int = 2, seed: int = 3) -> Tensor:
    return torch.randint(codes, (n, *size), generator=torch.Generator().manual_seed(seed))


def present_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return {
        next((name.removesuffix(old) + new for old, new in renamed.items() if name.endswith(old)), name): value
        for name, value in state.items()
    }


class TestPriors:
    @pytest.mark.parametrize("rename", [dict, present_names, lambda s: {f"module.{k}": v for k, v in s.items()}])
    def test_top(self, tmp_path: Path, rename: Any) -> None:
        state = rosinality_prior_state(**TOP)
        torch.save({"model": rename(state), "args": arguments()}, tmp_path / "top.pt")
        model: Any = load(tmp_path / "top.pt")
        assert type(model) is ConditionalPixelSNAIL and model.config["dropout"] == 0.25
        assert model.config["heads"] == 8 and model.config["head_blocks"] == 2
        codes = map_of((4, 6), 5)
        with torch.no_grad():
            got = model(codes[:, None])[:, :, 0]
        assert_agree_in_float64(got, rosinality_prior_forward(state, codes, None))

    def test_bottom(self, tmp_path: Path) -> None:
        state = rosinality_prior_state(**BOTTOM)
        torch.save({"model": state}, tmp_path / "bottom.pt")
        model: Any = load(tmp_path / "bottom.pt")
        assert model.config["heads"] == 0 and model.config["condition_shape"] == [1, 4, 3]
        codes, condition = map_of((8, 6), 5), map_of((4, 3), 5, seed=4)
        with torch.no_grad():
            got = model(codes[:, None], condition[:, None])[:, :, 0]
        expected = rosinality_prior_forward(state, codes, condition)
        assert_agree_in_float64(got, expected)
        # The condition counts: another one gives something else.
        assert float((expected - rosinality_prior_forward(state, codes, condition.flip(0))).abs().max()) > 1e-3

    def test_what_is_masked_does_not_count(self, tmp_path: Path) -> None:
        state = rosinality_prior_state(**TOP)
        torch.save({"model": state}, tmp_path / "one.pt")
        name = "blocks.0.resblocks.1.conv1.conv.conv.weight_v"
        assert bool(state[name][:, :, -1, 2:].all())
        state[name][:, :, -1, 2:] = 1e3
        torch.save({"model": state}, tmp_path / "other.pt")
        codes = map_of((4, 6), 5)[:, None]
        one, other = load(tmp_path / "one.pt"), load(tmp_path / "other.pt")
        assert torch.equal(one(codes), other(codes))

    def test_it_is_sampled_and_saved(self, tmp_path: Path) -> None:
        torch.save({"model": rosinality_prior_state(**BOTTOM)}, tmp_path / "bottom.pt")
        model: Any = load(tmp_path / "bottom.pt").float()
        condition = map_of((4, 3), 5, seed=4)[:, None]
        codes = pixelfast.compile(model).sample(2, condition=condition)
        pixelfast.save(model, tmp_path / "ours.safetensors")
        again = pixelfast.compile(pixelfast.load(tmp_path / "ours.safetensors"))
        assert torch.equal(again.sample(2, condition=condition), codes)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"channel": 31}, "its arguments say channel 31, its tensors 32"),
            ({"n_res_block": "two"}, "its arguments say n_res_block two, its tensors 2"),
            ({"dropout": 1.5}, "its arguments say dropout 1.5"),
            ({"dropout": "much"}, "its arguments say dropout much"),
        ],
    )
    def test_arguments_that_contradict_the_tensors(self, tmp_path: Path, changes: dict[str, Any], text: str) -> None:
        torch.save({"model": rosinality_prior_state(**TOP), "args": arguments(**changes)}, tmp_path / "top.pt")
        with pytest.raises(CheckpointError, match=text):
            load(tmp_path / "top.pt")

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda s: s.pop("blocks.1.resblocks.0.conv1.conv.conv.bias"), "missing: blocks.1.resblocks.0.conv1"),
            (lambda s: s.update(x=torch.zeros(1)), "unused: x"),
            (lambda s: s["background"].neg_(), "background is not row and column"),
            (lambda s: s.update(background=torch.zeros(1, 2, 5, 6)), "background is not"),
            (lambda s: s.update({"horizontal.conv.conv.weight_v": torch.zeros(3)}), "not a PixelSNAIL"),
            (
                lambda s: s.update({"blocks.0.resblocks.0.conv1.conv.conv.weight_v": torch.zeros(())}),
                r"wrong shape: blocks\.0\.resblocks\.0\.conv1",
            ),
            (lambda s: s.update({"out.3.conv.bias": torch.zeros(4)}), "wrong shape: out.3.conv.bias"),
        ],
    )
    def test_incomplete_files(self, tmp_path: Path, change: Any, text: str) -> None:
        state = rosinality_prior_state(**TOP)
        change(state)
        torch.save({"model": state}, tmp_path / "top.pt")
        with pytest.raises(CheckpointError, match=text) as error:
            load(tmp_path / "top.pt")
        assert "\n" not in str(error.value)

    def test_hints_that_do_not_apply(self, tmp_path: Path) -> None:
        torch.save({"model": rosinality_prior_state(**TOP)}, tmp_path / "top.pt")
        assert load(tmp_path / "top.pt", shape=(1, 4, 6), layout="rosinality").shape == (1, 4, 6)
        with pytest.raises(CheckpointError, match="for maps"):
            load(tmp_path / "top.pt", shape=(1, 6, 4))
        with pytest.raises(CheckpointError, match="`dilations` does not apply"):
            load(tmp_path / "top.pt", dilations=(1,))

    def test_a_file_of_another_layout(self, tmp_path: Path) -> None:
        torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match="not a PixelSNAIL"):
            load(tmp_path / "other.pt", layout="rosinality")


class TestAutoencoder:
    @pytest.mark.parametrize("blocks", [0, 2])
    def test_codes_and_reconstruction(self, tmp_path: Path, blocks: int) -> None:
        state = rosinality_vq_vae_state(3, 8, blocks, 3, 4, 7)
        torch.save(state, tmp_path / "vqvae.pt")
        model: Any = load(tmp_path / "vqvae.pt", shape=(3, 16, 24))
        assert type(model) is VQVAE2
        x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
        top, bottom, image = rosinality_vq_vae_forward(state, x)
        codes = model.encode(x)
        assert torch.equal(codes["top"][:, 0], top) and torch.equal(codes["bottom"][:, 0], bottom)
        assert len(top.unique()) > 1 and len(bottom.unique()) > 1
        with torch.no_grad():
            assert_agree_in_float64(model(x), image)

    def test_the_usual_size(self, tmp_path: Path) -> None:
        torch.save(rosinality_vq_vae_state(3, 4, 1, 2, 3, 5), tmp_path / "vqvae.pt")
        assert load(tmp_path / "vqvae.pt").shape == (3, 256, 256)
        with pytest.raises(CheckpointError, match="the shape says 1 channels, the file has 3"):
            load(tmp_path / "vqvae.pt", shape=(1, 32, 32))

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda s: s.pop("upsample_t.bias"), "missing: upsample_t.bias"),
            (lambda s: s.update(x=torch.zeros(1)), "unused: x"),
            (lambda s: s.update({"quantize_t.embed": torch.zeros(3)}), "not a VQ-VAE-2"),
        ],
    )
    def test_incomplete_files(self, tmp_path: Path, change: Any, text: str) -> None:
        state = rosinality_vq_vae_state(3, 8, 1, 3, 4, 7)
        change(state)
        torch.save(state, tmp_path / "vqvae.pt")
        with pytest.raises(CheckpointError, match=text):
            load(tmp_path / "vqvae.pt")


class TestPyTorchVQVAE:
    """The layout ritheshkumar95."""

    @pytest.mark.parametrize("size", [(5, 5), (4, 7), (8, 3)])
    def test_the_prior_on_maps_of_any_shape(self, tmp_path: Path, size: tuple[int, int]) -> None:
        state = ritheshkumar95_prior_state(6, 4, 3, 5)
        torch.save(state, tmp_path / "prior.pt")
        model: Any = load(tmp_path / "prior.pt", shape=(1, *size))
        assert type(model) is GatedPixelCNN and model.config["classes"] == 5
        codes, labels = map_of(size, 6), torch.tensor([4, 1])
        with torch.no_grad():
            got = model(codes[:, None], labels)[:, :, 0]
        assert_agree_in_float64(got, ritheshkumar95_prior_forward(state, codes, labels))

    def test_what_is_masked_does_not_count(self, tmp_path: Path) -> None:
        state = ritheshkumar95_prior_state(6, 4, 2, 5)
        codes, labels = map_of((8, 8), 6)[:, None], torch.tensor([4, 1])
        outputs = []
        for value in (0.0, 1e3):
            state["layers.0.vert_stack.weight"][:, :, -1] = value
            state["layers.0.horiz_stack.weight"][..., -1] = value
            torch.save(state, tmp_path / "prior.pt")
            outputs.append(load(tmp_path / "prior.pt")(codes, labels))
        assert torch.equal(*outputs)

    def test_the_prior_is_sampled_as_naively(self, tmp_path: Path) -> None:
        torch.save(ritheshkumar95_prior_state(6, 4, 3, 5), tmp_path / "prior.pt")
        model: Any = load(tmp_path / "prior.pt", shape=(1, 4, 7))
        sampler = pixelfast.compile(model, backend="reference", dtype=torch.float64)
        labels = torch.tensor([0, 4, 2])
        naive = pixelfast.naive_sample(model, 3, seed=1, condition=labels, dtype=torch.float64)
        assert_same_integers(sampler.sample(3, seed=1, condition=labels), naive)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_codes_and_reconstruction(self, tmp_path: Path, channels: int) -> None:
        state = ritheshkumar95_vq_vae_state(channels, 5, 9)
        torch.save(state, tmp_path / "vqvae.pt")
        model: Any = load(tmp_path / "vqvae.pt", shape=(channels, 16, 24))
        assert type(model) is VQVAE
        x = torch.randn(2, channels, 16, 24, dtype=torch.float64)
        codes, image = ritheshkumar95_vq_vae_forward(state, x)
        assert torch.equal(model.encode(x)[:, 0], codes) and len(codes.unique()) > 2
        with torch.no_grad():
            assert_agree_in_float64(model(x), image)

    def test_it_goes_on_training(self, tmp_path: Path) -> None:
        torch.save(ritheshkumar95_vq_vae_state(1, 5, 9), tmp_path / "vqvae.pt")
        model: Any = load(tmp_path / "vqvae.pt", shape=(1, 8, 8)).train()
        model.loss(torch.rand(2, 1, 8, 8, dtype=torch.float64)).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_the_usual_sizes(self, tmp_path: Path) -> None:
        torch.save(ritheshkumar95_prior_state(6, 4, 2, 5), tmp_path / "prior.pt")
        assert load(tmp_path / "prior.pt").shape == (1, 8, 8)
        torch.save(ritheshkumar95_vq_vae_state(3, 5, 9), tmp_path / "vqvae.pt")
        assert load(tmp_path / "vqvae.pt").shape == (3, 32, 32)
        with pytest.raises(CheckpointError, match="`dilations` does not apply"):
            load(tmp_path / "prior.pt", dilations=(1,))

    @pytest.mark.parametrize("kind", ["prior", "vq_vae"])
    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda s: s.update(x=torch.zeros(1)), "unused: x"),
            (lambda s: s.pop(next(reversed([k for k in s if k.endswith("bias")]))), "missing: "),
            (lambda s: s.update({k: torch.zeros(3) for k in s if k.endswith("embedding.weight")}), "not a "),
            (lambda s: s.update({k: torch.zeros(3, 2) for k in s if k.endswith(".bias")}), "wrong shape: "),
        ],
    )
    def test_incomplete_files(self, tmp_path: Path, kind: str, change: Any, text: str) -> None:
        prior = kind == "prior"
        state = ritheshkumar95_prior_state(6, 4, 2, 5) if prior else ritheshkumar95_vq_vae_state(3, 5, 9)
        change(state)
        torch.save(state, tmp_path / "m.pt")
        with pytest.raises(CheckpointError, match=text) as error:
            load(tmp_path / "m.pt")
        assert "\n" not in str(error.value)


    def test_a_negative_variance_is_refused(self, tmp_path: Path) -> None:
        """Folded, it would make weights that are not numbers."""
        state = ritheshkumar95_vq_vae_state(3, 5, 9)
        state["encoder.1.running_var"][2] = -1
        torch.save(state, tmp_path / "m.pt")
        with pytest.raises(CheckpointError, match=r"encoder\.halvings\.0\.weight holds NaN"):
            load(tmp_path / "m.pt")


class Imitation(argparse.Namespace):
    """Not the class that is allowed."""


class Harmful:
    """What would run on unpickling."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


class TestNamespace:
    """An argparse.Namespace is the one class that a file may hold beside tensors."""

    @pytest.mark.parametrize("zipped", [True, False])
    def test_it_is_read(self, tmp_path: Path, zipped: bool) -> None:
        content = {"model": rosinality_prior_state(**TOP), "args": arguments()}
        torch.save(content, tmp_path / "top.pt", _use_new_zipfile_serialization=zipped)
        assert load(tmp_path / "top.pt").config["dropout"] == 0.25

    def test_odd_values_are_left_alone(self, tmp_path: Path) -> None:
        odd = arguments(channel=torch.ones(3), dropout=[0.5], n_res_block=argparse.Namespace(deep=1))
        setattr(odd, "not a name", 1)
        vars(odd)[3] = 4  # type: ignore[index]
        torch.save({"model": rosinality_prior_state(**TOP), "args": odd}, tmp_path / "top.pt")
        assert load(tmp_path / "top.pt").config["dropout"] == 0.1

    @pytest.mark.parametrize("where", ["args", "in args", "beside"])
    @pytest.mark.parametrize("kind", ["imitation", "harmful", "path"])
    def test_other_classes_are_refused(self, tmp_path: Path, kind: str, where: str) -> None:
        mark = tmp_path / "mark"
        value: Any = {"imitation": Imitation(channel=32), "harmful": Harmful(mark), "path": Path("x")}[kind]
        content: dict[str, Any] = {"model": rosinality_prior_state(**TOP), "args": arguments()}
        if where == "args":
            content["args"] = value
        elif where == "in args":
            content["args"] = arguments(path=value)
        else:
            content["other"] = value
        torch.save(content, tmp_path / "top.pt")
        with pytest.raises(CheckpointError, match="weights_only=True") as error:
            load(tmp_path / "top.pt")
        assert "\n" not in str(error.value) and not mark.exists()

    def test_the_allowance_ends_with_the_reading(self, tmp_path: Path) -> None:
        torch.save({"args": arguments()}, tmp_path / "top.pt")
        with pytest.raises(CheckpointError):
            load(tmp_path / "top.pt")
        assert argparse.Namespace not in torch.serialization.get_safe_globals()
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "top.pt", weights_only=True)
