"""Makes of a folder that `convoy compile --save` wrote what the testbench reads: `memory.hex` with an input in place,
`expected.hex`, the memory after the program as the exact model leaves it, and `program.vh`, constants of Verilog.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from convoy.driver.devices import open_device
from convoy.driver.emit.program import Placement
from convoy.driver.runtime.device import Device, MemoryModel
from convoy.spec.config import load_config
from convoy.spec.csr import ID, REGISTERS, Control, Status, config_values
from convoy.spec.isa import COMPLETION


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path, help="the folder that `convoy compile --save` wrote")
    parser.add_argument("--config", default="Q", help="what it was compiled for")
    parser.add_argument("--seed", type=int, default=1, help="of the random input")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write into")
    args = parser.parse_args()
    plan = json.loads((args.program / "plan.json").read_text())
    if len(plan["programs"]) != 1:
        parser.error(f"{len(plan['programs'])} programs; the testbench runs networks of one")
    (program,) = plan["programs"]

    memory = bytearray((args.program / "memory.bin").read_bytes())
    rng = np.random.default_rng(args.seed)
    for placement in plan["placements"]:
        if placement["tensor"] in plan["inputs"]:
            place = Placement(**{key: value for key, value in placement.items() if key != "name"})
            memory[place.addr : place.addr + place.num_bytes] = rng.bytes(place.num_bytes)

    device = open_device("golden", load_config(args.config), MemoryModel())
    device.write_memory(0, bytes(memory))
    run(device, program)
    expected = device.read_memory(0, len(memory))

    args.output.mkdir(parents=True, exist_ok=True)
    for name, data in (("memory.hex", memory), ("expected.hex", expected)):
        (args.output / name).write_text("\n".join(f"{byte:02x}" for byte in data) + "\n")
    (args.output / "program.vh").write_text(constants(program, len(memory), device))


def run(device: Device, program: dict) -> None:
    """A program on a device, as the testbench runs it."""
    for name, value in (
        ("PROGRAM_BASE", program["program_addr"]),
        ("PROGRAM_COUNT", program["program_count"]),
        ("RECORD_BASE", program["record_addr"]),
        ("IRQ_ENABLE", 1),
        ("CONTROL", Control.DOORBELL),
    ):
        device.write32(REGISTERS[name].addr, value)
    device.wait(1)
    if device.read32(REGISTERS["STATUS"].addr) & Status.ERROR:
        raise SystemExit(f"the model stopped with error {device.read32(REGISTERS['ERROR'].addr)}")


def constants(program: dict, memory_bytes: int, device: Device) -> str:
    """`program.vh`."""
    windows = program["windows"]
    record_end = program["record_addr"] + COMPLETION.num_bytes * program["program_count"]
    values = {f"REG_{name}": register.addr for name, register in REGISTERS.items()} | {
        "ID": ID,
        **config_values(device.config),
        "PORT_BITS": device.config.port_bits,
        "CONTROL_DOORBELL": Control.DOORBELL,
        "STATUS_ERROR": Status.ERROR,
        "MEMORY_BYTES": memory_bytes,
        "PROGRAM_BASE": program["program_addr"],
        "PROGRAM_COUNT": program["program_count"],
        "RECORD_BASE": program["record_addr"],
        "RECORD_END": record_end,
        "NUM_WINDOWS": len(windows),
        "WINDOW_STEP": REGISTERS["WINDOW1_BASE"].addr - REGISTERS["WINDOW0_BASE"].addr,
    }
    lines = [f"localparam [31:0] {name} = {int(value)};" for name, value in values.items()]
    for name in ("base", "limit", "control"):
        words = ", ".join(f"32'd{window[name]}" for window in reversed(windows))
        lines.append(f"localparam [{32 * len(windows) - 1}:0] WINDOW_{name.upper()} = {{{words}}};")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
