"""Completion records: bytes and addresses for every port width, acknowledgement, both inputs."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.ctrl.recorder import Recorder
from convoy.spec.config import PRESETS
from convoy.spec.isa import COMPLETION
from convoy.verif.pysim import WritePortMemory, sometimes
from convoy.verif.pysim import simulate as run

BASE, SIZE = 0x40, COMPLETION.num_bytes
TOTALS = st.fixed_dictionaries({name: st.integers(0, 2**32 - 1) for name in COMPLETION.fields})


def simulate(config, records, *, stall, seed=0):
    """Put (index, totals) alternately into the two inputs, each with its totals until it is taken; the memory
    afterwards.
    """
    dut = Recorder(config)
    memory = WritePortMemory(
        config, dut.write, bytearray(1024), latency_cycles=5, go=sometimes(random.Random(seed), 1 - stall)
    )

    async def feed(ctx):
        ctx.set(dut.base, BASE)
        for n, (index, totals) in enumerate(records):
            port = dut.completed[n % 2]
            ctx.set(dut.totals, totals)
            ctx.set(port.payload, index)
            ctx.set(port.valid, 1)
            await ctx.tick().until(port.ready)
            ctx.set(port.valid, 0)
            ctx.set(dut.totals, {})
            assert not ctx.get(dut.is_idle)
        while not ctx.get(dut.is_idle):
            await ctx.tick()

    run(dut, feed, background=[memory.process])
    return memory.contents


@pytest.mark.parametrize(("port_bits", "max_burst_beats"), [(32, 16), (32, 1), (64, 16), (64, 1), (128, 2), (256, 16)])
def test_bytes(port_bits, max_burst_beats):
    records = [
        (index, dict.fromkeys(COMPLETION.fields, 3) | {"cycle": index, "tp_cycles": 0xFFFFFFFF})
        for index in (3, 0, 1, 2)
    ]
    raw = simulate(PRESETS["S"].with_(port_bits=port_bits, max_burst_beats=max_burst_beats), records, stall=0.3)
    expected = bytearray(len(raw))
    for index, totals in records:
        expected[BASE + SIZE * index : BASE + SIZE * (index + 1)] = COMPLETION.encode(**totals)
    assert raw == expected


def test_both_inputs_at_once():
    """Input 0 first; each gets the totals of the cycle in which it is taken."""
    config = PRESETS["S"]
    dut = Recorder(config)
    memory = WritePortMemory(config, dut.write, bytearray(1024), latency_cycles=5, go=lambda: True)

    async def feed(ctx):
        ctx.set(dut.base, BASE)
        for index, port in enumerate(dut.completed):
            ctx.set(port.payload, index)
            ctx.set(port.valid, 1)
        for cycle in range(30):
            ctx.set(dut.totals.cycle, cycle)
            _, _, *taken = await ctx.tick().sample(*(port.ready for port in dut.completed))
            for port, is_taken in zip(dut.completed, taken, strict=True):
                if is_taken:
                    ctx.set(port.valid, 0)

    run(dut, feed, background=[memory.process])
    cycles = [
        COMPLETION.decode(bytes(memory.contents[BASE + SIZE * n : BASE + SIZE * (n + 1)]))["cycle"] for n in range(2)
    ]
    assert cycles == [0, 3 + SIZE // config.port_bytes]


@given(st.lists(TOTALS, min_size=1, max_size=8), st.integers(0, 2**16), st.sampled_from((32, 64, 256)))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_any(totals, seed, port_bits):
    raw = simulate(PRESETS["S"].with_(port_bits=port_bits), list(enumerate(totals)), stall=0.5, seed=seed)
    for index, values in enumerate(totals):
        assert COMPLETION.decode(bytes(raw[BASE + SIZE * index : BASE + SIZE * (index + 1)])) == values
