"""Round-robin arbitration."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

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
    index
        The choice, if `is_any`.
    """

    def __init__(self, num_requests: int):
        self.num_requests = num_requests
        super().__init__(
            {
                "requests": In(num_requests),
                "next_en": In(1),
                "is_any": Out(1),
                "index": Out(range(max(2, num_requests))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        last = Signal.like(self.index)
        m.d.comb += self.is_any.eq(self.requests.any())
        # Later assignments win: nearest index last.
        with m.Switch(last):
            for before in range(self.num_requests):
                with m.Case(before):
                    for distance in range(self.num_requests, 0, -1):
                        candidate = (before + distance) % self.num_requests
                        with m.If(self.requests[candidate]):
                            m.d.comb += self.index.eq(candidate)
        with m.If(self.next_en & self.is_any):
            m.d.sync += last.eq(self.index)
        return m
