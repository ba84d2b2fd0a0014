"""Whole TP descriptors against the golden machine, with stalling memory, and the cycles that they take."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.golden.memory import MemoryView
from convoy.golden.tp import execute_tp
from convoy.hw.tp.engine import TpEngine
from convoy.spec.config import NpuConfig
from convoy.spec.isa import TP, TP_TWO_OPERANDS, TP_WIDE, TpOp
from convoy.verif.pysim import ReadPortMemory, WritePortMemory, always, monitor, simulate, sometimes

AREA_BYTES = 4096
BLANK = (
    dict.fromkeys(TP.fields, 0)
    | dict.fromkeys(("num_a_runs", "num_b_runs", "num_0", "num_1", "num_2"), 1)
    | {"act_min": -128, "act_max": 127}
)


def run(config, jobs, memory, *, latency_cycles=3, go=always, is_waiting=False):
    """Executes the descriptors on the engine; the cycle of each `done`. With `is_waiting` each is released some time
    after the one before is done.

    Asserts that memory is right at every `done`.
    """
    expected = np.frombuffer(bytes(memory), np.uint8).copy()
    snapshots = []
    for job in jobs:
        execute_tp(config, MemoryView(expected), job)
        snapshots.append(expected.tobytes())
    dut = TpEngine(config)
    memory = bytearray(memory)
    reader = ReadPortMemory(config, dut.read, memory, latency_cycles=latency_cycles, go=go)
    tables = ReadPortMemory(config, dut.read_lut, memory, latency_cycles=latency_cycles, go=go)
    writer = WritePortMemory(config, dut.write, memory, latency_cycles=latency_cycles, go=go)
    done_cycles = []

    async def feed(ctx):
        for number, job in enumerate(jobs):
            ctx.set(dut.job.p, job)
            ctx.set(dut.job.valid, 1)
            if is_waiting:
                ctx.set(dut.is_released, 0)
                while len(done_cycles) < number:
                    await ctx.tick()
                await ctx.tick().repeat(30)
                ctx.set(dut.is_released, 1)
            await ctx.tick().until(dut.job.ready)
            ctx.set(dut.job.valid, 0)

    async def watch(ctx):
        cycle = 0
        while len(done_cycles) < len(jobs):
            _, _, done = await ctx.tick().sample(dut.done)
            if done:
                job = jobs[len(done_cycles)]
                first = job["out_addr"] // AREA_BYTES * AREA_BYTES
                area = slice(first, first + AREA_BYTES)
                assert bytes(memory[area]) == snapshots[len(done_cycles)][area]
                done_cycles.append(cycle)
            cycle += 1
        for _ in range(20):
            _, _, done, active = await ctx.tick().sample(dut.done, dut.write.bursts.valid)
            assert not done
            assert not active
        assert bytes(memory) == snapshots[-1]

    background = [reader.process, tables.process, writer.process, monitor(dut.read.bursts), monitor(dut.write.bursts)]
    simulate(dut, feed, watch, background=background)
    return done_cycles


@st.composite
def operands(draw, total, index):
    """Fields that load `total` bytes from area `index`."""
    num_runs = draw(st.sampled_from([n for n in (1, 2, 3, 4, 7, 16) if total % n == 0]))
    run_bytes = total // num_runs
    pitch = run_bytes + draw(st.integers(0, (AREA_BYTES - 64 - total) // num_runs))
    return index * AREA_BYTES + draw(st.integers(0, 63)), run_bytes, num_runs, pitch


@st.composite
def elementwise(draw, op, limit):
    """An array of up to `limit` bytes, permuted and thinned out; COPY puts it into a larger or smaller frame.

    B has the steps of A, or 0.
    """
    shape = [draw(st.integers(1, 9)), draw(st.integers(1, 7)), draw(st.integers(1, max(1, limit // 63)))]
    strides = [shape[1] * shape[2], shape[2], 1]
    axes = draw(st.permutations([0, 1, 2]))
    job = {"op": op}
    for loop, axis in enumerate(axes):
        thin = draw(st.integers(1, 3))
        job |= {f"num_{loop}": math.ceil(shape[axis] / thin), f"step_{loop}": strides[axis] * thin}
        job[f"b_step_{loop}"] = draw(st.sampled_from([1, 1, 0])) * job[f"step_{loop}"]
    if op is TpOp.COPY:
        for loop, start, tile in ((1, "start_y", "tile_ih"), (2, "start_x", "tile_iw")):
            before, behind = draw(st.integers(0, 5)), draw(st.integers(-3, 5))
            job |= {start: -before, tile: job[f"num_{loop}"]}
            job[f"num_{loop}"] = max(1, job[f"num_{loop}"] + before + behind)
        job["zero_point_out"] = draw(st.integers(-128, 127))
    return job, math.prod(shape)


@st.composite
def pools(draw, op, limit):
    """A pool with pads of which no window lies outside the image."""

    def axis(size):
        if draw(st.booleans()):  # in fractions of a pixel
            kernel = 2 if op is TpOp.BILINEAR else draw(st.integers(1, 3))
            place = draw(st.integers((1 - min(kernel, 2)) << 10, min(2, size - 1) << 10))
            stride = draw(st.integers(0, 2500))
            return (
                kernel,
                place,
                stride,
                draw(st.integers(1, min(20, ((size << 10) - 1 - place) // max(stride, 1) + 1))),
            )
        kernel = 2 if op is TpOp.BILINEAR else draw(st.integers(1, 6))
        start = draw(st.integers(1 - kernel, min(2, size - 1)))
        stride = draw(st.integers(1, 3))
        return kernel, start << 10, stride << 10, draw(st.integers(1, (size - 1 - start) // stride + 1))

    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 14))
    channels = draw(st.integers(1, min(4, limit // (height * width))))
    kernel_h, start_y, stride_h, num_1 = axis(height)
    kernel_w, start_x, stride_w, num_2 = axis(width)
    return {
        "op": op,
        "num_0": channels,
        "num_1": num_1,
        "num_2": num_2,
        "step_0": height * width,
        "kernel_h": kernel_h,
        "kernel_w": kernel_w,
        "stride_h": stride_h >> 10,
        "stride_w": stride_w >> 10,
        "start_y": start_y >> 10,
        "start_x": start_x >> 10,
        "tile_ih": height,
        "tile_iw": width,
        "stride_h_frac": stride_h & 1023,
        "stride_w_frac": stride_w & 1023,
        "start_y_frac": start_y & 1023,
        "start_x_frac": start_x & 1023,
    }, height * width * channels


@st.composite
def jobs(draw, config, index):
    """Descriptor `index`: it reads areas 0 and 1 and writes area 2 + index."""
    limit = config.tp_buffer_bytes // 2
    op = draw(st.sampled_from(TpOp))
    has_b, is_wide = op in TP_TWO_OPERANDS, op in TP_WIDE and draw(st.booleans())
    limit = limit // 2 - 10 if is_wide else limit
    fields, total = draw(
        elementwise(op, limit // (2 if has_b else 1)) if has_b or op is TpOp.COPY else pools(op, limit)
    )
    high_bytes = {name: total + draw(st.integers(0, 5)) if is_wide else 0 for name in ("a_high_bytes", "b_high_bytes")}
    total += max(high_bytes.values())
    job = BLANK | fields | {"buffer_half": index % 2}
    job["a_addr"], job["a_run_bytes"], job["num_a_runs"], job["a_pitch_bytes"] = draw(operands(total, 0))
    if has_b:
        job["b_addr"], job["b_run_bytes"], job["num_b_runs"], job["b_pitch_bytes"] = draw(operands(total, 1))
    if has_b or op is TpOp.MEAN:
        job |= {name: draw(st.integers(-128, 127)) for name in ("a_zero_point", "b_zero_point", "zero_point_out")}
        job |= {
            f"{name}_mult": draw(st.sampled_from([1 << 30, (1 << 31) - 1, 0x5A827999])) for name in ("a", "b", "out")
        }
        job |= {
            "a_shift": draw(st.integers(0, 3)),
            "b_shift": draw(st.integers(0, 3)),
            "out_shift": draw(st.integers(*{TpOp.MUL: (5, 9), TpOp.MEAN: (0, 5)}.get(op, (17, 20)))),
        }
    job["is_half_up"] = draw(st.integers(0, 1))
    job["has_lut"], job["lut_addr"] = draw(st.sampled_from([(0, 0), (1, 256), (1, AREA_BYTES)]))
    job["act_min"], job["act_max"] = draw(st.sampled_from([(-128, 127), (-128, 127), (-20, 60)]))
    if is_wide:
        job |= high_bytes | dict.fromkeys(("a_zero_point", "b_zero_point", "zero_point_out", "has_lut"), 0)
        job |= {
            "is_wide": 1,
            "is_high": draw(st.integers(0, 1)),
            "out_shift": draw(st.integers(0, 5) if op is TpOp.MEAN else st.integers(13, 15)),
            "b_shift": job["b_shift"] * (op is not TpOp.MUL),
        }
        job["act_min"], job["act_max"] = draw(st.sampled_from([(-32768, 32767), (-32768, 32767), (-3000, 9000)]))
    num_out = job["num_0"] * job["num_1"] * job["num_2"]
    job["out_run_bytes"] = draw(st.sampled_from([n for n in range(1, num_out + 1) if num_out % n == 0]))
    num_runs = num_out // job["out_run_bytes"]
    job["out_addr"] = (2 + index) * AREA_BYTES + draw(st.integers(0, 63))
    job["out_pitch_bytes"] = job["out_run_bytes"] + draw(st.integers(0, (AREA_BYTES - 64 - num_out) // num_runs))
    return job


@pytest.mark.parametrize(("port_bits", "tp_lanes"), [(32, 4), (64, 4), (64, 2), (128, 1)])
def test_descriptors_match_the_golden_machine(port_bits, tp_lanes):
    config = NpuConfig(port_bits=port_bits, tp_lanes=tp_lanes, tp_buffer_bytes=1024)

    @settings(max_examples=5, deadline=None, derandomize=True)
    @given(
        st.tuples(*(jobs(config, index) for index in range(4))),
        st.integers(0, 1 << 16),
        st.sampled_from([1.0, 0.7, 0.3]),
        st.sampled_from([1, 20]),
    )
    def check(program, seed, probability, latency_cycles):
        rng = random.Random(seed)
        memory = rng.randbytes((2 + len(program)) * AREA_BYTES)
        go = always if probability == 1.0 else sometimes(rng, probability)
        assert len(run(config, program, memory, latency_cycles=latency_cycles, go=go)) == len(program)

    check()


@pytest.mark.parametrize(
    ("first", "tp_lanes"), [(TpOp.COPY, 2), (TpOp.ADD, 4), (TpOp.MAX_POOL, 1), (TpOp.AVG_POOL, 4), (TpOp.MEAN, 4)]
)
def test_nothing_is_left_of_the_operation_before(first, tp_lanes):
    """Each operation behind each other one, begun while it waits for that."""
    config = NpuConfig(tp_buffer_bytes=1024, tp_lanes=tp_lanes)
    shape = {"a_run_bytes": 60, "num_0": 3, "step_0": 20, "tile_ih": 2, "tile_iw": 10, "out_run_bytes": 3}
    window = {"kernel_h": 2, "kernel_w": 2, "stride_h": 1, "stride_w": 1}
    row = {"num_2": 20, "step_2": 1, "tile_ih": 1, "tile_iw": 20, "out_run_bytes": 60}
    pair = {"b_run_bytes": 60, "b_step_0": 20, "b_step_2": 1, "b_mult": 1 << 30}
    scaled = {"a_mult": 1 << 30, "out_mult": 1 << 30, "out_shift": 1}
    order = [op for second in TpOp for op in (first, second)]
    program = [
        BLANK
        | shape
        | scaled
        | {"op": op, "buffer_half": number % 2, "out_addr": (2 + number) * AREA_BYTES}
        | (row if op is TpOp.COPY else row | pair if op in TP_TWO_OPERANDS else window)
        for number, op in enumerate(order)
    ]
    memory = random.Random(first).randbytes((2 + len(program)) * AREA_BYTES)
    assert len(run(config, program, memory, is_waiting=True)) == len(program)


def test_a_job_that_waits_reads_its_table_only():
    config = NpuConfig(tp_buffer_bytes=1024)
    job = BLANK | {"a_run_bytes": 8, "num_2": 8, "step_2": 1, "tile_ih": 1, "tile_iw": 8, "out_run_bytes": 8}
    job |= {"out_addr": AREA_BYTES, "has_lut": 1, "lut_addr": 2 * AREA_BYTES}
    dut, memory = TpEngine(config), bytearray(3 * AREA_BYTES)
    reader, tables = (ReadPortMemory(config, port, memory) for port in (dut.read, dut.read_lut))
    writer = WritePortMemory(config, dut.write, memory)

    async def testbench(ctx):
        ctx.set(dut.is_released, 0)
        ctx.set(dut.job.p, job)
        ctx.set(dut.job.valid, 1)
        for _ in range(80):
            await ctx.tick()
            assert not ctx.get(dut.job.ready)
        assert tables.bursts
        assert not reader.bursts
        ctx.set(dut.is_released, 1)
        await ctx.tick().until(dut.job.ready)
        ctx.set(dut.job.valid, 0)
        await ctx.tick().until(dut.done)
        assert reader.bursts

    simulate(dut, testbench, background=[reader.process, tables.process, writer.process])


@pytest.mark.parametrize("tp_lanes", [4, 2, 1])
def test_add_takes_a_cycle_per_group_of_lanes(tp_lanes):
    config = NpuConfig(tp_lanes=tp_lanes)
    total = tp_lanes * config.tp_buffer_bytes // 16
    job = BLANK | {
        "op": TpOp.ADD,
        "a_addr": 3,
        "a_run_bytes": total,
        "b_addr": 4 * AREA_BYTES,
        "b_run_bytes": total,
        "num_2": total,
        "step_2": 1,
        "b_step_2": 1,
        "a_mult": 1 << 30,
        "b_mult": 1 << 30,
        "out_mult": 1 << 30,
        "out_shift": 18,
        "out_run_bytes": total,
        "out_addr": 8 * AREA_BYTES,
    }
    program = [job | {"buffer_half": half, "out_addr": job["out_addr"] + half * 4 * AREA_BYTES} for half in (0, 1)]
    first, second = run(config, program, random.Random(2).randbytes(16 * AREA_BYTES))
    assert first <= total // 4 + total // tp_lanes + 120
    assert total // tp_lanes <= second - first <= total // tp_lanes + 60


@pytest.mark.parametrize("op", TP_TWO_OPERANDS)
def test_int16_takes_two_cycles_per_four_elements(op):
    config = NpuConfig()
    total = config.tp_buffer_bytes // 8
    job = BLANK | {
        "op": op,
        "a_addr": 3,
        "a_run_bytes": 2 * total,
        "b_addr": 4 * AREA_BYTES,
        "b_run_bytes": 2 * total,
        "num_2": total,
        "step_2": 1,
        "b_step_2": 1,
        "is_wide": 1,
        "a_high_bytes": total,
        "b_high_bytes": total,
        "act_min": -32768,
        "act_max": 32767,
        "a_mult": 1 << 30,
        "b_mult": 1 << 30,
        "out_mult": 1 << 30,
        "out_shift": 13,
        "out_run_bytes": total,
        "out_addr": 8 * AREA_BYTES,
    }
    program = [
        job | {"buffer_half": byte, "is_high": byte, "out_addr": job["out_addr"] + byte * 4 * AREA_BYTES}
        for byte in (0, 1)
    ]
    first, second = run(config, program, random.Random(2).randbytes(16 * AREA_BYTES))
    assert first <= 4 * total // 8 + total // 2 + 120
    assert second - first <= total // 2 + 60


@pytest.mark.parametrize(("op", "cycles"), [(TpOp.MAX_POOL, 2), (TpOp.AVG_POOL, 18)])
def test_pools_of_int16(op, cycles):
    """Windows of two pixels: cycles per output."""
    config = NpuConfig()
    job = BLANK | {
        "op": op,
        "a_run_bytes": 2 * 32 * 16,
        "num_1": 31,
        "num_2": 16,
        "kernel_h": 2,
        "kernel_w": 1,
        "stride_h": 1,
        "stride_w": 1,
        "tile_ih": 32,
        "tile_iw": 16,
        "is_wide": 1,
        "a_high_bytes": 32 * 16,
        "act_min": -32768,
        "act_max": 32767,
        "out_run_bytes": 31 * 16,
        "out_addr": 2 * AREA_BYTES,
    }
    program = [job | {"buffer_half": byte, "is_high": byte, "out_addr": (2 + byte) * AREA_BYTES} for byte in (0, 1)]
    first, second = run(config, program, random.Random(5).randbytes(4 * AREA_BYTES))
    assert second - first <= cycles * 31 * 16 + 40
    assert first <= cycles * 31 * 16 + 2 * 32 * 16 // config.port_bytes + 120


def test_bilinear_takes_two_cycles_per_output():
    config = NpuConfig()
    job = BLANK | {
        "op": TpOp.BILINEAR,
        "a_run_bytes": 4 * 8 * 8,
        "num_0": 4,
        "num_1": 16,
        "num_2": 16,
        "step_0": 64,
        "kernel_h": 2,
        "kernel_w": 2,
        "stride_h_frac": 512,
        "stride_w_frac": 512,
        "start_y": -1,
        "start_y_frac": 768,
        "start_x": -1,
        "start_x_frac": 768,
        "tile_ih": 8,
        "tile_iw": 8,
        "out_run_bytes": 1024,
        "out_addr": 2 * AREA_BYTES,
    }
    (done,) = run(config, [job], random.Random(3).randbytes(3 * AREA_BYTES))
    assert done <= 2 * 1024 + 120


def test_means_read_eight_pixels_per_cycle():
    """While they are loaded, which takes as long."""
    config = NpuConfig()
    job = BLANK | {
        "op": TpOp.MEAN,
        "a_zero_point": 9,
        "out_mult": 1 << 30,
        "out_shift": 6,
        "zero_point_out": -3,
        "a_run_bytes": 125 * 64,
        "num_0": 64,
        "step_0": 125,
        "kernel_h": 1,
        "kernel_w": 125,
        "stride_h": 1,
        "stride_w": 1,
        "tile_ih": 1,
        "tile_iw": 125,
        "out_run_bytes": 64,
        "out_addr": 2 * AREA_BYTES,
    }
    (done,) = run(config, [job], random.Random(3).randbytes(3 * AREA_BYTES))
    assert done <= 64 * 16 + 120


@pytest.mark.parametrize(("kernel", "cycles"), [(2, 1), (3, 2)])
def test_averages_of_small_windows(kernel, cycles):
    """Cycles per output: two rows of a window at once."""
    config = NpuConfig()
    job = BLANK | {
        "op": TpOp.AVG_POOL,
        "a_run_bytes": 2 * 16 * 16,
        "num_0": 2,
        "num_1": 17 - kernel,
        "num_2": 17 - kernel,
        "step_0": 16 * 16,
        "kernel_h": kernel,
        "kernel_w": kernel,
        "stride_h": 1,
        "stride_w": 1,
        "tile_ih": 16,
        "tile_iw": 16,
        "out_run_bytes": 2 * (17 - kernel) ** 2,
        "out_addr": 2 * AREA_BYTES,
    }
    (done,) = run(config, [job], random.Random(6).randbytes(3 * AREA_BYTES))
    assert done <= 2 * (17 - kernel) ** 2 * cycles + 120


@pytest.mark.parametrize(("step", "rate"), [(3, 4), (4, 4), (8, 2)])
def test_copies_with_a_step_read_several_elements_per_cycle(step, rate):
    """Of steps that share a bank too: with a port of 8 bytes 4 does by halves, 8 wholly."""
    config = NpuConfig()
    num_0, num_2 = 3, 6144 // step // 2 - 1
    job = BLANK | {
        "op": TpOp.COPY,
        "a_addr": 5,
        "a_run_bytes": step * num_2 + num_0,
        "num_0": num_0,
        "step_0": 1,
        "num_2": num_2,
        "step_2": step,
        "tile_ih": 1,
        "tile_iw": num_2,
        "out_run_bytes": num_2,
        "out_pitch_bytes": AREA_BYTES,
        "out_addr": 2 * AREA_BYTES,
    }
    (done,) = run(config, [job], random.Random(4).randbytes(5 * AREA_BYTES))
    assert done <= step * num_2 // config.port_bytes + num_0 * num_2 // rate + 130
