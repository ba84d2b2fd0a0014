"""The NPU's RTL in Amaranth's own simulator: slow, needs no other tool."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.sim import Simulator

from convoy.driver.device import DeviceError, MemoryModel
from convoy.spec.config import NpuConfig

from .bus_model import Address, AxiMemory, SparseMemory, WriteBeat

__all__ = ["PysimDevice"]

HALF_PERIOD_S = 5e-9
RESET_CYCLES = 4
REGISTER_CYCLES = 1000
"""Longest wait for an answer on AXI4-Lite."""
CHUNK_CYCLES = 1000
"""Cycles between two calls of `progress`."""


class PysimDevice:
    """The NPU in Amaranth's simulator. Implements `convoy.driver.device.Device`.

    Timing is exact to the cycle and the same as that of `NativeDevice`; the protocol of the AXI4 port is checked every cycle.

    Parameters
    ----------
    config : NpuConfig
        The NPU.
    memory_model : MemoryModel
        Timing of the memory.
    waves : Path | None
        File for the waveforms (VCD), complete after `close`.
    progress : callable | None
        Called with a line of text before the design is elaborated.
    top : wiring.Component | None
        Another design with the NPU's ports instead of the NPU.
    """

    def __init__(self, config: NpuConfig, memory_model: MemoryModel = MemoryModel(), *, waves: Path | None = None,  # noqa: B008
                 progress: Callable[[str], None] | None = None, top: wiring.Component | None = None):
        self.config = config
        self.memory_model = memory_model
        self._memory = SparseMemory()
        self._bus = AxiMemory(self._memory, config.port_bytes, memory_model)
        if progress:
            progress(f"elaborating configuration {config.name} for Amaranth's simulator")
        if top is None:
            from convoy.hw.npu import Npu
            top = Npu(config)
        self._top = top
        self._shown: dict[str, int] = {}
        self._operation = None
        self._result: int | DeviceError | None = None
        self._exit = contextlib.ExitStack()
        self._sim = self._simulator(waves)
        self._run(self._reset)

    def read32(self, addr: int) -> int:
        """Read a CSR; takes simulated cycles."""
        return self._run(self._read32, addr)

    def write32(self, addr: int, value: int) -> None:
        """Write a CSR; takes simulated cycles."""
        self._run(self._write32, addr, value)

    def read_memory(self, addr: int, num_bytes: int) -> bytes:
        """Read the memory; no simulated time passes."""
        return self._memory.read(addr, num_bytes)

    def write_memory(self, addr: int, data: bytes) -> None:
        """Write the memory; no simulated time passes."""
        self._memory.write(addr, bytes(data))

    def wait(self, max_cycles: int, progress: Callable[[int], None] | None = None) -> int:
        """Run until the interrupt; the cycles that took.

        Raises
        ------
        DeviceError
            After `max_cycles` without an interrupt, or when the AXI4 protocol is violated; the message says at which cycle and address.
        """
        return self._run(self._wait, max_cycles, progress)

    def inject_fault(self, addr: int, num_bytes: int) -> None:
        """Answer every burst that touches these bytes with SLVERR from now on; 0 bytes: none."""
        self._bus.fault = range(addr, addr + num_bytes)

    def close(self) -> None:
        """Finish the waveforms."""
        self._exit.close()

    def _simulator(self, waves: Path | None) -> Simulator:
        m = Module()
        m.domains.sync = domain = ClockDomain()
        m.submodules.npu = self._top
        self._clk, self._rst = domain.clk, domain.rst
        # Unused inputs of the top are no part of the design unless something reads them
        sink = Signal(name="irq")
        m.d.comb += sink.eq(self._top.irq)
        sim = Simulator(m)
        sim.add_testbench(self._testbench, background=True)
        if waves is not None:
            self._exit.enter_context(sim.write_vcd(str(waves)))
        return sim

    def _run(self, operation, *args) -> int:
        """Run one operation, a coroutine on the simulation, to its end."""
        self._operation, self._result = (operation, args), None
        while self._result is None:
            self._sim.advance()
        if isinstance(self._result, DeviceError):
            raise self._result
        return self._result

    async def _testbench(self, ctx) -> None:
        while True:
            if self._operation is not None:
                (operation, args), self._operation = self._operation, None
                try:
                    self._result = await operation(ctx, *args)
                except DeviceError as error:
                    self._result = DeviceError(f"device pysim: {error}")
            await ctx.delay(HALF_PERIOD_S)

    async def _reset(self, ctx) -> int:
        bus = self._top.m_axi
        ctx.set(self._rst, 1)
        for _ in range(RESET_CYCLES):
            await self._clock(ctx)
            if ctx.get(bus.arvalid) or ctx.get(bus.awvalid) or ctx.get(bus.wvalid):
                raise DeviceError("a VALID is high during reset")
        ctx.set(self._rst, 0)
        return 0

    async def _wait(self, ctx, max_cycles: int, progress: Callable[[int], None] | None) -> int:
        cycles = 0
        irq = self._top.irq
        while not ctx.get(irq):
            if cycles == max_cycles:
                raise DeviceError(f"no interrupt within {max_cycles} cycles")
            await self._cycle(ctx)
            cycles += 1
            if progress and cycles % CHUNK_CYCLES == 0:
                progress(cycles)
        return cycles

    async def _write32(self, ctx, addr: int, value: int) -> int:
        bus = self._top.s_axil
        for signal, init in ((bus.awaddr, addr), (bus.awvalid, 1), (bus.wdata, value), (bus.wstrb, 15), (bus.wvalid, 1), (bus.bready, 1)):
            ctx.set(signal, init)
        for _ in range(REGISTER_CYCLES):
            took_aw, took_w = ctx.get(bus.awready), ctx.get(bus.wready)
            is_done, resp = ctx.get(bus.bvalid), ctx.get(bus.bresp)
            await self._cycle(ctx)
            if took_aw:
                ctx.set(bus.awvalid, 0)
            if took_w:
                ctx.set(bus.wvalid, 0)
            if is_done:
                ctx.set(bus.bready, 0)
                return self._check_response("write", addr, resp)
        raise DeviceError(f"write of register {addr:#05x}: no answer")

    async def _read32(self, ctx, addr: int) -> int:
        bus = self._top.s_axil
        for signal, init in ((bus.araddr, addr), (bus.arvalid, 1), (bus.rready, 1)):
            ctx.set(signal, init)
        for _ in range(REGISTER_CYCLES):
            took_ar, is_done = ctx.get(bus.arready), ctx.get(bus.rvalid)
            value, resp = ctx.get(bus.rdata), ctx.get(bus.rresp)
            await self._cycle(ctx)
            if took_ar:
                ctx.set(bus.arvalid, 0)
            if is_done:
                ctx.set(bus.rready, 0)
                self._check_response("read", addr, resp)
                return value
        raise DeviceError(f"read of register {addr:#05x}: no answer")

    @staticmethod
    def _check_response(what: str, addr: int, resp: int) -> int:
        if resp:
            raise DeviceError(f"{what} of register {addr:#05x}: response {resp}")
        return 0

    async def _cycle(self, ctx) -> None:
        """One clock cycle of NPU and memory."""
        bus, get = self._top.m_axi, ctx.get
        pins = self._bus.pins
        self._show(ctx, pins)
        aw = ar = w = None
        if get(bus.arvalid):
            ar = Address(get(bus.araddr), get(bus.arid), get(bus.arlen), get(bus.arsize), get(bus.arburst))
        if get(bus.awvalid):
            aw = Address(get(bus.awaddr), get(bus.awid), get(bus.awlen), get(bus.awsize), get(bus.awburst))
        if get(bus.wvalid):
            w = WriteBeat(get(bus.wdata), get(bus.wstrb), get(bus.wlast))
        bready = pins.bvalid and get(bus.bready)
        rready = pins.rvalid and get(bus.rready)
        await self._clock(ctx)
        self._bus.step(aw, w, ar, bready, rready)

    def _show(self, ctx, pins) -> None:
        bus, shown = self._top.m_axi, self._shown
        for name, value in vars(pins).items():
            if shown.get(name, 0) != value:
                ctx.set(getattr(bus, name), value)
                shown[name] = value

    async def _clock(self, ctx) -> None:
        ctx.set(self._clk, 1)
        await ctx.delay(HALF_PERIOD_S)
        ctx.set(self._clk, 0)
        await ctx.delay(HALF_PERIOD_S)
