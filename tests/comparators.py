"""How results are compared: identical integers, parameters, and float32 errors against torch's own."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

FLOAT64_AGREEMENT = 1e-10
"""Largest difference of parameters computed in float64 in two ways."""
ERROR_RATIO = 2.0
"""A float32 backend may err this many times as much as torch's own float32 forward."""
ERROR_FLOOR = 2.0**-22
"""Of the largest parameter: what is added to the allowance, for forwards that happen to be exact."""


def rms(error: Tensor) -> float:
    """Root mean square."""
    return float(error.double().square().mean().sqrt())


def assert_same_integers(got: Tensor, expected: Tensor) -> None:
    """Same shape, same dtype, same numbers; otherwise names the first that differs in sampling order."""
    assert got.shape == expected.shape, f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    assert got.dtype == expected.dtype, f"dtype {got.dtype}, expected {expected.dtype}"
    differs = (got != expected).permute(0, 2, 3, 1)
    if bool(differs.any()):
        image, row, column, channel = differs.nonzero()[0].tolist()
        raise AssertionError(
            f"{int(differs.sum())} of {differs.numel()} numbers differ, first in image {image} at row {row}, "
            f"column {column}, channel {channel}: {got[image, channel, row, column].item()}, "
            f"expected {expected[image, channel, row, column].item()}"
        )


def assert_agree_in_float64(got: Tensor, truth: Tensor) -> None:
    """Parameters (N, P, H, W) within FLOAT64_AGREEMENT; infinities and their signs the same."""
    assert got.shape == truth.shape, f"shape {tuple(got.shape)}, expected {tuple(truth.shape)}"
    assert got.dtype == truth.dtype == torch.float64, f"dtypes {got.dtype} and {truth.dtype}"
    finite = torch.isfinite(truth)
    assert torch.equal(torch.where(finite, 0.0, got), torch.where(finite, 0.0, truth)), "infinities differ"
    worst = float(torch.where(finite, (got - truth).abs(), 0.0).max())
    assert worst <= FLOAT64_AGREEMENT, f"parameters differ by {worst:.3g}"


def error_allowance(torch_float32: Tensor, truth: Tensor) -> float:
    """The largest RMS error that a float32 backend may have."""
    finite = torch.isfinite(truth)
    error = (torch_float32.double() - truth)[finite]
    return ERROR_RATIO * rms(error) + ERROR_FLOOR * float(truth[finite].abs().max())


def assert_error_ratio(got: Tensor, torch_float32: Tensor, truth: Tensor) -> None:
    """float32 parameters no further from float64's than twice torch's own float32 forward, by RMS."""
    assert got.dtype == torch_float32.dtype == torch.float32, f"dtypes {got.dtype}, {torch_float32.dtype}"
    assert got.shape == truth.shape == torch_float32.shape, f"shape {tuple(got.shape)}, not {tuple(truth.shape)}"
    finite = torch.isfinite(truth)
    assert torch.equal(got.double()[~finite], truth[~finite]), "infinities differ"
    error, allowed = rms((got.double() - truth)[finite]), error_allowance(torch_float32, truth)
    assert error <= allowed, f"RMS error {error:.3g}; {allowed:.3g} is allowed"


def sha256(images: Tensor) -> str:
    """Of dtype, shape and bytes."""
    digest = hashlib.sha256(f"{images.dtype} {tuple(images.shape)}".encode())
    digest.update(images.contiguous().numpy().tobytes())
    return digest.hexdigest()
