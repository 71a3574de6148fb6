"""Bad input: one line that says what was given and what is accepted, from the package's own errors."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from gallery import IDIOMS
from torch import nn

import pixelfast
from pixelfast import BackendError, Categorical, PixelfastError, ShapeError, UnsupportedModelError
from pixelfast.models import GatedPixelCNN

X = torch.zeros(2, 1, 4, 5, dtype=torch.int64)
MASK = torch.zeros(4, 5, dtype=torch.bool)


def model() -> nn.Module:
    return IDIOMS["two_stacks"].build()


@cache
def plain() -> pixelfast.Sampler:
    return pixelfast.compile(model(), backend="reference", **IDIOMS["two_stacks"].arguments())


@cache
def labelled() -> pixelfast.Sampler:
    return pixelfast.compile(GatedPixelCNN((1, 3, 4), levels=4, hidden=4, dilations=(1,), classes=3))


@cache
def two_conditions() -> pixelfast.Sampler:
    idiom = IDIOMS["tuple_of_conditions"]
    return pixelfast.compile(idiom.build(), condition=idiom.conditions(1), backend="reference", **idiom.arguments())


def raises(error: type[PixelfastError], words: str, function: Any, *args: Any, **kwargs: Any) -> None:
    """One line that has all the words, as regular expressions."""
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400, message
    for word in words.split(" & "):
        assert re.search(word, message), f"{word!r} is not in: {message}"


SAMPLE = {
    "n is negative": (ShapeError, "n is -1 & from 0", (-1,), {}),
    "n is a float": (ShapeError, "n is 2.0 & whole number", (2.0,), {}),
    "n is a bool": (ShapeError, "n is True", (True,), {}),
    "n is None": (ShapeError, "n is None", (None,), {}),
    "seed is negative": (ShapeError, "seed is -1 & 0 to", (1,), {"seed": -1}),
    "seed is too large": (ShapeError, "seed is 18446744073709551616 & 18446744073709551615", (1,), {"seed": 2**64}),
    "seed is a float": (ShapeError, "seed is 0.5 & whole number", (1,), {"seed": 0.5}),
    "seed is text": (ShapeError, "seed is 'x' & whole number", (1,), {"seed": "x"}),
    "too few sample ids": (ShapeError, r"sample_ids must be 2 & \(1,\)", (2,), {"sample_ids": [1]}),
    "a negative sample id": (ShapeError, r"sample_ids & 2\*\*32 - 1", (2,), {"sample_ids": [1, -1]}),
    "too large a sample id": (ShapeError, r"sample_ids & 2\*\*32 - 1", (1,), {"sample_ids": [2**32]}),
    "fractions as sample ids": (ShapeError, "sample_ids & whole numbers", (1,), {"sample_ids": [0.5]}),
    "temperature is negative": (PixelfastError, "temperature is -0.1 & 0", (1,), {"temperature": -0.1}),
    "temperature is NaN": (PixelfastError, "temperature is nan", (1,), {"temperature": float("nan")}),
    "temperature is infinite": (PixelfastError, "temperature is inf", (1,), {"temperature": float("inf")}),
    "temperature is text": (PixelfastError, "temperature is 'hot'", (1,), {"temperature": "hot"}),
    "unknown mode": (PixelfastError, "mode is 'fast' & 'exact' & 'reference'", (1,), {"mode": "fast"}),
    "batch size 0": (ShapeError, "batch_size is 0 & from 1", (1,), {"batch_size": 0}),
    "known without mask": (ShapeError, "known and mask", (2,), {"known": X}),
    "mask without known": (ShapeError, "known and mask", (2,), {"mask": MASK}),
    "mask of integers": (ShapeError, "mask is torch.int64 & bool", (2,), {"known": X, "mask": MASK.long()}),
    "known of floats": (ShapeError, "float32 & integers", (2,), {"known": X.float(), "mask": ~MASK}),
    "known out of range": (ShapeError, "4 & from 0 to 3", (2,), {"known": X + 4, "mask": ~MASK}),
    "known negative": (ShapeError, "-1 & from 0 to 3", (2,), {"known": X - 1, "mask": ~MASK}),
    "known of another size": (ShapeError, r"\(2, 1, 5, 4\) & broadcast", (2,), {"known": X.mT, "mask": MASK}),
    "known for other samples": (ShapeError, r"broadcast & \(3, 1, 4, 5\)", (3,), {"known": X, "mask": MASK}),
    "a condition too many": (ShapeError, "without one", (1,), {"condition": torch.zeros(1)}),
}


@pytest.mark.parametrize(("error", "words", "args", "kwargs"), SAMPLE.values(), ids=SAMPLE.keys())
def test_sample(error, words, args, kwargs):
    raises(error, words, plain().sample, *args, **kwargs)


# A condition given to the naive sampler makes its model conditional: whether that is right only forward can tell.
NAIVE = {name: case for name, case in SAMPLE.items() if "condition" not in case[3]}


@pytest.mark.parametrize(("error", "words", "args", "kwargs"), NAIVE.values(), ids=NAIVE.keys())
def test_naive_sample_refuses_the_same(error, words, args, kwargs):
    raises(error, words, pixelfast.naive_sample, model(), *args, **IDIOMS["two_stacks"].arguments(), **kwargs)


IMAGES = {
    "floats": X.float(),
    "truth values": X.bool(),
    "no batch axis": X[0],
    "another size": X.mT,
    "two channels": X.repeat(1, 2, 1, 1),
}


@pytest.mark.parametrize("x", IMAGES.values(), ids=IMAGES.keys())
@pytest.mark.parametrize("method", ["params", "log_prob", "bits_per_dim"])
def test_images(method, x):
    raises(ShapeError, r"integers & \(N, 1, 4, 5\)", getattr(plain(), method), x)


@pytest.mark.parametrize("value", [-1, 4, 255])
@pytest.mark.parametrize("method", ["params", "log_prob"])
def test_images_out_of_range(method, value):
    raises(ShapeError, f"{value} & from 0 to 3", getattr(plain(), method), X + value)


CONDITIONS = {
    "missing": (r"conditional; pass condition=", None),
    "too few rows": (r"\(1,\)|\(2,\) & 3 images", torch.zeros(2, dtype=torch.int64)),
    "another rank": (r"\(3, 1\) & \(3,\)", torch.zeros(3, 1, dtype=torch.int64)),
    "floats": ("float32 & int64", torch.zeros(3)),
    "label too large": ("label 3 & 0 to 2", torch.tensor([0, 3, 1])),
    "label negative": ("label -1 & 0 to 2", torch.tensor([0, -1, 1])),
    "a tuple": ("tuple & Tensor", (torch.zeros(3, dtype=torch.int64),)),
    "text": ("'three' & tensors", "three"),
}


@pytest.mark.parametrize(("words", "condition"), CONDITIONS.values(), ids=CONDITIONS.keys())
def test_labels(words, condition):
    raises(ShapeError, words, labelled().sample, 3, condition=condition)


def test_labels_out_of_range_of_a_foreign_model():
    """The table of classes is inside the model: its own refusal, on one line."""
    where = torch.zeros(1, 2, 4, 5)
    raises(ShapeError, "condition of image 1", two_conditions().sample, 2, condition=(torch.tensor([0, 9]), where))


def test_condition_that_is_not_finite():
    where = torch.zeros(1, 2, 4, 5)
    where[0, 1, 2, 3] = torch.nan
    raises(ShapeError, "NaN", two_conditions().sample, 1, condition=(torch.tensor([0]), where))


def test_condition_map_of_another_size():
    where = torch.zeros(1, 2, 5, 4)
    condition = (torch.tensor([0]), where)
    raises(ShapeError, r"\(1, 2, 5, 4\) & \(1, 2, 4, 5\)", two_conditions().sample, 1, condition=condition)


COMPILE = {
    "no likelihood": (PixelfastError, "likelihood", {"likelihood": None}),
    "no shape": (PixelfastError, "shape", {"shape": None}),
    "no input": (PixelfastError, "input", {"input": None}),
    "likelihood is text": (PixelfastError, "likelihood is str", {"likelihood": "categorical"}),
    "shape of two": (ShapeError, r"\(4, 5\) & \(channels, height, width\)", {"shape": (4, 5)}),
    "shape with a zero": (ShapeError, r"\(1, 0, 5\) & at least 1", {"shape": (1, 0, 5)}),
    "shape of text": (ShapeError, "'28x28' & channels, height, width", {"shape": "28x28"}),
    "shape of fractions": (ShapeError, r"4.5 & channels", {"shape": (1, 4.5, 5)}),
    "unknown input": (ShapeError, "'float' & 'signed' & table", {"input": "float"}),
    "table too short": (ShapeError, r"\(3,\) & \(4,\)", {"input": torch.zeros(3)}),
    "table with NaN": (ShapeError, "finite", {"input": torch.full((4,), torch.nan)}),
    "unknown backend": (BackendError, "'cuda' & 'auto' & 'reference'", {"backend": "cuda"}),
    "half precision": (BackendError, "float16 & float32", {"dtype": torch.float16}),
    "float64 on the cpu backend": (BackendError, "cpu & float64 & float32", {"backend": "cpu", "dtype": torch.float64}),
    "outputs of another layout": (
        ShapeError, r"\(N, 4, 4, 5\)|\(N, 4, 1, 4, 5\)", {"outputs": lambda p: p.permute(0, 2, 3, 1)}
    ),
    "levels that do not fit": (ShapeError, r"\(N, 8, 4, 5\)", {"likelihood": Categorical(8)}),
    "a condition that forward does not take": (
        UnsupportedModelError, "forward failed & argument", {"condition": torch.zeros(1)}
    ),
    "integers where floats are wanted": (UnsupportedModelError, "forward failed & int64", {"input": "levels"}),
}


@pytest.mark.parametrize(("error", "words", "changes"), COMPILE.values(), ids=COMPILE.keys())
def test_compile(error, words, changes):
    raises(error, words, pixelfast.compile, model(), **(IDIOMS["two_stacks"].arguments() | changes))


def test_index_is_for_one_channel():
    idiom = IDIOMS["interleaved_groups"]
    raises(ShapeError, "index & levels", pixelfast.compile, idiom.build(), **(idiom.arguments() | {"input": "index"}))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite(bad):
    broken = model()
    with torch.no_grad():
        broken.head.weight[0, 0] = bad
    for function in (pixelfast.compile, pixelfast.check_causality):
        raises(PixelfastError, "head.weight & NaN or infinite", function, broken, **IDIOMS["two_stacks"].arguments())


def test_buffers_that_are_not_finite():
    idiom = IDIOMS["batch_norm"]
    broken = idiom.build()
    broken[1].running_var[0] = torch.nan
    raises(PixelfastError, "running_var", pixelfast.compile, broken, **idiom.arguments())


class LogOfNegative(nn.Module):
    """Sound weights, NaN parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        nn.init.constant_(self.conv.bias, -9.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(self.conv(nn.functional.pad(x, (1, -1))))


@pytest.mark.parametrize("backend", ["cpu", "reference", "naive"])
def test_parameters_that_are_no_numbers(backend):
    """Nothing is drawn from NaN; where it is found is said."""
    arguments = IDIOMS["two_stacks"].arguments()
    words = "row 0, column 0"
    if backend == "naive":
        raises(PixelfastError, words, pixelfast.naive_sample, LogOfNegative(), 2, **arguments)
    else:
        raises(PixelfastError, words, pixelfast.compile(LogOfNegative(), backend=backend, **arguments).sample, 2)


@pytest.mark.parametrize("thing", [None, "model.pt", 3, {"weight": torch.zeros(1)}])
def test_things_that_are_no_model(thing):
    raises(UnsupportedModelError, f"{type(thing).__name__} & torch.nn.Module", pixelfast.compile, thing)


def test_size_that_the_model_does_not_take():
    plus = pixelfast.models.PixelCNNPlusPlus((1, 4, 4), blocks=1, filters=2, mixtures=1)
    raises(ShapeError, "multiples of 4 & 6 x 4", pixelfast.compile, plus, (1, 6, 4))


def test_errors_are_of_one_family():
    for error in (BackendError, ShapeError, UnsupportedModelError, pixelfast.CausalityError, pixelfast.CheckpointError):
        assert issubclass(error, PixelfastError)
    assert issubclass(PixelfastError, Exception) and not issubclass(PixelfastError, ValueError)
