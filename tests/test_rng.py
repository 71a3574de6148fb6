"""The noise: published known answers, the layout of the counter, independence of order, range errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from pixelfast import rng
from pixelfast.errors import ShapeError

# counter, key, output: the known answers that the authors of Philox publish for philox4x32 with 10 rounds.
KNOWN_ANSWERS = [
    (
        [0x00000000] * 4,
        [0x00000000] * 2,
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
    ),
    (
        [0xFFFFFFFF] * 4,
        [0xFFFFFFFF] * 2,
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def uint32(values: object) -> np.ndarray:
    return np.array(values, dtype=np.uint32)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_known_answers(counter, key, answer):
    result = rng.philox4x32(uint32(counter), uint32(key))
    assert result.dtype == np.uint32
    assert result.tolist() == answer


def test_philox_is_vectorised_over_counters():
    counters = np.random.default_rng(0).integers(0, 2**32, (3, 5, 4), dtype=np.uint32)
    key = uint32([1, 2])
    result = rng.philox4x32(counters, key)
    assert result.shape == (3, 5, 4)
    for index in np.ndindex(3, 5):
        assert result[index].tolist() == rng.philox4x32(counters[index], key).tolist()


@pytest.mark.parametrize(
    ("counter", "key"),
    [
        (np.zeros(4, np.int64), np.zeros(2, np.uint32)),
        (np.zeros(3, np.uint32), np.zeros(2, np.uint32)),
        (np.zeros(4, np.uint32), np.zeros(4, np.uint32)),
        (np.zeros(4, np.uint32), np.zeros(2, np.uint64)),
    ],
)
def test_philox_refuses_other_shapes_and_dtypes(counter, key):
    with pytest.raises(ShapeError, match="philox4x32"):
        rng.philox4x32(counter, key)


@pytest.mark.parametrize("stream", [rng.PIXELS, 3, 2**16 - 1])
def test_counter_layout(stream):
    seed, sample_ids, numbers, draws = 0x0123456789ABCDEF, [7, 2**32 - 1], [0, 5, 2**32 - 1], 10
    words = rng.words(seed, sample_ids, numbers, draws, stream=stream)
    assert words.shape == (2, 3, 10)
    assert words.dtype == np.uint32
    key = uint32([0x89ABCDEF, 0x01234567])
    for i, sample_id in enumerate(sample_ids):
        for j, number in enumerate(numbers):
            for draw in range(draws):
                counter = uint32([sample_id, number, draw // 4, 1 << 16 | stream])
                assert words[i, j, draw] == rng.philox4x32(counter, key)[draw % 4]


def test_layout_is_frozen():
    """Version 1 for good: other words need a new RNG_VERSION and a line in the changelog."""
    assert rng.RNG_VERSION == 1
    assert rng.PIXELS == 0
    words = rng.words(1, [2], [3], 5)
    assert words.tolist() == [[[0x4BB7E9C7, 0xA134E0FE, 0x7DC727DD, 0x40DAC92B, 0x399B90BD]]]


def test_words_do_not_depend_on_what_else_is_asked_for():
    everything = rng.words(9, range(6), range(8), 12)
    ids, numbers = [4, 0, 5], [7, 1]
    assert (rng.words(9, ids, numbers, 12) == everything[np.ix_(ids, numbers)]).all()
    for draws in range(1, 12):
        assert (rng.words(9, range(6), range(8), draws) == everything[:, :, :draws]).all()


def test_words_take_any_kind_of_integers():
    expected = rng.words(9, [0, 3], [1, 2], 3)
    for kind in (np.array, lambda v: np.array(v, dtype=np.uint32), torch.tensor, tuple):
        assert (rng.words(9, kind([0, 3]), kind([1, 2]), 3) == expected).all()
    assert (rng.words(np.uint64(9), [0, 3], range(1, 3), 3) == expected).all()
    assert rng.words(9, [], [1, 2], 3).shape == (0, 2, 3)


def test_seed_sample_number_and_stream_all_matter():
    words = [
        rng.words(0, [0], [0], 4),
        rng.words(1, [0], [0], 4),
        rng.words(1 << 32, [0], [0], 4),
        rng.words(0, [1], [0], 4),
        rng.words(0, [0], [1], 4),
        rng.words(0, [0], [0], 4, stream=1),
        rng.words(0, [0], [0], 8)[:, :, 4:],
    ]
    assert len({w.tobytes() for w in words}) == len(words)


def test_uniforms_are_centred_words():
    words = rng.words(3, range(4), range(5), 6)
    uniforms = rng.uniforms(3, range(4), range(5), 6)
    assert uniforms.dtype == torch.float64
    assert uniforms.shape == (4, 5, 6)
    # Scaled back by powers of two nothing is lost, of u nor of 1 - u.
    assert (uniforms.numpy() * 2**33 == 2 * words.astype(np.int64) + 1).all()
    assert ((1 - uniforms.numpy()) * 2**33 == 2**33 - 1 - 2 * words.astype(np.int64)).all()


def test_extreme_words_are_strictly_inside_the_unit_interval(monkeypatch):
    extreme = uint32([[[0, 2**32 - 1]]])
    monkeypatch.setattr(rng, "words", lambda *args: extreme)
    low, high = rng.uniforms(0, [0], [0], 2).flatten().tolist()
    assert low == 2.0**-33
    assert 1 - high == 2.0**-33


def test_uniforms_are_uniform_and_uncorrelated():
    uniforms = rng.uniforms(11, range(200), range(50), 10).numpy()
    assert kstest(uniforms.ravel(), "uniform").pvalue > 1e-4
    for axis in range(3):
        first, second = np.moveaxis(uniforms, axis, 0)[:-1], np.moveaxis(uniforms, axis, 0)[1:]
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(first.size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, [0], [0], 1), "seed is -1; it must be from 0 to 18446744073709551615"),
        ((2**64, [0], [0], 1), "seed is 18446744073709551616"),
        ((0.5, [0], [0], 1), "seed is 0.5; it must be an integer"),
        ((True, [0], [0], 1), "seed is True; it must be an integer"),
        ((0, [-1], [0], 1), "sample_ids has values from -1 to -1; they must be from 0 to 4294967295"),
        ((0, [2**32], [0], 1), "sample_ids has values from"),
        ((0, [2**64], [0], 1), "sample_ids has dtype"),
        ((0, [0.0], [0], 1), "sample_ids has dtype float64"),
        ((0, [[0]], [0], 1), "shape \\(1, 1\\)"),
        ((0, [0], [2**32], 1), "numbers has values from"),
        ((0, [0], torch.tensor([-3]), 1), "numbers has values from -3"),
        ((0, [0], [0], 0), "draws is 0"),
        ((0, [0], [0], 1, -1), "stream is -1"),
        ((0, [0], [0], 1, 2**16), "stream is 65536; it must be from 0 to 65535"),
    ],
)
def test_ranges(arguments, message):
    with pytest.raises(ShapeError, match=message):
        rng.words(*arguments)
    with pytest.raises(ShapeError, match=message):
        rng.uniforms(*arguments)


def test_ends_of_the_ranges_are_accepted():
    assert rng.words(2**64 - 1, [0, 2**32 - 1], [0, 2**32 - 1], 1, stream=2**16 - 1).shape == (2, 2, 1)
