"""The guard and the two multiplexers around it: whatever the clients ask for."""

from amaranth.hdl import Cat, Value

from convoy.hw.bus.guard import ALIGN_LOG2, Guard
from convoy.hw.bus.read_mux import ReadMux
from convoy.hw.bus.write_mux import WriteMux
from convoy.spec.config import NpuConfig

from .bench import LEGAL, Bench, last_byte

__all__ = ["guard", "read_mux", "write_mux"]


class _Forbidden:
    """Any byte that no enabled window holds, the windows of the program being held."""

    def __init__(self, bench: Bench, config: NpuConfig, windows, is_open):
        self._config = config
        given = Cat(*(Value.cast(window) for window in windows), is_open)
        bench.assume(
            "the windows do not change while the NPU is busy (Register.is_held)",
            bench.is_first | (given == bench.past(given)),
        )
        self._byte = byte = bench.constant(32, "forbidden")
        unit = byte[ALIGN_LOG2:]
        self._is_forbidden = (
            ~is_open & ~Cat(window.enable & (window.base <= unit) & (unit < window.limit) for window in windows).any()
        )

    def is_spared(self, burst):
        """The burst does not touch the byte."""
        return (
            ~self._is_forbidden
            | (self._byte < burst.addr)
            | (last_byte(self._config, burst.addr, burst.last_beat) < self._byte)
        )


def _guarded(bench: Bench, config: NpuConfig, unit: Guard, forbidden: _Forbidden):
    """What the induction needs to know of the inside of a guard."""
    checked = unit.checked.burst
    bench.invariant(~unit.is_checked | ~unit.is_allowed | forbidden.is_spared(checked))
    bench.legal_invariant(config, unit.is_checked & unit.is_allowed, checked)


def guard(bench: Bench, config: NpuConfig):
    """No burst touches a byte outside the windows, and each is one that AXI4 allows."""
    unit = Guard(config, 2)
    inside = bench.put(unit)
    o = unit.o
    forbidden = _Forbidden(bench, config, unit.windows, unit.is_open)
    bench.legal(config, o.valid, o.p.burst)
    bench.prove("inside the windows", ~o.valid | forbidden.is_spared(o.p.burst))
    bench.stays("stays until taken", o.valid, o.ready, o.p, unless=unit.stop)
    _guarded(bench, config, inside, forbidden)
    bench.cover("a burst leaves", o.valid & o.ready & ~unit.is_open)
    bench.cover("a burst is refused", unit.violation)
    with bench.breaking("inside the windows", inside, "the end is not compared") as m:
        m.d.comb += inside.last_offset.eq(inside.burst.addr[:12])
    with bench.breaking("in one page", inside, "the sum of the low bits wraps") as m:
        m.d.comb += inside.last_offset[12:].eq(0)
    with bench.breaking(LEGAL, inside, "AXI's rules are not looked at") as m:
        m.d.comb += inside.is_legal.eq(1)
    with bench.breaking("stays until taken", inside, "another burst is taken while one waits") as m:
        m.d.comb += inside.is_moving.eq(1)


def _mux(bench: Bench, config: NpuConfig, kind, prefix: str):
    unit = kind(config, 2)
    inside = bench.put(unit)
    axi = unit.axi
    valid, ready, addr, length = (getattr(axi, prefix + name) for name in ("valid", "ready", "addr", "len"))
    forbidden = _Forbidden(bench, config, unit.guard.windows, unit.guard.is_open)
    burst = bench.burst(addr, length)
    bench.legal(config, valid, burst)
    bench.prove("inside the windows", ~valid | forbidden.is_spared(burst))
    constant = [getattr(axi, prefix + name) for name in ("id", "size", "burst", "lock", "cache", "prot")]
    bench.stays("stays until taken", valid, ready, Cat(addr, length, *constant))
    gate = bench.opened(inside.gate)
    _guarded(bench, config, gate, forbidden)
    bench.cover("a burst leaves", valid & ready & ~unit.guard.is_open)
    with bench.breaking("stays until taken", inside, "the next burst does not wait until this one is taken") as m:
        m.d.comb += inside.gate.o.ready.eq(inside.order.i.ready)
    with (
        bench.breaking("inside the windows", inside, "the guard's answer is for another address") as m,
        m.If(inside.order.i.valid),
    ):
        m.d.sync += addr.eq(inside.gate.o.p.burst.addr + 4096)
    with bench.breaking(LEGAL, gate, "the guard does not look at AXI's rules") as m:
        m.d.comb += gate.is_legal.eq(1)
    return unit, inside


def read_mux(bench: Bench, config: NpuConfig):
    """AR: no burst touches a byte outside the windows or breaks AXI4's rules, whatever the clients and the memory
    do.
    """
    _mux(bench, config, ReadMux, "ar")


def write_mux(bench: Bench, config: NpuConfig):
    """AW the same; and W stays until it is taken."""
    unit, inside = _mux(bench, config, WriteMux, "aw")
    axi = unit.axi
    bench.stays("data stay until taken", axi.wvalid, axi.wready, Cat(axi.wdata, axi.wstrb, axi.wlast))
    bench.cover("a last beat leaves", axi.wvalid & axi.wready & axi.wlast)
    with bench.breaking("data stay until taken", inside, "the next beat does not wait until this one is taken") as m:
        m.d.comb += inside.can_send.eq(1)
