"""Checked access to the byte array that a `Machine` works on."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from convoy.spec.isa import LUT_BYTES
from convoy.spec.record import Record

__all__ = ["MachineError", "MemoryView", "Observer", "PoolError"]


class MachineError(ValueError):
    """A descriptor, or a table it points to, breaks a rule of the instruction set; the message names the field, its value and the limit."""

    descriptor_addr: int | None = None
    """Address of the descriptor, when a `Machine` has run it."""


class PoolError(MachineError):
    """The fused pool of a descriptor breaks a rule of pools."""


class Observer(Protocol):
    """Is told of every access before it is made."""

    def read_constant(self, what: str, span: slice) -> None:
        """Bytes of a descriptor, a table or a weight stream."""

    def read(self, what: str, index: np.ndarray) -> None:
        """Bytes of activations; int64 addresses."""

    def write(self, what: str, index: np.ndarray) -> None:
        """Bytes of results; int64 addresses."""


class MemoryView:
    """A uint8 array addressed in bytes from 0. Every access outside raises `MachineError` naming what was accessed."""

    def __init__(self, memory: bytearray | np.ndarray, observer: Observer | None = None):
        self.observer = observer
        self.array = memory if isinstance(memory, np.ndarray) else np.frombuffer(memory, np.uint8)
        if self.array.dtype != np.uint8 or self.array.ndim != 1:
            raise TypeError(f"memory is a {self.array.ndim}-dimensional array of {self.array.dtype}: use a bytearray or a flat uint8 array")

    def check(self, what: str, start: int, stop: int) -> None:
        """Raise unless `start <= stop` and both lie inside the memory."""
        if not 0 <= start <= stop <= len(self.array):
            raise MachineError(f"{what}: bytes {start:#x}..{stop:#x} are outside the memory of {len(self.array):#x} bytes")

    def read(self, what: str, addr: int, num_bytes: int) -> np.ndarray:
        """Constants: uint8, shape (num_bytes,)."""
        self.check(what, addr, addr + num_bytes)
        if self.observer:
            self.observer.read_constant(what, slice(addr, addr + num_bytes))
        return self.array[addr : addr + num_bytes]

    def look_up(self, what: str, d: dict[str, int], values: np.ndarray) -> np.ndarray:
        """int8 `values` through the table of a descriptor, if it has one."""
        if not d["has_lut"]:
            return values
        if d["lut_addr"] % LUT_BYTES:
            raise MachineError(f"{what} = {d['lut_addr']:#x}: align it to {LUT_BYTES} bytes")
        return self.read(what, d["lut_addr"], LUT_BYTES).view(np.int8)[values.astype(np.int64) & 255]

    def read_record(self, what: str, record: Record, addr: int) -> dict[str, int]:
        """The fields of one record."""
        return record.decode(self.read(what, addr, record.num_bytes).tobytes())

    def read_runs(self, what: str, addr: int, run_bytes: int, *loops: tuple[int, int]) -> np.ndarray:
        """Activations: runs of bytes, concatenated, as int8; `loops` are (count, pitch_bytes), outermost first."""
        index = self._run_index(what, addr, run_bytes, *loops)
        if self.observer:
            self.observer.read(what, index)
        return self.array[index].view(np.int8)

    def gather(self, what: str, addrs: np.ndarray) -> np.ndarray:
        """Activations: int8 values of an array of addresses."""
        if addrs.size:
            self.check(what, int(addrs.min()), int(addrs.max()) + 1)
            if self.observer:
                self.observer.read(what, addrs.ravel())
        return self.array[addrs].view(np.int8)

    def write_runs(self, what: str, addr: int, run_bytes: int, num_runs: int, pitch_bytes: int, values: np.ndarray) -> None:
        """Write int8 values as runs."""
        self.scatter(what, self._run_index(what, addr, run_bytes, (num_runs, pitch_bytes)), values)

    def scatter(self, what: str, addrs: np.ndarray, values: np.ndarray) -> None:
        """Write the low bytes of values to the addresses of an equally shaped array; of two equal addresses the later one wins."""
        if addrs.size:
            self.check(what, int(addrs.min()), int(addrs.max()) + 1)
            if self.observer:
                self.observer.write(what, addrs.ravel())
            self.array[addrs.ravel()] = values.ravel().astype(np.int64).astype(np.uint8)

    def _run_index(self, what: str, addr: int, run_bytes: int, *loops: tuple[int, int]) -> np.ndarray:
        starts = np.array([addr], np.int64)
        for count, pitch_bytes in loops:
            starts = (starts[:, None] + np.arange(count, dtype=np.int64) * pitch_bytes).ravel()
        self.check(what, int(starts.min()), int(starts.max()) + run_bytes)
        return (starts[:, None] + np.arange(run_bytes)).ravel()
