"""An AXI4-Lite manager for simulations with `amaranth.sim`."""

import random

__all__ = ["AxiLiteManager"]


class AxiLiteManager:
    """Reads and writes registers through `bus`, one access at a time, with random waits when `stall` is above 0.

    Parameters
    ----------
    bus
        The component's interface (subordinate side).
    stall
        Chance of a cycle of waiting before each handshake, 0..0.9.
    """

    def __init__(self, bus, *, stall: float = 0.0, seed: int = 0):
        self._bus = bus
        self._stall = stall
        self._rng = random.Random(seed)

    async def _wait(self, ctx):
        while self._rng.random() < self._stall:
            await ctx.tick()

    async def write(self, ctx, addr: int, value: int, *, strobe: int = 0xF, order: str = "both") -> int:
        """Write a register; the response code. `order`: which of "addr", "data" goes first, or "both"."""
        bus = self._bus
        ctx.set(bus.awaddr, addr)
        ctx.set(bus.wdata, value)
        ctx.set(bus.wstrb, strobe)
        first = {"addr": (True, False), "data": (False, True), "both": (True, True)}[order]
        for phase in (first, (not first[0], not first[1])):
            needs = {name for name, is_on in zip("aw", phase, strict=True) if is_on}
            await self._wait(ctx)
            while needs:
                ctx.set(bus.awvalid, "a" in needs)
                ctx.set(bus.wvalid, "w" in needs)
                _, _, awready, wready = await ctx.tick().sample(bus.awready, bus.wready)
                needs -= {name for name, is_ready in (("a", awready), ("w", wready)) if is_ready}
            ctx.set(bus.awvalid, 0)
            ctx.set(bus.wvalid, 0)
        await self._wait(ctx)
        ctx.set(bus.bready, 1)
        (response,) = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
        ctx.set(bus.bready, 0)
        return response

    async def read(self, ctx, addr: int) -> tuple[int, int]:
        """Read a register; value and response code."""
        bus = self._bus
        await self._wait(ctx)
        ctx.set(bus.araddr, addr)
        ctx.set(bus.arvalid, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        await self._wait(ctx)
        ctx.set(bus.rready, 1)
        value, response = await ctx.tick().sample(bus.rdata, bus.rresp).until(bus.rvalid)
        ctx.set(bus.rready, 0)
        return value, response
