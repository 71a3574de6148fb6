"""Pearson's chi-square test of counts against probabilities, as the exactness tests use it."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

SMALLEST_EXPECTATION = 5.0


def chi_square_p(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """The p-value of observed `counts` under `probabilities`, both (bins,).

    Neighbouring bins are merged until each expects at least 5. A single count in a bin of probability 0
    gives 0. Probabilities that do not sum to 1 are a mistake of the test, not a finding, and raise
    ValueError.
    """
    if counts.shape != probabilities.shape or counts.ndim != 1:
        raise ValueError(f"counts {counts.shape} and probabilities {probabilities.shape} must be (bins,)")
    if abs(probabilities.sum() - 1) > 1e-9 or (probabilities < 0).any():
        raise ValueError(f"probabilities must sum to 1, not {probabilities.sum()!r}")
    if counts[probabilities == 0].any():
        return 0.0
    observed, expected = merge(counts, probabilities * counts.sum())
    if len(observed) < 2:
        raise ValueError("fewer than two bins are left to compare")
    statistic = ((observed - expected) ** 2 / expected).sum()
    return float(chi2.sf(statistic, len(observed) - 1))


def merge(counts: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts and expectations with neighbours merged until every expectation is at least 5."""
    starts, total = [], SMALLEST_EXPECTATION
    for bin_, value in enumerate(expected):
        if total >= SMALLEST_EXPECTATION:
            starts.append(bin_)
            total = 0.0
        total += value
    if total < SMALLEST_EXPECTATION and len(starts) > 1:
        starts.pop()
    return np.add.reduceat(counts, starts), np.add.reduceat(expected, starts)
