"""Copies between orders of axes."""

from math import prod

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from convoy.driver.plan.orders import memory_axes, order_steps, reordered


def copied(memory: np.ndarray, work) -> np.ndarray:
    """What the tensor processor makes of the bytes in memory."""
    assert [len(part) for part in (work.sizes, work.source, work.target)] == [3] * 3
    seen = memory.reshape([work.sizes[axis] for axis in work.source])
    return seen.transpose([work.source.index(axis) for axis in work.target]).ravel()


@given(st.data(), st.integers(1, 6))
def test_copies_one_after_another_make_the_order(data, rank):
    sizes = data.draw(st.lists(st.integers(2, 3), min_size=rank, max_size=rank))
    source, target = (data.draw(st.permutations(range(rank))) for _ in range(2))
    tensor = np.arange(prod(sizes)).reshape(sizes)
    memory, order = tensor.transpose(source).ravel(), list(source)
    for step in order_steps(order, list(target)):
        memory, order = copied(memory, reordered(sizes, order, step)), step
    assert order == list(target)
    assert np.array_equal(memory, tensor.transpose(target).ravel())


def test_a_turn_of_three_blocks_is_one_copy():
    assert len(list(order_steps([0, 1, 2, 3, 4], [0, 3, 4, 1, 2]))) == 1


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
@example([2, 1, 3])
def test_axes_in_a_linear_layout_keep_their_order(sizes):
    shape = 1, 1, 1, prod(sizes)
    assert memory_axes(sizes, shape, "linear") == [axis for axis, size in enumerate(sizes) if size > 1]


def test_axes_that_rows_columns_and_channels_cut_have_no_planar_order():
    assert memory_axes([4, 6, 5], (1, 4, 6, 5), "planar") == [2, 0, 1]
    assert memory_axes([2, 2, 6, 5], (1, 4, 6, 5), "planar") == [3, 0, 1, 2]
    assert memory_axes([6, 4, 5], (1, 4, 6, 5), "planar") is None
