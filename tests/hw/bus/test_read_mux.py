import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from convoy.hw.bus.axi import Resp
from convoy.hw.bus.read_mux import ReadMux
from convoy.hw.dma.run_reader import RunReader
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import (
    READ_REQUEST_CYCLES,
    READ_RETURN_CYCLES,
    RUN_REQUEST_CYCLES,
    RUN_RETURN_CYCLES,
    WAITING_BURSTS,
)
from convoy.verif.pysim import AxiMemory, always, receive, send, simulate, sometimes

BASE = 0x8000_0000
CONTENTS = bytearray(random.Random(0).randbytes(1 << 14))


class System:
    """A `ReadMux` with a `RunReader` at each client, on a memory."""

    def __init__(self, num_clients, *, config=None, go=always, **memory_options):
        self.config = config or NpuConfig()
        self.module = m = Module()
        m.submodules.mux = self.mux = ReadMux(self.config, num_clients)
        self.readers = [RunReader(self.config, 64) for _ in range(num_clients)]
        for client, reader in zip(self.mux.clients, self.readers, strict=True):
            m.submodules += reader
            wiring.connect(m, client, reader.port)
        self.memory = AxiMemory(self.config, self.mux.axi, CONTENTS, base=BASE, go=go, **memory_options)
        self.beats_strobed = [0] * num_clients
        self.error_addrs = []

    async def watch(self, ctx):
        """Counts strobes and errors; checks the constant fields."""
        axi = self.mux.axi
        while True:
            _, _, strobes, error, addr, *constants = await ctx.tick().sample(
                self.mux.beat_strobe,
                self.mux.error,
                self.mux.error_addr,
                axi.rready,
                axi.arid,
                axi.arcache,
                axi.arprot,
                axi.arlock,
            )
            assert constants == [1, 0, 0b0011, 0, 0]
            for i in range(len(self.beats_strobed)):
                self.beats_strobed[i] += strobes >> i & 1
            if error:
                self.error_addrs.append(addr)

    def read(self, runs, *, go=always, cycles=None):
        """Reads a list of (offset, num_bytes) with each reader; checks all bytes unless there are errors; returns
        the beats.
        """
        results = [[] for _ in runs]

        def parties(i, reader):
            payloads = [{"addr": BASE + offset, "num_bytes": num_bytes} for offset, num_bytes in runs[i]]
            num_beats = sum(
                (offset % self.config.port_bytes + num_bytes - 1) // self.config.port_bytes + 1
                for offset, num_bytes in runs[i]
            )

            async def sender(ctx):
                await send(ctx, reader.runs, payloads, go=go)

            async def receiver(ctx):
                results[i] += await receive(ctx, reader.beats, num_beats, go=go, cycles=cycles if i == 0 else None)

            return sender, receiver

        testbenches = [party for i, reader in enumerate(self.readers) for party in parties(i, reader)]
        simulate(self.module, *testbenches, background=[self.memory.read_process, self.watch])
        return results

    def check(self, runs, results):
        for expected, beats in zip(runs, results, strict=True):
            got = b"".join(
                beat.data.to_bytes(self.config.port_bytes, "little")[beat.skip : beat.skip + beat.count]
                for beat in beats
            )
            assert got == b"".join(CONTENTS[offset : offset + num_bytes] for offset, num_bytes in expected)
        assert self.beats_strobed == [len(beats) for beats in results]


def test_a_page_takes_a_cycle_per_beat():
    system = System(1, latency_cycles=20)
    cycles = []
    runs = [[(0, 4096)]]
    system.check(runs, system.read(runs, cycles=cycles))
    first = RUN_REQUEST_CYCLES + READ_REQUEST_CYCLES + 20 + READ_RETURN_CYCLES + RUN_RETURN_CYCLES
    assert cycles == list(range(first, first + 512))
    assert system.memory.reads == [(BASE + 128 * i, 16) for i in range(32)]


def test_clients_take_turns():
    system = System(3)
    runs = [[(4096 * i, 1280)] for i in range(3)]
    system.check(runs, system.read(runs))
    turns = [(addr - BASE) // 4096 for addr, _ in system.memory.reads]
    assert all(sorted(turns[i : i + 3]) == [0, 1, 2] for i in range(0, 30, 3))


@pytest.mark.parametrize("max_reads", [1, 3, 8])
def test_bursts_in_flight(max_reads):
    system = System(2, config=NpuConfig(max_reads=max_reads), latency_cycles=60)
    runs = [[(32 * i, 8) for i in range(20)], [(8000 - 32 * i, 16) for i in range(20)]]
    system.check(runs, system.read(runs))
    assert system.memory.max_inflight_reads == max_reads


def test_bursts_that_wait():
    """The bus takes every request and answers none: the guard holds as many more as it has registers."""
    mux, accepted, requested = ReadMux(NpuConfig(max_reads=3), 1), [], []

    async def bench(ctx):
        bursts = mux.clients[0].bursts
        ctx.set(mux.axi.arready, 1)
        ctx.set(bursts.valid, 1)
        ctx.set(bursts.p.addr, BASE)
        for cycle in range(30):
            _, _, is_accepted, is_requested = await ctx.tick().sample(bursts.ready, mux.axi.arvalid)
            accepted.extend([cycle] * is_accepted)
            requested.extend([cycle] * is_requested)

    simulate(mux, bench)
    assert len(requested) == 3
    assert len(accepted) == 3 + WAITING_BURSTS
    assert requested[0] - accepted[0] == READ_REQUEST_CYCLES


@pytest.mark.parametrize("resp", [Resp.SLVERR, Resp.DECERR])
def test_errors_name_the_burst(resp):
    system = System(2, bad_addrs=[BASE + 128], bad_resp=int(resp))
    system.read([[(0, 512)], [(4096, 512)]])
    assert system.error_addrs == [BASE + 128] * 16


@pytest.mark.parametrize("seed", range(4))
def test_stalls(seed):
    rng = random.Random(seed)
    go = sometimes(rng, rng.choice([0.3, 0.6, 0.9]))
    config = NpuConfig(
        port_bits=rng.choice([32, 64, 256]), max_burst_beats=rng.choice([1, 4, 16]), max_reads=rng.choice([1, 4, 8])
    )
    system = System(3, config=config, go=go, latency_cycles=rng.randint(1, 20))
    runs = [[(rng.randrange(8000), rng.randint(1, 200)) for _ in range(6)] for _ in range(3)]
    system.check(runs, system.read(runs, go=go))
    assert system.error_addrs == []
