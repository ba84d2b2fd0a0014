"""Writes chunks of bytes to memory."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.port import WritePort
from convoy.hw.lib.queue import Queue
from convoy.spec.config import NpuConfig

from .beat_packer import BeatPacker
from .burst_builder import BurstBuilder
from .types import Chunk

__all__ = ["Chunk", "ChunkWriter"]


class ChunkWriter(wiring.Component):
    """Writes chunks of bytes at any address, as long bursts where they follow one another.

    Throughput: one beat per cycle, and one chunk per cycle if `num_lanes` is at most `port_bytes`; a change of address
    costs at most one cycle more, the end of a job at most two. Chunks of the next jobs are accepted while up to four
    jobs await acknowledgement.

    Parameters
    ----------
    config
        Port width and burst length.
    num_lanes
        Bytes of a chunk, at least 1.

    Members
    -------
    chunks
        `Chunk(num_lanes)`. The first chunk of a job needs `start`.
    port
        The memory.
    done
        High for one cycle when all bytes of a job have been written and acknowledged; once per `last`, in order.
    """

    def __init__(self, config: NpuConfig, num_lanes: int):
        if num_lanes < 1:
            raise ValueError(f"num_lanes = {num_lanes!r} is less than 1")
        self.config = config
        self.num_lanes = num_lanes
        super().__init__(
            {"chunks": In(stream.Signature(Chunk(num_lanes))), "port": Out(WritePort(config)), "done": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.packer = packer = BeatPacker(self.config, self.num_lanes)
        m.submodules.builder = builder = BurstBuilder(self.config)
        m.submodules.queue = queue = Queue(
            Chunk(self.num_lanes), 2
        )  # so that the end of a burst does not hold the source of chunks in the same cycle
        wiring.connect(m, wiring.flipped(self.chunks), queue.i)
        wiring.connect(m, queue.o, packer.chunks)
        wiring.connect(m, packer.beats, builder.beats)
        wiring.connect(m, builder.port, wiring.flipped(self.port))
        m.d.comb += self.done.eq(builder.done)
        return m
