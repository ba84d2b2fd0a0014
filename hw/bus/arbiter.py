"""Round-robin arbitration."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.choose import any_of

__all__ = ["RoundRobin"]


class RoundRobin(wiring.Component):
    """Chooses among requests in turn: first the next index after the one chosen last.

    Latency: none; the choice is combinational. Fair: a standing request is chosen after at most `num_requests - 1`
    others.

    Members
    -------
    requests
        One bit per index.
    next_en
        The choice is taken in this cycle.
    is_any
        There is a request.
    chosen
        The bit of the choice, if `is_any`.
    index
        Its number.
    """

    def __init__(self, num_requests: int):
        self.num_requests = num_requests
        super().__init__(
            {
                "requests": In(num_requests),
                "next_en": In(1),
                "is_any": Out(1),
                "chosen": Out(num_requests),
                "index": Out(range(max(2, num_requests))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        is_after = Signal(self.num_requests, init=(1 << self.num_requests) - 2)  # the indices after the one chosen last
        after = self.requests & is_after
        m.d.comb += [
            self.is_any.eq(self.requests.any()),
            self.chosen.eq(Mux(after.any(), after & ~_below(after), self.requests & ~_below(self.requests))),
            self.index.eq(any_of(Mux(bit, n, 0) for n, bit in enumerate(self.chosen))),
        ]
        with m.If(self.next_en & self.is_any):
            m.d.sync += is_after.eq(_below(self.chosen))
        return m


def _below(bits: Value) -> Value:
    """For each bit, whether one below it is set."""
    return Cat(Const(0, 1), *(bits[:n].any() for n in range(1, len(bits))))
