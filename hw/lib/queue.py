"""A stream FIFO, in registers, in distributed or in block memory."""

from amaranth.hdl import Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from .register import data_register

__all__ = ["Queue"]


class Queue(wiring.Component):
    """A first-in first-out queue of stream payloads.

    Throughput: one payload in and one out per cycle. Latency: 1 cycle, with `is_block` 2 cycles. `i.ready` and
    `o.valid` follow from registers alone; a queue of two, which is there to cut such paths, is in registers altogether.

    Parameters
    ----------
    shape
        Payload of both streams.
    depth
        Payloads that fit, at least 1.
    is_block
        Use a memory with registered reads, which maps to block RAM; else one with asynchronous reads, for shallow
        queues.

    Members
    -------
    i, o
        The streams in and out.
    level
        Payloads inside, 0..depth.

    Raises
    ------
    ValueError
        When `depth` is less than 1.
    """

    def __init__(self, shape: ShapeLike, depth: int, *, is_block: bool = False):
        if depth < 1:
            raise ValueError(f"a queue of depth {depth!r} is not possible: use at least 1")
        self.depth = depth
        self._is_block = is_block
        super().__init__(
            {"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)), "level": Out(range(depth + 1))}
        )

    def elaborate(self, platform):
        m = Module()
        if self.depth == 2 and not self._is_block:
            self._elaborate_pair(m)
        else:
            self._elaborate_fifo(m)
        return m

    def _elaborate_pair(self, m):
        """The output's register, and one for the payload that came while that was held; until then it follows the
        input, whatever the output does.
        """
        payload, spare, has_spare = (
            data_register(m, self.o.payload),
            Signal.like(self.i.payload, reset_less=True),
            Signal(),
        )
        m.d.comb += [self.i.ready.eq(~has_spare), self.level.eq(self.o.valid + has_spare)]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [
                self.o.valid.eq(self.i.valid | has_spare),
                payload.eq(Mux(has_spare, spare, self.i.payload)),
                has_spare.eq(0),
            ]
        with m.Elif(self.i.valid):
            m.d.sync += has_spare.eq(1)
        with m.If(~has_spare):
            m.d.sync += spare.eq(self.i.payload)

    def _elaborate_fifo(self, m):
        payload = Value.cast(self.i.payload)
        kind = fifo.SyncFIFOBuffered if self._is_block else fifo.SyncFIFO
        m.submodules.fifo = inner = kind(width=len(payload), depth=self.depth)
        m.d.comb += [
            inner.w_data.eq(payload),
            inner.w_en.eq(self.i.valid),
            self.i.ready.eq(inner.w_rdy),
            Value.cast(self.o.payload).eq(inner.r_data),
            self.o.valid.eq(inner.r_rdy),
            inner.r_en.eq(self.o.ready),
            self.level.eq(inner.level),
        ]
