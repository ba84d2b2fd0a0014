"""Choices that cost little logic: by flip-flops that are cleared, and by bits made once.

A flip-flop's reset is an AND without a LUT, and four values of which at most one is not zero are one LUT per bit, where
a multiplexer of four takes three.
"""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

__all__ = ["any_of", "below", "gated", "one_hot", "rotated", "rotated_late", "shifted_late"]


def one_hot(index: Value) -> Value:
    """A bit for each value of `index`, which says that it has that."""
    return Cat(index == n for n in range(1 << len(index)))


def below(index: Value, count: int) -> Value:
    """`count` bits: bit n says that n is less than `index`, which is not negative. Without a carry chain."""
    bits = [Const(0, 1)]
    for bit in index:
        bits = [low | bit for low in bits] + [low & bit for low in bits]
    return Cat(bits + [Const(0, 1)] * (count - len(bits)))[:count]


def any_of(values) -> Value:
    """The one of `values` that is not zero."""
    return reduce(or_, values)


def gated(m: Module, value: Value, is_chosen: Value, *, name: str) -> Signal:
    """A register of `value`, or of zero when it is not chosen."""
    register = Signal(len(value), reset_less=True, name=name)
    m.d.sync += register.eq(Mux(is_chosen, value, 0))
    return register


def rotated(m: Module, value: Value, turn: Value, item_bits: int, *, name: str, is_left: bool = False) -> Value:
    """`value` rotated right, or left, by `turn` items: a row of multiplexers for each bit of `turn`, each row a signal,
    for what is an expression is written out wherever it is read.
    """
    for n, bit in enumerate(turn):
        row = Signal(len(value), name=f"{name}_{n}")
        by = item_bits << n
        m.d.comb += row.eq(Mux(bit, value.rotate_left(by) if is_left else value.rotate_right(by), value))
        value = row
    return value


def rotated_late(m: Module, value: Value, turn: Value, item_bits: int, *, name: str) -> Value:
    """The same, a cycle later, by a register of `value` for each `turn`."""
    return any_of(
        gated(m, value, bit, name=f"{name}_{n}").rotate_right(n * item_bits) for n, bit in enumerate(one_hot(turn))
    )


def shifted_late(m: Module, value: Value, is_chosen: Value, step: int, *, name: str) -> Value:
    """`value` shifted right by `step` times the number of the bit of `is_chosen` that is set, its sign kept, a cycle
    later; by a register for each bit.
    """
    copies = [gated(m, value[n * step :], bit, name=f"{name}_{n}").as_signed() for n, bit in enumerate(is_chosen)]
    return any_of(Cat(copy, copy[-1].replicate(len(value) - len(copy))) for copy in copies)
