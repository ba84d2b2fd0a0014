"""The surroundings of the NPU in a simulator that Python steps: clock, registers, memory, interrupt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.spec.config import NpuConfig

from .bus_model import Address, AxiMemory, SparseMemory, WriteBeat
from .windows import WindowRegisters

__all__ = ["Bench", "Simulation"]

POWER_UP_CYCLES = 4
"""Of the reset before anything else."""
REGISTER_CYCLES = 1000
"""Longest wait for an answer on AXI4-Lite."""
CHUNK_CYCLES = 1000
"""Cycles between two calls of `progress`."""


class Simulation(Protocol):
    """What a simulator offers.

    Ports have their Verilog names: `clk`, `rst`, `irq`, `m_axi__awaddr`, `s_axil__wdata`, ...
    """

    def get(self, port: str) -> int:
        """Value of an output."""

    def set(self, port: str, value: int) -> None:
        """Set an input; outputs follow after `settle`."""

    async def settle(self) -> None:
        """Let the low half of the clock period pass, unless it has passed already."""

    async def edge(self) -> None:
        """Let the rest of the clock period pass: a rising edge and the high half."""


class Bench:
    """Resets the NPU, accesses its registers, runs it.

    All methods are coroutines on the simulation; cycle for cycle the same as native.cc.

    Parameters
    ----------
    simulation : Simulation
        The simulator.
    memory : SparseMemory
        What is behind the AXI4 port.
    config : NpuConfig
        The NPU.
    model : MemoryModel
        Timing of the memory.
    """

    def __init__(self, simulation: Simulation, memory: SparseMemory, config: NpuConfig, model: MemoryModel):
        self.bus = AxiMemory(memory, config.port_bytes, model)
        self._sim = simulation
        self._shown: dict[str, int] = {}
        self._windows = WindowRegisters()

    async def reset(self) -> int:
        """Reset the NPU."""
        sim = self._sim
        for port in ("s_axil__awvalid", "s_axil__wvalid", "s_axil__bready", "s_axil__arvalid", "s_axil__rready"):
            sim.set(port, 0)
        for name in vars(self.bus.pins):
            sim.set(f"m_axi__{name}", 0)
        sim.set("rst", 1)
        for _ in range(POWER_UP_CYCLES):
            await sim.settle()
            await sim.edge()
        if any(sim.get(f"m_axi__{channel}valid") for channel in ("ar", "aw", "w")):
            raise DeviceError("a VALID is high during reset")
        sim.set("rst", 0)
        return 0

    async def wait(self, max_cycles: int, progress: Callable[[int], None] | None = None) -> int:
        """Run until the interrupt; the cycles.

        Raises
        ------
        DeviceError
            After `max_cycles` without an interrupt, or when the AXI4 protocol is violated.
        """
        cycles = 0
        while not self._sim.get("irq"):
            if cycles == max_cycles:
                raise DeviceError(f"no interrupt within {max_cycles} cycles")
            await self._cycle()
            cycles += 1
            if progress and cycles % CHUNK_CYCLES == 0:
                progress(cycles)
        return cycles

    async def write32(self, addr: int, value: int) -> int:
        """Write a register; those of the memory windows are read back, and the bus is checked against what they
        hold.
        """
        await self._write(addr, value)
        if addr in self._windows:
            self.bus.windows = self._windows.put(addr, await self.read32(addr))
        return 0

    async def _write(self, addr: int, value: int) -> None:
        sim = self._sim
        for port, init in (
            ("awaddr", addr),
            ("awvalid", 1),
            ("wdata", value),
            ("wstrb", 15),
            ("wvalid", 1),
            ("bready", 1),
        ):
            sim.set(f"s_axil__{port}", init)
        for _ in range(REGISTER_CYCLES):
            await sim.settle()
            took_aw, took_w = sim.get("s_axil__awready"), sim.get("s_axil__wready")
            is_done, resp = sim.get("s_axil__bvalid"), sim.get("s_axil__bresp")
            await self._cycle()
            if took_aw:
                sim.set("s_axil__awvalid", 0)
            if took_w:
                sim.set("s_axil__wvalid", 0)
            if is_done:
                sim.set("s_axil__bready", 0)
                self._check_response("write", addr, resp)
                return
        raise DeviceError(f"write of register {addr:#05x}: no answer")

    async def read32(self, addr: int) -> int:
        """Read a register."""
        sim = self._sim
        for port, init in (("araddr", addr), ("arvalid", 1), ("rready", 1)):
            sim.set(f"s_axil__{port}", init)
        for _ in range(REGISTER_CYCLES):
            await sim.settle()
            took_ar, is_done = sim.get("s_axil__arready"), sim.get("s_axil__rvalid")
            value, resp = sim.get("s_axil__rdata"), sim.get("s_axil__rresp")
            await self._cycle()
            if took_ar:
                sim.set("s_axil__arvalid", 0)
            if is_done:
                sim.set("s_axil__rready", 0)
                self._check_response("read", addr, resp)
                return value
        raise DeviceError(f"read of register {addr:#05x}: no answer")

    @staticmethod
    def _check_response(what: str, addr: int, resp: int) -> None:
        if resp:
            raise DeviceError(f"{what} of register {addr:#05x}: response {resp}")

    async def _cycle(self) -> None:
        """One clock cycle of NPU and memory."""
        sim, get, pins = self._sim, self._sim.get, self.bus.pins
        await sim.settle()
        aw = ar = w = None
        if get("m_axi__arvalid"):
            ar = self._address("ar")
        if get("m_axi__awvalid"):
            aw = self._address("aw")
        if get("m_axi__wvalid"):
            w = WriteBeat(get("m_axi__wdata"), get("m_axi__wstrb"), get("m_axi__wlast"))
        bready = pins.bvalid and get("m_axi__bready")
        rready = pins.rvalid and get("m_axi__rready")
        await sim.edge()
        self.bus.step(aw, w, ar, bready, rready)
        self._show(pins)

    def _address(self, channel: str) -> Address:
        return Address(*(self._sim.get(f"m_axi__{channel}{field}") for field in Address._fields))

    def _show(self, pins) -> None:
        shown = self._shown
        for name, value in vars(pins).items():
            if shown.get(name, 0) != value:
                self._sim.set(f"m_axi__{name}", value)
                shown[name] = value
