"""The compressor against a list comprehension."""

from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.post.compress import Compressor


def run(num_lanes, sets):
    dut = Compressor(num_lanes)
    seen = []

    async def bench(ctx):
        for cycle in range(len(sets) + dut.PIPELINE_CYCLES):
            entry = sets[cycle] if cycle < len(sets) else None
            ctx.set(dut.valid, entry is not None)
            if entry is not None:
                ctx.set(dut.mask, entry)
                for i in range(num_lanes):
                    ctx.set(dut.lanes[i], 0x80 + i + cycle)
            _, _, valid, out, count = await ctx.tick().sample(dut.out_valid, dut.out, dut.count)
            if cycle >= dut.PIPELINE_CYCLES:
                seen.append(list(out.to_bytes(num_lanes, "little")[:count]) if valid else None)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return seen


def expected(num_lanes, sets):
    return [
        None if mask is None else [0x80 + i + cycle for i in range(num_lanes) if mask >> i & 1]
        for cycle, mask in enumerate(sets)
    ]


def test_every_mask_of_few_lanes():
    for num_lanes in (1, 2, 4):
        sets = [*range(1 << num_lanes), None, 1]
        assert run(num_lanes, sets) == expected(num_lanes, sets)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(st.data(), st.sampled_from([8, 16]))
def test_masks(data, num_lanes):
    sets = data.draw(st.lists(st.one_of(st.none(), st.integers(0, (1 << num_lanes) - 1)), min_size=1, max_size=60))
    assert run(num_lanes, sets) == expected(num_lanes, sets)
