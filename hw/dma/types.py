"""What flows between the DMA units and their clients."""

from amaranth.lib import data

__all__ = ["Chunk", "Run", "SkipBeat"]


class Run(data.Struct):
    """`num_bytes` (at least 1) consecutive bytes of memory from byte address `addr`, which needs no alignment."""

    addr: 32
    num_bytes: 32


class SkipBeat(data.StructLayout):
    """A beat of `num_bytes` bytes as it came from memory, and which of its bytes belong to the run.

    These are bytes `skip` to `skip + count - 1` of `data` (byte 0 in the low bits); `last` marks the last beat of a
    run.
    """

    def __init__(self, num_bytes: int):
        super().__init__({"data": 8 * num_bytes, "skip": range(num_bytes), "count": range(num_bytes + 1), "last": 1})


class Chunk(data.StructLayout):
    """Up to `num_lanes` bytes to write: the low `count` bytes of `data`.

    With `start` they go to byte address `addr`, otherwise they follow the byte written before. `last` ends a job;
    `count` may be 0.
    """

    def __init__(self, num_lanes: int):
        super().__init__({"data": 8 * num_lanes, "count": range(num_lanes + 1), "addr": 32, "start": 1, "last": 1})
