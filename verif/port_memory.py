"""A memory behind the NPU's internal `ReadPort` and `WritePort`, for simulations of single clients."""

import random
from collections import deque

__all__ = ["PortMemory"]


class PortMemory:
    """Serves any number of clients from `raw`, with a latency and random stalls; checks that bursts obey the contract.

    Parameters
    ----------
    num_bytes
        Size.
    latency
        Cycles from a burst to its first beat, or from its last beat to `done`.
    stall
        Chance, each cycle and channel, that nothing moves, 0..0.9.
    """

    def __init__(self, num_bytes: int, *, latency: int = 5, stall: float = 0.0, seed: int = 0):
        self.raw = bytearray(num_bytes)
        self._latency = latency
        self._stall = stall
        self._rng = random.Random(seed)

    def _flows(self) -> bool:
        return self._rng.random() >= self._stall

    def _check(self, config, addr: int, num_beats: int) -> None:
        assert addr % config.port_bytes == 0, f"burst at {addr:#x} is not aligned"
        assert num_beats <= config.max_burst_beats, f"burst of {num_beats} beats is too long"
        assert addr // 4096 == (addr + num_beats * config.port_bytes - 1) // 4096, f"burst at {addr:#x} crosses 4 KiB"
        assert addr + num_beats * config.port_bytes <= len(self.raw), f"burst at {addr:#x} leaves the memory"

    async def serve_reads(self, ctx, port, config):
        """Background testbench for one `ReadPort`."""
        queue, cycle = deque(), 0
        while True:
            ready, gives = self._flows(), bool(queue) and queue[0][0] <= cycle and self._flows()
            ctx.set(port.bursts.ready, ready)
            ctx.set(port.beats.valid, gives)
            if gives:
                addr = queue.popleft()[1]
                ctx.set(port.beats.payload, int.from_bytes(self.raw[addr : addr + config.port_bytes], "little"))
            _, _, valid, addr, last_beat = await ctx.tick().sample(port.bursts.valid, port.bursts.p.addr, port.bursts.p.last_beat)
            if valid and ready:
                self._check(config, addr, last_beat + 1)
                queue.extend((cycle + self._latency, addr + i * config.port_bytes) for i in range(last_beat + 1))
            cycle += 1

    async def serve_writes(self, ctx, port, config):
        """Background testbench for one `WritePort`: takes a burst, then its beats."""
        acknowledge, cycle, addr, num_left = deque(), 0, 0, 0
        while True:
            takes_burst, takes_beat = num_left == 0 and self._flows(), num_left > 0 and self._flows()
            is_done = bool(acknowledge) and acknowledge[0] <= cycle
            if is_done:
                acknowledge.popleft()
            ctx.set(port.bursts.ready, takes_burst)
            ctx.set(port.beats.ready, takes_beat)
            ctx.set(port.done, is_done)
            _, _, has_burst, burst, has_beat, data, strobe = await ctx.tick().sample(
                port.bursts.valid, port.bursts.payload, port.beats.valid, port.beats.p.data, port.beats.p.strobe)
            if takes_beat:
                if has_beat:
                    for i in range(config.port_bytes):
                        if strobe >> i & 1:
                            self.raw[addr + i] = data >> 8 * i & 0xFF
                    addr, num_left = addr + config.port_bytes, num_left - 1
                    if num_left == 0:
                        acknowledge.append(cycle + self._latency)
            elif takes_burst and has_burst:
                addr, num_left = burst.addr, burst.last_beat + 1
                self._check(config, addr, num_left)
            cycle += 1
