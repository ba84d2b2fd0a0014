"""The weight streams: whatever the stream directory says."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

from amaranth.hdl import Array, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.utils import exact_log2

from convoy.hw.nn import weight_fetch as fetch
from convoy.spec.config import NpuConfig

from .bench import Bench

__all__ = ["weight_streams"]

LOW_BEATS = 8


class _Registers(wiring.Component):
    """A `Memory` of a few rows as registers, which the induction can speak of.

    One port to write, one to read in the same cycle.
    """

    def __init__(self, *, shape, depth: int, init):
        self.rows = [Signal(shape, name=f"row_{n}", reset_less=True) for n in range(depth)]
        self._write = SimpleNamespace(addr=Signal(range(depth)), data=Signal(shape), en=Signal())
        self._read = SimpleNamespace(addr=Signal(range(depth)), data=Signal(shape))
        super().__init__({})

    def write_port(self):
        return self._write

    def read_port(self, *, domain: str):
        if domain != "comb":
            raise ValueError(f"domain = {domain!r}: only 'comb' is modelled")
        return self._read

    def elaborate(self, platform):
        m = Module()
        m.d.comb += Value.cast(self._read.data).eq(Value.cast(Array(self.rows)[self._read.addr]))
        with m.If(self._write.en):
            m.d.sync += Value.cast(Array(Value.cast(row) for row in self.rows)[self._write.addr]).eq(
                Value.cast(self._write.data)
            )
        return m


@contextmanager
def _registers():
    memory, fetch.Memory = fetch.Memory, _Registers
    try:
        yield
    finally:
        fetch.Memory = memory


def weight_streams(bench: Bench, config: NpuConfig):
    """Bursts of any streams, of any length and also of none, are legal, and no core's queue is asked for more beats
    than it has room for.
    """
    unit = fetch.WeightStreams(config, LOW_BEATS)
    with _registers():
        inside = bench.put(unit)
    m, burst, rows = bench.m, inside.bursts.p, inside.cores.rows
    is_loaded = Signal(config.num_cores)
    with m.If(unit.load):
        m.d.sync += is_loaded.bit_select(unit.core, 1).eq(1)
    bench.assume(
        "streams are loaded and started while the unit is idle (WeightFetcher)",
        (~unit.load & ~unit.start) | unit.is_idle,
    )
    bench.assume(
        "a stream is loaded for every core before the first start (WeightFetcher)", ~unit.start | is_loaded.all()
    )
    bench.assume("core is the number of a core (WeightFetcher counts it)", unit.core < config.num_cores)
    bench.assume(
        "others fill the queues only while the unit is quiet (WeightFetcher)", ~unit.given.any() | unit.is_quiet
    )
    depth, room = config.weight_fifo_beats, inside.room
    for core in range(config.num_cores):
        bench.assume("and only where there is room (Gather)", ~unit.given[core] | (room[core] != 0))
        bench.assume("a core takes only beats that it was given", ~unit.taken[core] | (room[core] != depth))
        bench.invariant(room[core] <= depth)
        rest, stream = rows[2 * core], rows[2 * core + 1]
        bench.invariant(~is_loaded[core] | (stream.left != 0))
        bench.invariant(~inside.is_active[core] | is_loaded[core])
        bench.invariant(~inside.is_active[core] | inside.is_new[core] | (rest.left != 0))
    bench.invariant(inside.turn < config.num_cores)
    bench.invariant(~inside.is_chosen | (inside.chosen.left != 0))
    bench.legal(config, inside.bursts.valid, burst)
    bench.stays("stays until taken", inside.bursts.valid, inside.bursts.ready, burst)
    bench.prove("room", ~inside.bursts.valid | (room[inside.turn] > burst.last_beat))
    bench.invariant(~inside.bursts.valid | (inside.length == burst.last_beat + 1))
    bench.invariant(~inside.bursts.valid | inside.is_chosen)
    bench.invariant(~inside.bursts.valid | ~inside.is_end | (inside.chosen.left == inside.length))
    bench.invariant(~inside.bursts.valid | inside.is_end | (inside.chosen.left > inside.length))
    bench.cover(
        "the longest burst leaves",
        inside.bursts.valid & inside.bursts.ready & (burst.last_beat == config.max_burst_beats - 1),
    )
    with bench.breaking("length", inside, "a stream of no beats is taken at its word") as broken:
        broken.d.comb += inside.num_beats.eq(unit.entry.num_beats)
    with bench.breaking("aligned", inside, "the address is that of a byte") as broken:
        broken.d.comb += burst.addr.eq((inside.chosen.addr << exact_log2(config.port_bytes)) | 1)
    with (
        bench.breaking("stays until taken", inside, "a request stands for a cycle only") as broken,
        broken.If(inside.bursts.valid),
    ):
        broken.d.sync += inside.length.eq(inside.length + 1)
    with bench.breaking(("in one page", "below 2^32"), inside, "bursts end at no page") as broken:
        broken.d.comb += inside.most.eq(config.max_burst_beats)
    with bench.breaking("room", inside, "room is taken for granted") as broken:
        broken.d.sync += inside.free.eq(depth)
