"""Checked access to the byte array that a `Machine` works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from convoy.spec.csr import Error
from convoy.spec.isa import LUT_BYTES
from convoy.spec.record import Record

__all__ = ["AccessError", "MachineError", "MemoryView", "Observer", "OpcodeError", "PoolError", "Window"]

ADDR_MASK = 0xFFFFFFFF
"""Addresses have 32 bits and wrap around."""


class MachineError(ValueError):
    """A descriptor, or a table it points to, breaks a rule of the instruction set; the message names the field, its
    value and the limit.
    """

    code = Error.MALFORMED
    """What the hardware calls it."""
    addr: int | None = None
    """What goes with it: the address of the descriptor, once a `Machine` has located it."""


class OpcodeError(MachineError):
    """A descriptor has an opcode that does not exist."""

    code = Error.OPCODE


class PoolError(MachineError):
    """The fused pool of a descriptor breaks a rule of pools."""

    code = Error.POOL


class AccessError(MachineError):
    """An access that no memory window allows, or where there is no memory: `addr` is the address of the first byte
    that it may not touch.
    """

    def __init__(self, message: str, code: Error, addr: int):
        super().__init__(message)
        self.code, self.addr = code, addr


@dataclass(frozen=True)
class Window:
    """A memory window: bytes `base` to `limit - 1`, and what is allowed there."""

    base: int
    limit: int
    is_readable: bool
    is_writable: bool


class Observer(Protocol):
    """Is told of every access before it is made."""

    def read_constant(self, what: str, span: slice) -> None:
        """Bytes of a descriptor, a table or a weight stream."""

    def read(self, what: str, index: np.ndarray) -> None:
        """Bytes of activations; int64 addresses."""

    def write(self, what: str, index: np.ndarray) -> None:
        """Bytes of results; int64 addresses."""


class MemoryView:
    """A uint8 array addressed in bytes from 0, by addresses of 32 bits that wrap around.

    Every access is checked before it is made: one that is outside the windows or the memory raises `AccessError` naming
    what was accessed.

    Parameters
    ----------
    windows
        Without one all is allowed. Windows that touch count as one (the hardware refuses a burst that lies in two).
    """

    def __init__(
        self, memory: bytearray | np.ndarray, observer: Observer | None = None, windows: Sequence[Window] = ()
    ):
        self.observer = observer
        self.array = memory if isinstance(memory, np.ndarray) else np.frombuffer(memory, np.uint8)
        if self.array.dtype != np.uint8 or self.array.ndim != 1:
            raise TypeError(
                f"memory is a {self.array.ndim}-dimensional array of {self.array.dtype}: use a bytearray or a flat "
                "uint8 array"
            )
        self._spans = None
        if windows:
            self._spans = {
                False: [(w.base, w.limit) for w in windows if w.is_readable],
                True: [(w.base, w.limit) for w in windows if w.is_writable],
            }

    def read(self, what: str, addr: int, num_bytes: int) -> np.ndarray:
        """Constants: uint8, shape (num_bytes,)."""
        addr &= ADDR_MASK
        self._check_span(what, addr, addr + num_bytes)
        if self.observer:
            self.observer.read_constant(what, slice(addr, addr + num_bytes))
        return self.array[addr : addr + num_bytes]

    def look_up(self, what: str, d: dict[str, int], values: np.ndarray) -> np.ndarray:
        """int8 `values` through the table of a descriptor, if it has one."""
        if not d["has_lut"]:
            return values
        return self.read(what, d["lut_addr"], LUT_BYTES).view(np.int8)[values.astype(np.int64) & 255]

    def read_record(self, what: str, record: Record, addr: int) -> dict[str, int]:
        """The fields of one record."""
        return record.decode(self.read(what, addr, record.num_bytes).tobytes())

    def read_runs(self, what: str, addr: int, run_bytes: int, *loops: tuple[int, int]) -> np.ndarray:
        """Activations: runs of bytes, concatenated, as int8; `loops` are (count, pitch_bytes), outermost first."""
        starts = np.array([addr], np.int64)
        for count, pitch_bytes in loops:
            starts = (starts[:, None] + np.arange(count, dtype=np.int64) * pitch_bytes).ravel()
        return self.gather(what, (starts[:, None] + np.arange(run_bytes)).ravel())

    def gather(self, what: str, addrs: np.ndarray) -> np.ndarray:
        """Activations: int8 values of an array of addresses."""
        addrs = addrs & ADDR_MASK
        if addrs.size:
            self._check_addrs(what, addrs, is_write=False)
            if self.observer:
                self.observer.read(what, addrs.ravel())
        return self.array[addrs].view(np.int8)

    def scatter(self, what: str, addrs: np.ndarray, values: np.ndarray) -> None:
        """Write the low bytes of values to the addresses of an equally shaped array."""
        addrs = addrs.ravel() & ADDR_MASK
        if addrs.size:
            self._check_addrs(what, addrs, is_write=True)
            if self.observer:
                self.observer.write(what, addrs)
            self.array[addrs] = values.ravel().astype(np.int64).astype(np.uint8)

    def _check_addrs(self, what: str, addrs: np.ndarray, is_write: bool) -> None:
        """Raise unless every byte may be read (or written)."""
        low, high = int(addrs.min()), int(addrs.max())
        if self._spans is not None and not any(base <= low and high < limit for base, limit in self._spans[is_write]):
            is_allowed = np.zeros(addrs.shape, bool)
            for base, limit in self._spans[is_write]:
                is_allowed |= (addrs >= base) & (addrs < limit)
            if not is_allowed.all():
                self._refuse(what, int(addrs[~is_allowed][0]), is_write)
        if high >= len(self.array):
            self._refuse_outside(what, low, high + 1, int(addrs[addrs >= len(self.array)][0]), is_write)

    def _check_span(self, what: str, start: int, stop: int) -> None:
        """The same for consecutive bytes, which are read."""
        addr = start
        while self._spans is not None and addr < stop:
            after = max((limit for base, limit in self._spans[False] if base <= addr < limit), default=None)
            if after is None:
                self._refuse(what, addr, is_write=False)
            addr = after
        if stop > len(self.array):
            self._refuse_outside(what, start, stop, max(start, len(self.array)), is_write=False)

    def _refuse(self, what: str, addr: int, is_write: bool) -> None:
        verb, code = ("write", Error.ACCESS_WRITE) if is_write else ("read", Error.ACCESS_READ)
        raise AccessError(f"{what}: no memory window allows to {verb} byte {addr:#x}", code, addr)

    def _refuse_outside(self, what: str, start: int, stop: int, addr: int, is_write: bool) -> None:
        code = Error.BUS_WRITE if is_write else Error.BUS_READ
        raise AccessError(
            f"{what}: bytes {start:#x}..{stop:#x} are outside the memory of {len(self.array):#x} bytes", code, addr
        )
