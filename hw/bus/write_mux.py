"""Shares the AXI write channels among the NPU's writers."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.choose import any_of
from convoy.hw.lib.queue import Queue
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import MAX_WRITES

from .arbiter import RoundRobin
from .axi import AxiSignature, Resp
from .guard import Guard, GuardSignature
from .port import WritePort
from .read_mux import AXI_BURST_INCR, AXI_CACHE_BUFFERABLE

__all__ = ["AxiWriteSignature", "WriteMux"]


class AxiWriteSignature(wiring.Signature):
    """The AW, W and B channels of `AxiSignature`."""

    def __init__(self, *, data_bits: int):
        members = AxiSignature(data_bits=data_bits).members
        super().__init__({name: member for name, member in members.items() if name.startswith(("aw", "w", "b"))})


class WriteMux(wiring.Component):
    """Sends the bursts of all clients in turn, with one ID, and passes each acknowledgement to its client.

    At most `MAX_WRITES` bursts are in flight. WVALID never waits for AWREADY; the next burst's data wait until this
    burst's address has been taken. BREADY is always high.

    Throughput: one beat per cycle, also from burst to burst. Latency: `WRITE_REQUEST_CYCLES` from a client's
    request to AW, one more to W; `WRITE_RETURN_CYCLES` from B to `done`.

    Parameters
    ----------
    config
        Port width.
    num_clients
        Clients, at least 1.

    Members
    -------
    clients
        A `WritePort` for each.
    axi
        `AxiWriteSignature`; from registers, but for BREADY.
    num_bytes
        Bytes (strobes) that the bus has taken; each beat is counted in the cycle after its transfer.
    num_bytes_client
        Whose bytes these are.
    error
        High for one cycle for each burst answered with SLVERR or DECERR; its client gets `done` all the same.
    error_addr
        The address of that burst.
    guard
        `GuardSignature`: what may be written, and how to bring the port to rest; a burst whose address has gone gets
        its data first.
    """

    def __init__(self, config: NpuConfig, num_clients: int):
        self.config = config
        self.num_clients = num_clients
        super().__init__(
            {
                "clients": In(WritePort(config)).array(num_clients),
                "axi": Out(AxiWriteSignature(data_bits=config.port_bits)),
                "num_bytes": Out(range(config.port_bytes + 1)),
                "num_bytes_client": Out(range(max(2, num_clients))),
                "error": Out(1),
                "error_addr": Out(32),
                "guard": Out(GuardSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi = self.axi
        m.submodules.arbiter = arbiter = RoundRobin(self.num_clients)
        m.submodules.order = order = Queue(data.StructLayout({"client": arbiter.index.shape(), "addr": 32}), MAX_WRITES)

        # Address: a burst is chosen when the one before has passed its last beat on to W.
        is_active = Signal()  # the owner has beats to send
        owner = Signal.like(arbiter.index)
        beats_left = Signal(8)  # that follow the next one
        is_last_moved = Signal()
        m.submodules.gate = gate = Guard(self.config, self.num_clients)
        bursts = [client.bursts for client in self.clients]
        m.d.comb += [
            arbiter.requests.eq(Cat(bursts_.valid for bursts_ in bursts)),
            arbiter.next_en.eq(gate.i.ready),
            gate.i.valid.eq(arbiter.is_any),
            gate.i.p.client.eq(arbiter.index),
            gate.i.p.burst.eq(Array(bursts_.p for bursts_ in bursts)[arbiter.index]),
            *(bursts_.ready.eq(gate.i.ready & chosen) for bursts_, chosen in zip(bursts, arbiter.chosen, strict=True)),
            gate.o.ready.eq((~axi.awvalid | axi.awready) & order.i.ready & (~is_active | is_last_moved)),
            order.i.valid.eq(gate.o.valid & gate.o.ready),
            order.i.p.client.eq(gate.o.p.client),
            order.i.p.addr.eq(gate.o.p.burst.addr),
            axi.awsize.eq(exact_log2(self.config.port_bytes)),
            axi.awburst.eq(AXI_BURST_INCR),
            axi.awcache.eq(AXI_CACHE_BUFFERABLE),
        ]
        gate.connect_to(m, self.guard)
        m.d.comb += [
            self.guard.is_quiet.eq(order.level == 0),
            self.guard.oldest_addr.eq(order.o.p.addr),
            self.guard.moved.eq((axi.awvalid & axi.awready) | (axi.wvalid & axi.wready) | axi.bvalid),
        ]

        # Data: the owner's beats, through a register. One that came while that was held is spare, so that WREADY
        # reaches no client; the spare one is zero where there is none, and costs a choice nothing.
        beats = [client.beats for client in self.clients]
        sent = data.StructLayout({"beat": beats[0].p.shape(), "is_last": 1, "client": owner.shape()})
        sending, spare, w_client = Signal(sent), Signal(sent, reset_less=True), Signal.like(owner)
        has_spare, can_send, is_held, is_moved = Signal(), Signal(), Signal(), Signal()
        is_next = Signal(self.num_clients)
        own_beats = [Mux(is_its, beats_.p, 0) for beats_, is_its in zip(beats, is_next, strict=True)]
        m.d.comb += [
            can_send.eq(~axi.wvalid | axi.wready),
            is_next.eq(Cat(is_active & ~has_spare & (owner == i) for i in range(self.num_clients))),
            is_moved.eq((is_next & Cat(beats_.valid for beats_ in beats)).any()),
            is_last_moved.eq(is_moved & (beats_left == 0)),
            is_held.eq(~can_send & (is_moved | has_spare)),
            *(beats_.ready.eq(is_its) for beats_, is_its in zip(beats, is_next, strict=True)),
            Value.cast(sending.beat).eq(any_of([Value.cast(spare.beat), *own_beats])),
            sending.is_last.eq(Mux(has_spare, spare.is_last, beats_left == 0)),
            sending.client.eq(Mux(has_spare, spare.client, owner)),
        ]
        m.d.sync += [has_spare.eq(is_held), Value.cast(spare).eq(Mux(is_held, sending, 0))]
        with m.If(can_send):
            m.d.sync += [
                axi.wvalid.eq(is_moved | has_spare),
                axi.wdata.eq(sending.beat.data),
                axi.wstrb.eq(sending.beat.strobe),
                axi.wlast.eq(sending.is_last),
                w_client.eq(sending.client),
            ]
        with m.If(is_moved):
            m.d.sync += beats_left.eq(beats_left - 1)
        with m.If(is_last_moved):
            m.d.sync += is_active.eq(0)
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(order.i.valid):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(gate.o.p.burst.addr),
                axi.awlen.eq(gate.o.p.burst.last_beat),
                is_active.eq(1),
                owner.eq(gate.o.p.client),
                beats_left.eq(gate.o.p.burst.last_beat),
            ]
        m.d.sync += [
            self.num_bytes.eq(Mux(axi.wvalid & axi.wready, sum(axi.wstrb), 0)),
            self.num_bytes_client.eq(w_client),
        ]

        # Acknowledgement
        done = Signal(self.num_clients)
        m.d.comb += [axi.bready.eq(1), order.o.ready.eq(axi.bvalid)]
        m.d.comb += [client.done.eq(done[i]) for i, client in enumerate(self.clients)]
        m.d.sync += [
            *(done[i].eq(axi.bvalid & (order.o.p.client == i)) for i in range(self.num_clients)),
            self.error.eq(axi.bvalid & ((axi.bresp == Resp.SLVERR) | (axi.bresp == Resp.DECERR))),
            self.error_addr.eq(order.o.p.addr),
        ]
        return m
