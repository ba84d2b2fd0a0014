"""Run a network on the board, or on its simulation: `board.py MODEL --port /dev/ttyUSB0` or `--port socket://...`.

The serial port is LiteX's bridge: `UartDevice` puts registers and memory behind it, and the driver does the rest.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parents[1] / "litex"))

from memory_map import MEMORY_BASE, REGISTERS_BASE

from convoy.driver import load
from convoy.driver.errors import DeviceError
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import NpuConfig
from convoy.spec.csr import REGISTERS

BURST_WORDS = 64
"""Words that one request reads; the bridge counts to 255."""


class Bridge(Protocol):
    """LiteX's `CommUART`: words of 32 bits at addresses in bytes."""

    def read(self, addr: int, length: int | None = None) -> int | list[int]:
        """A word, or so many of them."""

    def write(self, addr: int, data: int | list[int]) -> None:
        """Write a word or more."""

    def close(self) -> None:
        """Give the port back."""


class UartDevice:
    """A Convoy NPU behind LiteX's serial bridge. Implements `convoy.driver.runtime.device.Device`.

    Parameters
    ----------
    config : of the NPU in the bitstream
    comm : open
    memory_bytes : of the memory behind the NPU's port
    timeout_seconds : until a program must have raised the interrupt
    """

    memory_model: MemoryModel | None = MemoryModel(latency_cycles=1)

    def __init__(self, config: NpuConfig, comm: Bridge, memory_bytes: int, timeout_seconds: float = 60):
        self.config, self._comm, self._memory_bytes, self._timeout = config, comm, memory_bytes, timeout_seconds

    def read32(self, addr: int) -> int:
        """Read a CSR."""
        return self._comm.read(REGISTERS_BASE + addr)

    def write32(self, addr: int, value: int) -> None:
        """Write a CSR."""
        self._comm.write(REGISTERS_BASE + addr, value)

    def read_memory(self, addr: int, num_bytes: int) -> bytes:
        """Read the memory behind the port.

        Raises
        ------
        DeviceError
            When there is no such memory.
        """
        self._check(addr, num_bytes)
        first, last = addr // 4, -(-(addr + num_bytes) // 4)
        words = list[int]()
        for start in range(first, last, BURST_WORDS):
            words += self._comm.read(MEMORY_BASE + 4 * start, min(BURST_WORDS, last - start))
        raw = b"".join(word.to_bytes(4, "little") for word in words)
        return raw[addr - 4 * first :][:num_bytes]

    def write_memory(self, addr: int, data: bytes) -> None:
        """Write the memory behind the port.

        Raises
        ------
        DeviceError
            When there is no such memory.
        """
        self._check(addr, len(data))
        if not data:
            return
        end = addr + len(data)
        before = self.read_memory(addr & ~3, addr & 3)
        after = self.read_memory(end, -end & 3)
        raw = before + data + after
        self._comm.write(
            MEMORY_BASE + (addr & ~3), [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]
        )

    def wait(self, max_cycles: int, progress: Callable[[int], None] | None = None) -> int:
        """Ask until the interrupt is there; 0, for the NPU counts its cycles itself.

        Raises
        ------
        DeviceError
            When it does not come.
        """
        end = time.monotonic() + self._timeout
        while not self.read32(REGISTERS["IRQ_STATUS"].addr):
            if time.monotonic() > end:
                raise DeviceError(f"no interrupt after {self._timeout:.0f} s; reset the board")
        return 0

    def close(self) -> None:
        """Give the port back."""
        self._comm.close()

    def _check(self, addr: int, num_bytes: int) -> None:
        if addr < 0 or addr + num_bytes > self._memory_bytes:
            raise DeviceError(
                f"bytes {addr:#x} to {addr + num_bytes:#x} are outside the board's memory of {self._memory_bytes} "
                "bytes: build the bitstream with a larger MEMORY_BYTES, or take a smaller network"
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a TFLite or ONNX file")
    parser.add_argument("--port", required=True, help="a serial port, or socket://HOST:PORT of the simulation")
    parser.add_argument("--config", default="S", help="of the NPU in the bitstream")
    parser.add_argument("--memory-bytes", type=int, default=65536, help="of the board")
    parser.add_argument("--baud", type=int, default=1_000_000)
    parser.add_argument("--input", help="an image or a .npy file; else random values")
    parser.add_argument("--clock", help="of the board, such as 40MHz, for milliseconds")
    args = parser.parse_args()
    from litex.tools.remote.comm_uart import CommUART

    network = load(args.model, args.config, clock=args.clock)
    device = UartDevice(network.config, CommUART(args.port, args.baud), args.memory_bytes)
    outputs = network.run(args.input, device=device, reference=True)
    print(outputs.report)
    for name in outputs:
        print(f"{name}: {outputs[name].ravel()[:10].tolist()}")
    device.close()
    if outputs.mismatches:
        raise SystemExit(f"FAIL: {len(outputs.mismatches)} tensors differ from the reference's")
    print("PASS: every tensor equals the reference's")


if __name__ == "__main__":
    main()
