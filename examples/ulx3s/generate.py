"""Writes the board's chip as Verilog for a simulator, or as RTLIL for Yosys, by the suffix of the file."""

import argparse
from pathlib import Path

from amaranth.back import rtlil, verilog
from board import Board

from convoy.spec.config import load_config

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", default="S", help="preset or TOML file")
    parser.add_argument("--memory-bytes", type=int, default=1 << 17, help="block memory behind the port")
    parser.add_argument("--divisor", type=int, default=25, help="cycles per bit of the serial line")
    args = parser.parse_args()
    board = Board(load_config(args.config), memory_bytes=args.memory_bytes, divisor=args.divisor)
    back = rtlil if args.output.suffix == ".il" else verilog
    args.output.write_text(back.convert(board, name="board", emit_src=False))
