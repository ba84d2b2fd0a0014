"""Shares the AXI read channels among the NPU's readers."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.choose import any_of
from convoy.hw.lib.queue import Queue
from convoy.spec.config import NpuConfig

from .arbiter import RoundRobin
from .axi import AxiSignature, Resp
from .guard import Guard, GuardSignature
from .port import ReadPort

__all__ = ["AXI_BURST_INCR", "AXI_CACHE_BUFFERABLE", "AxiReadSignature", "ReadMux"]

AXI_BURST_INCR = 0b01
"""AxBURST: incrementing addresses."""
AXI_CACHE_BUFFERABLE = 0b0011
"""AxCACHE: normal, non-cacheable, bufferable."""


class AxiReadSignature(wiring.Signature):
    """The AR and R channels of `AxiSignature`."""

    def __init__(self, *, data_bits: int):
        members = AxiSignature(data_bits=data_bits).members
        super().__init__({name: member for name, member in members.items() if name.startswith(("ar", "r"))})


class ReadMux(wiring.Component):
    """Issues the bursts of all clients in turn, with one ID, and returns the beats to whoever asked for them.

    At most `max_reads` bursts are in flight. RREADY is always high.

    Throughput: one burst and one beat per cycle. Latency: `READ_REQUEST_CYCLES` from a client's request to AR,
    `READ_RETURN_CYCLES` from R to the client.

    Parameters
    ----------
    config
        Port width, bursts in flight.
    num_clients
        Clients, at least 1.

    Members
    -------
    clients
        A `ReadPort` for each.
    axi
        `AxiReadSignature`; from registers, but for RREADY.
    beat_strobe
        A bit per client: it gets a beat in this cycle.
    error
        High for one cycle for each beat answered with SLVERR or DECERR; the beat goes to its client all the same.
    error_addr
        The address of that beat's burst.
    guard
        `GuardSignature`: what may be read, and how to bring the port to rest.
    """

    def __init__(self, config: NpuConfig, num_clients: int):
        self.config = config
        self.num_clients = num_clients
        super().__init__(
            {
                "clients": In(ReadPort(config)).array(num_clients),
                "axi": Out(AxiReadSignature(data_bits=config.port_bits)),
                "beat_strobe": Out(num_clients),
                "error": Out(1),
                "error_addr": Out(32),
                "guard": Out(GuardSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi = self.axi
        m.submodules.arbiter = arbiter = RoundRobin(self.num_clients)
        m.submodules.order = order = Queue(
            data.StructLayout({"client": arbiter.index.shape(), "addr": 32}), self.config.max_reads
        )

        # Request: through the guard into the registers of AR; the order queue counts the bursts in flight.
        m.submodules.gate = gate = Guard(self.config, self.num_clients)
        bursts = [client.bursts for client in self.clients]
        m.d.comb += [
            arbiter.requests.eq(Cat(bursts_.valid for bursts_ in bursts)),
            arbiter.next_en.eq(gate.i.ready),
            gate.i.valid.eq(arbiter.is_any),
            gate.i.p.client.eq(arbiter.index),
            Value.cast(gate.i.p.burst).eq(
                any_of(Mux(chosen, bursts_.p, 0) for bursts_, chosen in zip(bursts, arbiter.chosen, strict=True))
            ),
            *(bursts_.ready.eq(gate.i.ready & chosen) for bursts_, chosen in zip(bursts, arbiter.chosen, strict=True)),
            gate.o.ready.eq((~axi.arvalid | axi.arready) & order.i.ready),
            order.i.valid.eq(gate.o.valid & gate.o.ready),
            order.i.p.client.eq(gate.o.p.client),
            order.i.p.addr.eq(gate.o.p.burst.addr),
            axi.arsize.eq(exact_log2(self.config.port_bytes)),
            axi.arburst.eq(AXI_BURST_INCR),
            axi.arcache.eq(AXI_CACHE_BUFFERABLE),
        ]
        gate.connect_to(m, self.guard)
        m.d.comb += [
            self.guard.is_quiet.eq(order.level == 0),
            self.guard.oldest_addr.eq(order.o.p.addr),
            self.guard.moved.eq((axi.arvalid & axi.arready) | axi.rvalid),
        ]
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(order.i.valid):
            m.d.sync += [axi.arvalid.eq(1), axi.araddr.eq(gate.o.p.burst.addr), axi.arlen.eq(gate.o.p.burst.last_beat)]

        # Return: through a register to the client at the head of the order queue.
        m.d.comb += [axi.rready.eq(1), order.o.ready.eq(axi.rvalid & axi.rlast)]
        beat = Signal(self.config.port_bits, reset_less=True)
        m.d.sync += [
            beat.eq(axi.rdata),
            *(self.beat_strobe[i].eq(axi.rvalid & (order.o.p.client == i)) for i in range(self.num_clients)),
            self.error.eq(axi.rvalid & ((axi.rresp == Resp.SLVERR) | (axi.rresp == Resp.DECERR))),
            self.error_addr.eq(order.o.p.addr),
        ]
        for i, client in enumerate(self.clients):
            m.d.comb += [client.beats.valid.eq(self.beat_strobe[i]), client.beats.p.eq(beat)]
        return m
