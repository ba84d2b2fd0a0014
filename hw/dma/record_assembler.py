"""Puts records of a fixed size together from beats, or cuts beats into them."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.register import data_register
from convoy.spec.config import NpuConfig

from .types import SkipBeat

__all__ = ["RecordAssembler"]


class RecordAssembler(wiring.Component):
    """Makes records of the beats of runs, each of which is a number of whole records at an address that is a
    multiple of their size.

    Throughput: one record per cycle, or per `record_bytes / port_bytes` cycles on a port narrower than a record.
    Latency: 1 cycle.

    Parameters
    ----------
    config : NpuConfig
    record_bytes : int
        Size of a record, a power of two.

    Members
    -------
    beats : In(stream of SkipBeat(port_bytes))
    records : Out(stream of 8 * record_bytes bits), registered
    """

    def __init__(self, config: NpuConfig, record_bytes: int):
        self._port_bytes, self._record_bytes = config.port_bytes, record_bytes
        super().__init__(
            {
                "beats": In(stream.Signature(SkipBeat(config.port_bytes))),
                "records": Out(stream.Signature(8 * record_bytes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        port_bytes, record_bytes = self._port_bytes, self._record_bytes
        beat, records, record = self.beats.payload, self.records, data_register(m, self.records.payload)
        is_moving = Signal()
        m.d.comb += is_moving.eq(self.beats.valid & (~records.valid | records.ready))
        with m.If(records.ready):
            m.d.sync += records.valid.eq(0)
        if port_bytes <= record_bytes:
            index = Signal(range(max(2, record_bytes // port_bytes)))
            is_last = index == record_bytes // port_bytes - 1
            m.d.comb += self.beats.ready.eq(is_moving)
            with m.If(is_moving):
                m.d.sync += [
                    record.eq((record >> 8 * port_bytes) | (beat.data << 8 * (record_bytes - port_bytes))),
                    index.eq(index + 1),
                    records.valid.eq(is_last),
                ]
                with m.If(is_last):
                    m.d.sync += index.eq(0)
        else:
            size_log2 = exact_log2(record_bytes)
            index = Signal(exact_log2(port_bytes // record_bytes))  # records of the beat that have been taken
            is_last = index + 1 == beat.count >> size_log2
            m.d.comb += self.beats.ready.eq(is_moving & is_last)
            with m.If(is_moving):
                m.d.sync += [
                    record.eq(beat.data.word_select((beat.skip >> size_log2) + index, 8 * record_bytes)),
                    index.eq(index + 1),
                    records.valid.eq(1),
                ]
                with m.If(is_last):
                    m.d.sync += index.eq(0)
        return m
