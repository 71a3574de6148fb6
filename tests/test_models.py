"""The model classes: what each output may and does depend on, sizes, conditions, and what is refused."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn

from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models import GatedPixelCNN, PixelCNNPlusPlus, registry
from pixelfast.models.causal_conv import channel_mask, pixel_mask
from pixelfast.models.initialise import initialise_from_data
from pixelfast.models.shifted_conv import ShiftedDeconv2d, WeightNormConv2d, shift_down, shift_right
from pixelfast.models.weight_norm import weight_norm

SMALL = {"levels": 3, "hidden": 9, "dilations": (1, 2, 1)}


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def scramble(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter random, so that no dependence hides behind a zero; float64, eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.double().eval()


def images(model: nn.Module, n: int = 1, seed: int = 1, size: tuple[int, int] | None = None) -> Tensor:
    channels, *sides = model.shape
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, channels, *(size or sides), generator=generator, dtype=torch.float64) - 1


def dependence(model: nn.Module, outputs: Tensor, x: Tensor) -> Tensor:
    """bool (outputs, numbers): whether outputs[t].sum() has a gradient in number s of the sampling order."""
    rows = [torch.autograd.grad(output.sum(), x, retain_graph=True)[0] for output in outputs]
    return torch.stack([row[0].permute(1, 2, 0).flatten() != 0 for row in rows])


def gated_dependence(model: nn.Module) -> Tensor:
    x = images(model).requires_grad_()
    logits = model(x)[0].permute(2, 3, 1, 0).flatten(0, 2)
    return dependence(model, logits, x)


@pytest.mark.parametrize(
    ("shape", "kernel_size"), [((1, 5, 9), 3), ((1, 7, 4), 5), ((2, 3, 5), 3), ((3, 4, 3), 5), ((3, 1, 1), 3)]
)
def test_gated_depends_on_all_numbers_before_and_none_after(shape, kernel_size):
    layers = 9
    model = scramble(
        GatedPixelCNN(shape, levels=3, hidden=7, dilations=(1,) * layers, kernel_size=kernel_size)
    )
    numbers = shape[0] * shape[1] * shape[2]
    # Deep enough to see the whole image: exactly the strictly lower triangle, so there is no blind spot.
    assert torch.equal(gated_dependence(model), torch.ones(numbers, numbers).tril(-1).bool())


def test_gated_independent_channels_see_whole_earlier_pixels_only():
    model = scramble(GatedPixelCNN((3, 2, 4), **SMALL, channel_order="independent"))
    sees = gated_dependence(model).view(8, 3, 8, 3)
    assert torch.equal(sees.any(1).any(2), sees.all(1).all(2))
    assert not sees.any(1).any(2).triu().any()
    assert sees[5, :, 4].all()


def test_gated_dilation_reaches_over_a_gap():
    model = scramble(GatedPixelCNN((1, 1, 12), levels=3, hidden=4, dilations=(4,)))
    # One block: the stem reads x - 1; the dilated tap adds the stem's reading at x - 4.
    assert gated_dependence(model)[11].nonzero().flatten().tolist() == [6, 10]


@pytest.mark.parametrize(("shape", "blocks"), [((3, 8, 12), 1), ((1, 12, 4), 2)])
def test_pixelcnn_plus_plus_is_causal(shape, blocks):
    model = scramble(PixelCNNPlusPlus(shape, blocks=blocks, filters=4, mixtures=2))
    x = images(model).requires_grad_()
    params = model(x)[0].permute(1, 2, 0).flatten(0, 1)
    channels, pixels = shape[0], shape[1] * shape[2]
    sees = dependence(model, params, x).view(pixels, pixels, channels)
    assert torch.equal(sees.any(2), sees.all(2))
    assert not sees.any(2).triu().any()
    above_and_left = [(pixel, pixel - 1) for pixel in range(1, pixels) if pixel % shape[2]]
    above_and_left += [(pixel, pixel - shape[2]) for pixel in range(shape[2], pixels)]
    assert all(bool(sees[pair].all()) for pair in above_and_left)


def test_a_wrong_mask_is_caught_by_the_gradient():
    model = scramble(GatedPixelCNN((3, 2, 3), **SMALL))
    model.head.mask.fill_(True)
    assert gated_dependence(model).triu().any()


def test_channel_masks():
    # Groups of 7 features among 3 channels: 0 0 0 1 1 2 2.
    stem = [[0, 0, 0]] * 3 + [[1, 0, 0]] * 2 + [[1, 1, 0]] * 2
    head = [[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]]
    assert channel_mask(7, 3, 3, own=False).int().tolist() == stem
    assert channel_mask(3, 7, 3, own=True).int().tolist() == head
    assert channel_mask(7, 7, 3, own=True).sum().item() == 3 * 3 + 2 * 5 + 2 * 7
    # In turn: 0 1 2 0.
    assert channel_mask(4, 3, 3, own=False, order="interleaved").int().tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [1, 1, 0],
        [0, 0, 0],
    ]


def test_a_pixel_mask_leaves_the_taps_to_the_left_alone_and_repeats():
    mask = channel_mask(2, 2, 2, own=True)
    whole = pixel_mask(torch.empty(4, 2, 1, 3), mask)
    assert whole[..., 0, :2].all()
    assert torch.equal(whole[..., 0, 2], mask.repeat(2, 1))


def test_masks_are_applied_without_touching_the_parameters():
    model = scramble(GatedPixelCNN((3, 3, 4), **SMALL))
    x = images(model)
    before = copy.deepcopy(model.state_dict())
    expected = model(x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    mix = model.blocks[0].mix
    mix.weight.data[~mix.mask.expand_as(mix.weight)] = 1e3
    assert torch.equal(model(x), expected)


def test_no_masks_are_stored_and_one_channel_needs_none():
    assert not [name for name in GatedPixelCNN((3, 4, 4), **SMALL).state_dict() if "mask" in name]
    assert not list(GatedPixelCNN().buffers())


def test_sizes():
    assert parameter_count(GatedPixelCNN()) == 622_272
    model = PixelCNNPlusPlus((3, 32, 32), blocks=5, filters=160, mixtures=10)
    assert parameter_count(model) == 53_659_080
    assert len(model.state_dict()) == 567


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (GatedPixelCNN((1, 5, 3), **SMALL), (2, 3, 1, 5, 3)),
        (GatedPixelCNN((3, 1, 1), **SMALL), (2, 3, 3, 1, 1)),
        (PixelCNNPlusPlus((3, 4, 8), blocks=1, filters=3, mixtures=2), (2, 20, 4, 8)),
        (PixelCNNPlusPlus((1, 8, 4), blocks=1, filters=3, mixtures=2), (2, 6, 8, 4)),
    ],
)
def test_output_shapes_and_the_likelihood_accepts_them(model, expected):
    model.eval()
    x = images(model, n=2).float()
    params = model(x)
    assert params.shape == expected and params.dtype == torch.float32
    levels = torch.zeros(2, *model.shape, dtype=torch.int64)
    assert model.likelihood.loss(params, levels).isfinite()


def test_other_sizes_than_the_declared_one():
    gated = GatedPixelCNN((1, 4, 4), **SMALL)
    assert gated(torch.zeros(1, 1, 3, 7)).shape == (1, 3, 1, 3, 7)
    plus_plus = PixelCNNPlusPlus((1, 4, 4), blocks=1, filters=2, mixtures=1).eval()
    assert plus_plus(torch.zeros(1, 1, 12, 8)).shape == (1, 3, 12, 8)


class TestConditions:
    @pytest.mark.parametrize(
        ("kind", "first", "second"),
        [
            ({"classes": 4}, torch.tensor([1]), torch.tensor([3])),
            ({"vector_condition": 2}, torch.zeros(1, 2).double(), torch.ones(1, 2).double()),
            ({"spatial_condition": 2}, torch.zeros(1, 2, 3, 4).double(), torch.ones(1, 2, 3, 4).double()),
        ],
    )
    def test_gated_condition_reaches_every_output(self, kind, first, second):
        model = scramble(GatedPixelCNN((1, 3, 4), **SMALL, **kind))
        x = images(model)
        assert (model(x, first) != model(x, second)).all()
        example = model.condition_example
        assert example.shape == first.shape and not example.any()

    def test_a_map_may_reach_backwards_nowhere_but_at_its_own_position_and_after(self):
        model = scramble(GatedPixelCNN((1, 3, 4), **SMALL, spatial_condition=1))
        x, condition = images(model), torch.zeros(1, 1, 3, 4).double().requires_grad_()
        gradient = torch.autograd.grad(model(x, condition)[0, :, 0, 1, 2].sum(), condition)[0]
        assert gradient[0, 0, 1, 2] != 0 and gradient[0, 0, 0, 1] != 0 and gradient[0, 0, 2, 3] == 0

    def test_plus_plus_class_vectors_are_in_both_streams_of_every_block(self):
        model = scramble(PixelCNNPlusPlus((1, 4, 4), blocks=2, filters=2, mixtures=1, classes=3))
        vectors = {name: value for name, value in model.named_parameters() if "condition" in name}
        assert {tuple(value.shape) for value in vectors.values()} == {(3, 4)}
        assert len(vectors) == 2 * (3 * 2 + 2 + 3 + 3)
        x, label = images(model), torch.tensor([2])
        model(x, label).sum().backward()
        for name, value in vectors.items():
            assert value.grad is not None, name
            # The last block of the vertical stack feeds the head through the last horizontal block.
            assert (value.grad[2] != 0).any() and not value.grad[:2].any(), name

    def test_class_vector_of_zero_is_the_unconditional_network(self):
        config = {"shape": (1, 4, 8), "blocks": 1, "filters": 3, "mixtures": 2}
        conditional = scramble(PixelCNNPlusPlus(**config, classes=2))
        plain = PixelCNNPlusPlus(**config).double().eval()
        state = {name: value for name, value in conditional.state_dict().items() if "condition" not in name}
        plain.load_state_dict(state)
        for name, value in conditional.named_parameters():
            if "condition" in name:
                value.data.zero_()
        x = images(plain)
        assert torch.equal(plain(x), conditional(x, torch.tensor([1])))

    @pytest.mark.parametrize(
        ("kind", "condition", "message"),
        [
            ({}, torch.tensor([1]), "takes no condition"),
            ({"classes": 3}, None, "int64 labels"),
            ({"classes": 3}, torch.tensor([3]), "from 0 to 2, got 3 to 3"),
            ({"classes": 3}, torch.tensor([-1]), "from 0 to 2, got -1 to -1"),
            ({"classes": 3}, torch.tensor([1.0]), "int64 labels"),
            ({"classes": 3}, torch.tensor([1, 2]), r"for N = 1 images"),
            ({"classes": 3}, 1, "not a int"),
            ({"vector_condition": 2}, torch.zeros(1, 3), r"float vector \(N, 2\)"),
            ({"spatial_condition": 2}, torch.zeros(1, 2, 4, 4), "image's height and width"),
        ],
    )
    def test_bad_conditions(self, kind, condition, message):
        model = GatedPixelCNN((1, 3, 4), **SMALL, **kind)
        with pytest.raises(ShapeError, match=message):
            model(torch.zeros(1, 1, 3, 4), condition)


class TestPlusPlusDetails:
    def test_shifts_bring_in_zeros(self):
        x = torch.arange(1.0, 7).view(1, 1, 2, 3)
        assert shift_down(x)[0, 0].tolist() == [[0, 0, 0], [1, 2, 3]]
        assert shift_right(x)[0, 0].tolist() == [[0, 1, 2], [0, 4, 5]]

    def test_the_first_pixel_sees_neither_stem_bias(self):
        model = scramble(PixelCNNPlusPlus((1, 4, 4), blocks=1, filters=2, mixtures=1))
        x = images(model)
        first = model(x)[..., 0, 0]
        for stem in (model.stem_vertical, model.stem_above, model.stem_left):
            stem.bias.data += 1
        assert torch.equal(model(x)[..., 0, 0], first)

    def test_dropout_drops_single_activations_in_training_only(self):
        model = PixelCNNPlusPlus((1, 8, 8), blocks=1, filters=4, mixtures=1, dropout=0.5)
        seen = []
        model.encoder[0].vertical[0].dropout.register_forward_hook(lambda _, x, y: seen.append((x[0], y)))
        torch.manual_seed(0)
        x = images(model).float()
        with torch.no_grad():  # with gradients, training runs fused operations
            model.train()(x)
        dropped = (seen[0][1] == 0) & (seen[0][0] != 0)
        per_channel = dropped[0].flatten(1).float().mean(1)
        assert ((per_channel > 0) & (per_channel < 1)).all()
        model.eval()(x)
        assert torch.equal(*seen[1])

    @pytest.mark.parametrize("axis", [0, 1])
    def test_weight_norm_is_torchs(self, axis):
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(3, 4, 2, 3, generator=generator, dtype=torch.float64)
        magnitude = torch.rand(direction.shape[axis], generator=generator, dtype=torch.float64)
        layer = nn.Conv2d(4, 3, (2, 3)).double()
        layer.weight.data = direction
        nn.utils.parametrizations.weight_norm(layer, dim=axis)
        shape = [1] * 4
        shape[axis] = -1
        layer.parametrizations.weight.original0.data = magnitude.view(shape)
        torch.testing.assert_close(weight_norm(direction, magnitude, axis), layer.weight, rtol=1e-14, atol=0)

    def test_weight_norm_of_a_zero_direction_is_zero(self):
        assert not weight_norm(torch.zeros(2, 3), torch.ones(2)).any()

    @pytest.mark.parametrize(("deconv_norm", "axis"), [("out", 1), ("in", 0)])
    def test_the_axis_of_the_deconvolutions_norm(self, deconv_norm, axis):
        model = PixelCNNPlusPlus((1, 4, 4), blocks=1, filters=3, mixtures=1, deconv_norm=deconv_norm)
        deconvolutions = [module for module in model.modules() if isinstance(module, ShiftedDeconv2d)]
        assert len(deconvolutions) == 4
        for module in deconvolutions:
            module.weight_g.data = torch.tensor([1.0, 2.0, 3.0])
            others = [dim for dim in range(4) if dim != axis]
            torch.testing.assert_close(module.weight().square().sum(others).sqrt(), module.weight_g.data)

    def test_initialisation_from_data_standardises_every_layer(self):
        torch.manual_seed(0)
        model = PixelCNNPlusPlus((3, 8, 8), blocks=1, filters=4, mixtures=2, classes=3).double().eval()
        x, labels = images(model, n=6), torch.tensor([0, 1, 2, 0, 1, 2])
        initialise_from_data(model, x, labels)
        checked = []

        def check(layer, inputs, _):
            response = layer.convolve(inputs[0], layer.weight(), layer.bias)
            deviation, mean = torch.std_mean(response, dim=(0, 2, 3), correction=0)
            torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-10, rtol=0)
            torch.testing.assert_close(deviation, torch.full_like(mean, layer.init_scale), rtol=1e-4, atol=0)
            checked.append(layer)

        layers = [module for module in model.modules() if isinstance(module, WeightNormConv2d)]
        for layer in layers:
            layer.register_forward_hook(check)
        model(x, labels)
        assert len(checked) == len(layers) == 3 + 3 * (2 + 3) + 5 * (3 + 3) + 4 + 4 + 1
        assert {layer.init_scale for layer in layers} == {1.0, 0.1}

    def test_initialisation_from_data_is_refused_where_it_has_no_meaning(self):
        per_input = PixelCNNPlusPlus((1, 4, 4), blocks=1, filters=2, mixtures=1, deconv_norm="in")
        with pytest.raises(PixelfastError, match="per output channel"):
            initialise_from_data(per_input, torch.zeros(1, 1, 4, 4))
        with pytest.raises(PixelfastError, match="no weight-normalised layer"):
            initialise_from_data(GatedPixelCNN((1, 4, 4), **SMALL), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (GatedPixelCNN, {"shape": (1, 28)}, r"shape must be \(channels, height, width\)"),
        (GatedPixelCNN, {"shape": "128"}, "shape must be"),
        (GatedPixelCNN, {"shape": (1, 0, 28)}, "height must be from 1"),
        (GatedPixelCNN, {"shape": (1, 28.0, 28)}, "height must be an integer"),
        (GatedPixelCNN, {"shape": (1, 1 << 40, 28)}, "height must be from 1"),
        (GatedPixelCNN, {"levels": 1}, "levels must be from 2 to 65536, not 1"),
        (GatedPixelCNN, {"levels": True}, "levels must be an integer"),
        (GatedPixelCNN, {"shape": (3, 4, 4), "hidden": 2}, "hidden must be from 3"),
        (GatedPixelCNN, {"dilations": ()}, "dilations must have from 1 to 128 entries, not 0"),
        (GatedPixelCNN, {"dilations": 3}, "dilations must be a sequence"),
        (GatedPixelCNN, {"dilations": (1, -1)}, r"dilations\[1\] must be from 1"),
        (GatedPixelCNN, {"kernel_size": 4}, "kernel_size must be odd"),
        (GatedPixelCNN, {"classes": 0}, "classes must be from 1"),
        (GatedPixelCNN, {"classes": 2, "vector_condition": 3}, "one kind of condition"),
        (GatedPixelCNN, {"channel_order": "rgb"}, "must be one of sequential, independent"),
        (GatedPixelCNN, {"input": ["signed"]}, "input must be one of signed, unit"),
        (PixelCNNPlusPlus, {"shape": (2, 32, 32)}, "1 or 3 channels, not 2"),
        (PixelCNNPlusPlus, {"shape": (3, 30, 32)}, "multiples of 4, not 30 x 32"),
        (PixelCNNPlusPlus, {"shape": (3, 32, 31)}, "multiples of 4, not 32 x 31"),
        (PixelCNNPlusPlus, {"blocks": 0}, "blocks must be from 1"),
        (PixelCNNPlusPlus, {"filters": 10**30}, "filters must be from 1"),
        (PixelCNNPlusPlus, {"mixtures": -1}, "mixtures must be from 1"),
        (PixelCNNPlusPlus, {"dropout": 1.0}, "dropout must be a number from 0"),
        (PixelCNNPlusPlus, {"dropout": float("nan")}, "dropout must be a number from 0"),
        (PixelCNNPlusPlus, {"deconv_norm": "both"}, "deconv_norm must be one of in, out"),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(PixelfastError, match=message) as caught:
        model(**arguments)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ShapeError) == ("shape" in arguments and "hidden" not in arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 8, 8), r"must be \(N, 1, H, W\)"),
        (torch.zeros(1, 8, 8), r"must be \(N, 1, H, W\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "float tensor, not torch.uint8"),
        (torch.zeros(1, 1, 8, 10), "multiples of 4, not 8 x 10"),
    ],
)
def test_bad_inputs(x, message):
    with pytest.raises(ShapeError, match=message):
        PixelCNNPlusPlus((1, 8, 8), blocks=1, filters=2, mixtures=1)(x)


def test_registry_makes_the_same_model_from_its_own_configuration():
    for model in (GatedPixelCNN((3, 4, 8), **SMALL, classes=2), PixelCNNPlusPlus(blocks=1, filters=2)):
        name = registry.name_of(model)
        again = registry.create(name, **json.loads(json.dumps(model.config)))
        assert type(again) is type(model) and again.config == model.config
        assert (again.shape, again.likelihood, again.input) == (model.shape, model.likelihood, model.input)
        assert {k: v.shape for k, v in again.state_dict().items()} == {
            k: v.shape for k, v in model.state_dict().items()
        }


def test_registry_refuses_what_it_does_not_know():
    with pytest.raises(PixelfastError, match="unknown model 'resnet'; the models are gated_pixelcnn"):
        registry.create("resnet")
    with pytest.raises(PixelfastError, match="Linear is not one of pixelfast's models"):
        registry.name_of(nn.Linear(1, 1))
