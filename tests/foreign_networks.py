"""Foreign checkpoints made up for tests, and forwards written from nothing but their tensors' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Normal values of standard deviation 0.4, float64."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def uvadlc_state(channels: int, hidden: int, kernel: int, layers: int, levels: int) -> dict[str, Tensor]:
    """A file of tutorial 12 with any sizes. Entries under the masks are not zero."""
    live = kernel // 2
    shapes: dict[str, tuple[int, ...]] = {}
    masks: dict[str, Tensor] = {}

    def masked(name: str, inputs: int, features: int, rows: int, live_rows: int, live_columns: int) -> None:
        shapes[f"{name}.conv.weight"] = (features, inputs, rows, kernel)
        shapes[f"{name}.conv.bias"] = (features,)
        masks[f"{name}.mask"] = torch.zeros(1, 1, rows, kernel, dtype=torch.float64)
        masks[f"{name}.mask"][..., :live_rows, :live_columns] = 1

    def plain(name: str, inputs: int, features: int) -> None:
        shapes[f"{name}.weight"] = (features, inputs, 1, 1)
        shapes[f"{name}.bias"] = (features,)

    masked("conv_vstack", channels, hidden, kernel, live, kernel)
    masked("conv_hstack", channels, hidden, 1, 1, live)
    for layer in range(layers):
        name = f"conv_layers.{layer}"
        masked(f"{name}.conv_vert", hidden, 2 * hidden, kernel, live + 1, kernel)
        masked(f"{name}.conv_horiz", hidden, 2 * hidden, 1, 1, live + 1)
        plain(f"{name}.conv_vert_to_horiz", 2 * hidden, 2 * hidden)
        plain(f"{name}.conv_horiz_1x1", hidden, hidden)
    plain("conv_out", hidden, levels * channels)
    return random_state(shapes) | masks


def uvadlc_forward(state: State, x: Tensor, dilations: Sequence[int]) -> Tensor:
    """Logits (N, levels, C, H, W) of signed images, with whole kernels, masks and symmetric padding."""

    def masked(name: str, features: Tensor, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.conv.weight"] * state[f"{name}.mask"]
        padding = (dilation * (weight.shape[2] // 2), dilation * (weight.shape[3] // 2))
        return F.conv2d(features, weight, state[f"{name}.conv.bias"], padding=padding, dilation=dilation)

    def plain(name: str, features: Tensor) -> Tensor:
        weight = state[f"{name}.weight"][:, :, 0, 0]
        return torch.einsum("oi,nihw->nohw", weight, features) + state[f"{name}.bias"][:, None, None]

    def gated(features: Tensor) -> Tensor:
        half = features.shape[1] // 2
        return features[:, :half].tanh() * features[:, half:].sigmoid()

    above, left = masked("conv_vstack", x), masked("conv_hstack", x)
    for layer, dilation in enumerate(dilations):
        name = f"conv_layers.{layer}"
        vertical = masked(f"{name}.conv_vert", above, dilation)
        horizontal = masked(f"{name}.conv_horiz", left, dilation)
        horizontal = gated(horizontal + plain(f"{name}.conv_vert_to_horiz", vertical))
        above, left = gated(vertical), plain(f"{name}.conv_horiz_1x1", horizontal) + left
    logits = plain("conv_out", F.elu(left))
    return logits.view(x.shape[0], -1, x.shape[1], x.shape[2], x.shape[3])


def pclucas14_state(channels: int, filters: int, blocks: int, mixtures: int) -> dict[str, Tensor]:
    """A file of the PyTorch PixelCNN++ with any sizes, magnitudes positive."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, outputs: int, *weight: int) -> None:
        shapes[f"{name}.bias"] = (outputs,)
        shapes[f"{name}.weight_g"] = (weight[0], *[1] * (len(weight) - 1))
        shapes[f"{name}.weight_v"] = weight

    def resnet(name: str, kernel: tuple[int, int], aux: int) -> None:
        layer(f"{name}.conv_input.conv", filters, filters, 2 * filters, *kernel)
        layer(f"{name}.conv_out.conv", 2 * filters, 2 * filters, 2 * filters, *kernel)
        if aux:
            layer(f"{name}.nin_skip.lin_a", filters, filters, 2 * aux * filters)

    layer("u_init.conv", filters, filters, channels + 1, 2, 3)
    layer("ul_init.0.conv", filters, filters, channels + 1, 1, 3)
    layer("ul_init.1.conv", filters, filters, channels + 1, 2, 1)
    for level in range(3):
        for block in range(blocks):
            resnet(f"up_layers.{level}.u_stream.{block}", (2, 3), 0)
            resnet(f"up_layers.{level}.ul_stream.{block}", (2, 2), 1)
        for block in range(blocks + (level > 0)):
            resnet(f"down_layers.{level}.u_stream.{block}", (2, 3), 1)
            resnet(f"down_layers.{level}.ul_stream.{block}", (2, 2), 2)
    for step in range(2):
        layer(f"downsize_u_stream.{step}.conv", filters, filters, filters, 2, 3)
        layer(f"downsize_ul_stream.{step}.conv", filters, filters, filters, 2, 2)
        layer(f"upsize_u_stream.{step}.deconv", filters, filters, filters, 2, 3)
        layer(f"upsize_ul_stream.{step}.deconv", filters, filters, filters, 2, 2)
    layer(
        "nin_out.lin_a",
        (10 if channels == 3 else 3) * mixtures,
        (10 if channels == 3 else 3) * mixtures,
        filters,
    )
    state = random_state(shapes)
    return {name: value.abs() + 0.1 if name.endswith("_g") else value for name, value in state.items()}


def pclucas14_forward(state: State, x: Tensor) -> Tensor:
    """Mixture parameters of signed images. Every weight norm is along the weight's first axis.

    Causal padding is done here by building each tap as a shifted copy of the input, not by a convolution.
    """
    blocks = len({name.split(".")[3] for name in state if name.startswith("up_layers.0.u_stream.")})

    def weight(name: str) -> Tensor:
        direction, magnitude = state[f"{name}.weight_v"], state[f"{name}.weight_g"]
        norm = direction.flatten(1).norm(dim=1).view(magnitude.shape)
        return magnitude * direction / norm

    def moved(features: Tensor, down: int, right: int) -> Tensor:
        rows, columns = features.shape[2:]
        result = torch.zeros_like(features)
        source = features[:, :, : rows - down, max(0, -right) : columns - max(0, right)]
        result[:, :, down:, max(0, right) : columns + min(0, right)] = source
        return result

    def conv(name: str, features: Tensor, centred: bool) -> Tensor:
        taps = weight(f"{name}.conv")
        height, width = taps.shape[2:]
        total = state[f"{name}.conv.bias"][None, :, None, None]
        for row in range(height):
            for column in range(width):
                right = (width // 2 if centred else width - 1) - column
                shifted = moved(features, height - 1 - row, right)
                total = total + torch.einsum("oi,nihw->nohw", taps[:, :, row, column], shifted)
        return total

    def deconv(name: str, features: Tensor, centred: bool) -> Tensor:
        taps = weight(f"{name}.deconv")
        images, _, rows, columns = features.shape
        # One more row and column on every side, cut off at the end.
        total = torch.zeros(images, taps.shape[1], 2 * rows + 2, 2 * columns + 2, dtype=features.dtype)
        for row in range(taps.shape[2]):
            for column in range(taps.shape[3]):
                part = torch.einsum("io,nihw->nohw", taps[:, :, row, column], features)
                left = 1 + column - (1 if centred else 0)
                total[:, :, row : row + 2 * rows : 2, left : left + 2 * columns : 2] += part
        bias = state[f"{name}.deconv.bias"][None, :, None, None]
        return total[:, :, : 2 * rows, 1 : 1 + 2 * columns] + bias

    def linear(name: str, features: Tensor) -> Tensor:
        bias = state[f"{name}.lin_a.bias"][None, :, None, None]
        return torch.einsum("oi,nihw->nohw", weight(f"{name}.lin_a"), features) + bias

    def both_elu(features: Tensor) -> Tensor:
        return torch.cat((F.elu(features), F.elu(-features)), 1)

    def resnet(name: str, features: Tensor, aux: Tensor | None, centred: bool) -> Tensor:
        inner = conv(f"{name}.conv_input", both_elu(features), centred)
        if aux is not None:
            inner = inner + linear(f"{name}.nin_skip", both_elu(aux))
        outer = conv(f"{name}.conv_out", both_elu(inner), centred)
        half = outer.shape[1] // 2
        return features + outer[:, :half] * outer[:, half:].sigmoid()

    x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
    u = [moved(conv("u_init", x, True), 1, 0)]
    ul = [moved(conv("ul_init.0", x, True), 1, 0) + moved(conv("ul_init.1", x, False), 0, 1)]
    for level in range(3):
        for block in range(blocks):
            name = f"up_layers.{level}"
            u.append(resnet(f"{name}.u_stream.{block}", u[-1], None, True))
            ul.append(resnet(f"{name}.ul_stream.{block}", ul[-1], u[-1], False))
        if level < 2:
            u.append(conv(f"downsize_u_stream.{level}", u[-1], True)[:, :, ::2, ::2])
            ul.append(conv(f"downsize_ul_stream.{level}", ul[-1], False)[:, :, ::2, ::2])
    above, left = u.pop(), ul.pop()
    for level in range(3):
        for block in range(blocks + (level > 0)):
            name = f"down_layers.{level}"
            above = resnet(f"{name}.u_stream.{block}", above, u.pop(), True)
            left = resnet(f"{name}.ul_stream.{block}", left, torch.cat((above, ul.pop()), 1), False)
        if level < 2:
            above = deconv(f"upsize_u_stream.{level}", above, True)
            left = deconv(f"upsize_ul_stream.{level}", left, False)
    return linear("nin_out", F.elu(left))


def openai_state(
    filters: int, blocks: int, mixtures: int, channels: int = 3, classes: int | None = None, averages: bool = True
) -> dict[str, Tensor]:
    """Variables of OpenAI's PixelCNN++ by their names, numbered by hand per kind of layer, in float32.

    With `averages` also the moving averages, which are other numbers, and an optimiser's nameless variables.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    counts: dict[str, int] = {}

    def layer(kind: str, *direction: int, outputs: int) -> None:
        name = f"model/{kind}_{counts.setdefault(kind, 0)}"
        counts[kind] += 1
        shapes[f"{name}/V"] = direction
        shapes[f"{name}/g"] = shapes[f"{name}/b"] = (outputs,)

    def conv(rows: int, columns: int, inputs: int, outputs: int) -> None:
        layer("conv2d", rows, columns, inputs, outputs, outputs=outputs)

    def dense(inputs: int, outputs: int) -> None:
        layer("dense", inputs, outputs, outputs=outputs)

    def resnet(columns: int, aux: int) -> None:
        conv(2, columns, 2 * filters, filters)
        if aux:
            dense(2 * aux * filters, filters)
        conv(2, columns, 2 * filters, 2 * filters)
        if classes is not None:
            shapes[f"model/conditional_weights_{counts.setdefault('hw', 0)}/hw"] = (classes, 2 * filters)
            counts["hw"] += 1

    conv(2, 3, channels + 1, filters)
    conv(1, 3, channels + 1, filters)
    conv(2, 1, channels + 1, filters)
    for level in range(3):
        for _ in range(blocks):
            resnet(3, 0)
            resnet(2, 1)
        if level < 2:
            conv(2, 3, filters, filters)
            conv(2, 2, filters, filters)
    for level in range(3):
        for _ in range(blocks + (level > 0)):
            resnet(3, 1)
            resnet(2, 2)
        if level < 2:
            layer("deconv2d", 2, 3, filters, filters, outputs=filters)
            layer("deconv2d", 2, 2, filters, filters, outputs=filters)
    dense(filters, (10 if channels == 3 else 3) * mixtures)

    def variables(seed: int) -> dict[str, Tensor]:
        state = random_state(shapes, seed)
        return {name: (v.abs() + 0.1 if name.endswith("/g") else v).float() for name, v in state.items()}

    state = variables(0)
    if averages:
        averaged = variables(1)
        state |= {f"{name}/ExponentialMovingAverage": value for name, value in averaged.items()}
        state |= {"Variable": torch.ones(()), "Variable_1": torch.zeros(3, 4), "Variable_12": torch.zeros(2)}
    return state


def openai_forward(state: State, x: Tensor) -> Tensor:
    """Mixture parameters of signed images (N, C, H, W): `pclucas14_forward` of kernels computed from these variables.

    That forward normalises per first axis; here every kernel is normalised first, per output channel, and given with
    the magnitudes that leave it as it is.
    """
    blocks = (sum(name.startswith("model/conv2d_") and name.endswith("/V") for name in state) - 15) // 24
    counts: dict[str, int] = {}
    theirs: dict[str, Tensor] = {}

    def take(kind: str, name: str) -> None:
        source = f"model/{kind}_{counts.setdefault(kind, 0)}"
        counts[kind] += 1
        v, g = state[f"{source}/V"].double(), state[f"{source}/g"].double()
        if kind == "dense":
            kernel = (v * (g / v.square().sum(0).sqrt())).T
        elif kind == "conv2d":
            kernel = torch.einsum("hwio,o->oihw", v, g / v.square().sum((0, 1, 2)).sqrt())
        else:
            kernel = torch.einsum("hwoi,o->iohw", v, g / v.square().sum((0, 1, 3)).sqrt())
        sizes = kernel.flatten(1).norm(dim=1)
        theirs[f"{name}.weight_v"] = kernel
        theirs[f"{name}.weight_g"] = sizes.view(-1, *[1] * (kernel.ndim - 1))
        theirs[f"{name}.bias"] = state[f"{source}/b"].double()

    def resnet(name: str, aux: bool) -> None:
        take("conv2d", f"{name}.conv_input.conv")
        if aux:
            take("dense", f"{name}.nin_skip.lin_a")
        take("conv2d", f"{name}.conv_out.conv")

    for name in ("u_init.conv", "ul_init.0.conv", "ul_init.1.conv"):
        take("conv2d", name)
    for level in range(3):
        for block in range(blocks):
            resnet(f"up_layers.{level}.u_stream.{block}", False)
            resnet(f"up_layers.{level}.ul_stream.{block}", True)
        if level < 2:
            take("conv2d", f"downsize_u_stream.{level}.conv")
            take("conv2d", f"downsize_ul_stream.{level}.conv")
    for level in range(3):
        for block in range(blocks + (level > 0)):
            resnet(f"down_layers.{level}.u_stream.{block}", True)
            resnet(f"down_layers.{level}.ul_stream.{block}", True)
        if level < 2:
            take("deconv2d", f"upsize_u_stream.{level}.deconv")
            take("deconv2d", f"upsize_ul_stream.{level}.deconv")
    take("dense", "nin_out.lin_a")
    return pclucas14_forward(theirs, x.double())
