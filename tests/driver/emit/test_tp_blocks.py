"""How work of the tensor processor is cut into descriptors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.emit.tp_blocks import copy_blocks, pool_blocks
from convoy.driver.lower.work import Axis, PoolWork
from convoy.driver.plan.cost import block_cycles, pool_cycles
from convoy.driver.plan.orders import CopyWork
from convoy.golden.memory import MemoryView
from convoy.golden.tp import execute_tp
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import TpOp

Q = PRESETS["Q"]


def global_average(num_ic, size, *, is_wide=False) -> PoolWork:
    info = np.iinfo(np.int16 if is_wide else np.int8)
    axis = Axis(size, 1, size)
    return PoolWork(TpOp.AVG_POOL, num_ic, axis, axis, int(info.min), int(info.max), is_wide=is_wide)


@pytest.mark.parametrize("is_wide", [False, True])
def test_blocks_of_a_pool_are_as_large_as_half_of_the_buffer(is_wide):
    """Their windows follow the load."""
    work, num_bytes = global_average(64, 9, is_wide=is_wide), 1 + is_wide
    blocks = list(pool_blocks(work, 0, 1 << 16, Q))
    loaded = [block["num_a_runs"] * block["a_run_bytes"] for block in blocks[::num_bytes]]
    assert sum(loaded) == 64 * 81 * num_bytes
    assert loaded[0] + 81 * num_bytes > Q.tp_buffer_bytes // 2 or len(loaded) == 1
    assert [block["a_addr"] for block in blocks[::num_bytes]] == [0, *np.cumsum(loaded)[:-1].tolist()]
    assert pool_cycles(work, Q) < max(64 * 81 * num_bytes**2 / Q.port_bytes, 64 * 21 * num_bytes) + 500


def test_few_channels_are_one_block():
    assert len(list(pool_blocks(global_average(8, 5), 0, 1 << 16, Q))) == 1


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    st.tuples(*[st.sampled_from([1, 2, 3, 5, 8, 16, 17, 32])] * 3),
    st.permutations(range(3)),
    st.permutations(range(3)),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 6),
)
def test_a_copy_of_a_box_in_another_order(sizes, source, target, margins):
    """From the end of the memory, behind which nothing is read."""
    boxes = [
        tuple((before + size + behind, before) for size, (before, behind) in zip(sizes, each, strict=True))
        for each in (margins[:3], margins[3:])
    ]
    config = NpuConfig(tp_buffer_bytes=2048)
    arrays = []
    for number, (box, order) in enumerate(zip(boxes, (source, target), strict=True)):
        values = np.arange(np.prod([size for size, _ in box]), dtype=np.uint8) * (1 - number)
        arrays.append(values.reshape([box[axis][0] for axis in order]))
    views = [
        array.transpose(np.argsort(order))[
            tuple(slice(first, first + n) for (_, first), n in zip(box, sizes, strict=True))
        ]
        for array, order, box in zip(arrays, (source, target), boxes, strict=True)
    ]
    memory = np.concatenate([arrays[1].ravel(), arrays[0].ravel()])
    for block in copy_blocks(CopyWork(sizes, tuple(source), tuple(target), *boxes), arrays[1].size, 0, 1024, config):
        execute_tp(config, MemoryView(memory), block)
    views[1][:] = views[0]
    np.testing.assert_array_equal(memory[: arrays[1].size], arrays[1].ravel())


def test_neighbours_that_would_share_a_bank_are_spread():
    """Four bytes per cycle are copied of rows of 32 bytes, as of 33."""
    cycles = [
        sum(
            block_cycles(block, Q)
            for block in copy_blocks(CopyWork((1, 512, width), (0, 1, 2), (0, 2, 1)), 0, 0, 8192, Q)
        )
        for width in (32, 33)
    ]
    assert cycles[0] < cycles[1] < 1.25 * 512 * 33 / 4


def test_a_copy_of_other_axes_has_no_rows_to_end_at():
    """Channels in another order, which a convolution of 12 rows reads."""
    work = CopyWork((2, 24, 144), (0, 1, 2), (1, 0, 2))
    blocks = list(copy_blocks(work, 0, 0, 4096, Q, row_ends=[3, 6, 12]))
    assert sum(block["num_0"] * block["num_1"] * block["num_2"] for block in blocks) == 2 * 24 * 144
