"""Helpers for tests on Amaranth's own simulator: stream drivers that stall, monitors, and models of memory.

All models are testbenches that run once per cycle; those of memory and the monitors are meant for `background`. Figures
of cycles count clock edges from the start of the simulation.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable

from amaranth.sim import Simulator

from convoy.spec.config import PAGE_BYTES

__all__ = [
    "AxiMemory",
    "ReadPortMemory",
    "WritePortMemory",
    "always",
    "monitor",
    "receive",
    "send",
    "simulate",
    "sometimes",
]


def always() -> bool:
    """The `go` of a party that never stalls."""
    return True


def sometimes(rng: random.Random, probability: float) -> Callable[[], bool]:
    """The `go` of a party that proceeds in a cycle with this probability."""
    return lambda: rng.random() < probability


def simulate(dut, *testbenches, background: Iterable = (), max_cycles: int = 100_000) -> None:
    """Simulates `dut` until all `testbenches` (async functions of the context) have ended.

    Raises
    ------
    AssertionError
        When a testbench or a model finds a fault, or after `max_cycles`.
    """

    async def watchdog(ctx):
        for _ in range(max_cycles):
            await ctx.tick()
        raise AssertionError(f"no end after {max_cycles} cycles")

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    for testbench in testbenches:
        sim.add_testbench(testbench)
    for testbench in (*background, watchdog):
        sim.add_testbench(testbench, background=True)
    sim.run()


async def send(ctx, stream, payloads: Iterable, *, go: Callable[[], bool] = always) -> None:
    """Sends all payloads; before each one waits until `go()`."""
    for payload in payloads:
        while not go():
            await ctx.tick()
        ctx.set(stream.payload, payload)
        ctx.set(stream.valid, 1)
        is_sent = False
        while not is_sent:
            _, _, is_sent = await ctx.tick().sample(stream.ready)
        ctx.set(stream.valid, 0)


async def receive(ctx, stream, count: int, *, go: Callable[[], bool] = always, cycles: list[int] | None = None) -> list:
    """Receives `count` payloads, ready in the cycles where `go()`; appends the cycle of each, from this call, to
    `cycles`.
    """
    payloads: list = []
    cycle = 0
    while len(payloads) < count:
        ready = go()
        ctx.set(stream.ready, ready)
        _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
        if valid and ready:
            payloads.append(payload)
            if cycles is not None:
                cycles.append(cycle)
        cycle += 1
    ctx.set(stream.ready, 0)
    return payloads


class _Stable:
    """Checks that an offer, once made, stands unchanged until it is accepted."""

    def __init__(self, name: str):
        self._name = name
        self._offer = None

    def check(self, valid, ready, payload) -> bool:
        """Notes one cycle; returns whether the payload was transferred."""
        if self._offer is not None:
            assert valid, f"{self._name}: valid withdrawn"
            assert payload == self._offer, f"{self._name}: payload changed from {self._offer} to {payload}"
        self._offer = payload if valid and not ready else None
        return bool(valid and ready)


def monitor(stream, name: str = "stream") -> Callable:
    """A background testbench that asserts that the stream's payload and valid hold still until ready."""

    async def watch(ctx):
        stable = _Stable(name)
        while True:
            _, _, valid, ready, payload = await ctx.tick().sample(stream.valid, stream.ready, stream.payload)
            stable.check(valid, ready, payload)

    return watch


class _Memory:
    """Bytes from address `base`."""

    def __init__(self, contents: bytearray, base: int):
        self.contents = contents
        self.base = base

    def read(self, addr: int, num_bytes: int) -> int:
        offset = addr - self.base
        assert 0 <= offset <= len(self.contents) - num_bytes, f"read outside the memory: {addr:#x}"
        return int.from_bytes(self.contents[offset : offset + num_bytes], "little")

    def write(self, addr: int, word: int, strobe: int) -> None:
        offset = addr - self.base
        for i in range(strobe.bit_length()):
            if strobe >> i & 1:
                assert 0 <= offset + i < len(self.contents), f"write outside the memory: {addr + i:#x}"
                self.contents[offset + i] = word >> 8 * i & 0xFF


def _check_burst(addr: int, num_beats: int, beat_bytes: int, max_beats: int) -> None:
    assert addr % beat_bytes == 0, f"burst at {addr:#x} is not aligned to a beat"
    assert num_beats <= max_beats, f"burst of {num_beats} beats"
    assert addr // PAGE_BYTES == (addr + num_beats * beat_bytes - 1) // PAGE_BYTES, (
        f"burst at {addr:#x} of {num_beats} beats crosses 4 KiB"
    )


class ReadPortMemory(_Memory):
    """Memory behind a client's `ReadPort`, which arrives `latency_cycles` (at least 1) after its request.

    Parameters
    ----------
    port
        The `ReadPort` of a client, seen from the client.
    contents, base
        The bytes, and the address of the first one.
    go
        Whether to take a request, and whether to deliver a beat, in a cycle.
    max_bursts
        Bursts in flight at once.

    Attributes
    ----------
    bursts
        All bursts taken: (address, number of beats).
    burst_cycles
        The cycle in which each was taken.
    """

    def __init__(
        self, config, port, contents, *, base: int = 0, latency_cycles: int = 3, go=always, max_bursts: int = 8
    ):
        super().__init__(contents, base)
        self._config, self._port, self._latency_cycles, self._go, self._max_bursts = (
            config,
            port,
            latency_cycles,
            go,
            max_bursts,
        )
        self.bursts: list[tuple[int, int]] = []
        self.burst_cycles: list[int] = []

    async def process(self, ctx) -> None:
        """The background testbench."""
        beat_bytes = self._config.port_bytes
        port, stable = self._port, _Stable("read bursts")
        inflight: deque = deque()  # [due cycle, address, beats left]
        cycle = 0
        while True:
            ready = len(inflight) < self._max_bursts and self._go()
            deliver = bool(inflight) and inflight[0][0] <= cycle and self._go()
            ctx.set(port.bursts.ready, ready)
            ctx.set(port.beats.valid, deliver)
            if deliver:
                burst = inflight[0]
                ctx.set(port.beats.payload, self.read(burst[1], beat_bytes))
                burst[1] += beat_bytes
                burst[2] -= 1
                if burst[2] == 0:
                    inflight.popleft()
            _, _, valid, request = await ctx.tick().sample(port.bursts.valid, port.bursts.payload)
            if stable.check(valid, ready, request):
                addr, num_beats = request.addr, request.last_beat + 1
                _check_burst(addr, num_beats, beat_bytes, self._config.max_burst_beats)
                self.bursts.append((addr, num_beats))
                self.burst_cycles.append(cycle)
                inflight.append([cycle + self._latency_cycles, addr, num_beats])
            cycle += 1


class WritePortMemory(_Memory):
    """Memory behind a client's `WritePort`; `done` follows `latency_cycles` (at least 1) after the last beat of a
    burst.

    Asserts that a burst is offered only when its beats follow without a gap. Parameters and attributes as in
    `ReadPortMemory`.
    """

    def __init__(self, config, port, contents, *, base: int = 0, latency_cycles: int = 3, go=always):
        super().__init__(contents, base)
        self._config, self._port, self._latency_cycles, self._go = config, port, latency_cycles, go
        self.bursts: list[tuple[int, int]] = []
        self.burst_cycles: list[int] = []
        self.beat_cycles: list[int] = []

    async def process(self, ctx) -> None:
        """The background testbench."""
        beat_bytes = self._config.port_bytes
        port, stable_bursts, stable_beats = self._port, _Stable("write bursts"), _Stable("write beats")
        done: deque = deque()  # cycles in which to acknowledge
        addr = left = cycle = 0
        while True:
            ready = left == 0 and self._go()
            beat_ready = left > 0 and self._go()
            is_done = bool(done) and done[0] <= cycle
            if is_done:
                done.popleft()
            ctx.set(port.bursts.ready, ready)
            ctx.set(port.beats.ready, beat_ready)
            ctx.set(port.done, is_done)
            _, _, valid, request, beat_valid, beat = await ctx.tick().sample(
                port.bursts.valid, port.bursts.payload, port.beats.valid, port.beats.payload
            )
            assert beat_valid or not left, "a burst was offered before its beats were queued"
            if stable_beats.check(beat_valid, beat_ready, beat):
                self.write(addr, beat.data, beat.strobe)
                self.beat_cycles.append(cycle)
                addr += beat_bytes
                left -= 1
                if left == 0:
                    done.append(cycle + self._latency_cycles)
            if stable_bursts.check(valid, ready, request):
                addr, left = request.addr, request.last_beat + 1
                _check_burst(addr, left, beat_bytes, self._config.max_burst_beats)
                self.bursts.append((addr, left))
                self.burst_cycles.append(cycle)
            cycle += 1


class AxiMemory(_Memory):
    """An AXI4 memory for a manager's interface with the members of `AxiSignature`, or of its read or write half.

    Checks: bursts INCR, full width, aligned, within 4 KiB; WLAST; stability of AR, AW and W.

    Parameters
    ----------
    axi
        The manager's interface, seen from the manager.
    contents, base
        The bytes, and the address of the first one.
    latency_cycles
        From a request (the last beat of a write) to its first answer, at least 1.
    go
        Whether to be ready, and whether to answer, on each channel in a cycle.
    bad_addrs
        Bursts that start here are answered with `bad_resp`.
    is_aw_late
        AWREADY waits for data (WVALID, or a beat already taken), as AXI permits.

    Attributes
    ----------
    reads, writes
        All bursts: (address, number of beats).
    max_inflight_reads, max_inflight_writes
        Most bursts that were unanswered at a time.
    read_cycles, write_cycles
        The cycle of each beat transferred.
    """

    def __init__(
        self,
        config,
        axi,
        contents,
        *,
        base: int = 0,
        latency_cycles: int = 4,
        go=always,
        bad_addrs=(),
        bad_resp: int = 2,
        is_aw_late: bool = False,
    ):
        super().__init__(contents, base)
        self._config, self._axi, self._latency_cycles, self._go = config, axi, latency_cycles, go
        self._bad_addrs, self._bad_resp, self._is_aw_late = bad_addrs, bad_resp, is_aw_late
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.read_cycles: list[int] = []
        self.write_cycles: list[int] = []
        self.max_inflight_reads = self.max_inflight_writes = 0

    def _check_request(self, name, request) -> tuple[int, int]:
        addr, length, size, burst, _, _, _ = request
        assert burst == 1, f"{name}burst = {burst}"
        assert 1 << size == self._config.port_bytes, f"{name}size = {size}"
        _check_burst(addr, length + 1, self._config.port_bytes, self._config.max_burst_beats)
        return addr, length + 1

    def _request_signals(self, prefix):
        return [
            getattr(self._axi, prefix + name)
            for name in ("valid", "addr", "len", "size", "burst", "id", "cache", "prot")
        ]

    def _resp(self, addr: int) -> int:
        return self._bad_resp if addr in self._bad_addrs else 0

    async def read_process(self, ctx) -> None:
        """The background testbench of AR and R."""
        axi, stable, beat_bytes = self._axi, _Stable("AR"), self._config.port_bytes
        inflight: deque = deque()  # [due cycle, burst address, address, beats left]
        is_offered = False
        cycle = 0
        while True:
            ready = self._go()
            ctx.set(axi.arready, ready)
            if not is_offered and inflight and inflight[0][0] <= cycle and self._go():
                _, burst_addr, addr, left = inflight[0]
                resp = self._resp(burst_addr)
                ctx.set(axi.rdata, 0 if resp else self.read(addr, beat_bytes))
                ctx.set(axi.rresp, resp)
                ctx.set(axi.rlast, left == 1)
                is_offered = True
            ctx.set(axi.rvalid, is_offered)
            _, _, r_ready, valid, *request = await ctx.tick().sample(axi.rready, *self._request_signals("ar"))
            if is_offered and r_ready:
                self.read_cycles.append(cycle)
                is_offered = False
                inflight[0][2] += beat_bytes
                inflight[0][3] -= 1
                if inflight[0][3] == 0:
                    inflight.popleft()
            if stable.check(valid, ready, request):
                addr, num_beats = self._check_request("ar", request)
                self.reads.append((addr, num_beats))
                inflight.append([cycle + self._latency_cycles, addr, addr, num_beats])
                self.max_inflight_reads = max(self.max_inflight_reads, len(inflight))
            cycle += 1

    async def write_process(self, ctx) -> None:
        """The background testbench of AW, W and B."""
        axi, stable_aw, stable_w, beat_bytes = self._axi, _Stable("AW"), _Stable("W"), self._config.port_bytes
        requests: deque = deque()  # (address, number of beats) without their data
        beats: deque = deque()
        answers: deque = deque()  # (due cycle, response)
        is_offered = False
        cycle = 0
        while True:
            aw_ready = self._go() and not (self._is_aw_late and not beats and not ctx.get(axi.wvalid))
            w_ready = self._go()
            ctx.set(axi.awready, aw_ready)
            ctx.set(axi.wready, w_ready)
            if not is_offered and answers and answers[0][0] <= cycle and self._go():
                ctx.set(axi.bresp, answers[0][1])
                is_offered = True
            ctx.set(axi.bvalid, is_offered)
            _, _, b_ready, w_valid, *w, aw_valid, aw0, aw1, aw2, aw3, aw4, aw5, aw6 = await ctx.tick().sample(
                axi.bready, axi.wvalid, axi.wdata, axi.wstrb, axi.wlast, *self._request_signals("aw")
            )
            if is_offered and b_ready:
                is_offered = False
                answers.popleft()
            request = (aw0, aw1, aw2, aw3, aw4, aw5, aw6)
            if stable_aw.check(aw_valid, aw_ready, request):
                requests.append(self._check_request("aw", request))
                self.writes.append(requests[-1])
            if stable_w.check(w_valid, w_ready, w):
                beats.append(w)
                self.write_cycles.append(cycle)
            while requests and len(beats) >= requests[0][1]:
                addr, num_beats = requests.popleft()
                resp = self._resp(addr)
                for i in range(num_beats):
                    word, strobe, last = beats.popleft()
                    assert last == (i == num_beats - 1), f"wlast = {last} in beat {i} of {num_beats}"
                    if not resp:
                        self.write(addr + i * beat_bytes, word, strobe)
                answers.append((cycle + self._latency_cycles, resp))
            self.max_inflight_writes = max(self.max_inflight_writes, len(requests) + len(answers))
            cycle += 1
