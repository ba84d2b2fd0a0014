"""The guard alone: whatever is offered to it."""

from amaranth.hdl import Cat, Mux, Signal, Value

from convoy.hw.bus.guard import ALIGN_LOG2, Guard, Window
from convoy.spec.config import NpuConfig
from convoy.spec.csr import NUM_WINDOWS
from convoy.verif.formal.bench import Bench, in_window, is_legal


def guard(bench: Bench, config: NpuConfig):
    """A burst that leaves lies in a window that was enabled in the cycle before it was first offered, and is legal."""
    unit = Guard(config, 2)
    inside = bench.put(unit)
    m, o = bench.m, unit.o
    burst = o.p.burst
    bench.legal(config, o.valid, burst.addr, burst.last_beat)
    bench.stays("stays", o.valid, o.ready, o.p, unless=unit.stop)

    given = Cat(*(Value.cast(window) for window in unit.windows), unit.is_open)
    judged, waits = Signal(len(given)), bench.past(o.valid & ~o.ready)
    m.d.comb += judged.eq(Mux(waits, bench.past(judged), bench.past(given)))
    size = len(Value.cast(unit.windows[0]))
    windows = [Window(judged[i * size:(i + 1) * size]) for i in range(NUM_WINDOWS)]
    def allowed(burst):
        return in_window(config, windows, judged[-1], burst.addr, burst.last_beat, ALIGN_LOG2)
    bench.prove("in a window", ~o.valid | allowed(burst))
    bench.invariant(~inside.is_checked | ~inside.is_allowed | allowed(inside.checked.burst))
    for condition in is_legal(config, inside.checked.burst.addr, inside.checked.burst.last_beat).values():
        bench.invariant(~inside.is_checked | ~inside.is_allowed | condition)
    bench.cover("a burst leaves", o.valid & o.ready)
    with bench.breaking("in a window", inside, "the upper end is not compared") as unit_m:
        unit_m.d.comb += inside.last_offset.eq(inside.burst.addr[:12])
