"""A ULX3S board (ECP5-85F) with an NPU, a memory of block RAM, and a serial port as the bus master.

Writes `ulx3s.v` and `ulx3s.lpf`, for Yosys and nextpnr. Lights: 0 the interrupt, 1 a clock that blinks.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "litex"))

from litex.gen import LiteXModule
from litex.soc.cores.clock import ECP5PLL
from litex_boards.platforms.radiona_ulx3s import Platform
from migen import ClockDomain, Signal
from soc import NpuSoc

OSCILLATOR_HZ = 25e6


class Clocks(LiteXModule):
    """The clock from the board's oscillator; reset by its button."""

    def __init__(self, platform, clk_freq: int):
        self.cd_sys = ClockDomain()
        self.pll = pll = ECP5PLL()
        self.comb += pll.reset.eq(platform.request("rst"))
        pll.register_clkin(platform.request("clk25"), OSCILLATOR_HZ)
        pll.create_clkout(self.cd_sys, clk_freq)


class Board(NpuSoc):
    """The system of `examples/litex` whose master is LiteX's bridge from a serial port."""

    def __init__(self, platform, ip: Path, memory_bytes: int, clk_freq: int, baud: int):
        super().__init__(platform, ip, memory_bytes, clk_freq, Clocks(platform, clk_freq))
        self.add_uartbone(baudrate=baud)
        blink = Signal(max=clk_freq)
        self.sync += blink.eq(blink + 1)
        self.comb += [platform.request("user_led", 0).eq(self.npu.irq), platform.request("user_led", 1).eq(blink[-1])]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ip", type=Path, help="the folder that `convoy verilog --prefix npu` wrote")
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--mhz", type=float, required=True)
    parser.add_argument("--baud", type=int, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write into")
    args = parser.parse_args()
    ip = args.ip.resolve()
    platform = Platform(device="LFE5U-85F", revision="2.0", toolchain="trellis")
    board = Board(platform, ip, args.memory_bytes, int(args.mhz * 1e6), args.baud)
    args.output.mkdir(parents=True, exist_ok=True)
    os.chdir(args.output)
    platform.build(board, build_dir=".", build_name="ulx3s", run=False, regular_comb=False)


if __name__ == "__main__":
    main()
