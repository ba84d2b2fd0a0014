"""The units that ask for bursts: whatever runs, chunks, tables and descriptors say, they ask for legal ones, and for
no more than they have room for.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.utils import exact_log2

from convoy.hw.ctrl.descriptor_fetch import Fetch
from convoy.hw.dma.beat_packer import BeatPacker
from convoy.hw.dma.burst_builder import BurstBuilder
from convoy.hw.dma.burst_splitter import BurstSplitter
from convoy.hw.dma.run_reader import RunReader
from convoy.spec.config import PAGE_BYTES, NpuConfig
from convoy.spec.isa import DESCRIPTOR_BYTES

from .bench import Bench

__all__ = ["burst_builder", "burst_splitter", "descriptor_fetch", "run_reader"]

NUM_LANES = 4


def burst_splitter(bench: Bench, config: NpuConfig):
    """Bursts of any runs, of any length and also of none, are legal and wait unchanged."""
    unit = BurstSplitter(config)
    inside = bench.put(unit)
    o = unit.bursts
    bench.legal(config, o.valid, o.p.burst)
    bench.stays("stays until taken", o.valid, o.ready, o.p)
    page_beats = PAGE_BYTES // config.port_bytes
    to_boundary = ~inside.beat_addr[: exact_log2(page_beats)]
    longest = config.max_burst_beats - 1
    bench.invariant(~inside.is_busy | (inside.limit == Mux(to_boundary > longest, longest, to_boundary)))
    bench.invariant(inside.is_busy | inside.is_last)
    bench.invariant(~inside.is_busy | ~inside.is_last | (inside.left <= inside.limit))
    bench.cover("the longest burst leaves", o.valid & o.ready & (o.p.burst.last_beat == config.max_burst_beats - 1))
    with bench.breaking("aligned", inside, "the address is that of a byte") as m:
        m.d.comb += o.p.burst.addr.eq((inside.beat_addr << exact_log2(config.port_bytes)) | 1)
    with bench.breaking(("in one page", "below 2^32"), inside, "bursts end at no page") as m:
        m.d.comb += inside.next_limit.eq(config.max_burst_beats - 1)
    with bench.breaking("length", inside, "the longest burst has a beat too many") as m:
        m.d.comb += o.p.burst.last_beat.eq(config.max_burst_beats)
    with bench.breaking("stays until taken", inside, "the address follows the input") as m:
        m.d.sync += inside.beat_addr.eq(inside.next_addr)


class _Writer(wiring.Component):
    """The part of a `ChunkWriter` that makes bursts of chunks."""

    def __init__(self, config: NpuConfig):
        self.packer, self.builder = BeatPacker(config, NUM_LANES), BurstBuilder(config)
        super().__init__(
            {"chunks": self.packer.signature.members["chunks"], "port": self.builder.signature.members["port"]}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.packer, m.submodules.builder = self.packer, self.builder
        wiring.connect(m, wiring.flipped(self.chunks), self.packer.chunks)
        wiring.connect(m, self.packer.beats, self.builder.beats)
        wiring.connect(m, self.builder.port, wiring.flipped(self.port))
        return m


def burst_builder(bench: Bench, config: NpuConfig):
    """Bursts of any chunks of bytes at any addresses are legal when they go into the queue in front of the port;
    packer and builder together.
    """
    unit = _Writer(config)
    bench.put(unit)
    packer, builder = bench.opened(unit.packer), bench.opened(unit.builder)
    request = builder.burst_queue.i
    bench.legal(config, request.valid, request.p)
    page_log2 = exact_log2(PAGE_BYTES // config.port_bytes)
    item, beats = builder.item.p, unit.packer.beats
    is_taken = beats.valid & beats.ready & item.has_beat

    last_taken = Signal.like(item.beat_addr)  # of the last beat that went into the builder
    with bench.m.If(is_taken):
        bench.m.d.sync += last_taken.eq(item.beat_addr)
    is_waiting = beats.valid & item.has_beat
    bench.invariant(
        ~(is_waiting & item.is_next)
        | ((item.beat_addr == (last_taken + 1)[: len(last_taken)]) & item.beat_addr[:page_log2].any())
    )
    has_beat = Signal()  # some beat has been made
    with bench.m.If(is_waiting):
        bench.m.d.sync += has_beat.eq(1)
    made = Mux(is_waiting, item.beat_addr, last_taken)
    bench.invariant(~(has_beat | is_waiting) | (packer.next_beat_addr == (made + 1)[: len(made)]))
    bench.invariant(has_beat | is_waiting | (packer.next_beat_addr == 0))
    bench.invariant(has_beat | ~builder.is_open)
    bench.invariant(~builder.is_open | (builder.last_beat < config.max_burst_beats))
    bench.invariant(~builder.is_open | ((builder.beat_addr + builder.last_beat)[: len(last_taken)] == last_taken))
    bench.invariant(~builder.is_open | (builder.beat_addr[:page_log2] + builder.last_beat < 1 << page_log2))
    bench.invariant(~builder.is_open | (builder.is_full == (builder.last_beat == config.max_burst_beats - 1)))
    bench.prove("place", Cat(~queue.i.valid | queue.i.ready for queue in builder.queues).all())
    bench.invariant(~builder.can_go | Cat(queue.level < queue.depth for queue in builder.queues).all())
    bench.cover(
        "a burst of two beats",
        request.valid & request.ready & (request.p.last_beat == min(1, config.max_burst_beats - 1)),
    )
    with bench.breaking("place", builder, "places are taken for granted") as m:
        m.d.sync += builder.can_go.eq(1)
    with bench.breaking("length", builder, "bursts are never full") as m:
        m.d.sync += builder.is_full.eq(0)
    with bench.breaking(("in one page", "below 2^32"), packer, "the page is not looked at") as m:
        m.d.sync += packer.out.is_next.eq(packer.beat_addr == packer.next_beat_addr)
    with bench.breaking("aligned", builder, "the address is that of a byte") as m:
        m.d.comb += request.p.addr.eq((builder.beat_addr << exact_log2(config.port_bytes)) | 1)


def run_reader(bench: Bench, config: NpuConfig):
    """No more beats are requested than fit beside those that are queued or on their way; the room is exact."""
    depth = 2 * config.max_burst_beats
    unit = RunReader(config, depth)
    inside = bench.put(unit)
    level, due = Signal(range(depth + 1)), Signal(range(depth + 1))
    arrives, asked = unit.port.beats.valid, Mux(inside.is_requested, inside.split.p.burst.last_beat + 1, 0)
    bench.assume("memory returns no beat that was not requested", ~arrives | (due != 0))
    bench.m.d.sync += [level.eq(level + arrives - inside.is_taken), due.eq(due + asked - arrives)]
    bench.assume("a queue that is empty gives nothing", ~inside.is_taken | (level != 0))
    bench.prove("room", ~inside.is_requested | (inside.room >= inside.split.p.burst.last_beat + 1))
    bench.invariant(inside.room + level + due == depth)
    bench.invariant(~inside.can_request | (inside.room >= config.max_burst_beats))
    pending = inside.pending
    bench.prove("place", ~pending.i.valid | pending.i.ready)
    bench.invariant(~inside.can_request | (pending.level < pending.depth))
    bench.invariant(~inside.split.valid | (inside.split.p.burst.last_beat < config.max_burst_beats))
    bench.cover("as much is on its way as there is room", due == depth)
    with bench.breaking(("room", "place"), inside, "room is taken for granted") as m:
        m.d.sync += inside.can_request.eq(1)


def descriptor_fetch(bench: Bench, config: NpuConfig):
    """Descriptors of any program are read in legal bursts, and only when all beats fit."""
    unit = Fetch(config)
    inside = bench.put(unit)
    o = unit.read.bursts
    num_beats = DESCRIPTOR_BYTES // config.port_bytes
    bench.assume(
        "the base is a multiple of a descriptor (Control masks it)", unit.base[: exact_log2(DESCRIPTOR_BYTES)] == 0
    )
    bench.legal(config, o.valid, o.p)
    bench.stays("stays until taken", o.valid, o.ready, o.p, unless=bench.past(unit.start))
    bench.assume("a program starts when the one before has ended", ~unit.start | unit.is_idle)
    bench.prove("room", ~o.valid | (inside.num_free >= inside.burst_beats))
    due, level = Signal(range(num_beats + 1)), Signal(range(num_beats + 1))
    bench.m.d.sync += [
        due.eq(due + Mux(inside.requested, inside.burst_beats, 0) - inside.arrived),
        level.eq(level + inside.arrived - inside.taken),
    ]
    bench.assume("memory returns no beat that was not requested", ~inside.arrived | (due != 0))
    bench.assume("a queue that is empty gives nothing", ~inside.taken | (level != 0))
    bench.invariant(inside.num_free + due + level == num_beats)
    bench.invariant(o.p.addr[: exact_log2(inside.burst_beats * config.port_bytes)] == 0)
    bench.cover("a burst leaves", o.valid & o.ready)
    with (
        bench.breaking(("aligned", "in one page", "below 2^32"), inside, "from burst to burst a byte is left out") as m,
        m.If(inside.requested),
    ):
        m.d.sync += o.p.addr.eq(o.p.addr + inside.burst_beats * config.port_bytes + 1)
    with bench.breaking("length", inside, "a burst has a beat too many") as m:
        m.d.comb += o.p.last_beat.eq(config.max_burst_beats)
    with bench.breaking("stays until taken", inside, "the address goes on by itself") as m:
        m.d.sync += o.p.addr.eq(o.p.addr + DESCRIPTOR_BYTES)
    with bench.breaking("room", inside, "a burst is requested while one is on its way") as m:
        m.d.comb += inside.offers.eq(1)
