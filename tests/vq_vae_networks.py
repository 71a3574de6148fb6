"""Foreign checkpoints of models of codes, made up for tests, and forwards written from their tensors' names alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from foreign_networks import random_state
from torch import Tensor

State = Mapping[str, Tensor]
HEADS = 8


def rosinality_prior_state(
    size: tuple[int, int],
    codes: int,
    channel: int,
    hidden: int,
    kernel: int,
    parts: int,
    blocks: int,
    *,
    attention: bool = True,
    out_blocks: int = 0,
    condition: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """A PixelSNAIL prior of any sizes; condition: features and blocks of its network. What is masked is not zero."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int, bias: bool = True) -> None:
        shapes[f"{name}.weight_v"] = weight
        shapes[f"{name}.weight_g"] = (weight[0], *[1] * (len(weight) - 1))
        if bias:
            shapes[f"{name}.bias"] = (weight[0],)

    def resblock(name: str, inputs: int, inner: int, k: int, deep: str = "", aux: int = 0) -> None:
        layer(f"{name}.conv1.conv{deep}", inner, inputs, k, k)
        layer(f"{name}.conv2.conv{deep}", 2 * inputs, inner, k, k)
        if aux:
            layer(f"{name}.aux_conv.conv", inner, aux, 1, 1)

    layer("horizontal.conv.conv", channel, codes, kernel // 2, kernel)
    layer("vertical.conv.conv", channel, codes, (kernel + 1) // 2, kernel // 2)
    for part in range(parts):
        name = f"blocks.{part}"
        for block in range(blocks):
            resblock(f"{name}.resblocks.{block}", channel, hidden, kernel, ".conv")
            if condition is not None:
                layer(f"{name}.resblocks.{block}.condition.conv", 2 * channel, condition[0], 1, 1, bias=False)
        if attention:
            resblock(f"{name}.key_resblock", 2 * channel + 2, channel, 1)
            resblock(f"{name}.query_resblock", channel + 2, channel, 1)
            for projection, inputs in (("query", channel + 2), ("key", 2 * channel + 2), ("value", 2 * channel + 2)):
                layer(f"{name}.causal_attention.{projection}", channel // 2, inputs)
            resblock(f"{name}.out_resblock", channel, channel, 1, aux=channel // 2)
        else:
            layer(f"{name}.out.conv", channel, channel + 2, 1, 1)
    if condition is not None:
        layer("cond_resnet.blocks.0.conv", condition[0], codes, 3, 3)
        for block in range(condition[1]):
            resblock(f"cond_resnet.blocks.{block + 1}", condition[0], condition[0], 3)
    for block in range(out_blocks):
        resblock(f"out.{block}", channel, hidden, 1)
    layer(f"out.{out_blocks + 1}.conv", codes, channel, 1, 1)
    state = random_state(shapes)
    state["background"] = places(size)
    return state


def places(size: tuple[int, int]) -> Tensor:
    """(1, 2, H, W): rows and columns as the file has them."""
    height, width = size
    rows = [[[y / height - 0.5] * width for y in range(height)], [[x / width - 0.5 for x in range(width)]] * height]
    return torch.tensor([rows], dtype=torch.float64)


def rosinality_prior_forward(state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
    """Logits (N, codes, H, W) of codes (N, H, W), with a coarser map (N, H / 2, W / 2) or none."""
    background = state["background"].expand(len(codes), -1, -1, -1)

    def weight(name: str, masked: bool = False) -> Tensor:
        direction = state[f"{name}.weight_v"].clone()
        if masked:
            direction[:, :, -1, direction.shape[-1] // 2 :] = 0
        norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.dim() - 1))
        return state[f"{name}.weight_g"] * direction / norm

    def conv(name: str, x: Tensor, pad: tuple[int, int, int, int], masked: bool = False) -> Tensor:
        return F.conv2d(F.pad(x, pad), weight(name, masked), state.get(f"{name}.bias"))

    def resblock(name: str, x: Tensor, kind: str, aux: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        k = state[f"{name}.conv1.conv{'.conv' if kind == 'causal' else ''}.weight_v"].shape[-1]
        pad = {"causal": (k // 2, k // 2, k - 1, 0), "same": (k // 2,) * 4}[kind]
        deep = ".conv" if kind == "causal" else ""
        h = conv(f"{name}.conv1.conv{deep}", F.elu(x), pad, kind == "causal")
        if aux is not None:
            h = h + conv(f"{name}.aux_conv.conv", F.elu(aux), (0, 0, 0, 0))
        h = conv(f"{name}.conv2.conv{deep}", F.elu(h), pad, kind == "causal")
        if given is not None:
            h = h + conv(f"{name}.condition.conv", given, (0, 0, 0, 0))
        return F.glu(h, 1) + x

    def linear(name: str, x: Tensor) -> Tensor:
        return torch.einsum("oi,nihw->nohw", weight(name), x) + state[f"{name}.bias"][:, None, None]

    def attention(name: str, question: Tensor, content: Tensor) -> Tensor:
        query, key, value = (
            linear(f"{name}.{which}", x).flatten(2).unflatten(1, (HEADS, -1))
            for which, x in (("query", question), ("key", content), ("value", content))
        )
        scores = torch.einsum("nhci,nhcj->nhij", query, key) / math.sqrt(query.shape[2])
        earlier = torch.ones(scores.shape[-2:]).tril(-1).bool()
        weights = scores.masked_fill(~earlier, -1e4).softmax(-1)
        weights[:, :, 0] = 0
        return torch.einsum("nhij,nhcj->nhci", weights, value).flatten(1, 2).unflatten(2, question.shape[2:])

    def one_hot(map_: Tensor) -> Tensor:
        count = state["horizontal.conv.conv.weight_v"].shape[1]
        return F.one_hot(map_, count).permute(0, 3, 1, 2).double()

    x = one_hot(codes)
    k = state["horizontal.conv.conv.weight_v"].shape[-1]
    above = conv("horizontal.conv.conv", x, (k // 2, k // 2, k // 2 - 1, 0))
    left = conv("vertical.conv.conv", x, (k // 2 - 1, 0, k // 2, 0))
    out = F.pad(above, (0, 0, 1, 0))[:, :, :-1] + F.pad(left, (1, 0, 0, 0))[:, :, :, :-1]
    given = None
    if condition is not None:
        given = conv("cond_resnet.blocks.0.conv", one_hot(condition), (1, 1, 1, 1))
        for block in range(1, members(state, "cond_resnet.blocks.")):
            given = resblock(f"cond_resnet.blocks.{block}", given, "same")
        given = given.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for part in range(members(state, "blocks.")):
        name, start = f"blocks.{part}", out
        for block in range(members(state, f"{name}.resblocks.")):
            out = resblock(f"{name}.resblocks.{block}", out, "causal", given=given)
        here = torch.cat((out, background), 1)
        if f"{name}.out.conv.weight_v" in state:
            out = conv(f"{name}.out.conv", here, (0, 0, 0, 0))
        else:
            content = resblock(f"{name}.key_resblock", torch.cat((start, out, background), 1), "same")
            question = resblock(f"{name}.query_resblock", here, "same")
            out = resblock(
                f"{name}.out_resblock", out, "same", attention(f"{name}.causal_attention", question, content)
            )
    last = max(int(name.split(".")[1]) for name in state if name.startswith("out."))
    for block in range(last - 1):
        out = resblock(f"out.{block}", out, "same")
    return conv(f"out.{last}.conv", F.elu(out), (0, 0, 0, 0))


def members(state: State, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def rosinality_vq_vae_state(
    channels: int, hidden: int, blocks: int, inner: int, width: int, codes: int
) -> dict[str, Tensor]:
    """A VQ-VAE-2 autoencoder of any sizes."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int, outputs: int | None = None) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = (weight[0] if outputs is None else outputs,)

    def residual(name: str, first: int) -> None:
        for index in range(first, first + blocks):
            layer(f"{name}.blocks.{index}.conv.1", inner, hidden, 3, 3)
            layer(f"{name}.blocks.{index}.conv.3", hidden, inner, 1, 1)

    def decoder(name: str, inputs: int, outputs: int, doublings: int) -> None:
        layer(f"{name}.blocks.0", hidden, inputs, 3, 3)
        residual(name, 1)
        widths = [hidden, *[hidden // 2] * (doublings - 1), outputs]
        for index in range(doublings):
            after = widths[index + 1]
            layer(f"{name}.blocks.{blocks + 2 + 2 * index}", widths[index], after, 4, 4, outputs=after)

    layer("enc_b.blocks.0", hidden // 2, channels, 4, 4)
    layer("enc_b.blocks.2", hidden, hidden // 2, 4, 4)
    layer("enc_b.blocks.4", hidden, hidden, 3, 3)
    residual("enc_b", 5)
    layer("enc_t.blocks.0", hidden // 2, hidden, 4, 4)
    layer("enc_t.blocks.2", hidden, hidden // 2, 3, 3)
    residual("enc_t", 3)
    layer("quantize_conv_t", width, hidden, 1, 1)
    decoder("dec_t", width, width, 1)
    layer("quantize_conv_b", width, width + hidden, 1, 1)
    layer("upsample_t", width, width, 4, 4)
    decoder("dec", 2 * width, channels, 2)
    for name in ("quantize_t", "quantize_b"):
        shapes |= {
            f"{name}.embed": (width, codes),
            f"{name}.cluster_size": (codes,),
            f"{name}.embed_avg": (width, codes),
        }
    return random_state(shapes)


def rosinality_vq_vae_forward(state: State, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of both maps, (N, h, w), and the reconstruction, of signed images."""

    def conv(name: str, h: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        pad = (weight.shape[-1] - 1) // 2
        return F.conv2d(h, weight, state[f"{name}.bias"], stride=stride, padding=pad)

    def double(name: str, h: Tensor) -> Tensor:
        return F.conv_transpose2d(h, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)

    def residual(name: str, h: Tensor) -> Tensor:
        for index in sorted(
            int(key.split(".")[2]) for key in state if key.startswith(f"{name}.") and key.endswith("conv.1.bias")
        ):
            block = f"{name}.blocks.{index}"
            h = h + conv(f"{block}.conv.3", conv(f"{block}.conv.1", h.relu()).relu())
        return h.relu()

    def decode(name: str, h: Tensor) -> Tensor:
        h = residual(name, conv(f"{name}.blocks.0", h))
        last = [key.removesuffix(".weight") for key in state if key.startswith(f"{name}.") and key.endswith("weight")]
        for index, layer in enumerate(one for one in last if ".conv." not in one and not one.endswith("blocks.0")):
            h = double(layer, h.relu() if index else h)
        return h

    def nearest(name: str, h: Tensor) -> Tensor:
        distances = (h[:, :, None] - state[f"{name}.embed"][None, :, :, None, None]).square().sum(1)
        return distances.argmin(1)

    def vectors(name: str, codes: Tensor) -> Tensor:
        return state[f"{name}.embed"].T[codes].permute(0, 3, 1, 2)

    h = conv("enc_b.blocks.2", conv("enc_b.blocks.0", x, 2).relu(), 2).relu()
    bottom = residual("enc_b", conv("enc_b.blocks.4", h))
    top = residual("enc_t", conv("enc_t.blocks.2", conv("enc_t.blocks.0", bottom, 2).relu()))
    coarse = nearest("quantize_t", conv("quantize_conv_t", top))
    known = vectors("quantize_t", coarse)
    fine = nearest("quantize_b", conv("quantize_conv_b", torch.cat((decode("dec_t", known), bottom), 1)))
    image = decode("dec", torch.cat((double("upsample_t", known), vectors("quantize_b", fine)), 1))
    return coarse, fine, image


def ritheshkumar95_prior_state(codes: int, hidden: int, layers: int, classes: int) -> dict[str, Tensor]:
    """A gated prior of any sizes. What the first layer masks is not zero."""
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (codes, hidden)}

    def conv(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    for layer in range(layers):
        name, kernel = f"layers.{layer}", 3 if layer else 7
        shapes[f"{name}.class_cond_embedding.weight"] = (classes, 2 * hidden)
        conv(f"{name}.vert_stack", 2 * hidden, hidden, kernel // 2 + 1, kernel)
        conv(f"{name}.vert_to_horiz", 2 * hidden, 2 * hidden, 1, 1)
        conv(f"{name}.horiz_stack", 2 * hidden, hidden, 1, kernel // 2 + 1)
        conv(f"{name}.horiz_resid", hidden, hidden, 1, 1)
    conv("output_conv.0", 512, hidden, 1, 1)
    conv("output_conv.2", codes, 512, 1, 1)
    return random_state(shapes)


def ritheshkumar95_prior_forward(state: State, codes: Tensor, labels: Tensor) -> Tensor:
    """Logits (N, codes, H, W) of codes (N, H, W) and labels (N,), right for maps that are not square too."""
    height, width = codes.shape[1:]

    def conv(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"].clone()
        if name == "layers.0.vert_stack":
            weight[:, :, -1] = 0
        if name == "layers.0.horiz_stack":
            weight[..., -1] = 0
        columns = weight.shape[3]
        wide = "vert_stack" in name
        # Symmetric padding, then what was made of rows and columns after the pixel's own is cut off.
        padding = (columns // 2, columns // 2) if wide else (0, columns - 1)
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=padding)[:, :, :height, :width]

    def gated(x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return x[:, :half].tanh() * x[:, half:].sigmoid()

    above = left = state["embedding.weight"][codes].permute(0, 3, 1, 2)
    for layer in range(members(state, "layers.")):
        name = f"layers.{layer}"
        label = state[f"{name}.class_cond_embedding.weight"][labels][:, :, None, None]
        vertical = conv(f"{name}.vert_stack", above)
        horizontal = conv(f"{name}.vert_to_horiz", vertical) + conv(f"{name}.horiz_stack", left)
        out = conv(f"{name}.horiz_resid", gated(horizontal + label))
        above, left = gated(vertical + label), out + left if layer else out
    return conv("output_conv.2", conv("output_conv.0", left).relu())


def ritheshkumar95_vq_vae_state(channels: int, hidden: int, codes: int) -> dict[str, Tensor]:
    """An autoencoder of any sizes, with batch norms that have seen something."""
    shapes: dict[str, tuple[int, ...]] = {"codebook.embedding.weight": (codes, hidden)}
    norms = []

    def conv(name: str, *weight: int, outputs: int | None = None) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = (weight[0] if outputs is None else outputs,)

    def norm(name: str) -> None:
        norms.append(name)
        shapes.update({f"{name}.{part}": (hidden,) for part in ("weight", "bias", "running_mean", "running_var")})

    def block(name: str) -> None:
        conv(f"{name}.block.1", hidden, hidden, 3, 3)
        norm(f"{name}.block.2")
        conv(f"{name}.block.4", hidden, hidden, 1, 1)
        norm(f"{name}.block.5")

    conv("encoder.0", hidden, channels, 4, 4)
    norm("encoder.1")
    conv("encoder.3", hidden, hidden, 4, 4)
    for name in ("encoder.4", "encoder.5", "decoder.0", "decoder.1"):
        block(name)
    conv("decoder.3", hidden, hidden, 4, 4, outputs=hidden)
    norm("decoder.4")
    conv("decoder.6", hidden, channels, 4, 4, outputs=channels)
    state = random_state(shapes)
    for name in norms:
        state[f"{name}.running_var"] = state[f"{name}.running_var"].abs() + 0.1
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return state


def ritheshkumar95_vq_vae_forward(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (N, h, w) and the reconstruction of signed images. Blocks rectify their input in place, skip and all."""

    def conv(name: str, h: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(h, state[f"{name}.weight"], state[f"{name}.bias"], stride=stride, padding=padding)

    def double(name: str, h: Tensor) -> Tensor:
        return F.conv_transpose2d(h, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)

    def norm(name: str, h: Tensor) -> Tensor:
        gain, shift, mean, variance = (
            state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (h - mean) / (variance + 1e-5).sqrt() * gain + shift

    def block(name: str, h: Tensor) -> Tensor:
        h = h.relu()
        inner = norm(f"{name}.block.2", conv(f"{name}.block.1", h, padding=1)).relu()
        return h + norm(f"{name}.block.5", conv(f"{name}.block.4", inner))

    h = conv("encoder.3", norm("encoder.1", conv("encoder.0", x, 2, 1)).relu(), 2, 1)
    h = block("encoder.5", block("encoder.4", h))
    vectors = state["codebook.embedding.weight"]
    codes = (h[:, None] - vectors[None, :, :, None, None]).square().sum(2).argmin(1)
    h = block("decoder.1", block("decoder.0", vectors[codes].permute(0, 3, 1, 2)))
    h = norm("decoder.4", double("decoder.3", h.relu())).relu()
    return codes, double("decoder.6", h).tanh()
