"""Choices against what Python chooses."""

import random

from amaranth.hdl import Cat, Module, Signal, signed

from convoy.hw.lib.choose import any_of, below, gated, one_hot, rotated, rotated_late, shifted_late
from convoy.verif.pysim import simulate

ITEM_BITS = 8


def turned(items, turn):
    """`items` rotated right by `turn`, as an integer."""
    return int.from_bytes(bytes(items[(n + turn) % len(items)] for n in range(len(items))), "little")


def test_index_becomes_bits():
    m = Module()
    index, is_index, is_below, is_fewer = Signal(3), Signal(8), Signal(11), Signal(5)
    m.d.sync += [is_index.eq(one_hot(index)), is_below.eq(below(index, 11)), is_fewer.eq(below(index, 5))]

    async def bench(ctx):
        for n in range(8):
            ctx.set(index, n)
            await ctx.tick()
            assert ctx.get(is_index) == 1 << n
            assert ctx.get(is_below) == (1 << n) - 1
            assert ctx.get(is_fewer) == (1 << min(n, 5)) - 1

    simulate(m, bench)


def test_the_chosen_value_comes_a_cycle_later():
    m = Module()
    index, values, chosen = Signal(2), [Signal(ITEM_BITS, name=f"value_{n}") for n in range(4)], Signal(ITEM_BITS)
    is_chosen = one_hot(index)
    m.d.comb += chosen.eq(any_of(gated(m, value, is_chosen[n], name=f"own_{n}") for n, value in enumerate(values)))
    rng = random.Random(1)

    async def bench(ctx):
        for _ in range(20):
            items, n = rng.randbytes(4), rng.randrange(4)
            ctx.set(Cat(values), int.from_bytes(items, "little"))
            ctx.set(index, n)
            await ctx.tick()
            assert ctx.get(chosen) == items[n]

    simulate(m, bench)


def test_rotations():
    m = Module()
    value, turn, at_once, late = Signal(8 * ITEM_BITS), Signal(3), Signal(8 * ITEM_BITS), Signal(8 * ITEM_BITS)
    m.d.comb += [
        at_once.eq(rotated(m, value, turn, ITEM_BITS, name="row")),
        late.eq(rotated_late(m, value, turn, ITEM_BITS, name="copy")),
    ]
    rng = random.Random(2)

    async def bench(ctx):
        for _ in range(20):
            items, n = rng.randbytes(8), rng.randrange(8)
            ctx.set(value, int.from_bytes(items, "little"))
            ctx.set(turn, n)
            await ctx.delay(1e-10)
            assert ctx.get(at_once) == turned(items, n)
            await ctx.tick()
            assert ctx.get(late) == turned(items, n)

    simulate(m, bench)


def test_values_shifted_a_cycle_later():
    m = Module()
    value, index, shifted = Signal(signed(12)), Signal(2), Signal(signed(12))
    m.d.comb += shifted.eq(shifted_late(m, value, one_hot(index), 3, name="value"))

    async def bench(ctx):
        for number in (0, 1, -1, 0x7FF, -0x800, 0x2A5, -0x35A):
            for n in range(4):
                ctx.set(value, number)
                ctx.set(index, n)
                await ctx.tick()
                assert ctx.get(shifted) == number >> 3 * n

    simulate(m, bench)
