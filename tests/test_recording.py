"""Recording leaves the model alone, and refuses what a recording cannot hold."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gallery import IDIOMS
from gallery.causal import MaskedConv
from torch import Tensor, nn

import pixelfast
from pixelfast import Categorical, UnsupportedModelError

FOUR = {"shape": (1, 4, 5), "likelihood": Categorical(4), "input": "signed"}


class Around(nn.Module):
    """A causal stem, the function under test, a head."""

    def __init__(self, function: Any, features: int = 4) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.function = function
        self.head = nn.Conv2d(features, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.stem(x)))


def refusal(model: Any, **changes: Any) -> str:
    """The one-line message of the UnsupportedModelError."""
    with pytest.raises(UnsupportedModelError) as caught:
        pixelfast.compile(model, **(FOUR | changes))
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- what is refused -----------------------------------------------------------------------------------------


def test_dropout_left_on():
    message = refusal(Around(F.dropout))
    assert "dropout" in message or "bernoulli" in message
    assert "test_recording.py" in message
    assert "training=self.training" in message


@pytest.mark.parametrize("noise", [torch.rand_like, torch.randn_like, torch.bernoulli])
def test_random_operations(noise):
    message = refusal(Around(lambda h: h + noise(torch.sigmoid(h))))
    assert "random numbers" in message and "test_recording.py" in message


def test_random_stream_is_left_alone():
    model = Around(torch.relu)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    sampler = pixelfast.compile(model, **FOUR)
    sampler.sample(2)
    assert torch.equal(torch.rand(4), expected)


def test_branch_on_the_image():
    message = refusal(Around(lambda h: h * 2 if h.sum() > 0 else torch.tanh(h)))
    assert "test_recording.py" in message


def test_number_read_from_the_image():
    message = refusal(Around(lambda h: h * h.max().item()))
    assert "test_recording.py" in message


def test_loop_as_long_as_the_image_says():
    """Every image recorded but the black one would run it three times."""

    class Looping(Around):
        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x.float())
            for _ in range(int(x.max())):
                h = torch.tanh(h) + 1
            return h

    assert "test_recording.py" in refusal(Looping(None), input="levels")


@pytest.mark.parametrize(
    "function",
    [lambda h, c: h * 2 if c.sum() > 0 else torch.tanh(h), lambda h, c: h * c.abs().max().item()],
    ids=["branch", "number"],
)
def test_python_that_depends_on_the_condition(function):
    class Conditional(Around):
        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return self.head(self.function(self.stem(x), condition))

    message = refusal(Conditional(function), condition=torch.ones(1, 4, 1, 1))
    assert "number" in message and "test_recording.py" in message


def test_shape_that_depends_on_the_image():
    message = refusal(Around(lambda h: h * h[h > 0].mean()))
    assert "test_recording.py" in message


def test_attention_with_too_many_positions_to_follow_its_elements():
    """Weights that are changed one by one: followed element by element in a small image only."""

    def attention(h: Tensor) -> Tensor:
        rows = h.flatten(2).repeat(1, 1, 16)
        scores = rows.transpose(1, 2) @ rows
        closed = torch.ones(scores.shape[1:]).triu(1).bool()
        weights = torch.softmax(scores.masked_fill(closed, -1e9), -1)
        return (rows @ (weights * closed.logical_not() * scores).transpose(1, 2))[..., :20].view_as(h)

    message = refusal(Around(attention))
    assert "a product of two image-dependent tensors (attention)" in message and "test_recording.py" in message


def test_weights_that_depend_on_the_image():
    def dynamic_filters(h: Tensor) -> Tensor:
        n, c = h.shape[:2]
        weight = h[:, :, 0, 0].reshape(n * c, 1, 1, 1)
        return F.conv2d(h.reshape(1, n * c, *h.shape[2:]), weight, groups=n * c).view_as(h)

    message = refusal(Around(dynamic_filters))
    assert "aten.convolution" in message and "test_recording.py" in message


def test_index_that_depends_on_the_image():
    message = refusal(Around(lambda h: h.gather(1, (h > 0).long())))
    assert "aten.gather" in message and "test_recording.py" in message


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda h: torch.cumsum(h, dim=3), "cumsum"),
        (lambda h: torch.sort(h, dim=1).values, "sort"),
        (lambda h: torch.fft.rfft(h, dim=1).abs()[:, :1].expand_as(h), "fft"),
        (lambda h: torch.linalg.inv(h[:, :, :4, :4] + 9 * torch.eye(4)).repeat(1, 1, 1, 2)[..., :5], "inv"),
    ],
    ids=["cumsum", "sort", "fft", "inverse"],
)
def test_operations_without_a_rule_are_named(function, operation):
    message = refusal(Around(function))
    assert operation in message and "test_recording.py" in message


@pytest.mark.parametrize(
    "function",
    [
        lambda h: (h.long() << 1).float(),
        lambda h: torch.frexp(h)[0],
        lambda h: torch.add(h, 1, out=torch.empty_like(h)),
        lambda h: (h.long() & 3).float(),
        lambda h: h * (h > 0).any(dim=1, keepdim=True),
        lambda h: torch.bucketize(h, torch.tensor([-0.5, 0.5])).float(),
        lambda h: torch.cummax(h, dim=1).values,
        lambda h: F.local_response_norm(h, 3),
        lambda h: torch.median(h, dim=1, keepdim=True).values * h,
        lambda h: torch.quantile(h, 0.5, dim=1, keepdim=True) * h,
        lambda h: torch.nan_to_num(h) + torch.erfinv(torch.tanh(h)) + torch.copysign(h, h - 1),
    ],
    ids=["shift", "frexp", "out=", "and", "any", "bucketize", "cummax", "local norm", "median", "quantile", "rare"],
)
def test_rare_operations_are_right_or_refused_by_name(function):
    """Never anything else: no exception of torch's, no wrong program."""
    model = Around(function)
    x = torch.randint(4, (2, 1, 4, 5), generator=torch.Generator().manual_seed(0))
    try:
        sampler = pixelfast.compile(model, backend="reference", dtype=torch.float64, **FOUR)
    except UnsupportedModelError as error:
        assert "aten." in str(error) and "\n" not in str(error)
    else:
        expected = model.double()(2 * x.double() / 3 - 1).detach()
        assert float((sampler.params(x) - expected).abs().max()) < 1e-10


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_modules_are_right_or_refused_by_name(kind):
    class Sequence(nn.Module):
        """Pixel after pixel through the whole image."""

        def __init__(self) -> None:
            super().__init__()
            self.cells = kind(4, 4, batch_first=True)

        def forward(self, h: Tensor) -> Tensor:
            return self.cells(h.flatten(2).transpose(1, 2))[0].transpose(1, 2).view_as(h)

    test_rare_operations_are_right_or_refused_by_name(Sequence())


def test_forward_that_fails():
    message = refusal(Around(lambda h: h.view(7, 3)))
    assert "forward failed" in message and "(1, 1, 4, 5)" in message and "shape '[7, 3]' is invalid" in message


def test_output_that_is_no_tensor():
    class Tuple(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    message = refusal(Tuple())
    assert "tuple" in message and "outputs=" in message


def test_sparse_and_complex_tensors():
    assert "dense" in refusal(Around(lambda h: h.to_sparse().to_dense()))
    assert "complex" in refusal(Around(lambda h: torch.complex(h, h).abs()))


def test_unused_oddities_do_no_harm():
    """What no output reads may be as strange as it likes."""

    def odd(h: Tensor) -> Tensor:
        torch.argmax(h, dim=1)
        h.mean(dim=(2, 3))
        return h

    pixelfast.compile(Around(odd), **FOUR)


# -- the model afterwards ------------------------------------------------------------------------------------


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def attributes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Every attribute of every module: the object itself, and a copy of what a container holds."""
    found = {}
    for name, module in model.named_modules():
        found[name] = {
            key: (value, copy.copy(value) if isinstance(value, (dict, list, set)) else None)
            for key, value in module.__dict__.items()
        }
    return found


def assert_same_attributes(model: nn.Module, before: dict[str, dict[str, Any]]) -> None:
    after = attributes(model)
    assert after.keys() == before.keys()
    for name, old in before.items():
        assert after[name].keys() == old.keys(), name
        for key, (value, content) in old.items():
            assert after[name][key][0] is value, f"{name}.{key} was replaced"
            if content is not None:
                now = after[name][key][1]
                assert len(now) == len(content)
                if isinstance(content, dict):
                    assert all(now[k] is v for k, v in content.items()), f"{name}.{key} changed"
                elif isinstance(content, list):
                    assert all(a is b for a, b in zip(now, content, strict=True)), f"{name}.{key} changed"
                else:
                    assert now == content


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "mask_zeroed_in_place",
        "registered_buffer_as_scratch",
        "old_weight_norm",
        "parametrized_weight_norm",
        "batch_norm",
        "dropout_in_evaluation",
        "spectral_norm",
    ],
)
def test_model_is_unchanged(name, training):
    idiom = IDIOMS[name]
    model = idiom.build().train(training)
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    tensors, everything, pointers = state(model), attributes(model), [p.data_ptr() for p in model.parameters()]
    sampler = pixelfast.compile(model, backend="reference", **idiom.arguments())
    sampler.sample(2)
    pixelfast.check_causality(model, **idiom.arguments())
    assert_same_attributes(model, everything)
    assert [module.training for module in model.modules()] == [training] * len(list(model.modules()))
    now = state(model)
    assert now.keys() == tensors.keys()
    assert all(torch.equal(now[key], tensors[key]) for key in tensors)
    assert [p.data_ptr() for p in model.parameters()] == pointers
    assert [p.requires_grad for p in model.parameters()] == [i % 2 == 0 for i in range(len(pointers))]
    assert all(bool((p.grad == 1).all()) for p in model.parameters() if p.requires_grad)


def test_model_that_counts_and_remembers():
    """Python state that forward changes: numbers, lists, new attributes."""

    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = MaskedConv("A", 1, 4)
            self.calls = 0
            self.seen: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = self.stem(x)
            self.seen.append(self.last)
            return self.last

    model = Remembering()
    pixelfast.compile(model, **FOUR)
    assert model.calls == 0 and model.seen == [] and not hasattr(model, "last")


def test_model_is_unchanged_after_a_refusal():
    model = Around(lambda h: h + torch.rand_like(h)).train()
    model.stem.register_forward_hook(lambda *_: None)
    everything, tensors = attributes(model), state(model)
    refusal(model)
    assert_same_attributes(model, everything)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in state(model).items())
    assert model.training and model.stem.training


def test_mixed_training_flags_come_back():
    model = IDIOMS["batch_norm"].build()
    model.train()
    model[1].eval()
    before = [m.training for m in model.modules()]
    pixelfast.compile(model, **FOUR)
    assert [m.training for m in model.modules()] == before


def test_weights_are_copied():
    model = IDIOMS["mask_multiplied"].build()
    sampler = pixelfast.compile(model, **FOUR)
    expected = sampler.sample(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(sampler.sample(2), expected)


def test_hooks_and_grad_mode_are_as_before():
    model = IDIOMS["mask_multiplied"].build()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    pixelfast.compile(model, **FOUR)
    assert calls, "the model's own hooks belong to its forward"
    assert torch.is_grad_enabled()
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_compiles_under_no_grad_and_inference_mode():
    model = IDIOMS["mask_multiplied"].build()
    expected = pixelfast.compile(model, **FOUR).sample(2)
    with torch.no_grad():
        assert torch.equal(pixelfast.compile(model, **FOUR).sample(2), expected)
    with torch.inference_mode():
        assert torch.equal(pixelfast.compile(model, **FOUR).sample(2), expected)


def test_function_instead_of_a_module():
    conv = MaskedConv("A", 1, 4)
    one = pixelfast.compile(lambda x: conv(x), **FOUR)
    two = pixelfast.compile(conv, **FOUR)
    assert torch.equal(one.sample(2), two.sample(2))


def test_model_in_float64():
    idiom = IDIOMS["two_stacks"]
    double = pixelfast.compile(idiom.build().double(), dtype=torch.float64, backend="reference", **FOUR)
    single = pixelfast.compile(idiom.build(), dtype=torch.float64, backend="reference", **FOUR)
    x = idiom.images(2)
    assert torch.equal(double.params(x), single.params(x))


def test_channels_last_and_non_contiguous_weights():
    idiom = IDIOMS["mask_multiplied"]
    model = idiom.build().to(memory_format=torch.channels_last)
    x = idiom.images(2)
    one = pixelfast.compile(model, dtype=torch.float64, backend="reference", **FOUR).params(x)
    two = pixelfast.compile(idiom.build(), dtype=torch.float64, backend="reference", **FOUR).params(x)
    assert float((one - two).abs().max()) < 1e-12
