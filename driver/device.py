"""What the runtime asks of a device: registers, memory, and waiting for the interrupt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from convoy.spec.config import NpuConfig

__all__ = ["Device", "DeviceError", "MemoryModel"]


class DeviceError(RuntimeError):
    """The device stopped with an error or did not answer; the message names the error and the address."""


@dataclass(frozen=True)
class MemoryModel:
    """Timing of the memory behind the AXI4 port."""

    latency_cycles: int = 32
    """Cycles from a read address to its first beat, and from a last write beat to its response."""
    stall_percent: int = 0
    """Chance, each cycle and channel, that the memory does not take or give a beat."""
    seed: int = 0
    """Seed of the stalls."""
    is_shared: bool = False
    """Reads and writes share one beat per cycle instead of having one each."""


class Device(Protocol):
    """A Convoy NPU with its memory, simulated or real."""

    config: NpuConfig
    memory_model: MemoryModel | None
    """None when the device has no timing (golden)."""

    def read32(self, addr: int) -> int:
        """Read a CSR."""

    def write32(self, addr: int, value: int) -> None:
        """Write a CSR."""

    def read_memory(self, addr: int, num_bytes: int) -> bytes:
        """Read the memory behind the port."""

    def write_memory(self, addr: int, data: bytes) -> None:
        """Write the memory behind the port; it grows as needed."""

    def wait(self, max_cycles: int, progress: Callable[[int], None] | None = None) -> int:
        """Run until the interrupt; cycles simulated (0 when the device has no timing).

        `progress` is called now and then with the cycles so far.

        Raises
        ------
        DeviceError
            When `max_cycles` pass without an interrupt, or the bus protocol was violated.
        """

    def close(self) -> None:
        """Release what the device holds."""
