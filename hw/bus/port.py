"""The NPU's internal memory ports: what a DMA client shows to the read and write multiplexers."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.config import NpuConfig

__all__ = ["Burst", "ReadPort", "WritePort", "write_beat"]


class Burst(data.Struct):
    """A burst of `last_beat + 1` beats from `addr`, a byte address aligned to the beat.

    Never crosses 4 KiB; the guard refuses one that does.
    """

    addr: 32
    last_beat: 8


def write_beat(config: NpuConfig) -> data.StructLayout:
    """A beat to write: data and one strobe per byte."""
    return data.StructLayout({"data": config.port_bits, "strobe": config.port_bytes})


class ReadPort(wiring.Signature):
    """Reads, seen from the client.

    Beats arrive in the order requested, without back-pressure: a client requests only what it has room for.
    """

    def __init__(self, config: NpuConfig):
        super().__init__(
            {"bursts": Out(stream.Signature(Burst)), "beats": In(stream.Signature(config.port_bits, always_ready=True))}
        )


class WritePort(wiring.Signature):
    """Writes, seen from the client.

    A client offers a burst only when all its beats are already queued, so that it never blocks the port;
    `done` is high for one cycle for each burst acknowledged, in order.
    """

    def __init__(self, config: NpuConfig):
        super().__init__(
            {"bursts": Out(stream.Signature(Burst)), "beats": Out(stream.Signature(write_beat(config))), "done": In(1)}
        )
