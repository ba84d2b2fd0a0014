"""How work of the tensor processor is cut into descriptors."""

import numpy as np
import pytest

from convoy.driver.emit.tp_blocks import pool_blocks
from convoy.driver.lower.work import Axis, PoolWork
from convoy.driver.plan.cost import pool_cycles
from convoy.spec.config import PRESETS
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
