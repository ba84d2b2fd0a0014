"""Swapped operands on the golden machine, against direct convolutions; and their refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.golden.machine import Machine, MachineError
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import NN, PARAM
from convoy.verif.descriptors import smallest_nn
from convoy.verif.swapped_jobs import SwappedImage, SwappedLayer, random_swapped

SMALL = NpuConfig(num_cores=2, num_lanes=8, post_lanes=2, num_acc_entries=32, stripe_bytes=4096)
TAP_ADDR = SwappedImage.src_addr & ~31


class Memory(SwappedImage):
    """A layer's memory that the golden model works on."""

    def __init__(self, config: NpuConfig, layer: SwappedLayer):
        super().__init__(config, layer)
        self.config = config

    def run(self, descriptors: list[bytes]) -> np.ndarray:
        """The layer's output and 64 bytes more."""
        self.put_program(descriptors)
        Machine(self.config, self.bytes).run(self.program_addr, len(descriptors), self.record_addr)
        return self.output(self.bytes)


def simple_layer() -> SwappedLayer:
    """A 1x1 convolution of two channels of 1 x 3 pixels to three."""
    weights = np.array([[1, 2], [3, -4], [0, 5]], np.int8).reshape(3, 1, 1, 2)
    acts = np.arange(6, dtype=np.int8).reshape(1, 1, 3, 2)
    return SwappedLayer(acts, weights, np.array([7, 0, -9]), scales=np.ones(1, np.float32))


def test_pointwise_by_hand():
    """Pixel p has inputs 2p and 2p + 1, as in the test of the same name without swapped operands."""
    memory, p = Memory(SMALL, simple_layer()), np.arange(3)
    output = memory.run([NN.encode(**fields) for fields in memory.fields])
    np.testing.assert_array_equal(output[:9].reshape(3, 3), [6 * p + 5, -2 * p - 8, 10 * p - 8])


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.sampled_from([SMALL, PRESETS["Q"], PRESETS["S"]]))
def test_layers(seed, config):
    layer = random_swapped(config, np.random.default_rng(seed))
    memory, expected = Memory(config, layer), layer.expected().ravel()
    output = memory.run([NN.encode(**fields) for fields in memory.fields])
    np.testing.assert_array_equal(output, [*expected, *[0] * 64])


def test_rings_follow_one_another():
    """The last two rows of one ring and the first two of the next are in the memory at once."""
    rng = np.random.default_rng(6)
    layer = SwappedLayer(
        rng.integers(-128, 128, (1, 1, 1, 9)).astype(np.int8),
        rng.integers(-128, 128, (20, 1, 1, 9)).astype(np.int8),
        np.zeros(20, np.int64),
        tile_oc=8,
        ring_channels=2,
    )
    memory = Memory(SMALL, layer)

    def run(gap):
        words = [{"stripe_word": (508 + n * gap) % SMALL.stripe_words, "load_after_fill": 0} for n in range(3)]
        jobs = [NN.encode(**fields | place) for fields, place in zip(memory.fields, words, strict=True)]
        return memory.run(jobs)[:20]

    np.testing.assert_array_equal(run(9), layer.expected().ravel())
    with pytest.raises(MachineError, match=r"descriptor 1 .*NN.load_after_fill = 0, but stripe words 4..5 overlap"):
        run(8)


def test_rows_of_a_tile_begin_below_the_first():
    """A tile of the last row of positions reads what it does in the whole map."""
    rng = np.random.default_rng(5)
    layer = SwappedLayer(
        rng.integers(-128, 128, (1, 4, 3, 5)).astype(np.int8),
        rng.integers(-128, 128, (6, 3, 3, 5)).astype(np.int8),
        np.zeros(6, np.int64),
        pads=(1, 1, 1, 1),
    )
    memory = Memory(SMALL, layer)
    (fields,) = memory.fields
    start = {"src_start_y": 2, "src_start_bytes": 2 * 3 - 1, "src_oh": 1, "num_pos": 3, "num_pos_last": 3}
    counts = {f"{name}{suffix}": 2 for name in ("num_kernels", "kernels_per_z") for suffix in ("", "_last")}
    output = memory.run([NN.encode(**fields | start | counts | {"out_addr": SwappedImage.out_addr + 9})])
    last = output[: 6 * 12].reshape(6, 12)[:, 9:]
    np.testing.assert_array_equal(last, layer.expected()[:, 3])


def test_a_ring_is_larger_than_the_memory():
    """Also without swapped operands: 600 channels of 8 words in a memory of 512 words."""
    fields = NN.decode(smallest_nn(num_ic=600, num_z=600, num_z_last=600, act_run_bytes=600, channel_words=8))
    tables = {"tap_addr": 0x1000, "stream_addr": 0x1020, "param_addr": 0x1100, "wgt_addr": 0x2000, "out_addr": 0x8000}
    fields |= tables | {"act_addr": 0x4000, "load_after_fill": 1}
    memory = np.zeros(1 << 16, np.uint8)
    memory[0x4000:0x4258], memory[0x2000:0x2258] = 1, 2
    memory[0x1020:0x1030] = np.frombuffer(np.array([0, 75, 0x1000, 75], "<u4").tobytes(), np.uint8)
    memory[0x1100:0x1110] = np.frombuffer(_unit_param(), np.uint8)
    machine = Machine(SMALL, memory)
    with pytest.raises(MachineError, match=r"NN.stripe_word: the stripe ends at word 4793, the stripe memory at 512"):
        _run(machine, fields)
    _run(machine, fields | {"ring_channels": 64, "act_max": 127})
    assert memory[0x8000] == 1200 >> 4


def _unit_param() -> bytes:
    return PARAM.encode(bias=0, mult=1 << 30, is_valid=1, out_offset_bytes=0, shift_left=0, shift_right=3, bias_low=0)


def _run(machine: Machine, fields: dict[str, int]) -> None:
    machine.memory[0xF000:0xF100] = np.frombuffer(NN.encode(**fields), np.uint8)
    machine.run(0xF000, 1, 0xE000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"src_bytes": 0}, "NN.src_bytes = 0: use at least 1 with is_swapped"),
        ({"src_kernel_w": 0}, "NN.src_kernel_w = 0: use at least 1 with is_swapped"),
        ({"src_plane_bytes": 1025}, "NN.src_plane_bytes = 1025: use at most 1024"),
        ({"num_sb": 2}, "NN.num_sb = 2: use 1 with is_swapped"),
        ({"num_groups": 2}, "NN.num_groups = 2: use 1 with is_swapped"),
        ({"num_taps": 2}, "NN.num_taps = 2: use 1 with is_swapped"),
        ({"run_bits": 1}, "NN.run_bits = 1: use 0 with is_swapped"),
        ({"is_flat": 0}, "NN.is_flat = 0: use 1 with is_swapped"),
        ({"pool_size": 2}, "NN.pool_size = 2: use 0 with is_swapped"),
        ({"src_plane_bytes": 4}, "NN.src_plane_bytes = 4: use 3 with these fields and is_swapped"),
        ({"src_bytes": 7}, "NN.src_bytes = 7: use 6"),
        ({"src_start_bytes": 1}, "NN.src_start_bytes = 1: use 0"),
        ({"src_kernel_h": 2}, "NN.num_ic = 2: use 4"),
        ({"src_ow": 2}, "NN.num_kernels = 2: use 1"),
        ({"num_pos": 2}, "NN.num_pos = 2: use 3"),
        ({"tile_rows": 2, "pitch_row": 1}, "NN.tile_rows = 2: use 1"),
        ({"seg_words": 1, "num_vec": 2, "num_vec_x": 2}, "NN.num_vec = 2: use 1"),
        ({"tap_addr": TAP_ADDR}, "NN.tap_addr: the tap is 256: use 0 with is_swapped"),
        ({"has_residual": 1, "res_run_bytes_last": 2}, "NN.num_res_runs_last, res_run_bytes_last = 1, 2: a group"),
    ],
)
def test_malformed_swapped(changes, message):
    memory = Memory(SMALL, simple_layer())
    memory.bytes[TAP_ADDR : TAP_ADDR + 2] = 0, 1
    (fields,) = memory.fields
    with pytest.raises(MachineError, match=message):
        memory.run([NN.encode(**fields | changes)])


def test_waits_hold_the_gathering_and_not_the_loader():
    """`wait_nn` of a swapped descriptor says nothing about the loader of the next one."""
    memory = Memory(SMALL, simple_layer())
    (first,) = memory.fields
    second = first | {"src_addr": SwappedImage.out_addr, "out_addr": SwappedImage.out_addr + 16}
    with pytest.raises(MachineError, match=r"NN.src_addr: reads bytes written by descriptor 0, which may not have"):
        memory.run([NN.encode(**first), NN.encode(**second)])
    plain = NN.decode(smallest_nn(load_after_fill=1, act_addr=SwappedImage.out_addr))
    waiting = second | {"wait_nn": 1}
    with pytest.raises(MachineError, match=r"NN.act_addr: reads bytes written by descriptor 0, which may not have"):
        memory.run([NN.encode(**first), NN.encode(**waiting), NN.encode(**plain)])
    with pytest.raises(MachineError, match=r"NN.act_addr: reads ahead bytes written by descriptor 0"):
        memory.run([NN.encode(**first), NN.encode(**waiting | {"act_addr": SwappedImage.out_addr})])
