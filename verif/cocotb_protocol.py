"""cocotb tests of an NPU's two buses, with the bus models of cocotbext-axi: an implementation of AXI that is not ours.

`run_protocol` starts them in Icarus Verilog. They work for every design with the ports and registers of the NPU.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiResp, AxiSlave
from cocotbext.axi.address_space import MemoryInterface

from convoy.driver.devices.build import settle_at_zero
from convoy.spec.csr import CSR_ADDR_BITS, ID, REGISTERS, Error

__all__ = ["run_protocol"]

SETTINGS = "CONVOY_PROTOCOL"
"""Environment variable with the file of settings, see `run_protocol`."""
MEMORY_BYTES = 1 << 22
MAX_NS = 10_000_000


def run_protocol(verilog: str, work: Path, registers: Mapping[str, int], image: Sequence[tuple[int, bytes]],
                 expected: Sequence[tuple[int, bytes]], fault_addr: int) -> None:
    """Run the tests in Icarus Verilog.

    Parameters
    ----------
    verilog : str
        The design, top module `convoy_npu`.
    work : Path
        An empty directory.
    registers : mapping
        Values of the `rw` registers that start the program.
    image, expected : sequence
        (address, bytes) of the memory before and after the program; addresses below 4 MiB.
    fault_addr : int
        An address that the program reads.

    Raises
    ------
    AssertionError
        When a test fails; the message is the simulator's log.
    """
    from cocotb_tools.runner import get_runner

    source, settings, log = (work / name for name in ("convoy_npu.v", "settings.json", "test.log"))
    source.write_text(settle_at_zero(verilog))
    settings.write_text(json.dumps({
        "registers": dict(registers), "fault_addr": fault_addr,
        "image": [(addr, data.hex()) for addr, data in image], "expected": [(addr, data.hex()) for addr, data in expected],
    }))
    runner = get_runner("icarus")
    runner.build(sources=[source], hdl_toplevel="convoy_npu", build_dir=work, build_args=["-g2012"], timescale=("1ns", "1ps"), always=True,
                 log_file=work / "build.log")
    try:
        runner.test(test_module=__name__, hdl_toplevel="convoy_npu", build_dir=work, test_dir=work, timescale=("1ns", "1ps"), log_file=log,
                    results_xml=str(work / "results.xml"),
                    extra_env={SETTINGS: str(settings), "PYTHONPATH": os.pathsep.join(sys.path), "COCOTB_LOG_LEVEL": "WARNING"})
    except SystemExit:
        raise AssertionError(log.read_text()) from None


class Memory(MemoryInterface):
    """A memory that answers with SLVERR at `fault_addr` and outside, and keeps what it was asked."""

    def __init__(self):
        super().__init__(MEMORY_BYTES)
        self.bytes = bytearray(MEMORY_BYTES)
        self.fault_addr = None
        self.outside = []

    def check_range(self, address, length=0):
        """Note an access outside, then refuse it."""
        if not 0 <= address <= address + length <= MEMORY_BYTES:
            self.outside.append(address)
        super().check_range(address, length)

    async def _read(self, address, length):
        if self.fault_addr is not None and address <= self.fault_addr < address + length:
            raise ValueError("fault")
        return bytes(self.bytes[address:address + length])

    async def _write(self, address, data):
        self.bytes[address:address + len(data)] = data


class Environment:
    """The NPU with a memory, a register master and monitors."""

    def __init__(self, dut):
        self.dut = dut
        self.settings = json.loads(Path(os.environ[SETTINGS]).read_text())
        self.memory = Memory()
        for addr, data in self.settings["image"]:
            raw = bytes.fromhex(data)
            self.memory.bytes[addr:addr + len(raw)] = raw
        self.bus = AxiSlave(AxiBus.from_prefix(dut, "m_axi_"), dut.clk, dut.rst, target=self.memory)
        self.csrs = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil_"), dut.clk, dut.rst)

    async def start(self):
        """Clock, reset, monitors."""
        dut = self.dut
        cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
        dut.rst.value = 1
        await ClockCycles(dut.clk, 4)
        for name in ("m_axi__arvalid", "m_axi__awvalid", "m_axi__wvalid", "s_axil__bvalid", "s_axil__rvalid"):
            assert int(getattr(dut, name).value) == 0, f"{name} is high during reset"
        dut.rst.value = 0
        await ClockCycles(dut.clk, 2)
        for prefix, payload in (
            ("m_axi__ar", ("addr", "id", "len", "size", "burst", "prot", "cache", "lock")),
            ("m_axi__aw", ("addr", "id", "len", "size", "burst", "prot", "cache", "lock")),
            ("m_axi__w", ("data", "strb", "last")), ("s_axil__b", ("resp",)), ("s_axil__r", ("data", "resp")),
        ):
            cocotb.start_soon(hold_still(dut, prefix, payload))

    def pause(self, percent: int):
        """Stall all ten channels now and then."""
        rng = random.Random(percent)

        def stalls():
            while True:
                yield rng.randrange(100) < percent

        for side in (self.bus.write_if, self.bus.read_if, self.csrs.write_if, self.csrs.read_if):
            for name in ("aw_channel", "w_channel", "b_channel", "ar_channel", "r_channel"):
                if hasattr(side, name):
                    getattr(side, name).set_pause_generator(stalls())

    async def read(self, name: str) -> int:
        """Value of a register."""
        return await self.csrs.read_dword(REGISTERS[name].addr)

    async def write(self, name: str, value: int) -> None:
        """Write a register."""
        await self.csrs.write_dword(REGISTERS[name].addr, value)

    async def run_program(self) -> None:
        """From doorbell to interrupt."""
        for name, value in self.settings["registers"].items():
            await self.write(name, value)
        await self.write("IRQ_ENABLE", 1)
        await self.write("CONTROL", 1)
        if not int(self.dut.irq.value):
            await with_timeout(RisingEdge(self.dut.irq), MAX_NS, "ns")


async def hold_still(dut, prefix: str, payload: Sequence[str]) -> None:
    """VALID and payload stay until READY (AMBA AXI4 specification, A3.2.1)."""
    valid, ready = getattr(dut, f"{prefix}valid"), getattr(dut, f"{prefix}ready")
    signals = [getattr(dut, f"{prefix}{name}") for name in payload if hasattr(dut, f"{prefix}{name}")]
    held = None
    while True:
        await RisingEdge(dut.clk)
        is_valid = int(valid.value)
        shown = [str(signal.value) for signal in signals] if is_valid else None
        assert held is None or shown == held, f"{prefix} changed before READY: it was {held}, is {shown}"
        held = shown if is_valid and not int(ready.value) else None


async def check_program(dut, percent: int) -> None:
    """Run the program twice and compare the memory."""
    env = Environment(dut)
    await env.start()
    if percent:
        env.pause(percent)
    for _ in range(2):
        for addr, data in env.settings["expected"]:
            env.memory.bytes[addr:addr + len(data) // 2] = bytes(len(data) // 2)
        await env.run_program()
        assert await env.read("ERROR") == Error.NONE
        assert await env.read("IRQ_STATUS") == 1
        await env.write("IRQ_STATUS", 1)
        assert await env.read("IRQ_STATUS") == 0
        assert int(dut.irq.value) == 0
        for addr, data in env.settings["expected"]:
            assert env.memory.bytes[addr:addr + len(data) // 2].hex() == data, f"the bytes from {addr:#x} differ"
    assert not env.memory.outside


@cocotb.test
async def registers(dut):
    """Registers keep what is written, and only the bytes that the strobes name."""
    env = Environment(dut)
    await env.start()
    assert await env.read("ID") == ID
    for register in REGISTERS.values():
        if register.access == "rw" and register.name != "IRQ_ENABLE":
            await env.csrs.write_dword(register.addr, 0xA5A5A580)
            read_back = await env.csrs.read_dword(register.addr)
            assert read_back & 0xFFFF == 0xA580, f"{register.name} is {read_back:#x}"
    assert await env.read("ID") == ID


@cocotb.test
async def registers_stalled(dut):
    """The same with AW, W and B in any order and time."""
    env = Environment(dut)
    await env.start()
    env.pause(60)
    for value in (0x80, 0x12345680, 0xFFFFFF80):
        await env.write("PROGRAM_BASE", value)
        assert await env.read("PROGRAM_BASE") == value


@cocotb.test(skip=os.environ.get("CONVOY_PROTOCOL_LENIENT") == "1")
async def registers_unmapped(dut):
    """An address without a register answers SLVERR, and the next access works."""
    env = Environment(dut)
    await env.start()
    addr = (1 << CSR_ADDR_BITS) - 4
    assert (await env.csrs.read(addr, 4)).resp == AxiResp.SLVERR
    assert (await env.csrs.write(addr, b"\1\2\3\4")).resp == AxiResp.SLVERR
    assert await env.read("ID") == ID


@cocotb.test
async def program(dut):
    """A program, no stalls."""
    await check_program(dut, 0)


@cocotb.test
async def program_stalled(dut):
    """A program with stalls on every channel."""
    await check_program(dut, 40)


@cocotb.test
async def read_fault(dut):
    """SLVERR on a read ends in an interrupt and an error code."""
    env = Environment(dut)
    await env.start()
    env.memory.fault_addr = env.settings["fault_addr"]
    await env.run_program()
    assert await env.read("ERROR") == Error.BUS_READ
