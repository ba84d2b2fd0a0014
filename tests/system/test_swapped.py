"""Programs of descriptors with swapped operands among others: the compiled NPU against the golden model, byte for byte.

`CONVOY_EXAMPLES` sets the number of programs per configuration.
"""

import os

import numpy as np
import pytest

from convoy.driver.devices.native import NativeDevice
from convoy.golden.machine import Machine
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.csr import REGISTERS, Control, Status
from convoy.spec.isa import COMPLETION, NN, PARAM, STREAM, Cause
from convoy.verif.campaign import RTL_CONFIGS
from convoy.verif.descriptors import smallest_nn
from convoy.verif.swapped_jobs import SwappedImage, SwappedLayer, random_swapped

EXAMPLES = int(os.environ.get("CONVOY_EXAMPLES", "12"))
MAX_CYCLES = 2_000_000


def plain(config: NpuConfig, image: SwappedImage, rng, act_addr: int, num_ic: int, out_addr: int) -> dict[str, int]:
    """A 1x1 convolution of one pixel, a channel for each core."""
    weights = rng.integers(0, 256, (config.num_cores, -(-num_ic // 32) * 32), np.uint8)
    num_beats = -(-num_ic // config.port_bytes)
    directory = [STREAM.encode(offset_bytes=n * weights.shape[1], num_beats=num_beats) for n in range(len(weights))]
    values = {"bias": 0, "mult": 1 << 30, "is_valid": 1, "shift_left": 0, "shift_right": 7, "bias_low": 0}
    params = [PARAM.encode(**values, out_offset_bytes=n) for n in range(len(weights))]
    fields = NN.decode(smallest_nn()) | dict.fromkeys(("num_ic", "num_z", "num_z_last", "act_run_bytes"), num_ic)
    return fields | {
        "act_addr": act_addr,
        "out_addr": out_addr,
        "load_after_fill": 1,
        "tap_addr": image.put(bytes(32)),
        "stream_addr": image.put(b"".join(directory)),
        "wgt_addr": image.put(weights.tobytes()),
        "param_addr": image.put(b"".join(params)),
    }


def run(device: NativeDevice, image: SwappedImage, count: int) -> list[dict[str, int]]:
    """Run the program in the image's memory; the completion records."""
    device.write_memory(0, image.bytes.tobytes())
    writes = [("IRQ_STATUS", 1), ("IRQ_ENABLE", 1), ("WATCHDOG", MAX_CYCLES // 4), ("PROGRAM_BASE", image.program_addr)]
    writes += [("PROGRAM_COUNT", count), ("RECORD_BASE", image.record_addr), ("CONTROL", int(Control.DOORBELL))]
    for name, value in writes:
        device.write32(REGISTERS[name].addr, value)
    device.wait(MAX_CYCLES)
    assert not device.read32(REGISTERS["STATUS"].addr) & Status.ERROR
    raw, size = device.read_memory(image.record_addr, count * COMPLETION.num_bytes), COMPLETION.num_bytes
    return [COMPLETION.decode(raw[n * size : (n + 1) * size]) for n in range(count)]


@pytest.mark.parametrize("name", [name for name, config in RTL_CONFIGS.items() if config.has_residual])
def test_programs(name):
    config = RTL_CONFIGS[name]
    device = NativeDevice(config)
    for seed in range(EXAMPLES):
        rng = np.random.default_rng(seed)
        layer = random_swapped(config, rng)
        image = SwappedImage(config, layer)
        num_out = min(layer.expected().size, config.stripe_words)
        first = plain(config, image, rng, image.src_addr, min(layer.acts.size, config.stripe_words), 0x38001)
        last = plain(config, image, rng, image.out_addr, num_out, 0x38101) | {"wait_nn": 1}
        again = [d | {"out_addr": 0x39003 - d["src_start_y"]} for d in image.fields[:1]]
        image.fields[0]["wait_nn"] = int(rng.integers(2))
        program = [first, *image.fields, last, *again]
        program = program[int(rng.integers(2)) :][:16]
        image.put_program([NN.encode(**fields) for fields in program])
        expected = image.bytes.copy()
        Machine(config, expected).run(image.program_addr, len(program), image.record_addr)
        records = run(device, image, len(program))
        found = np.frombuffer(device.read_memory(0, image.num_bytes), np.uint8).copy()
        span = slice(image.record_addr, image.record_addr + len(program) * COMPLETION.num_bytes)
        found[span] = 0
        np.testing.assert_array_equal(found, expected, err_msg=f"seed {seed}")
        lost = sum(records[-1][f"{cause.name.lower()}_cycles"] for cause in Cause)
        assert lost == config.num_cores * records[-1]["cycle"]
    device.close()


@pytest.mark.parametrize(("size", "num_ic", "num_oc", "kernel"), [(2, 64, 128, 3), (4, 32, 128, 3), (1, 256, 128, 1)])
def test_cycles(size, num_ic, num_oc, kernel):
    """The port, the filler or the multipliers set the pace; the rest is start, drain and what little comes between."""
    config, rng = PRESETS["Q"], np.random.default_rng(0)
    layer = SwappedLayer(
        rng.integers(-128, 128, (1, size, size, num_ic)).astype(np.int8),
        rng.integers(-128, 128, (num_oc, kernel, kernel, num_ic)).astype(np.int8),
        np.zeros(num_oc, np.int64),
        pads=(kernel // 2,) * 4,
    )
    image = SwappedImage(config, layer)
    image.put_program([NN.encode(**fields) for fields in image.fields])
    device = NativeDevice(config)
    (record,) = run(device, image, 1)
    device.close()
    (fields,) = image.fields
    num_z, num_pos = fields["num_z"], fields["num_pos"]
    pace = max(num_oc // config.port_bytes, fields["num_vec"] + 2, fields["num_kernels"] * fields["num_vec"])
    assert record["cycle"] < 1.05 * num_z * pace + num_oc * num_pos + 400
