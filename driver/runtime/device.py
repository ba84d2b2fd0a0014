"""What the runtime asks of a device: registers, memory, and waiting for the interrupt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from convoy.driver.errors import DeviceError
from convoy.spec.config import NpuConfig
from convoy.spec.csr import Error

__all__ = [
    "AccessError",
    "BusError",
    "Device",
    "DeviceError",
    "MalformedError",
    "MemoryModel",
    "NpuError",
    "PoolError",
    "ProgramTimeoutError",
    "WatchdogError",
    "npu_error",
]


class NpuError(DeviceError):
    """The NPU stopped a program: `code` and `addr` are those of its ERROR registers.

    It is idle again and takes the next program.

    `detail` is what the device can explain beyond that: the golden device names the descriptor, its field, the value
    and the limit; else empty.
    """

    REMEDY = "the driver does not know this code; use the driver of the NPU's version"
    HINT = ""
    """Where to look when there is no `detail`."""

    def __init__(self, code: int, addr: int, detail: str = ""):
        self.code, self.addr, self.detail = code, addr, detail
        name = Error(code).name if code in set(Error) else str(code)
        more = detail or self.HINT
        super().__init__(
            f"the NPU stopped with error {name} at address {addr:#x}: {self.REMEDY}" + f"; {more}" * bool(more)
        )

    def __reduce__(self) -> tuple:
        """As another process needs it."""
        return type(self), (self.code, self.addr)


class BusError(NpuError):
    """The memory answered a burst with an error response."""

    REMEDY = (
        "the memory behind the port refused the burst; check that this address exists and that the interconnect "
        "lets the NPU use it"
    )


class AccessError(NpuError):
    """A burst outside the memory windows was stopped before it reached the bus."""

    REMEDY = (
        "no memory window allows this; the descriptors, or the memory they lie in, have been overwritten, or a "
        "window was locked by someone else"
    )


class WatchdogError(NpuError):
    """Nothing moved for too long."""

    REMEDY = (
        "the memory has stopped answering (if it stays so, reset it and the NPU together), or descriptors wait for "
        "each other; a slow memory needs a larger WATCHDOG"
    )


class ProgramTimeoutError(NpuError):
    """A program took too long."""

    REMEDY = (
        "the program had not ended after TIMEOUT cycles; if it is not the program that never ends, TIMEOUT must be "
        "larger"
    )


class MalformedError(NpuError):
    """A descriptor breaks a rule of the instruction set."""

    REMEDY = "the descriptor there breaks a rule of the instruction set"
    HINT = "the golden device names the field"


class PoolError(MalformedError):
    """The fused pool of a descriptor is illegal."""

    REMEDY = (
        "the descriptor there fuses a pool that the NPU cannot fuse (docs/reference/limits.md); run that pool on "
        "the tensor processor"
    )


_CLASSES: dict[int, type[NpuError]] = {
    Error.OPCODE: MalformedError,
    Error.MALFORMED: MalformedError,
    Error.BUS_READ: BusError,
    Error.BUS_WRITE: BusError,
    Error.ACCESS_READ: AccessError,
    Error.ACCESS_WRITE: AccessError,
    Error.WATCHDOG: WatchdogError,
    Error.POOL: PoolError,
    Error.TIMEOUT: ProgramTimeoutError,
}


def npu_error(code: int, addr: int, detail: str = "") -> NpuError:
    """The exception for the values of ERROR and ERROR_ADDR, and a device's explanation."""
    return _CLASSES.get(code, NpuError)(code, addr, detail)


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
    """A Convoy NPU with its memory, simulated or real.

    One that knows what is wrong, while ERROR is set, says so in an attribute `explanation`.
    """

    config: NpuConfig

    @property
    def memory_model(self) -> MemoryModel | None:
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
