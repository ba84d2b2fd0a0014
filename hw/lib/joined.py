"""A subtraction that costs no more than its carry chain, although what it subtracts from comes from three places."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["JoinedDifference"]


class JoinedDifference(wiring.Component):
    """`difference = (a & b & c) - subtrahend`, wrapped. Combinational.

    For values of which all but one are all ones: that one is subtracted from. Where numbers are kept inverted this adds
    to them, `~x - y` being `~(x + y)`, and the registers of those that are not asked are set.

    It is a module of its own so that a technology can make it of what it has: each bit is half a carry cell of an ECP5
    and no look-up table besides (bench/synth/joined.v).

    Parameters
    ----------
    num_bits : int
        Of each.
    """

    def __init__(self, num_bits: int):
        super().__init__({**dict.fromkeys(("a", "b", "c", "subtrahend"), In(num_bits)), "difference": Out(num_bits)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.difference.eq((self.a & self.b & self.c) - self.subtrahend)
        return m
