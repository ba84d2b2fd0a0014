"""The residual sum against golden rounding: channels of several runs and groups, stalling memory and writer, then a
job without residual.
"""

import random

import numpy as np
import pytest

from convoy.golden.quant import double_rounding
from convoy.hw.post.residual import RESIDUAL_FIELDS, Residual
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import ReadPortMemory, always, monitor, simulate, sometimes

OUT_ADDR, RES_ADDR = 0x10_0000, 0x123


def make_job(rng, **changes):
    job = dict.fromkeys(("out_addr", "out_pitch_row_bytes", *RESIDUAL_FIELDS), 0) | {
        "has_residual": 1,
        "out_addr": OUT_ADDR,
        "res_addr": RES_ADDR,
        "res_a_mult": 1 << 30,
        "res_b_mult": 0x5A827999,
        "res_out_mult": 0x70000000,
        "res_a_shift": 1,
        "res_b_shift": 0,
        "res_out_shift": 18,
        "res_act_min": -100,
        "res_act_max": 120,
    }
    job |= {f"res_{name}": rng.randint(-128, 127) for name in ("a_zero_point", "b_zero_point", "zero_point_out")}
    return job | changes


def add(job, a, b):
    def scale(x, name):
        return double_rounding(np.int64(x), job[f"res_{name}_mult"], 0, job[f"res_{name}_shift"])

    total = scale((a - job["res_a_zero_point"]) << 20, "a") + scale((b - job["res_b_zero_point"]) << 20, "b")
    return int(np.clip(scale(total, "out") + job["res_zero_point_out"], job["res_act_min"], job["res_act_max"])) & 255


def signed(byte):
    return byte - 256 if byte > 127 else byte


@pytest.mark.parametrize(
    ("config", "probability"),
    [
        (NpuConfig(), 1.0),
        (NpuConfig(), 0.5),
        (NpuConfig(port_bits=32, post_lanes=1), 0.7),
        (NpuConfig(port_bits=256, num_lanes=32, post_lanes=16), 0.7),
    ],
)
def test_sums_equal_golden(config, probability):
    rng = random.Random(config.port_bits)
    memory = bytearray(rng.randbytes(4096))
    go = always if probability == 1.0 else sometimes(rng, probability)
    job = make_job(
        rng, out_pitch_row_bytes=37, num_res_runs=3, res_run_bytes=21, num_res_runs_last=2, res_run_bytes_last=9
    )
    units, chunks, expected = [], [], {}
    for number in range(6):
        unit = {"addr": OUT_ADDR + 130 * number + rng.randrange(9), "is_last_group": number % 3 == 2}
        units.append(unit)
        count, size = (2, 9) if unit["is_last_group"] else (3, 21)
        for run in range(count):
            addr, left = unit["addr"] + run * 37, size
            while left:
                step = min(left, rng.randint(1, config.post_lanes))
                raw = rng.randbytes(config.post_lanes)
                first = addr + size - left
                for i in range(step):
                    expected[first + i] = add(job, signed(raw[i]), signed(memory[RES_ADDR + first + i - OUT_ADDR]))
                chunks.append(
                    {
                        "data": int.from_bytes(raw, "little"),
                        "count": step,
                        "addr": first,
                        "start": left == size,
                        "last": 0,
                    }
                )
                left -= step
    chunks.append({"data": 0, "count": 0, "addr": 0, "start": 0, "last": 1})
    dut = Residual(config)
    written, cycles = {}, []

    def set_job(ctx, fields):
        for name, value in fields.items():
            ctx.set(dut.job[name], value)

    async def feed_units(ctx):
        set_job(ctx, job)
        for unit in units:
            ctx.set(dut.units.p, unit)
            ctx.set(dut.units.valid, 1)
            await ctx.tick().until(dut.units.ready)
            ctx.set(dut.units.valid, 0)

    async def feed_chunks(ctx):
        await ctx.tick()
        for chunk in chunks:
            while not go():
                await ctx.tick()
            ctx.set(dut.i.p, chunk)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def sink(ctx):
        is_last, addr, cycle = False, None, 0
        while not is_last:
            ready = go()
            ctx.set(dut.o.ready, ready)
            _, _, valid, chunk = await ctx.tick().sample(dut.o.valid, dut.o.p)
            cycle += 1
            if not (valid and ready):
                continue
            cycles.append(cycle)
            addr, is_last = chunk.addr if chunk.start else addr, chunk.last
            for byte in chunk.data.to_bytes(config.post_lanes, "little")[: chunk.count]:
                assert addr not in written
                written[addr] = byte
                addr += 1
        assert written == expected
        assert ctx.get(dut.is_idle)
        set_job(ctx, {"has_residual": 0})
        plain = {"data": 0x5A, "count": 1, "addr": 99, "start": 1, "last": 1}
        ctx.set(dut.i.p, plain)
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.o.ready, 1)
        _, _, valid, ready, chunk = await ctx.tick().sample(dut.o.valid, dut.i.ready, dut.o.p)
        assert (valid, ready, chunk.data & 255, chunk.count, chunk.addr, chunk.last) == (1, 1, 0x5A, 1, 99, 1)

    reader = ReadPortMemory(config, dut.port, memory, latency_cycles=9, go=go)
    simulate(dut, feed_units, feed_chunks, sink, background=[reader.process, monitor(dut.port.bursts)])
    if probability == 1.0:
        pieces = sum(-(-chunk["count"] // config.residual_lanes) for chunk in chunks)
        assert cycles[-1] - cycles[0] <= pieces + 30
