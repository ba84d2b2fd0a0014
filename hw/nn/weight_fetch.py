"""Weight fetch: tap tables, stream directories and the weight streams of all cores."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import Burst, ReadPort
from convoy.hw.dma.record_assembler import RecordAssembler
from convoy.hw.dma.run_reader import RunReader
from convoy.hw.lib.idle import Rest, rested
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.queue import Queue
from convoy.hw.lib.register import data_register
from convoy.spec.config import PAGE_BYTES, NpuConfig
from convoy.spec.cycles import LOW_BEATS, TABLE_DEPTH_BEATS, TOKEN_PART_BITS
from convoy.spec.isa import NN, STREAM, TABLE_ALIGN_BYTES, TAP_BYTES

from .decoder import TAP_BITS, TapWrite, WeightBeat
from .gather import GATHER_FIELDS, Gather

__all__ = ["FETCH_FIELDS", "WeightFetcher"]

FETCH_FIELDS = (
    "tap_addr",
    "stream_addr",
    "wgt_addr",
    "num_taps",
    "num_sb",
    "num_groups",
    "is_swapped",
    "wait_nn",
    "src_bytes",
    *GATHER_FIELDS,
)
"""What the fetcher needs of an NN descriptor."""

STREAM_BYTES = STREAM.num_bytes
_RECORD_TAPS = STREAM_BYTES // TAP_BYTES
"""Taps in as many bytes as an entry of the stream directory has."""
_TAPS_LOG2 = exact_log2(_RECORD_TAPS)


class WeightFetcher(wiring.Component):
    """Reads the tables of a descriptor and keeps the weight queues of the cores full.

    For each superblock it takes `num_cores` entries of the stream directory; each core's stream is then read
    `num_groups` times, in bursts dealt in turn to the cores whose queue has room. With `is_swapped` the source is read
    instead, in the place of the directory, and `Gather` makes the streams of it.

    Members
    -------
    job : In(stream of FETCH_FIELDS)
    tables, weights : Out(ReadPort), tap table and directory, or source; weight streams
    is_oldest : In(1), every job before the one in work is complete
    is_made : In(1), the tensor processor has made what it waits for
    waits : Out(1), activations are to be gathered that are not in memory yet
    gives_way : In(1), other reads are urgent: fetch only for queues that hold less than `LOW_BEATS`
    tap_write : Out(TapWrite), to all cores; banks alternate, starting with bank 0
    beats : Out(WeightBeat), `beat_en` : Out(num_cores bits), a beat for the queues of these cores
    taken : In(num_cores bits), strobes when a beat leaves a core's queue

    Throughput: one beat per cycle; a burst takes `BURST_CYCLES` to set up, `SKIP_CYCLES` more for each core whose queue
    has no room; long bursts hide that.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*FETCH_FIELDS))),
                "tables": Out(ReadPort(config)),
                "weights": Out(ReadPort(config)),
                "is_oldest": In(1),
                "is_made": In(1, init=1),
                "waits": Out(1),
                "gives_way": In(1),
                "tap_write": Out(TapWrite),
                "beats": Out(WeightBeat(config)),
                "beat_en": Out(config.num_cores),
                "taken": In(config.num_cores),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        reader = RunReader(config, max(TABLE_DEPTH_BEATS, 2 * config.max_burst_beats))
        assembler = RecordAssembler(config, STREAM_BYTES)
        m.submodules.tables_rest = rest = Rest(tail_cycles=15)
        m.submodules.reader, m.submodules.assembler = (
            rested(unit, rest.is_active, platform, "tables") for unit in (reader, assembler)
        )
        m.submodules.streams = streams = WeightStreams(config, LOW_BEATS)
        wiring.connect(m, reader.port, wiring.flipped(self.tables))
        wiring.connect(m, streams.port, wiring.flipped(self.weights))
        m.submodules.gather = gather = Gather(config)
        m.d.comb += [
            Value.cast(assembler.beats.payload).eq(Value.cast(reader.beats.payload)),
            Value.cast(gather.beats.payload).eq(Value.cast(reader.beats.payload)),
            assembler.beats.valid.eq(reader.beats.valid & gather.is_idle),
            gather.beats.valid.eq(reader.beats.valid & ~gather.is_idle),
            reader.beats.ready.eq(Mux(gather.is_idle, assembler.beats.ready, gather.beats.ready)),
            self.beats.eq(streams.beats),
            *(
                en.eq((streams.beat_en & (streams.beat_core == core)) | gather.en[core])
                for core, en in enumerate(self.beat_en)
            ),
            streams.taken.eq(self.taken),
            streams.given.eq(gather.en),
            gather.has_room.eq(streams.has_room),
            streams.gives_way.eq(self.gives_way),
            rest.offered.eq(
                reader.runs.valid
                | reader.port.bursts.valid
                | reader.port.beats.valid
                | (gather.beats.valid & gather.beats.ready)
                | (assembler.records.valid & assembler.records.ready)
            ),
        ]
        with m.If(gather.en.any()):
            m.d.comb += [
                *(self.beats.data.word_select(part, TOKEN_PART_BITS).eq(gather.token) for part in range(2)),
                self.beats.last.eq(gather.last),
                self.beats.is_byte.eq(1),
                self.beats.is_last_group.eq(1),
                self.beats.is_last_sb.eq(1),
            ]

        job = Signal(self.job.payload.shape(), reset_less=True)
        tap, taps_left = Signal(_TAPS_LOG2), Signal(TAP_BITS)
        core, sb_left, bank = Signal(range(max(config.num_cores, 2))), Signal(16), Signal()
        records, runs = assembler.records, reader.runs
        m.d.comb += [
            streams.wgt_addr.eq(job.wgt_addr),
            streams.num_groups.eq(job.num_groups),
            streams.is_last_sb.eq(sb_left == 1),
            *(gather.job[name].eq(job[name]) for name in GATHER_FIELDS),
            streams.core.eq(core),
            streams.entry.eq(records.payload[: STREAM.num_bits]),
        ]
        m.d.sync += self.tap_write.en.eq(0)
        run = data_register(m, runs.payload)
        with m.If(runs.ready):
            m.d.sync += runs.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(1)
                with m.If(self.job.valid):
                    num_records = (self.job.payload.num_taps + _RECORD_TAPS - 1) >> _TAPS_LOG2
                    m.d.sync += [
                        job.eq(self.job.payload),
                        runs.valid.eq(1),
                        run.addr.eq(self.job.payload.tap_addr),
                        run.num_bytes.eq(num_records * STREAM_BYTES),
                        tap.eq(0),
                        taps_left.eq(self.job.payload.num_taps - 1),
                        core.eq(0),
                        sb_left.eq(self.job.payload.num_sb),
                    ]
                    m.next = "READ_TAPS"
            # The directory is requested as soon as the reader takes another run: a long tap table must be consumed
            # before it does
            with m.State("READ_TAPS"), m.If(runs.ready):
                m.d.sync += [
                    runs.valid.eq(~job.is_swapped),
                    run.addr.eq(job.stream_addr),
                    run.num_bytes.eq(job.num_sb << exact_log2(STREAM_BYTES * config.num_cores)),
                ]
                m.next = "TAPS"
            with m.State("TAPS"), m.If(records.valid):
                is_last_tap = taps_left == 0
                m.d.comb += records.ready.eq(tap.all() | is_last_tap)
                m.d.sync += [
                    self.tap_write.en.eq(1),
                    self.tap_write.bank.eq(bank),
                    self.tap_write.taps_left.eq(taps_left),
                    self.tap_write.offset.eq(records.payload.word_select(tap, 8 * TAP_BYTES)),
                    tap.eq(tap + 1),
                    taps_left.eq(taps_left - 1),
                ]
                with m.If(is_last_tap):
                    m.d.sync += bank.eq(~bank)
                    m.next = "STREAMS"
                    with m.If(job.is_swapped):
                        m.next = "SOURCE"
            with m.State("SOURCE"):
                m.d.comb += self.waits.eq(~self.is_made | (job.wait_nn & ~self.is_oldest))
                with m.If(streams.is_quiet & ~self.waits):
                    m.d.sync += [runs.valid.eq(1), run.addr.eq(job.src_addr), run.num_bytes.eq(job.src_bytes)]
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += gather.start.eq(1)
                m.next = "GATHER"
            with m.State("GATHER"), m.If(gather.is_idle):
                m.next = "IDLE"
            with m.State("STREAMS"), m.If(records.valid & streams.is_idle):
                m.d.comb += [records.ready.eq(1), streams.load.eq(1)]
                m.d.sync += core.eq(core + 1)
                with m.If(core == config.num_cores - 1):
                    m.d.sync += core.eq(0)
                    m.next = "START"
            with m.State("START"):
                m.d.comb += streams.start.eq(1)
                m.next = "FETCH"
            with m.State("FETCH"), m.If(streams.is_idle):
                m.d.sync += sb_left.eq(sb_left - 1)
                m.next = "STREAMS"
                with m.If(sb_left == 1):
                    m.next = "IDLE"
        return m


class WeightStreams(wiring.Component):
    """Reads one stream per core `num_groups` times, dealing bursts to the cores in turn.

    Members
    -------
    load, core, entry : In; set the stream of one core. An entry comes from memory: the low bits of its offset are
        ignored, 0 beats count as 1. `start` : In(1), with or after the last `load`; `is_idle` : Out(1), all requested
    wgt_addr, num_groups, is_last_sb : In, constant while not idle; the last goes with the beats
    gives_way : In(1), fetch only for queues that hold less than `low_beats`, counting what is requested
    port : Out(ReadPort)
    beats : Out(WeightBeat), `beat_core` : Out(core number), `beat_en` : Out(1), a beat for the queue of one core
    taken, given : In(num_cores bits), strobes when a beat leaves a core's queue; when another one is put into it while
        the unit `is_quiet`
    is_quiet : Out(1), idle, and all beats have come
    has_room : Out(1), every queue had room for `Gather.MIN_ROOM` beats in the cycle before
    """

    def __init__(self, config: NpuConfig, low_beats: int):
        self._config, self._low_beats = config, low_beats
        self._core_shape = range(max(config.num_cores, 2))
        super().__init__(
            {
                "load": In(1),
                "core": In(self._core_shape),
                "entry": In(STREAM.layout),
                "start": In(1),
                "is_idle": Out(1),
                "wgt_addr": In(32),
                "num_groups": In(16),
                "is_last_sb": In(1),
                "gives_way": In(1),
                "port": Out(ReadPort(config)),
                "beats": Out(WeightBeat(config)),
                "beat_core": Out(self._core_shape),
                "beat_en": Out(1),
                "taken": In(config.num_cores),
                "given": In(config.num_cores),
                "is_quiet": Out(1),
                "has_room": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        num_cores, depth = config.num_cores, config.weight_fifo_beats
        beat_log2, align_log2 = exact_log2(config.port_bytes), exact_log2(TABLE_ALIGN_BYTES)
        page_log2 = exact_log2(PAGE_BYTES) - beat_log2
        # For each core what is left to read of its stream, and behind that the stream; addresses count beats
        part = data.StructLayout({"addr": 32 - beat_log2, "left": 32})
        m.submodules.cores = cores = Memory(shape=part, depth=2 * max(num_cores, 2), init=[])
        write, read = cores.write_port(), cores.read_port(domain="comb")
        m.submodules.groups = groups = Memory(shape=unsigned(16), depth=max(num_cores, 2), init=[])
        groups_write, groups_read = groups.write_port(), groups.read_port(domain="comb")
        is_active, is_new = Signal(num_cores), Signal(num_cores)  # there is something to read, a whole stream next
        room = Array(Signal(range(depth + 1), init=depth, name=f"room_{n}") for n in range(num_cores))
        m.submodules.order = order = Queue(
            data.StructLayout(
                {"core": self._core_shape, "last_beat": 8, "is_end": 1, "is_last_group": 1, "is_last_sb": 1}
            ),
            2 * config.max_reads,
        )

        m.submodules.requests = requests = Queue(Burst, 2)  # keeps the arbiter's choice off the paths here
        wiring.connect(m, requests.o, wiring.flipped(self.port.bursts))
        bursts = requests.i

        # Choose a core, size its burst, request it
        turn = Signal(self._core_shape)
        chosen, is_chosen = (
            Signal(part),
            Signal(),
        )  # what the core whose turn it is has left to read; whether there is any
        groups_left = Signal(16)  # and for so many groups, with this one
        free, may_go = Signal(range(depth + 1)), Signal()
        length, is_end = Signal(range(config.max_burst_beats + 1)), Signal()
        most, is_rest = (
            Signal.like(length),
            Signal(),
        )  # what the page and max_burst_beats permit; all that is left to read is no more
        first_beat = Signal(exact_log2(config.max_burst_beats))  # within the page's block of max_burst_beats
        request, is_last_group = Signal(range(depth + 1)), Signal()
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.is_idle.eq(1)
                with m.If(self.start):
                    m.d.sync += [is_active.eq(~0), is_new.eq(~0)]
                    m.next = "CHOOSE"
            with m.State("CHOOSE"):
                m.d.sync += [
                    chosen.eq(read.data),
                    groups_left.eq(groups_read.data),
                    is_chosen.eq(is_active.bit_select(turn, 1)),
                    free.eq(room[turn]),
                    may_go.eq(~self.gives_way | (room[turn] + self._low_beats > depth)),
                ]
                m.next = "SIZE"
                with m.If(is_active == 0):
                    m.next = "IDLE"
            with m.State("SIZE"):
                left_low, left_high = chosen.left[: len(length)], chosen.left[len(length) :]
                m.d.comb += [
                    first_beat.eq(truncate(chosen.addr, first_beat.shape())),
                    most.eq(config.max_burst_beats),
                    is_rest.eq(~left_high.any() & (left_low <= most)),
                ]
                with m.If(chosen.addr[len(first_beat) : page_log2].all() & first_beat.any()):
                    m.d.comb += most.eq(truncate(-first_beat, first_beat.shape()))
                m.d.sync += [length.eq(Mux(is_rest, left_low, most)), is_end.eq(is_rest)]
                # The lesser of the two; which of them it is, is not waited for
                has_room = (~left_high.any() & (free >= left_low)) | (free >= most)
                with m.If(is_chosen & has_room & may_go & order.i.ready):
                    m.next = "REQUEST"
                with m.Else():
                    m.d.sync += turn.eq(Mux(turn == num_cores - 1, 0, turn + 1))
                    m.next = "CHOOSE"
            with m.State("REQUEST"):
                m.d.comb += [
                    bursts.valid.eq(1),
                    bursts.payload.addr.eq(chosen.addr << beat_log2),
                    bursts.payload.last_beat.eq(length - 1),
                    order.i.valid.eq(bursts.ready),
                    order.i.payload.core.eq(turn),
                    order.i.payload.last_beat.eq(length - 1),
                    order.i.payload.is_end.eq(is_end),
                    order.i.payload.is_last_group.eq(is_last_group),
                    order.i.payload.is_last_sb.eq(self.is_last_sb),
                ]
                with m.If(bursts.ready):
                    m.d.comb += request.eq(length)
                    m.d.sync += is_new.bit_select(turn, 1).eq(is_end)
                    with m.If(is_end & is_last_group):
                        m.d.sync += is_active.bit_select(turn, 1).eq(0)
                    m.d.sync += turn.eq(Mux(turn == num_cores - 1, 0, turn + 1))
                    m.next = "CHOOSE"
        base, num_beats = Signal(32 - align_log2), Signal(32)
        m.d.comb += [
            base.eq(self.wgt_addr[align_log2:] + self.entry.offset_bytes[align_log2:]),
            num_beats.eq(self.entry.num_beats | ~self.entry.num_beats.any()),
            is_last_group.eq(groups_left == 1),
            read.addr.eq(Cat(is_new.bit_select(turn, 1), turn)),
            write.addr.eq(Cat(Const(0, 1), turn)),
            write.en.eq(bursts.valid & bursts.ready),
            write.data.addr.eq(chosen.addr + length),
            write.data.left.eq(chosen.left - length),
            groups_read.addr.eq(turn),
            groups_write.addr.eq(turn),
            groups_write.en.eq(write.en & is_end),
            groups_write.data.eq(groups_left - 1),
        ]
        with m.If(self.load):
            m.d.comb += [
                write.en.eq(1),
                write.addr.eq(Cat(Const(1, 1), self.core)),
                write.data.addr.eq(base << (align_log2 - beat_log2)),
                write.data.left.eq(num_beats),
                groups_write.en.eq(1),
                groups_write.addr.eq(self.core),
                groups_write.data.eq(self.num_groups),
            ]
        for n in range(num_cores):
            m.d.sync += room[n].eq(room[n] + self.taken[n] - (Mux(turn == n, request, 0) | self.given[n]))
        m.d.comb += self.is_quiet.eq(self.is_idle & ~order.o.valid & ~self.beat_en)
        m.d.sync += self.has_room.eq(Cat(room[n][exact_log2(Gather.MIN_ROOM) :].any() for n in range(num_cores)).all())

        # Returning beats
        position = Signal(8)
        m.d.sync += self.beat_en.eq(self.port.beats.valid)
        with m.If(self.port.beats.valid):
            is_burst_end = position == order.o.payload.last_beat
            m.d.sync += [
                self.beats.data.eq(self.port.beats.payload),
                self.beats.last.eq(is_burst_end & order.o.payload.is_end),
                self.beats.is_last_group.eq(order.o.payload.is_last_group),
                self.beats.is_last_sb.eq(order.o.payload.is_last_sb),
                self.beat_core.eq(order.o.payload.core),
                position.eq(Mux(is_burst_end, 0, position + 1)),
            ]
            m.d.comb += order.o.ready.eq(is_burst_end)
        return m
