"""The NPU's RTL in Amaranth's own simulator: slow, needs no other tool."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.sim import Simulator

from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.spec.config import NpuConfig

from .bus_model import SparseMemory
from .harness import Bench

__all__ = ["PysimDevice"]

HALF_PERIOD_S = 5e-9
IDLE_S = 1e-12


class PysimDevice:
    """The NPU in Amaranth's simulator. Implements `convoy.driver.runtime.device.Device`.

    Timing is exact to the cycle and the same as that of `NativeDevice`; the protocol of the AXI4 port is checked every
    cycle.

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

    def __init__(
        self,
        config: NpuConfig,
        memory_model: MemoryModel = MemoryModel(),
        *,
        waves: Path | None = None,
        progress: Callable[[str], None] | None = None,
        top: wiring.Component | None = None,
    ):
        self.config = config
        self.memory_model = memory_model
        if progress:
            progress(f"elaborating configuration {config.name} for Amaranth's simulator")
        if top is None:
            from convoy.hw.npu import Npu

            top = Npu(config)
        m = Module()
        m.domains.sync = domain = ClockDomain()
        m.submodules.npu = top
        self._memory = SparseMemory()
        self._ports = _Ports(top, domain.clk, domain.rst)
        self._bench = Bench(self._ports, self._memory, config, memory_model)
        self._operation: tuple[Callable[..., Awaitable[int]], tuple[Any, ...]] | None = None
        self._results: list[int | DeviceError] = []
        self._exit = contextlib.ExitStack()
        self._sim = Simulator(m)
        self._sim.add_testbench(self._testbench, background=True)
        if waves is not None:
            self._exit.enter_context(self._sim.write_vcd(str(waves)))
        self._run(self._bench.reset)

    def read32(self, addr: int) -> int:
        """Read a CSR; takes simulated cycles."""
        return self._run(self._bench.read32, addr)

    def write32(self, addr: int, value: int) -> None:
        """Write a CSR; takes simulated cycles. Those of the memory windows are read back."""
        self._run(self._bench.write32, addr, value)

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
            After `max_cycles` without an interrupt, or when the AXI4 protocol is violated; the message says at which
            cycle and address.
        """
        return self._run(self._bench.wait, max_cycles, progress)

    def inject_fault(self, addr: int, num_bytes: int, resp: int = 2, only_beats: bool = False) -> None:
        """Answer every burst that touches these bytes with SLVERR (2) or DECERR (3) from now on, or not at all (0);
        0 bytes: none.

        With `only_beats` a read's other beats are answered as always.
        """
        self._bench.bus.inject_fault(addr, num_bytes, resp, only_beats)

    def silence(self, *channels: str) -> None:
        """From now on the memory takes nothing on these of AR, AW and W, and gives nothing new on these of R and B;
        none: all work.
        """
        self._bench.bus.silence(*channels)

    def close(self) -> None:
        """Finish the waveforms."""
        self._exit.close()

    def _run(self, operation: Callable[..., Awaitable[int]], *args: Any) -> int:
        """Run one operation, a coroutine on the simulation, to its end."""
        self._operation = operation, args
        while not self._results:
            self._sim.advance()
        result = self._results.pop()
        if isinstance(result, DeviceError):
            raise result
        return result

    async def _testbench(self, ctx: Any) -> None:
        self._ports.ctx = ctx
        while True:
            if self._operation is not None:
                (operation, args), self._operation = self._operation, None
                try:
                    self._results.append(await operation(*args))
                except DeviceError as error:
                    self._results.append(DeviceError(f"device pysim: {error}"))
            await ctx.delay(IDLE_S)


class _Ports:
    """The `Simulation` of a `Bench`; `ctx` is the testbench's context."""

    def __init__(self, top: wiring.Component, clk: Signal, rst: Signal):
        self.ctx: Any = None
        self._signals = {"clk": clk, "rst": rst, "irq": top.irq}
        for bus in ("m_axi", "s_axil"):
            interface = getattr(top, bus)
            self._signals |= {f"{bus}__{name}": getattr(interface, name) for name in interface.signature.members}
        self._is_settled = False

    def get(self, port: str) -> int:
        return self.ctx.get(self._signals[port])

    def set(self, port: str, value: int) -> None:
        self.ctx.set(self._signals[port], value)

    async def settle(self) -> None:
        if not self._is_settled:
            await self.ctx.delay(HALF_PERIOD_S)
            self._is_settled = True

    async def edge(self) -> None:
        self.set("clk", 1)
        await self.ctx.delay(HALF_PERIOD_S)
        self.set("clk", 0)
        self._is_settled = False
