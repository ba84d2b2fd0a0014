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

TOTALS = st.fixed_dictionaries({name: st.integers(0, 2**32 - 1) for name in COMPLETION.fields})


def simulate(config, records, *, stall, seed=0, base=0x40):
    """Put (index, totals) alternately into the two inputs; the memory afterwards."""
    dut = Recorder(config)
    memory = WritePortMemory(config, dut.write, bytearray(1024), latency_cycles=5, go=sometimes(random.Random(seed), 1 - stall))
    left = [1, 1]

    def feed(which):
        async def testbench(ctx):
            port = dut.completed[which]
            for index, totals in records[which::2]:
                ctx.set(port.payload, {"index": index, "totals": totals})
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                ctx.set(port.valid, 0)
                assert not ctx.get(dut.is_idle)
            left[which] = 0
            while any(left) or not ctx.get(dut.is_idle):
                await ctx.tick()

        return testbench

    async def set_base(ctx):
        ctx.set(dut.base, base)

    run(dut, set_base, feed(0), feed(1), background=[memory.process])
    return memory.contents


@pytest.mark.parametrize(("port_bits", "max_burst_beats"), [(32, 16), (32, 1), (64, 16), (64, 1), (128, 2), (256, 16)])
def test_bytes(port_bits, max_burst_beats):
    records = [(index, dict(zip(COMPLETION.fields, (index, 2, 3, 0xFFFFFFFF), strict=True))) for index in (3, 0, 1, 2)]
    raw = simulate(PRESETS["S"].with_(port_bits=port_bits, max_burst_beats=max_burst_beats), records, stall=0.3)
    expected = bytearray(len(raw))
    for index, totals in records:
        expected[0x40 + 16 * index : 0x50 + 16 * index] = COMPLETION.encode(**totals)
    assert raw == expected


@given(st.lists(TOTALS, min_size=1, max_size=8), st.integers(0, 2**16), st.sampled_from((32, 64, 256)))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_any(totals, seed, port_bits):
    raw = simulate(PRESETS["S"].with_(port_bits=port_bits), list(enumerate(totals)), stall=0.5, seed=seed)
    for index, values in enumerate(totals):
        assert COMPLETION.decode(bytes(raw[0x40 + 16 * index : 0x50 + 16 * index])) == values
