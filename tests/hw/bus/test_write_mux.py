import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from convoy.hw.bus.axi import Resp
from convoy.hw.bus.write_mux import WriteMux
from convoy.hw.dma.chunk_writer import ChunkWriter
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import MAX_WRITES, WRITE_REQUEST_CYCLES, WRITE_RETURN_CYCLES
from convoy.verif.pysim import AxiMemory, always, send, simulate, sometimes

BASE = 0x8000_0000
MEMORY_BYTES = 1 << 15
CLIENT_BYTES = 1 << 13


class System:
    """A `WriteMux` with a `ChunkWriter` of 8 lanes at each client, on a memory in which each client has
    `CLIENT_BYTES`.
    """

    def __init__(self, num_clients, *, config=None, **memory_options):
        self.config = config or NpuConfig()
        self.module = m = Module()
        m.submodules.mux = self.mux = WriteMux(self.config, num_clients)
        self.writers = [ChunkWriter(self.config, 8) for _ in range(num_clients)]
        for client, writer in zip(self.mux.clients, self.writers, strict=True):
            m.submodules += writer
            wiring.connect(m, client, writer.port)
        self.contents = bytearray(MEMORY_BYTES)
        self.memory = AxiMemory(self.config, self.mux.axi, self.contents, base=BASE, **memory_options)
        self.num_bytes = [0] * num_clients
        self.error_addrs = []

    async def watch(self, ctx):
        """Counts bytes and errors; checks the constant fields."""
        mux, axi = self.mux, self.mux.axi
        while True:
            _, _, num_bytes, client, error, addr, *constants = await ctx.tick().sample(
                mux.num_bytes,
                mux.num_bytes_client,
                mux.error,
                mux.error_addr,
                axi.bready,
                axi.awid,
                axi.awcache,
                axi.awprot,
                axi.awlock,
            )
            assert constants == [1, 0, 0b0011, 0, 0]
            if num_bytes:
                self.num_bytes[client] += num_bytes
            if error:
                self.error_addrs.append(addr)

    def write(self, pieces, *, go=always):
        """Client i writes pieces[i], a list of (offset, bytes), as one job; returns when all are done."""

        def party(i, writer):
            chunks = []
            for offset, content in pieces[i]:
                for at in range(0, len(content), 8):
                    part = content[at : at + 8]
                    chunks.append(
                        {
                            "data": int.from_bytes(part, "little"),
                            "count": len(part),
                            "start": at == 0,
                            "last": 0,
                            "addr": BASE + i * CLIENT_BYTES + offset,
                        }
                    )
            chunks[-1]["last"] = 1

            async def run(ctx):
                await send(ctx, writer.chunks, chunks, go=go)
                while True:
                    _, _, done = await ctx.tick().sample(writer.done)
                    if done:
                        break
                for _ in range(5):
                    await ctx.tick()

            return run

        simulate(
            self.module,
            *(party(i, writer) for i, writer in enumerate(self.writers)),
            background=[self.memory.write_process, self.watch],
        )

    def check(self, pieces):
        expected = bytearray(MEMORY_BYTES)
        for i, client in enumerate(pieces):
            for offset, content in client:
                start = i * CLIENT_BYTES + offset
                expected[start : start + len(content)] = content
        assert self.contents == expected
        assert self.num_bytes == [sum(len(content) for _, content in client) for client in pieces]


def noise(num_bytes, seed=1):
    return random.Random(seed).randbytes(num_bytes)


def test_a_page_takes_a_cycle_per_beat():
    system = System(1)
    pieces = [[(0, noise(4096))]]
    system.write(pieces)
    system.check(pieces)
    cycles = system.memory.write_cycles
    assert cycles == list(range(cycles[0], cycles[0] + 512))


def test_clients_take_turns():
    system = System(3)
    pieces = [[(0, noise(1280, i))] for i in range(3)]
    system.write(pieces)
    system.check(pieces)
    owners = [(addr - BASE) // CLIENT_BYTES for addr, _ in system.memory.writes]
    assert all(sorted(owners[i : i + 3]) == [0, 1, 2] for i in range(0, 30, 3))
    cycles = system.memory.write_cycles
    assert cycles[-1] - cycles[0] + 1 <= 3 * 160 + 16  # the port is never idle for long


def test_bursts_in_flight():
    system = System(2, latency_cycles=100)
    pieces = [[(16 * k, b"x") for k in range(20)] for _ in range(2)]
    system.write(pieces)
    system.check(pieces)
    assert system.memory.max_inflight_writes == MAX_WRITES


def test_latency():
    """A burst of one beat on a bus that is always ready."""
    mux, seen = WriteMux(NpuConfig(), 1), []
    client, axi = mux.clients[0], mux.axi

    async def bench(ctx):
        for signal in (axi.awready, axi.wready, client.bursts.valid, client.beats.valid):
            ctx.set(signal, 1)
        ctx.set(client.bursts.p.addr, BASE)
        for cycle in range(20):
            ctx.set(axi.bvalid, cycle == 10)
            _, _, *events = await ctx.tick().sample(client.bursts.ready, axi.awvalid, axi.wvalid, client.done)
            seen.append(events)
            ctx.set(client.bursts.valid, 0)

    simulate(mux, bench)
    request, address, data, done = (column.index(1) for column in zip(*seen, strict=True))
    assert address - request == WRITE_REQUEST_CYCLES
    assert data - address == 1
    assert done - 10 == WRITE_RETURN_CYCLES


def test_the_bus_may_take_data_before_addresses():
    system = System(2, is_aw_late=True)
    pieces = [[(100 * k, noise(50, k)) for k in range(12)] for _ in range(2)]
    system.write(pieces)
    system.check(pieces)


def test_beats_may_come_late():
    """The bus is always ready, the client's beats have gaps: each goes out once, with its strobe, and the last one
    ends its burst.
    """
    mux, rng, taken = WriteMux(NpuConfig(), 1), random.Random(1), []
    client, axi = mux.clients[0], mux.axi
    beats = [(rng.getrandbits(64), rng.getrandbits(8)) for _ in range(12)]

    async def bus(ctx):
        ctx.set(axi.awready, 1)
        ctx.set(axi.wready, 1)
        async for _, _, valid, word, strobe, last in ctx.tick().sample(axi.wvalid, axi.wdata, axi.wstrb, axi.wlast):
            if valid:
                taken.append((word, strobe, last))

    async def requests(ctx):
        ctx.set(client.bursts.p, {"addr": BASE, "last_beat": 2})
        ctx.set(client.bursts.valid, 1)
        for _ in range(len(beats) // 3):
            await ctx.tick().until(client.bursts.ready)
        ctx.set(client.bursts.valid, 0)

    async def testbench(ctx):
        for word, strobe in beats:
            await ctx.tick().repeat(rng.randrange(1, 5))
            ctx.set(client.beats.p, {"data": word, "strobe": strobe})
            ctx.set(client.beats.valid, 1)
            await ctx.tick().until(client.beats.ready)
            ctx.set(client.beats.valid, 0)
        await ctx.tick().repeat(4)

    simulate(mux, testbench, background=[bus, requests])
    assert taken == [(word, strobe, number % 3 == 2) for number, (word, strobe) in enumerate(beats)]


@pytest.mark.parametrize("resp", [Resp.SLVERR, Resp.DECERR])
def test_errors_name_the_burst(resp):
    system = System(2, bad_addrs=[BASE + 128], bad_resp=int(resp))
    system.write([[(0, noise(512))], [(0, noise(300))]])
    assert system.error_addrs == [BASE + 128]


@pytest.mark.parametrize("seed", range(4))
def test_stalls(seed):
    rng = random.Random(seed)
    go = sometimes(rng, rng.choice([0.3, 0.6, 0.9]))
    config = NpuConfig(port_bits=rng.choice([32, 64, 256]), max_burst_beats=rng.choice([1, 4, 16]))
    system = System(3, config=config, go=go, latency_cycles=rng.randint(1, 20), is_aw_late=rng.random() < 0.5)
    pieces = [[(200 * k + rng.randrange(100), noise(rng.randint(1, 100), k)) for k in range(8)] for _ in range(3)]
    system.write(pieces, go=go)
    system.check(pieces)
    assert system.error_addrs == []
