"""The memory windows: no burst leaves that they or AXI4 do not allow."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.spec.config import PAGE_BYTES, NpuConfig
from convoy.spec.csr import NUM_WINDOWS, WINDOW_ALIGN_BYTES

from .port import Burst

__all__ = ["ALIGN_LOG2", "Guard", "GuardSignature", "Window", "guarded_burst"]

ALIGN_LOG2 = exact_log2(WINDOW_ALIGN_BYTES)
"""Bits of an address below the granularity of windows."""
PAGE_LOG2 = exact_log2(PAGE_BYTES)


class Window(data.Struct):
    """A memory window in units of `WINDOW_ALIGN_BYTES`: `base` is the first, `limit` the one after the last;
    `enable`: the access is allowed.
    """

    base: 32 - ALIGN_LOG2
    limit: 32 - ALIGN_LOG2
    enable: 1


def guarded_burst(num_clients: int) -> data.StructLayout:
    """A burst and the number of the client that it is for."""
    return data.StructLayout({"burst": Burst, "client": range(max(2, num_clients))})


class GuardSignature(wiring.Signature):
    """What a multiplexer with a guard is told and tells, seen from the multiplexer.

    Members
    -------
    windows, is_open, stop, violation, violation_addr
        As in `Guard`.
    is_quiet
        No burst is under way on the bus; while `stop` is high, it stays so.
    oldest_addr
        The address of the oldest burst under way, if any.
    moved
        Something was handed over on one of the channels.
    """

    def __init__(self):
        super().__init__(
            {
                "windows": In(Window).array(NUM_WINDOWS),
                "is_open": In(1, init=1),
                "stop": In(1),
                "violation": Out(1),
                "violation_addr": Out(32),
                "is_quiet": Out(1),
                "oldest_addr": Out(32),
                "moved": Out(1),
            }
        )


class Guard(wiring.Component):
    """Passes the bursts that lie in an enabled window, or anywhere while no window of either direction is enabled.

    Whatever a client asks for, a burst passes only if it is aligned to the beat, is no longer than `max_burst_beats`,
    and its last byte lies in the 4 KiB page of its first one (so that none wraps at 2**32 either).

    A burst that is not allowed stays where it is and nothing passes any more until `stop`.

    Throughput: one burst per cycle. Latency: 2 cycles: one to compare, one to send; as many bursts (`WAITING_BURSTS`)
    wait inside.

    Members
    -------
    i, o
        Streams of `guarded_burst`.
    windows
        Of this direction.
    is_open
        No window is enabled, in either direction.
    stop
        Nothing passes; the burst inside is dropped.
    violation, violation_addr
        High while a burst that is not allowed stands here, and its address.
    """

    def __init__(self, config: NpuConfig, num_clients: int):
        self._config = config
        layout = guarded_burst(num_clients)
        super().__init__(
            {
                "i": In(stream.Signature(layout)),
                "o": Out(stream.Signature(layout)),
                "windows": In(Window).array(NUM_WINDOWS),
                "is_open": In(1),
                "stop": In(1),
                "violation": Out(1),
                "violation_addr": Out(32),
            }
        )

    def connect_to(self, m: Module, port: wiring.PureInterface):
        """Connect to the `GuardSignature` of the multiplexer that the guard is part of, what concerns the guard."""
        m.d.comb += [
            *(mine.eq(given) for mine, given in zip(self.windows, port.windows, strict=True)),
            self.is_open.eq(port.is_open),
            self.stop.eq(port.stop),
            port.violation.eq(self.violation),
            port.violation_addr.eq(self.violation_addr),
        ]

    def elaborate(self, platform):
        m = Module()
        port_log2 = exact_log2(self._config.port_bytes)
        held, checked = Signal(self.i.p.shape(), reset_less=True), Signal(self.i.p.shape(), reset_less=True)
        is_held, is_checked, is_allowed, is_moving = Signal(), Signal(), Signal(), Signal()
        was_legal = Signal(reset_less=True)
        was_inside = Signal(NUM_WINDOWS, reset_less=True)
        burst = held.burst

        # A legal burst stays within a page, so its last beat differs from the first one in the low bits only.
        last_offset = Signal(range((1 << PAGE_LOG2) + (256 << port_log2)))
        is_legal = Signal()
        m.d.comb += [
            last_offset.eq(burst.addr[:PAGE_LOG2] + (burst.last_beat << port_log2)),
            is_legal.eq(
                ~last_offset[PAGE_LOG2:].any()
                & ~burst.addr[:port_log2].any()
                & (burst.last_beat < self._config.max_burst_beats)
            ),
        ]
        last = Cat(last_offset[:PAGE_LOG2], burst.addr[PAGE_LOG2:])
        is_inside = [
            window.enable & (burst.addr[ALIGN_LOG2:] >= window.base) & (last[ALIGN_LOG2:] < window.limit)
            for window in self.windows
        ]
        m.d.comb += [
            is_allowed.eq(was_legal & was_inside.any()),
            self.o.valid.eq(is_checked & is_allowed & ~self.stop),
            Value.cast(self.o.p).eq(Value.cast(checked)),
            is_moving.eq(~is_checked | (self.o.valid & self.o.ready)),
            self.i.ready.eq(~is_held | is_moving),
            self.violation.eq(is_checked & ~is_allowed & ~self.stop),
            self.violation_addr.eq(checked.burst.addr),
        ]
        with m.If(is_moving):
            m.d.sync += [
                is_checked.eq(is_held),
                checked.eq(held),
                was_legal.eq(is_legal),
                was_inside.eq(Cat(self.is_open | is_its for is_its in is_inside)),
            ]
        with m.If(self.i.ready):
            m.d.sync += [is_held.eq(self.i.valid), held.eq(self.i.p)]
        with m.If(self.stop):
            m.d.sync += [is_held.eq(0), is_checked.eq(0)]
        return m
