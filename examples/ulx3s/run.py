"""Runs a network on the board, and compares every output with the exact model.

    python run.py --port /dev/ttyUSB0 [--config S] [model.tflite]
    python run.py --simulator build/sim

The configuration is that of the bitstream.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np
from link import Board, Line

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.errors import DeviceError, GraphError
from convoy.driver.graph.reader import read_network
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.spec.config import load_config

DIGITS = Path(__file__).parents[1] / "digits_int8.tflite"
BAUD = 1_000_000
ANSWER_SECONDS = 5


class Simulator:
    """The board in Verilator, as a line."""

    def __init__(self, program: Path):
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def read(self, num_bytes: int) -> bytes:
        """So many bytes, or fewer at the end."""
        data = b""
        while len(data) < num_bytes and (part := self._process.stdout.read(num_bytes - len(data))):
            data += part
        return data

    def write(self, data: bytes) -> int:
        """Send bytes."""
        return self._process.stdin.write(data)

    def close(self) -> None:
        """End the simulation."""
        self._process.stdin.close()
        self._process.wait()


def open_line(port: str) -> Line:
    """The serial port."""
    import serial

    return serial.Serial(port, BAUD, timeout=ANSWER_SECONDS)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=DIGITS)
    parser.add_argument("--config", default="S", help="preset or TOML file")
    parser.add_argument("--memory-bytes", type=int, default=1 << 17, help="of the board")
    parser.add_argument("--seed", type=int, default=1, help="of the random inputs")
    line = parser.add_mutually_exclusive_group(required=True)
    line.add_argument("--port", help="serial port of the board (needs pyserial)")
    line.add_argument("--simulator", type=Path, help="the program that `make` built")
    args = parser.parse_args()
    config = load_config(args.config)
    try:
        plan = compile_graph(read_network(args.model), config, keep_tensors=False)
        inputs = random_inputs([plan.graph.tensors[index] for index in plan.graph.inputs], args.seed)
        board = Board(config, open_line(args.port) if args.port else Simulator(args.simulator), args.memory_bytes)
        execution = Session(plan, board, keep_tensors=False).run(inputs)
        board.close()
        expected = Session(plan, open_device("golden", config), keep_tensors=False).run(inputs)
    except (DeviceError, GraphError) as error:
        raise SystemExit(f"FAIL: {error}") from None
    outputs = plan.graph.outputs
    if not all(np.array_equal(execution.tensors[index], expected.tensors[index]) for index in outputs):
        raise SystemExit("FAIL: an output differs from the exact model's")
    print(f"PASS: {execution.cycles:,} cycles, {len(outputs)} outputs as expected")


if __name__ == "__main__":
    main()
