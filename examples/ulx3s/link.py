"""The board as a device of Convoy's driver, over a line of bytes: a serial port, or a simulation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from board import WORD_BYTES, Command

from convoy.driver.errors import DeviceError
from convoy.spec.config import NpuConfig
from convoy.spec.csr import REGISTERS

__all__ = ["Board", "Line"]

MAX_WORDS = 1024
"""Of a command."""
MAX_WAIT_SECONDS = 600


class Line(Protocol):
    """A serial port as pyserial has it."""

    def read(self, num_bytes: int) -> bytes:
        """So many bytes; fewer when the other side does not answer."""

    def write(self, data: bytes) -> int:
        """Send bytes."""

    def close(self) -> None:
        """Release it."""


class Board:
    """A `Device`: an NPU of a configuration with `memory_bytes` of memory at the other end of a line."""

    memory_model = None

    def __init__(self, config: NpuConfig, line: Line, memory_bytes: int):
        self.config, self._line, self._memory_bytes = config, line, memory_bytes

    def _read(self, command: Command, addr: int, num_words: int) -> bytes:
        self._command(command, addr, num_words)
        data = self._line.read(num_words * WORD_BYTES)
        if len(data) != num_words * WORD_BYTES:
            raise DeviceError("the board does not answer: check its power, the port, and that the bitstream is loaded")
        return data

    def _command(self, command: Command, addr: int, num_words: int, data: bytes = b"") -> None:
        self._line.write(bytes([command.value]) + num_words.to_bytes(2, "little") + addr.to_bytes(4, "little") + data)

    def read32(self, addr: int) -> int:
        """Read a register."""
        return int.from_bytes(self._read(Command.READ_REGISTER, addr, 1), "little")

    def write32(self, addr: int, value: int) -> None:
        """Write a register."""
        self._command(Command.WRITE_REGISTER, addr, 1, value.to_bytes(4, "little"))

    def read_memory(self, addr: int, num_bytes: int) -> bytes:
        """Read memory."""
        self._check(addr, num_bytes)
        begin, end = addr - addr % WORD_BYTES, addr + num_bytes
        words = -(-(end - begin) // WORD_BYTES)
        data = b"".join(
            self._read(Command.READ_MEMORY, begin + first * WORD_BYTES, min(MAX_WORDS, words - first))
            for first in range(0, words, MAX_WORDS)
        )
        return data[addr - begin :][:num_bytes]

    def write_memory(self, addr: int, data: bytes) -> None:
        """Write memory; of words that are written in part the rest is read before."""
        self._check(addr, len(data))
        front = self.read_memory(addr - addr % WORD_BYTES, addr % WORD_BYTES) if addr % WORD_BYTES else b""
        end = addr + len(data)
        back = self.read_memory(end, -end % WORD_BYTES) if end % WORD_BYTES else b""
        data, addr = front + data + back, addr - len(front)
        for first in range(0, len(data), MAX_WORDS * WORD_BYTES):
            part = data[first : first + MAX_WORDS * WORD_BYTES]
            self._command(Command.WRITE_MEMORY, addr + first, len(part) // WORD_BYTES, part)

    def _check(self, addr: int, num_bytes: int) -> None:
        if addr + num_bytes > self._memory_bytes:
            raise DeviceError(
                f"the network needs {addr + num_bytes:,} bytes, and the board's memory has {self._memory_bytes:,}"
            )

    def wait(self, max_cycles: int, progress: Callable[[int], None] | None = None) -> int:
        """Wait for the interrupt; the cycles that the NPU counted.

        Raises
        ------
        DeviceError
            When it does not come.
        """
        end = time.monotonic() + MAX_WAIT_SECONDS
        while not self.read32(REGISTERS["IRQ_STATUS"].addr):
            if time.monotonic() > end:
                raise DeviceError(f"no interrupt from the board within {MAX_WAIT_SECONDS} s")
        return self.read32(REGISTERS["CYCLES"].addr)

    def close(self) -> None:
        """Close the line."""
        self._line.close()
