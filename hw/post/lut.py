"""Lookup tables: any function of one byte, applied to the outputs of an engine."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.lib.delay import delay
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
    `LUT_BYTES / port_bytes` cycles and a round trip to memory after `start`. Each lane has a copy of the table in
    distributed memory; with `is_block` two lanes share a copy, in a block memory with two ports for every four bytes of
    the memory port.

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

    def __init__(self, config: NpuConfig, num_lanes: int, *, is_block: bool = False):
        self._config, self._num_lanes, self._is_block = config, num_lanes, is_block
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

        # The fetch: all bursts at once, their beats counted.
        bursts, beats = self.port.bursts, self.port.beats
        num_requests = Signal(range(num_beats // burst_beats + 1))  # still to be made
        num_due = Signal(range(num_beats + 1))
        row = Signal(range(max(num_beats, 2)))
        m.d.comb += [
            bursts.valid.eq(num_requests != 0),
            bursts.p.last_beat.eq(burst_beats - 1),
            self.is_ready.eq(num_due == 0),
        ]
        with m.If(self.start):
            m.d.sync += [
                num_requests.eq(Mux(self.job.has_lut, num_beats // burst_beats, 0)),
                num_due.eq(Mux(self.job.has_lut, num_beats, 0)),
                bursts.p.addr.eq(self.job.lut_addr),
                row.eq(0),
            ]
        with m.Else():
            with m.If(bursts.valid & bursts.ready):
                m.d.sync += [
                    num_requests.eq(num_requests - 1),
                    bursts.p.addr.eq(bursts.p.addr + burst_beats * config.port_bytes),
                ]
            with m.If(beats.valid):
                m.d.sync += [num_due.eq(num_due - 1), row.eq(row + 1)]

        # The lookup: what the memories hold at the place of a byte, then the byte of that.
        byte_bits = exact_log2(config.port_bytes)
        outs = data_register(m, self.outs)
        m.d.comb += self.out_valid.eq(delay(m, self.valid, self.PIPELINE_CYCLES, name="valid"))
        found = self._read_blocks(m, row) if self._is_block else self._read_tables(m, row)
        for lane, words in enumerate(found):
            byte = Signal(8, reset_less=True, name=f"byte_{lane}")
            place = Cat(byte[0], byte[2:byte_bits]) if self._is_block else byte[:byte_bits]
            m.d.sync += [
                byte.eq(self.lanes[lane]),
                outs[lane].eq(Mux(self.job.has_lut, words.word_select(place, 8), byte)),
            ]
        return m

    def _read_tables(self, m, row):
        """What each lane finds a cycle later: a beat, from a memory of its own."""
        config, beats, found = self._config, self.port.beats, []
        for lane in range(self._num_lanes):
            table = Memory(shape=config.port_bits, depth=LUT_BYTES // config.port_bytes, init=[])
            m.submodules[f"table_{lane}"] = table
            write, read = table.write_port(), table.read_port()
            m.d.comb += [
                write.addr.eq(row),
                write.data.eq(beats.p),
                write.en.eq(beats.valid),
                read.addr.eq(self.lanes[lane][exact_log2(config.port_bytes) :]),
                read.en.eq(1),
            ]
            found.append(read.data)
        return found

    def _read_blocks(self, m, row):
        """What each lane finds a cycle later: of every four bytes of a beat two. These four are in a memory with a port
        for each of two lanes; both ports write.
        """
        config, beats, num_lanes = self._config, self.port.beats, self._num_lanes
        found = [Signal(config.port_bits // 2, name=f"found_{lane}") for lane in range(num_lanes)]
        num_rows = LUT_BYTES // config.port_bytes
        for first in range(0, num_lanes, 2):
            tables = [Memory(shape=16, depth=2 * num_rows, init=[]) for _ in range(config.port_bytes // 4)]
            for part, table in enumerate(tables):
                m.submodules[f"table_{first}_{part}"] = table
            for side in range(2):
                lane = first + side
                addr = Signal(range(2 * num_rows), name=f"addr_{lane}")
                m.d.comb += addr.eq(Cat(Const(side, 1), row))
                if lane < num_lanes:
                    byte = self.lanes[lane]
                    with m.If(~beats.valid):
                        m.d.comb += addr.eq(Cat(byte[1], byte[exact_log2(config.port_bytes) :]))
                for part, table in enumerate(tables):
                    write = table.write_port()
                    m.d.comb += [
                        write.addr.eq(addr),
                        write.data.eq(beats.p.word_select(2 * part + side, 16)),
                        write.en.eq(beats.valid),
                    ]
                    if lane < num_lanes:
                        read = table.read_port()
                        m.d.comb += [read.addr.eq(addr), read.en.eq(1), found[lane].word_select(part, 16).eq(read.data)]
        return found
