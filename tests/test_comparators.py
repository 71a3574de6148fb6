"""The comparisons that other tests rest on fail when they should."""

from __future__ import annotations

import pytest
import torch
from comparators import (
    assert_agree_in_float64,
    assert_error_ratio,
    assert_same_integers,
    error_allowance,
    rms,
    sha256,
)

TRUTH = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_same_integers():
    images = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    assert_same_integers(images, images.clone())
    other = images.clone()
    other[1, 2, 0, 4] += 1
    other[1, 0, 1, 0] += 1
    with pytest.raises(AssertionError, match=r"2 of 120 .* image 1 at row 0, column 4, channel 2"):
        assert_same_integers(other, images)
    with pytest.raises(AssertionError, match="dtype"):
        assert_same_integers(images.long(), images)
    with pytest.raises(AssertionError, match="shape"):
        assert_same_integers(images[:1], images)


def test_agreement_in_float64():
    assert_agree_in_float64(TRUTH + 9e-11, TRUTH)
    with pytest.raises(AssertionError, match=r"differ by 1\.1e-10"):
        assert_agree_in_float64(TRUTH + 1.1e-10, TRUTH)
    with pytest.raises(AssertionError, match="dtypes"):
        assert_agree_in_float64(TRUTH.float(), TRUTH)
    with pytest.raises(AssertionError):
        assert_agree_in_float64(TRUTH[:, :, :1], TRUTH)


def test_agreement_of_infinities_and_nan():
    infinite = TRUTH.clone()
    infinite[0, 0, 0, 0] = -torch.inf
    assert_agree_in_float64(infinite.clone(), infinite)
    for wrong in (-infinite, TRUTH, torch.where(torch.isfinite(infinite), infinite, torch.nan)):
        with pytest.raises(AssertionError):
            assert_agree_in_float64(wrong, infinite)
    missing = TRUTH.clone()
    missing[1, 1, 1, 1] = torch.nan
    with pytest.raises(AssertionError):
        assert_agree_in_float64(missing, TRUTH)


def test_rms():
    assert rms(torch.tensor([3.0, -3.0, 3.0])) == pytest.approx(3.0)


def test_error_ratio():
    own = (TRUTH + 1e-6).float()
    assert_error_ratio(own, own, TRUTH)
    assert_error_ratio((TRUTH - 1.9e-6).float(), own, TRUTH)
    with pytest.raises(AssertionError, match="RMS error"):
        assert_error_ratio((TRUTH + 3.5e-6).float(), own, TRUTH)
    with pytest.raises(AssertionError, match="dtypes"):
        assert_error_ratio(TRUTH, own, TRUTH)
    missing = own.clone()
    missing[0, 0, 0, 0] = torch.nan
    with pytest.raises(AssertionError):
        assert_error_ratio(missing, own, TRUTH)


def test_error_allowance_where_torch_is_exact():
    exact = torch.tensor([1.0, -4.0, 0.5])
    assert error_allowance(exact, exact.double()) == 4 * 2.0**-22


def test_sha256():
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    assert sha256(images) == sha256(images.clone())
    assert sha256(images.permute(0, 1, 3, 2)) == sha256(images)
    assert len({sha256(images), sha256(images + 1), sha256(images.long()), sha256(images.view(2, 1, 4, 1))}) == 4
