"""A system of LiteX without a processor: an NPU and a memory, driven from outside over AXI4-Lite.

Writes `litex_soc.v`, which `soc.v` wraps for the testbench of `examples/soc`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from convoy_npu import REGISTER_BYTES, ConvoyNpu
from litex.build.generic_platform import GenericPlatform, Pins
from litex.gen import LiteXModule
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCMini
from litex.soc.interconnect.axi import AXILiteInterface
from memory_map import MEMORY_BASE, REGISTERS_BASE
from migen import ClockDomain


class Clocks(LiteXModule):
    """The clock and the reset of the pads."""

    def __init__(self, platform):
        self.cd_sys = ClockDomain()
        self.comb += [self.cd_sys.clk.eq(platform.request("aclk")), self.cd_sys.rst.eq(~platform.request("aresetn"))]


class NpuSoc(SoCMini):
    """NPU and memory on a bus of 32 bits that waits for a master; LiteX converts the NPU's bursts."""

    def __init__(self, platform, ip: Path, memory_bytes: int, clk_freq: int, clocks: LiteXModule):
        self.crg = clocks
        super().__init__(
            platform, clk_freq=clk_freq, bus_standard="axi-lite", bus_data_width=32, with_uart=False, with_ctrl=False
        )
        self.npu = npu = ConvoyNpu(platform, ip, base_address=MEMORY_BASE)
        self.bus.add_master("npu", npu.memory)
        self.bus.add_slave("npu", npu.registers, SoCRegion(REGISTERS_BASE, REGISTER_BYTES, cached=False))
        self.add_ram("main_ram", MEMORY_BASE, memory_bytes)


class Soc(NpuSoc):
    """The system with an AXI4-Lite port for whoever is the processor."""

    def __init__(self, platform, ip: Path, memory_bytes: int):
        super().__init__(platform, ip, memory_bytes, int(100e6), Clocks(platform))
        self.comb += platform.request("irq").eq(self.npu.irq)
        processor = AXILiteInterface(data_width=32, address_width=32)
        platform.add_extension(processor.get_ios("s_axil"))
        self.comb += processor.connect_to_pads(platform.request("s_axil"), mode="slave")
        self.bus.add_master("processor", processor)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ip", type=Path, help="the folder that `convoy verilog --prefix npu` wrote")
    parser.add_argument("--program", type=Path, required=True, help="the folder that `convoy compile --save` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write into")
    args = parser.parse_args()
    memory_bytes = 1 << (json.loads((args.program / "plan.json").read_text())["memory_bytes"] - 1).bit_length()
    ip = args.ip.resolve()
    os.chdir(args.output)  # LiteX writes the memory's first values into the folder where it is
    platform = GenericPlatform("", [(name, 0, Pins(1)) for name in ("aclk", "aresetn", "irq")], name="litex_soc")
    soc = Soc(platform, ip, memory_bytes)
    soc.finalize()
    platform.get_verilog(soc, name="litex_soc", regular_comb=False).write("litex_soc.v")


if __name__ == "__main__":
    main()
