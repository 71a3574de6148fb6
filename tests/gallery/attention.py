"""Causal attention in the forms that public models have it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .conditions import spatial
from .registry import idiom


def tokens_of(maps: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H * W, C)."""
    return maps.flatten(2).transpose(1, 2)


def maps_of(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, H * W, C) as (N, C, H, W)."""
    return tokens.transpose(1, 2).reshape(len(like), -1, *like.shape[2:])


class Attending(nn.Module):
    """A causal stem, what `attend` makes of its positions, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 6)
        self.head = nn.Conv2d(6, 4, 1)

    def attend(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        return self.head(h + maps_of(self.attend(tokens_of(h)), h))


def upto(positions: int, own: bool = True) -> Tensor:
    """(positions, positions) bool: whether a row may see a column; its own one too if `own`."""
    return torch.ones(positions, positions).tril(0 if own else -1).bool()


class ThreeProjections(Attending):
    """Queries, keys and values of two heads of three channels each, (N, heads, L, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))

    def projected(self, tokens: Tensor, asking: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        sources = (tokens if asking is None else asking, tokens, tokens)
        layers = (self.query, self.key, self.value)
        heads = [
            layer(source).view(*source.shape[:2], 2, 3).transpose(1, 2)
            for layer, source in zip(layers, sources, strict=True)
        ]
        return heads[0], heads[1], heads[2]

    def joined(self, heads: Tensor) -> Tensor:
        return heads.transpose(1, 2).reshape(heads.shape[0], heads.shape[2], -1)


@idiom()
class AttentionFilledAndStarted(ThreeProjections):
    """Keys know their own position, so only those before it count: scores filled with -1e4, and the weights of the
    first position multiplied by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = MaskedConv("B", 1, 6)
        start = torch.ones(20)
        start[0] = 0
        self.register_buffer("mask", upto(20, own=False)[None].to(torch.uint8))
        self.register_buffer("start", start.unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        query, key, value = self.projected(tokens_of(torch.tanh(self.keys(x))), tokens_of(h))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(3)
        scores = scores.masked_fill(self.mask == 0, -1e4)
        weights = F.dropout(torch.softmax(scores, 3) * self.start, 0.1, self.training)
        return self.head(h + maps_of(self.joined(weights @ value), h))


@idiom()
class AttentionByHand(nn.Module):
    """One head; the softmax written out, its powers multiplied by the mask, and a little added to their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.keys = MaskedConv("A", 1, 6), MaskedConv("B", 1, 6)
        self.query, self.key, self.value = nn.Conv2d(6, 2, 1), nn.Conv2d(6, 2, 1), nn.Conv2d(6, 6, 1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, seen = torch.tanh(self.stem(x)), torch.tanh(self.keys(x))
        query = self.query(h).flatten(2)
        key, value = self.key(seen).flatten(2), self.value(seen).flatten(2)
        mask = upto(query.shape[2], own=False).to(h.dtype)
        scores = query.transpose(1, 2) @ key * mask - (1 - mask) * 1e10
        powers = torch.exp(scores - scores.max(dim=-1, keepdim=True)[0]) * mask
        weights = powers / (powers.sum(dim=-1, keepdim=True) + 1e-6)
        return self.head(h + (weights @ value.transpose(1, 2)).transpose(1, 2).reshape(h.shape))


@idiom()
class AttentionOfTorch(Attending):
    """nn.MultiheadAttention with a boolean mask."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(6, 3, batch_first=True)

    def attend(self, tokens: Tensor) -> Tensor:
        return self.mix(tokens, tokens, tokens, attn_mask=~upto(20), need_weights=False)[0]


@idiom()
class AttentionOfTorchWithWeights(Attending):
    """nn.MultiheadAttention that averages its weights, which nobody uses, with an additive mask."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(6, 2, batch_first=True)

    def attend(self, tokens: Tensor) -> Tensor:
        mask = torch.zeros(20, 20, dtype=tokens.dtype).masked_fill(~upto(20), -math.inf)
        return self.mix(tokens, tokens, tokens, attn_mask=mask, need_weights=False)[0]


@idiom()
class AttentionFused(ThreeProjections):
    """scaled_dot_product_attention with is_causal."""

    def attend(self, tokens: Tensor) -> Tensor:
        return self.joined(F.scaled_dot_product_attention(*self.projected(tokens), is_causal=True))


@idiom()
class AttentionFusedWithSlopes(ThreeProjections):
    """scaled_dot_product_attention with a mask per head that falls with the distance."""

    def attend(self, tokens: Tensor) -> Tensor:
        place = torch.arange(20)
        slopes = torch.tensor([0.5, 0.25])[:, None, None] * (place[None] - place[:, None])
        mask = slopes.masked_fill(~upto(20), -math.inf).to(tokens.dtype)
        return self.joined(F.scaled_dot_product_attention(*self.projected(tokens), attn_mask=mask, scale=0.7))


@idiom()
class AttentionByEinsum(ThreeProjections):
    """Products by einsum, an additive mask of -1e9."""

    def attend(self, tokens: Tensor) -> Tensor:
        query, key, value = (part.transpose(1, 2) for part in self.projected(tokens))
        scores = torch.einsum("nqhd,nkhd->nhqk", query, key) * 3**-0.5
        scores = scores + torch.where(upto(20), 0.0, -1e9).to(scores.dtype)
        mixed = torch.einsum("nhqk,nkhd->nqhd", scores.softmax(dim=-1), value)
        return mixed.reshape(tokens.shape)


@idiom()
class AttentionAlongRows(Attending):
    """Every row of the image by itself: rows in the batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = nn.Linear(6, 18, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        n, channels, height, width = h.shape
        rows = h.permute(0, 2, 3, 1).reshape(n * height, width, channels)
        query, key, value = self.mixed(rows).chunk(3, dim=-1)
        scores = torch.bmm(query, key.transpose(1, 2)).masked_fill(~upto(width), -math.inf)
        mixed = torch.bmm(scores.softmax(dim=-1), value)
        return self.head(h + mixed.reshape(n, height, width, channels).permute(0, 3, 1, 2))


@idiom()
class AttentionToRowsAbove(Attending):
    """Keys and values are averages over the rows above; the first row sees a row of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        rows = F.pad(h.mean(dim=3), (1, -1)).transpose(1, 2)
        scores = self.query(tokens_of(h)) @ self.key(rows).transpose(1, 2)
        row_of = torch.arange(h.shape[2]).repeat_interleave(h.shape[3])
        hidden = torch.arange(h.shape[2])[None] > row_of[:, None]
        weights = torch.softmax(scores.masked_fill(hidden, -1e30), dim=2)
        return self.head(h + maps_of(weights @ self.value(rows), h))


@idiom(condition=spatial)
class AttentionToCondition(Attending):
    """Queries of the image, keys and values of the condition, without a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(6, 4), nn.Linear(2, 4), nn.Linear(2, 6)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        given = tokens_of(where)
        scores = self.query(tokens_of(h)) @ self.key(given).transpose(1, 2)
        return self.head(h + maps_of(scores.softmax(dim=-1) @ self.value(given), h))


@idiom()
class AttentionTurned(Attending):
    """Values before weights, which are transposed."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        columns = h.flatten(2)
        scores = torch.bmm(columns.transpose(1, 2), columns)
        weights = scores.masked_fill(~upto(20), -1e9).softmax(dim=-1)
        return self.head(h + torch.bmm(columns, weights.permute(0, 2, 1)).view_as(h))


@idiom((1, 3, 4))
class AttentionWithoutSoftmax(ThreeProjections):
    """Linear attention: scores multiplied by a mask are the weights."""

    def attend(self, tokens: Tensor) -> Tensor:
        query, key, value = self.projected(tokens)
        return self.joined((query @ key.transpose(2, 3) * upto(12).to(query.dtype)) @ value)


@idiom((1, 3, 4))
class AttentionWithoutSoftmaxThenLinear(Attending):
    """Linear attention of one head, whose mix of values goes into a linear layer as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(6, 6) for _ in range(4))

    def attend(self, tokens: Tensor) -> Tensor:
        scores = self.query(tokens) @ self.key(tokens).transpose(1, 2)
        return self.out(scores.tril() @ self.value(tokens))


@idiom((1, 3, 4))
class AttentionThatFades(ThreeProjections):
    """Weights are multiplied by a number for each pair after the softmax: followed element by element."""

    def attend(self, tokens: Tensor) -> Tensor:
        query, key, value = self.projected(tokens)
        weights = torch.softmax((query @ key.transpose(2, 3)).masked_fill(~upto(12), -math.inf), dim=-1)
        place = torch.arange(12, dtype=tokens.dtype)
        return self.joined(weights * (0.9 ** (place[:, None] - place)).tril() @ value)


@idiom((1, 3, 4))
class CumulativeSums(Attending):
    """Running sums and means over the positions so far."""

    def attend(self, tokens: Tensor) -> Tensor:
        count = torch.arange(1, tokens.shape[1] + 1, dtype=tokens.dtype)[:, None]
        return tokens.cumsum(dim=1) / count + 0.1 * tokens.cumsum(dim=2)


@idiom((1, 3, 4))
class TransformerLayer(Attending):
    """nn.TransformerEncoderLayer, normalisation first, with torch's own causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True)

    def attend(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=tokens.dtype)
        return self.layer(tokens, src_mask=mask, is_causal=True)
