"""Attention in the engine: what it depends on, what it refuses, and that how it is computed changes no bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from comparators import assert_agree_in_float64, assert_error_ratio, assert_same_integers
from gallery import IDIOMS, Idiom
from gallery.attention import Attending, maps_of, tokens_of, upto
from gallery.causal import MaskedConv
from torch import Tensor, nn

import pixelfast
from pixelfast import _C
from pixelfast.backends.base import Job
from pixelfast.backends.cpu import CpuBackend
from pixelfast.errors import BackendError, CausalityError, UnsupportedModelError
from pixelfast.program import Attention, Program

LEVELS = 4
LIKELIHOOD = pixelfast.Categorical(LEVELS)
ISAS = _C.available_isas("float32")
ATTENTION = [name for name in IDIOMS if name.startswith(("attention", "transformer"))]


class Masked(Attending):
    """One head over keys that know their own position; `mask(positions)` says what a row may see."""

    def __init__(self, mask: Callable[[int], Tensor], fill: float = -math.inf, kind: str = "B", width: int = 4) -> None:
        super().__init__()
        self.keys = MaskedConv(kind, 1, 6)
        self.query, self.key, self.value = nn.Linear(6, width), nn.Linear(6, width), nn.Linear(6, 6)
        self.mask, self.fill = mask, fill

    def weights(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(~self.mask(scores.shape[-1]), self.fill).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        seen = tokens_of(torch.tanh(self.keys(x)))
        scores = self.query(tokens_of(h)) @ self.key(seen).transpose(1, 2)
        return self.head(h + maps_of(self.weights(scores) @ self.value(seen), h))


class Heads(Attending):
    """Heads of any widths, with a bias that falls with the distance."""

    def __init__(self, heads: int, keys: int, values: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, heads * keys), nn.Linear(6, heads * keys)
        self.value, self.out = nn.Linear(6, heads * values), nn.Linear(heads * values, 6)
        self.heads = heads

    def attend(self, tokens: Tensor) -> Tensor:
        layers = self.query, self.key, self.value
        query, key, value = (layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in layers)
        place = torch.arange(tokens.shape[1])
        slopes = 0.05 * (place - place[:, None]) * torch.arange(1, self.heads + 1)[:, None, None]
        scores = (query @ key.transpose(2, 3) + slopes).masked_fill(~upto(len(place)), -math.inf)
        return self.out((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


def strictly(positions: int) -> Tensor:
    """All positions before one's own; the first sees a position that nobody else may see: its own, which is zero."""
    return upto(positions, own=False)


def build(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def compiled(model: nn.Module, shape: tuple[int, int, int] = (1, 4, 5), **arguments: Any) -> pixelfast.Sampler:
    return pixelfast.compile(model, shape=shape, likelihood=LIKELIHOOD, input="signed", **arguments)


def attentions(program: Program) -> list[Attention]:
    return [kernel.attention for kernel in program.kernels if kernel.attention is not None]


class TestDependencies:
    def test_a_mask_one_column_too_wide_is_refused(self) -> None:
        assert attentions(compiled(build(Masked(upto, kind="A"))).program)
        with pytest.raises(CausalityError, match=r"row 0, column 0 depends on the input at channel 0, row 0, column 0"):
            compiled(build(Masked(upto)))
        with pytest.raises(CausalityError):
            compiled(build(Masked(lambda n: torch.ones(n, n).tril(1).bool(), kind="A")))

    def test_one_pair_too_many_is_refused(self) -> None:
        def mask(positions: int) -> Tensor:
            seen = upto(positions)
            seen[7, 9] = True
            return seen

        with pytest.raises(CausalityError, match=r"row 1, column 2 depends on the input at channel 0, row 1, column 3"):
            compiled(build(Masked(mask, kind="A")))

    @pytest.mark.parametrize("fill", [-1e4, -1e30])
    def test_a_row_that_sees_nothing_sees_everything(self, fill: float) -> None:
        """Its weights are all alike. Only where they are multiplied by zero afterwards does it read nothing."""
        with pytest.raises(CausalityError, match="row 0, column 0"):
            compiled(build(Masked(strictly, fill)))

        class Started(Masked):
            def weights(self, scores: Tensor) -> Tensor:
                return super().weights(scores) * (torch.arange(scores.shape[-1]) > 0)[:, None]

        model = build(Started(strictly, fill))
        first = attentions(compiled(model, backend="reference").program)[0].first
        assert np.diff(first).tolist() == list(range(20))

    @pytest.mark.parametrize(("fill", "causal"), [(-1e9, True), (-1e3, True), (-100.0, False), (0.0, False)])
    def test_how_low_a_masked_score_must_be(self, fill: float, causal: bool) -> None:
        class Added(Masked):
            def weights(self, scores: Tensor) -> Tensor:
                hidden = (~self.mask(scores.shape[-1])).to(scores.dtype)
                return (scores + hidden * (2 * self.fill)).softmax(dim=-1)

        model = build(Added(upto, fill, kind="A"))
        if causal:
            compiled(model)
        else:
            with pytest.raises(CausalityError):
                compiled(model)

    def test_a_maximum_over_scores_that_are_masked_afterwards_is_refused(self) -> None:
        """It cancels on paper; where a later score is large, all weights underflow."""

        class Late(Masked):
            def weights(self, scores: Tensor) -> Tensor:
                powers = torch.exp(scores - scores.amax(dim=-1, keepdim=True)) * self.mask(scores.shape[-1])
                return powers / (powers.sum(dim=-1, keepdim=True) + 1e-6)

        with pytest.raises(UnsupportedModelError, match="masked only after their maximum"):
            compiled(build(Late(upto, kind="A")))

    def test_a_position_that_nobody_attends_to_is_not_computed(self) -> None:
        sampler = compiled(build(Masked(lambda n: upto(n) & (torch.arange(n) % 2 == 0), kind="A")), backend="reference")
        attention = attentions(sampler.program)[0]
        assert np.diff(attention.first).tolist() == [i // 2 + 1 for i in range(20)]

    def test_arithmetic_of_attention_is_counted(self) -> None:
        """2 (K + V) per pair: time per pixel grows with the number of positions before it, not with its square."""
        found = {}
        for size in (4, 8):
            sampler = compiled(build(Masked(upto, kind="A")), (1, size, size), backend="reference")
            pairs = int(attentions(sampler.program)[0].first[-1])
            assert pairs == size**2 * (size**2 + 1) // 2
            found[size] = (sampler.program.flops, pairs)
        plain = compiled(build(Masked(upto, kind="A", width=5)), (1, 4, 4), backend="reference").program.flops
        assert plain - found[4][0] == 2 * found[4][1] + 2 * 2 * 6 * 16

    def test_memory_of_keys_and_values(self) -> None:
        """One slot per position, of keys and of values, however high the image: nothing of them is overwritten."""
        for height in (4, 8):
            sampler = compiled(build(Masked(upto, kind="A")), (1, height, 5), backend="cpu")
            sampler.sample(1)
            kept = height * 5 * (4 + 6) * 4
            assert sampler.program.attended_bytes_per_image() == kept
            assert sampler.stats is not None and sampler.stats.attended_bytes_per_image == kept
            assert f"{kept / 1e6:.2f} MB of them keys and values" in sampler.describe()
        assert "keys and values" not in compiled(MaskedConv("A", 1, LEVELS)).describe()


class TestResults:
    def test_a_large_image(self) -> None:
        """Far more positions than a reduction is unrolled over, and several blocks of pairs."""
        model = build(Masked(upto, kind="A"))
        shape = (1, 17, 18)
        x = torch.randint(LEVELS, (2, *shape), generator=torch.Generator().manual_seed(1))
        signed = 2 * x.double() / (LEVELS - 1) - 1
        with torch.no_grad():
            own = model(signed.float())
            truth = model.double()(signed)
        model.float()
        sampler = compiled(model, shape, backend="reference", dtype=torch.float64)
        assert_agree_in_float64(sampler.params(x), truth)
        assert len(attentions(sampler.program)) == 1 and len(sampler.program.kernels) < 10
        fast = compiled(model, shape, backend="cpu")
        assert_error_ratio(fast.params(x), own, truth)

    @pytest.mark.parametrize(
        "name", ["attention_fused", "attention_fused_with_slopes", "attention_of_torch", "attention_along_rows"]
    )
    def test_element_by_element_is_the_same(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Products that are never deferred: the primitives alone give the same parameters."""
        idiom = IDIOMS[name]
        truth = params(idiom, torch.float64)
        monkeypatch.setattr("pixelfast.simplify.follow", lambda *_: None)
        sampler = build_idiom(idiom, torch.float64)
        assert not attentions(sampler.program)
        torch.testing.assert_close(sampler.params(idiom.images(2)), truth, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("backend", ["reference", "cpu"])
    def test_a_head_that_sees_nothing_where_another_does(self, backend: str) -> None:
        class Unlike(Attending):
            def attend(self, tokens: Tensor) -> Tensor:
                heads = tokens.unflatten(-1, (2, 3)).transpose(1, 2)
                seen = torch.stack([upto(20), upto(20) & (torch.arange(20)[:, None] > 2)])
                scores = (heads @ heads.transpose(2, 3)).masked_fill(~seen, -math.inf)
                weights = torch.nan_to_num(scores.softmax(dim=-1))
                return (weights @ heads).transpose(1, 2).flatten(2)

        model = build(Unlike())
        sampler = compiled(model, backend=backend)
        assert len(attentions(sampler.program)) == 1
        x = torch.randint(LEVELS, (2, 1, 4, 5), generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            expected = model(2 * x.float() / (LEVELS - 1) - 1)
        torch.testing.assert_close(sampler.params(x), expected, rtol=1e-5, atol=1e-5)


def build_idiom(idiom: Idiom, dtype: torch.dtype, backend: str = "reference") -> pixelfast.Sampler:
    return pixelfast.compile(
        idiom.build(), backend=backend, dtype=dtype, condition=idiom.conditions(1), **idiom.arguments()
    )


def params(idiom: Idiom, dtype: torch.dtype) -> Tensor:
    return build_idiom(idiom, dtype).params(idiom.images(2), condition=idiom.conditions(2))


class TestBits:
    """The cpu backend gives the same bits however the work is shared out."""

    @pytest.mark.parametrize("isa", ISAS)
    def test_batches_threads_and_steps_together(self, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIXELFAST_ISA", isa)
        sampler = compiled(build(Masked(upto, kind="A")), (1, 13, 12), backend="cpu")
        assert sampler.backend.isa == isa

        def run(ids: list[int], **changes: Any) -> np.ndarray:
            job = Job(len(ids), sample_ids=np.array(ids, dtype=np.uint64), collect_params=True, **changes)
            result = sampler.backend.run(job)
            return np.concatenate([p.reshape(len(ids), -1) for p in result.params], axis=1)

        alone = np.concatenate([run([i], threads=1, lookahead=1) for i in range(5)])
        assert np.isfinite(alone).all()
        for changes in (
            {"threads": 1},
            {"threads": 2, "sharing": "tasks"},
            {"threads": 3, "sharing": "images"},
            {"threads": 2, "sharing": "tasks", "lookahead": 1},
        ):
            assert run([0, 1, 2, 3, 4], **changes).tobytes() == alone.tobytes(), changes
        for lookahead in (None, 2, 64):
            ahead = np.concatenate([run([i], threads=1, lookahead=lookahead) for i in range(5)])
            assert ahead.tobytes() == alone.tobytes(), lookahead

    @pytest.mark.parametrize("isa", ISAS)
    @pytest.mark.parametrize(
        ("heads", "keys", "values"), [(1, 16, 144), (3, 20, 33), (9, 5, 4), (2, 1, 17), (4, 8, 16)]
    )
    def test_heads_of_every_width(
        self, isa: str, heads: int, keys: int, values: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whole vectors and parts of one, fewer and more of them than are summed side by side."""
        model = build(Heads(heads, keys, values))
        shape = (1, 3, 47)
        x = torch.randint(LEVELS, (3, *shape), generator=torch.Generator().manual_seed(5))
        monkeypatch.setenv("PIXELFAST_ISA", isa)
        sampler = compiled(model, shape, backend="cpu")
        assert sampler.backend.isa == isa
        found = sampler.params(x)
        with torch.no_grad():
            signed = 2 * x.double() / (LEVELS - 1) - 1
            own, truth = model(signed.float()), model.double()(signed)
        assert_error_ratio(found, own, truth)
        alone = torch.cat([sampler.params(image[None]) for image in x])
        assert found.numpy().tobytes() == alone.numpy().tobytes()

    def test_rows_at_once_and_one_by_one(self) -> None:
        """Known images: a whole row of queries and keys is ready together, and gives what sampling gives."""
        sampler = compiled(build(Masked(upto, kind="A")), (1, 9, 16), backend="cpu")
        images = sampler.sample(3, seed=4)
        known = torch.zeros((1, 1, 9, 16), dtype=torch.bool)
        known[:, :, :8] = True
        again = sampler.sample(3, seed=4, known=images, mask=known)
        assert_same_integers(again, images)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, "int8"])
    def test_low_precision(self, dtype: Any) -> None:
        model = build(Masked(upto, kind="A"))
        x = torch.randint(LEVELS, (4, 1, 4, 5), generator=torch.Generator().manual_seed(2))
        exact = compiled(model, backend="reference").params(x)
        low = compiled(model, backend="cpu", dtype=dtype).params(x)
        assert 0 < float((low - exact).square().mean().sqrt()) < 0.05 * float(exact.abs().max())


def change(program: Program, **changes: Any) -> Program:
    kernels = list(program.kernels)
    at = next(i for i, kernel in enumerate(kernels) if kernel.attention is not None)
    attention = dataclasses.replace(kernels[at].attention, **changes)
    kernels[at] = dataclasses.replace(kernels[at], attention=attention)
    return dataclasses.replace(program, kernels=tuple(kernels))


def part(program: Program, name: str, **changes: Any) -> Program:
    return change(program, **{name: dataclasses.replace(getattr(attentions(program)[0], name), **changes)})


DAMAGES: dict[str, Callable[[Program], Program]] = {
    "pairs out of order": lambda p: change(p, first=attentions(p)[0].first[::-1].copy()),
    "pairs for too few sites": lambda p: change(p, first=attentions(p)[0].first[:-1]),
    "more pairs than the tables have": lambda p: change(p, first=attentions(p)[0].first + np.int32(range(21)) % 21),
    "no heads": lambda p: change(p, heads=0),
    "too many heads": lambda p: change(p, heads=7),
    "keys of another width": lambda p: part(p, "keys", width=3),
    "values beyond their buffer": lambda p: part(p, "values", start=5),
    "values of another width": lambda p: part(p, "values", width=2),
    "no such buffer": lambda p: part(p, "query", buffer=99),
    "no such table": lambda p: part(p, "values", table=-1),
    "a bias of another length": lambda p: change(p, bias=np.zeros((1, 3))),
    "a bias for other heads": lambda p: change(p, bias=np.zeros((2, int(attentions(p)[0].first[-1])))),
    "no such register": lambda p: change(p, register=17),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_malformed_attention_is_refused(name: str) -> None:
    program = compiled(build(Masked(upto, kind="A")), backend="cpu").program
    CpuBackend(program, LIKELIHOOD)
    with pytest.raises((BackendError, ValueError), match=r"malformed program|wrong shape|wrong number"):
        CpuBackend(DAMAGES[name](program), LIKELIHOOD)


def test_every_form_is_one_operation() -> None:
    """Public forms of attention become attention, not products of elements."""
    element_by_element = {
        "attention_without_softmax",
        "attention_without_softmax_then_linear",
        "attention_that_fades",
    }
    for name in ATTENTION:
        found = attentions(build_idiom(IDIOMS[name], torch.float64).program)
        assert bool(found) == (name not in element_by_element), name
