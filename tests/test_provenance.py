"""Codes of elements, and their reading as sources."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.provenance import Space


def space(*values: tuple[int, int]) -> Space:
    """A space of values (sites, channels)."""
    made = Space()
    for sites, channels in values:
        made.add(sites, channels)
    return made


def read_back(made: Space, codes: np.ndarray) -> np.ndarray:
    """The codes that the sources of a (columns, sites) matrix describe."""
    found = np.zeros(codes.shape, dtype=np.int64)
    for columns, source in made.sources(codes):
        assert len(columns) == len(source.channels)
        assert source.sites.shape == (codes.shape[1],)
        base, channels = made.bases[source.value], made.channels[source.value]
        part = base + source.sites[None].astype(np.int64) * channels + source.channels[:, None]
        part = np.where(source.sites[None] < 0, 0, part)
        assert not (found[columns] * part).any(), "two sources hold one element"
        found[columns] += part
    return found


def test_codes_are_distinct_and_never_zero():
    made = space((6, 3), (1, 4), (5, 1))
    every = np.concatenate([made.codes(v, s).reshape(-1) for v, s in ((0, 6), (1, 1), (2, 5))])
    assert len(np.unique(every)) == 6 * 3 + 4 + 5
    assert every.min() == 1


def test_decode():
    made = space((6, 3), (5, 2))
    value, site, channel = made.decode(np.array([0, made.codes(0, 6)[2, 4], made.codes(1, 5)[1, 3]]))
    assert value.tolist() == [-1, 0, 1]
    assert site[1:].tolist() == [4, 3]
    assert channel[1:].tolist() == [2, 1]


def test_a_whole_value_is_one_source():
    made = space((6, 3))
    ((columns, source),) = made.sources(made.codes(0, 6))
    assert columns.tolist() == source.channels.tolist() == [0, 1, 2]
    assert source.sites.tolist() == list(range(6))


def test_shifts_and_crops_are_one_source():
    """Pad and crop: -1 where a zero came in."""
    made = space((6, 3))
    codes = made.codes(0, 6).reshape(3, 2, 3)
    shifted = np.pad(codes, ((0, 0), (0, 0), (1, 0)))[:, :, :-1].reshape(3, -1)
    ((columns, source),) = made.sources(shifted)
    assert columns.tolist() == [0, 1, 2]
    assert source.sites.tolist() == [-1, 0, 1, -1, 3, 4]


def test_concatenation_is_a_source_for_each_value():
    made = space((4, 2), (4, 3))
    joined = np.concatenate([made.codes(1, 4), made.codes(0, 4)])
    found = made.sources(joined)
    assert [(columns.tolist(), source.value) for columns, source in found] == [([0, 1, 2], 1), ([3, 4], 0)]


def test_zeros_have_no_source():
    made = space((4, 2))
    assert made.sources(np.zeros((3, 4), dtype=np.int32)) == []
    assert made.sources(np.zeros((0, 4), dtype=np.int32)) == []


def test_columns_from_several_values():
    """Sites of one column that come from two values: two sources, each silent where the other speaks."""
    made = space((4, 2), (4, 2))
    mixed = np.where(np.arange(4) % 2 == 0, made.codes(0, 4), made.codes(1, 4))
    found = made.sources(mixed)
    assert {source.value for _, source in found} == {0, 1}
    assert np.array_equal(read_back(made, mixed), mixed)


def test_channels_that_move_between_sites():
    """A pixel shuffle: a column's channel changes from site to site."""
    made = space((4, 4))
    codes = made.codes(0, 4).reshape(1, 2, 2, 2, 2).transpose(0, 3, 1, 4, 2).reshape(1, 16)
    assert np.array_equal(read_back(made, codes), codes)


def test_too_many_elements_are_refused():
    made = Space(np.int32)
    made.add(2**16, 2**14)
    with pytest.raises(OverflowError):
        made.add(2**16, 2**14)
    Space(np.int64).add(2**20, 2**20)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4),
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.3, 0.9]),
)
def test_sources_describe_any_matrix(values, shape, seed, zeros):
    made = space(*values)
    every = np.concatenate([made.codes(v, sites).reshape(-1) for v, (sites, _) in enumerate(values)])
    random = np.random.default_rng(seed)
    codes = random.choice(every, size=shape).astype(np.int32)
    codes[random.random(shape) < zeros] = 0
    assert np.array_equal(read_back(made, codes), codes)


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)),
    st.permutations(range(3)),
    st.tuples(st.integers(-2, 2), st.integers(-2, 2)),
)
def test_sources_describe_moved_tensors(size, order, shift):
    channels, height, width = size
    made = space((height * width, channels))
    codes = made.codes(0, height * width).reshape(size)
    pads = [(max(0, s), max(0, -s)) for s in shift]
    moved = np.pad(codes, ((0, 0), *pads))
    rows = slice(pads[0][1], pads[0][1] + height)
    columns = slice(pads[1][1], pads[1][1] + width)
    moved = moved[::-1, rows, columns].transpose(order)
    matrix = np.ascontiguousarray(moved.reshape(moved.shape[0], -1))
    assert np.array_equal(read_back(made, matrix), matrix)
