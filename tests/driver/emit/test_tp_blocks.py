"""How work of the tensor processor is cut into descriptors."""

import numpy as np
import pytest

from convoy.driver.emit.tp_blocks import copy_blocks, pool_blocks
from convoy.driver.lower.work import Axis, PoolWork
from convoy.driver.plan.cost import pool_cycles
from convoy.driver.plan.orders import CopyWork
from convoy.spec.config import PRESETS
from convoy.spec.isa import TpOp

Q = PRESETS["Q"]


def global_average(num_ic, size, *, is_wide=False) -> PoolWork:
    info = np.iinfo(np.int16 if is_wide else np.int8)
    axis = Axis(size, 1, size)
    return PoolWork(TpOp.AVG_POOL, num_ic, axis, axis, int(info.min), int(info.max), is_wide=is_wide)


@pytest.mark.parametrize("is_wide", [False, True])
def test_a_pool_is_loaded_while_its_first_channels_are_processed(is_wide):
    work, num_bytes = global_average(64, 9, is_wide=is_wide), 1 + is_wide
    blocks = list(pool_blocks(work, 0, 1 << 16, Q))
    loaded = [block["num_a_runs"] * block["a_run_bytes"] for block in blocks[::num_bytes]]
    assert sum(loaded) == 64 * 81 * num_bytes
    assert loaded[0] < sum(loaded) // 4
    assert [block["a_addr"] for block in blocks[::num_bytes]] == [0, *np.cumsum(loaded)[:-1].tolist()]
    assert pool_cycles(work, Q) < 64 * 81 * num_bytes / Q.port_bytes + 64 * 21 * num_bytes + 200


def test_few_channels_are_one_block():
    assert len(list(pool_blocks(global_average(8, 5), 0, 1 << 16, Q))) == 1


def test_rows_of_another_axis_are_not_parts_of_a_copy():
    """Groups of channels exchanged with the channels of a group, for a convolution that reads rows of pixels."""
    work = CopyWork((2, 24, 144), (0, 1, 2), (1, 0, 2))
    blocks = list(copy_blocks(work, 0, 0, 4096, Q, row_ends=[5, 9, 12]))
    loaded = np.concatenate([np.arange(block["a_addr"], block["a_addr"] + block["a_run_bytes"]) for block in blocks])
    assert np.array_equal(np.sort(loaded), np.arange(2 * 24 * 144))


@pytest.mark.parametrize("size", [(24, 24, 12), (8, 8, 32), (4, 2, 9), (1, 64, 24), (16, 1, 8)])
def test_neighbours_of_a_result_lie_in_different_banks(size):
    """Planes become pixels with their channels: what is loaded with a byte more for each channel is inside the tensor,
    and most of the result is made from it.
    """
    height, width, channels = size
    image = np.random.default_rng(0).integers(0, 256, height * width * channels, np.uint8)
    made, spread = np.zeros_like(image), 0
    for block in copy_blocks(CopyWork(size, (2, 0, 1), (0, 1, 2)), 0, 0, 8192, Q):
        starts = block["a_addr"] + np.arange(block["num_a_runs"]) * block["a_pitch_bytes"]
        loaded = image[starts[:, None] + np.arange(block["a_run_bytes"])].ravel()
        places = sum(np.ix_(*(np.arange(block[f"num_{n}"]) * block[f"step_{n}"] for n in range(3))))
        runs = loaded[places].reshape(-1, block["out_run_bytes"])
        for number, run in enumerate(runs):
            first = block["out_addr"] + number * block["out_pitch_bytes"]
            made[first : first + len(run)] = run
        spread += places.size * (block["step_2"] % Q.port_bytes > 0)
    assert np.array_equal(made, image.reshape(channels, height, width).transpose(1, 2, 0).ravel())
    assert spread > image.size // 2 or width * height * channels < 512
