"""Lookup tables: any function of one byte, applied to the outputs of an engine."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.isa import LUT_BYTES, NN

__all__ = ["LUT_FIELDS", "Lut"]

LUT_FIELDS = ("has_lut", "lut_addr")
"""What `Lut` needs of a descriptor."""


class Lut(wiring.Component):
    """Fetches the table of a descriptor and looks up `num_lanes` bytes per cycle; passes them on unchanged if there
    is none.

    Outputs come `PIPELINE_CYCLES` cycles after their inputs, one set per cycle. A table is there about
    `LUT_BEAT_CYCLES * LUT_BYTES / port_bytes` cycles and a round trip to memory after `start`. Two lanes share a copy
    of it, in a block memory with two ports for every eight bytes of the memory port: a beat is written in two cycles,
    16 bits by each port. With a memory port of 32 bits it is written at once.

    Beats come one per cycle at the most, without back-pressure, and wait in a distributed memory, which one leaves
    every two cycles from the cycle after the first. When the last of n comes, at the earliest n - 1 cycles after the
    first, n / 2 - 1 have left and one is leaving: of n - 1 that came before n / 2 are there, and the last takes the
    place of the one that leaves. So n / 2 places are enough.

    Members
    -------
    job : In
        Fields of the descriptor, constant from `start` until its last byte has left.
    start : In(1)
        Strobe: fetch the table of `job`. Not while bytes are in the pipeline.
    is_ready : Out(1)
        From the cycle after `start`: the table is there, or none is needed. Bytes may follow from the next cycle on.
    port : Out(ReadPort)
    valid, lanes : In
    out_valid, outs : Out
    """

    PIPELINE_CYCLES = cycles.LUT_CYCLES
    """Cycles from `valid` to `out_valid`."""

    def __init__(self, config: NpuConfig, num_lanes: int):
        self._config, self._num_lanes = config, num_lanes
        self._part_bytes = min(config.port_bytes, 4 * cycles.LUT_BEAT_CYCLES)  # of a beat, in each memory
        self._num_parts = config.port_bytes // self._part_bytes
        super().__init__(
            {
                "job": In(NN.subset(*LUT_FIELDS)),
                "start": In(1),
                "is_ready": Out(1),
                "port": Out(ReadPort(config)),
                "valid": In(1),
                "lanes": In(data.ArrayLayout(8, num_lanes)),
                "out_valid": Out(1),
                "outs": Out(data.ArrayLayout(8, num_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        num_beats = LUT_BYTES // config.port_bytes
        burst_beats = min(num_beats, config.max_burst_beats)

        # The fetch: all bursts at once, their beats counted when they have been written.
        bursts = self.port.bursts
        num_bursts = num_beats // burst_beats
        num_requested = Signal(range(num_bursts + 1), init=num_bursts)
        is_due = Signal()
        row = Signal(range(num_beats))
        word_addr, words, is_writing, is_written = self._elaborate_beats(m, row)
        m.d.comb += [
            bursts.valid.eq(~num_requested[-1]),
            bursts.p.addr.eq(
                Cat(
                    Const(0, exact_log2(burst_beats * config.port_bytes)),
                    num_requested[:-1],
                    self.job.lut_addr[exact_log2(LUT_BYTES) :],
                )
            ),
            bursts.p.last_beat.eq(burst_beats - 1),
            self.is_ready.eq(~is_due),
        ]
        with m.If(is_written):
            m.d.sync += row.eq(row + 1)
            with m.If(row == num_beats - 1):
                m.d.sync += is_due.eq(0)
        with m.If(self.start):
            m.d.sync += [num_requested.eq(Mux(self.job.has_lut, 0, num_bursts)), is_due.eq(self.job.has_lut)]
        with m.Elif(bursts.valid & bursts.ready):
            m.d.sync += num_requested.eq(num_requested + 1)

        # The lookup: what the memories hold at the place of a byte, then the byte of that.
        byte_bits, part_bits = exact_log2(config.port_bytes), exact_log2(self._part_bytes)
        outs = data_register(m, self.outs)
        m.d.comb += self.out_valid.eq(delay(m, self.valid, self.PIPELINE_CYCLES, name="valid"))
        found = self._read(m, is_due, word_addr, words, is_writing)
        for lane, part_words in enumerate(found):
            byte = Signal(8, reset_less=True, name=f"byte_{lane}")
            place = Cat(byte[0], byte[part_bits:byte_bits])
            m.d.sync += [
                byte.eq(self.lanes[lane]),
                outs[lane].eq(Mux(self.job.has_lut, part_words.word_select(place, 8), byte)),
            ]
        return m

    def _elaborate_beats(self, m, row):
        """What is written into the memories in this cycle, which belongs to beat `row`: the address of the two words in
        each memory without its lowest bit, the two for each memory, whether there are any, and whether they are the
        last of the beat.
        """
        beats = self.port.beats
        if self._part_bytes == 4:
            return row, beats.p, beats.valid, beats.valid
        num_waiting = (1 << len(row)) // 2
        m.submodules.waiting = waiting = Memory(shape=self._config.port_bits, depth=num_waiting, init=[])
        write, read = waiting.write_port(), waiting.read_port(domain="comb")
        arrived, is_second = Signal.like(row), Signal()
        first, second = (
            Cat(read.data.word_select(n, 32) for n in range(part, 2 * self._num_parts, 2)) for part in (0, 1)
        )
        kept, words, is_writing = Signal.like(second, reset_less=True), Signal.like(second), Signal()
        m.d.comb += [
            write.addr.eq(truncate(arrived, write.addr.shape())),
            write.data.eq(beats.p),
            write.en.eq(beats.valid),
            read.addr.eq(truncate(row, read.addr.shape())),
            words.eq(Mux(is_second, kept, first)),
            is_writing.eq(arrived != row),
        ]
        m.d.sync += [kept.eq(second), arrived.eq(arrived + beats.valid), is_second.eq(is_writing & ~is_second)]
        return Cat(is_second, row), words, is_writing, is_second

    def _read(self, m, is_due, word_addr, words, is_writing):
        """What each lane finds a cycle later: a word of each part of a beat. A part is in a memory with a port for each
        of two lanes; both ports write.
        """
        config, num_lanes, num_parts = self._config, self._num_lanes, self._num_parts
        byte_bits, part_bits = exact_log2(config.port_bytes), exact_log2(self._part_bytes)
        found = [Signal(16 * num_parts, name=f"found_{lane}") for lane in range(num_lanes)]
        for first in range(0, num_lanes, 2):
            tables = [Memory(shape=16, depth=LUT_BYTES // 2 // num_parts, init=[]) for _ in range(num_parts)]
            for part, table in enumerate(tables):
                m.submodules[f"table_{first}_{part}"] = table
            for side in range(2):
                lane = first + side
                addr = Signal(1 + len(word_addr), name=f"addr_{lane}")
                m.d.comb += addr.eq(Cat(Const(side, 1), word_addr))
                if lane < num_lanes:
                    byte = self.lanes[lane]
                    with m.If(~is_due):
                        m.d.comb += addr.eq(Cat(byte[1:part_bits], byte[byte_bits:]))
                for part, table in enumerate(tables):
                    write = table.write_port()
                    m.d.comb += [
                        write.addr.eq(addr),
                        write.data.eq(words.word_select(2 * part + side, 16)),
                        write.en.eq(is_writing),
                    ]
                    if lane < num_lanes:
                        read = table.read_port()
                        m.d.comb += [read.addr.eq(addr), read.en.eq(1), found[lane].word_select(part, 16).eq(read.data)]
        return found
