"""The memory windows against their definition, burst by burst; and a multiplexer that is stopped."""

import random

import pytest
from amaranth.hdl import Module

from convoy.hw.bus.guard import Guard
from convoy.hw.bus.read_mux import ReadMux
from convoy.hw.bus.write_mux import WriteMux
from convoy.spec.config import PRESETS
from convoy.spec.csr import NUM_WINDOWS, WINDOW_ALIGN_BYTES
from convoy.verif.pysim import simulate

PAGE = 4096


def is_legal(windows, start, end):
    """Whether bytes start..end-1 lie in an enabled window."""
    return any(
        enable and base * WINDOW_ALIGN_BYTES <= start and end <= limit * WINDOW_ALIGN_BYTES
        for base, limit, enable in windows
    )


@pytest.mark.parametrize("port_bits", [32, 64, 256])
def test_every_burst(port_bits):
    config = PRESETS["S"].with_(port_bits=port_bits)
    rng = random.Random(port_bits)
    dut = Guard(config, 3)
    verdicts = []

    async def testbench(ctx):
        ctx.set(dut.o.ready, 1)
        for _ in range(400):
            middle = rng.choice([0x0000_2000, 0x8000_0000, 0xFFFF_E000]) // WINDOW_ALIGN_BYTES
            windows = [
                (middle + rng.randint(-9, 9), middle + rng.randint(-9, 9), rng.randint(0, 1))
                for _ in range(NUM_WINDOWS)
            ]
            windows = [(max(base, 0), max(limit, 0), enable) for base, limit, enable in windows]
            num_beats = rng.randint(1, 8)
            addr = middle * WINDOW_ALIGN_BYTES + rng.randint(-40, 40) * config.port_bytes
            end = addr + num_beats * config.port_bytes
            if addr // PAGE != (end - 1) // PAGE:
                continue
            for member, (base, limit, enable) in zip(dut.windows, windows, strict=True):
                ctx.set(member, {"base": base, "limit": limit, "enable": enable})
            is_open = rng.random() < 0.1
            ctx.set(dut.is_open, is_open)
            ctx.set(dut.i.p, {"burst": {"addr": addr, "last_beat": num_beats - 1}, "client": 2})
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)
            await ctx.tick()
            expected = is_open or is_legal(windows, addr, end)
            verdicts.append(expected)
            assert ctx.get(dut.o.valid) == expected
            assert ctx.get(dut.violation) == (not expected)
            if expected:
                assert ctx.get(dut.i.ready)
                assert (ctx.get(dut.o.p.burst.addr), ctx.get(dut.o.p.burst.last_beat), ctx.get(dut.o.p.client)) == (
                    addr,
                    num_beats - 1,
                    2,
                )
            else:
                assert ctx.get(dut.violation_addr) == addr
                ctx.set(dut.i.valid, 1)
                await ctx.tick().repeat(2)
                assert ctx.get(dut.violation)
                assert not ctx.get(dut.i.ready)
                ctx.set(dut.stop, 1)
                assert not ctx.get(dut.violation)
                await ctx.tick()
                ctx.set(dut.stop, 0)
            ctx.set(dut.i.valid, 0)
            await ctx.tick()
            assert not ctx.get(dut.violation)

    simulate(dut, testbench)
    assert 30 < sum(verdicts) < len(verdicts) - 30


@pytest.mark.parametrize(("port_bits", "max_burst_beats"), [(32, 16), (64, 16), (64, 256), (256, 1)])
@pytest.mark.parametrize("is_open", [False, True])
def test_illegal_bursts(port_bits, max_burst_beats, is_open):
    """What AXI4 forbids does not pass whatever the windows allow: bursts that cross a page or 2**32, are too long or
    not aligned.
    """
    config = PRESETS["S"].with_(port_bits=port_bits, max_burst_beats=max_burst_beats, weight_fifo_beats=256)
    rng = random.Random(port_bits)
    dut = Guard(config, 1)
    size = config.port_bytes
    bursts = [
        (page * PAGE + PAGE - first * size + skew, last_beat)
        for page in (0, 1, 7, 0xF_FFFF)
        for first in (1, 2, 3, 128, 255, 256)
        for skew in (0, 0, 1, size - 1)
        for last_beat in {0, 1, 2, first - 1, first, max_burst_beats - 1, max_burst_beats, 127, 254, 255}
        if 0 <= last_beat < 256 and first * size <= PAGE
    ]
    verdicts = []

    async def testbench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.is_open, is_open)
        ctx.set(dut.windows[2], {"base": 0, "limit": 2**27 - 1, "enable": 1})  # all but the last 32 bytes of 4 GiB
        for addr, last_beat in rng.sample(bursts, min(len(bursts), 250)):
            end = addr + (last_beat + 1) * size
            is_in_window = is_open or end <= 2**32 - WINDOW_ALIGN_BYTES
            expected = (
                addr % size == 0 and last_beat < max_burst_beats and addr // PAGE == (end - 1) // PAGE and is_in_window
            )
            ctx.set(dut.i.p, {"burst": {"addr": addr % 2**32, "last_beat": last_beat}, "client": 0})
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)
            await ctx.tick()
            verdicts.append(expected)
            assert ctx.get(dut.o.valid) == expected, (hex(addr), last_beat)
            assert ctx.get(dut.violation) == (not expected)
            ctx.set(dut.stop, not expected)
            await ctx.tick()
            ctx.set(dut.stop, 0)

    simulate(dut, testbench)
    assert 5 < sum(verdicts) < len(verdicts)


def test_a_stop_takes_back_what_is_offered():
    """In the cycle of the stop already, even if the bus would take it then; the guard is empty afterwards."""
    dut = Guard(PRESETS["S"], 1)

    async def testbench(ctx):
        ctx.set(dut.is_open, 1)
        for addr in (0x40, 0x80):
            ctx.set(dut.i.p, {"burst": {"addr": addr, "last_beat": 0}, "client": 0})
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
        ctx.set(dut.i.valid, 0)
        assert (ctx.get(dut.o.valid), ctx.get(dut.o.p.burst.addr), ctx.get(dut.i.ready)) == (1, 0x40, 0)
        ctx.set(dut.stop, 1)
        ctx.set(dut.o.ready, 1)
        assert not ctx.get(dut.o.valid)
        await ctx.tick()
        ctx.set(dut.stop, 0)
        for _ in range(3):
            assert (ctx.get(dut.o.valid), ctx.get(dut.i.ready)) == (0, 1)
            await ctx.tick()

    simulate(dut, testbench)


@pytest.mark.parametrize("kind", [ReadMux, WriteMux])
def test_a_stop_is_final(kind):
    """What is on the bus ends, what stands before it never gets there, and nothing new starts."""
    config = PRESETS["S"]
    m = Module()
    m.submodules.mux = mux = kind(config, 1)
    client, axi, guard = mux.clients[0], mux.axi, mux.guard
    is_read = kind is ReadMux
    prefix = "ar" if is_read else "aw"
    valid, ready, addr = (getattr(axi, prefix + name) for name in ("valid", "ready", "addr"))
    seen = []

    answer = axi.rvalid if is_read else axi.bvalid
    data = (answer, answer) if is_read else (axi.wvalid, axi.wready)

    async def monitor(ctx):
        async for _, _, is_valid, is_ready, where, has_answer, has_data, takes_data, moved in ctx.tick().sample(
            valid, ready, addr, answer, *data, guard.moved
        ):
            assert moved == ((is_valid and is_ready) or (has_data and takes_data) or has_answer)
            if is_valid and is_ready:
                seen.append(where)

    async def testbench(ctx):
        assert ctx.get(guard.is_quiet)
        for takes in (1, 0):
            ctx.set(ready, takes)
            if not is_read:
                ctx.set(axi.wready, takes)
            await ctx.tick()
        ctx.set(client.bursts.p, {"addr": 0x40, "last_beat": 1})
        ctx.set(client.bursts.valid, 1)
        if not is_read:
            ctx.set(client.beats.valid, 1)
            ctx.set(client.beats.p, {"data": 1, "strobe": 255})
        await ctx.tick().repeat(8)
        ctx.set(guard.stop, 1)
        assert ctx.get(valid)
        assert not ctx.get(guard.is_quiet)
        assert ctx.get(guard.oldest_addr) == 0x40
        await ctx.tick().repeat(5)
        assert ctx.get(valid)
        ctx.set(ready, 1)
        if not is_read:
            ctx.set(axi.wready, 1)
        await ctx.tick().repeat(5)
        for last in (0, 1):
            assert not ctx.get(guard.is_quiet)
            if is_read:
                ctx.set(axi.rvalid, 1)
                ctx.set(axi.rlast, last)
            else:
                ctx.set(axi.bvalid, last)
            assert ctx.get(guard.moved) or not (is_read or last)
            await ctx.tick()
        ctx.set(axi.rvalid if is_read else axi.bvalid, 0)
        await ctx.tick().repeat(20)
        assert ctx.get(guard.is_quiet)
        assert seen == [0x40]
        ctx.set(guard.stop, 0)
        await ctx.tick().repeat(5)
        assert len(seen) > 1

    simulate(m, testbench, background=[monitor])
