"""The golden model as a device: the registers of the NPU around `convoy.golden.machine.Machine`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convoy.driver.device import DeviceError, MemoryModel
from convoy.spec.config import NpuConfig
from convoy.spec.csr import ID, REGISTERS, Control, Error, Status, WindowControl
from convoy.spec.isa import DESCRIPTOR_BYTES, Opcode

from .bus_model import SparseMemory

__all__ = ["GoldenDevice"]

_NAMES = {register.addr: name for name, register in REGISTERS.items()}


class GoldenDevice:
    """The golden model behind the registers. Implements `convoy.driver.device.Device`.

    It has no timing: the doorbell runs the whole program, the counters and completion records are zero.
    """

    def __init__(self, config: NpuConfig):
        from convoy.golden.machine import Machine

        self.config = config
        self.memory_model: MemoryModel | None = None
        self._memory = SparseMemory()
        self._machine = Machine(config, self._memory.array)
        self._values = dict.fromkeys(REGISTERS, 0)
        self._values["ID"] = ID
        self._values["CONFIG0"] = config.num_cores | config.num_lanes << 8 | config.port_bytes << 16 | config.post_lanes << 24

    def read32(self, addr: int) -> int:
        """Read a CSR.

        Raises
        ------
        DeviceError
            When there is no such register.
        """
        return self._values[self._name("read", addr)]

    def write32(self, addr: int, value: int) -> None:
        """Write a CSR; the doorbell executes the program.

        Raises
        ------
        DeviceError
            When there is no such register, or a descriptor is malformed; the message names the descriptor and the field.
        """
        name = self._name("write", addr)
        access = REGISTERS[name].access
        if name == "CONTROL":
            if value & Control.CLEAR_ERROR:
                self._values.update(ERROR=0, ERROR_ADDR=0, STATUS=0)
            if value & Control.DOORBELL:
                self._execute()
        elif access == "rw":
            locked_by = REGISTERS[name].locked_by
            if locked_by is None or not self._values[locked_by] & WindowControl.LOCK:
                self._values[name] = value & 0xFFFFFFFF
        elif access == "w1c":
            self._values[name] &= ~value

    def read_memory(self, addr: int, num_bytes: int) -> bytes:
        """Read the memory."""
        return self._memory.read(addr, num_bytes)

    def write_memory(self, addr: int, data: bytes) -> None:
        """Write the memory."""
        self._memory.write(addr, bytes(data))

    def wait(self, max_cycles: int, progress: Callable[[int], None] | None = None) -> int:
        """Nothing to wait for: 0 cycles.

        Raises
        ------
        DeviceError
            When there is no interrupt, because none is enabled or no program was started.
        """
        if not self._values["IRQ_ENABLE"] & self._values["IRQ_STATUS"] & 1:
            raise DeviceError(f"device golden: no interrupt within {max_cycles} cycles")
        return 0

    def close(self) -> None:
        """Nothing to release."""

    def _name(self, what: str, addr: int) -> str:
        if addr not in _NAMES:
            raise DeviceError(f"device golden: {what} of register {addr:#05x}: response 2")
        return _NAMES[addr]

    def _execute(self) -> None:
        from convoy.golden.machine import MachineError, PoolError

        base, count = self._values["PROGRAM_BASE"], self._values["PROGRAM_COUNT"]
        opcodes = self._memory.array[base:base + count * DESCRIPTOR_BYTES:DESCRIPTOR_BYTES]
        bad = np.flatnonzero(~np.isin(opcodes, [opcode.value for opcode in Opcode]))
        num_good = int(bad[0]) if bad.size else count
        try:
            if num_good or not count:
                self._machine.run(base, num_good, self._values["RECORD_BASE"])
        except PoolError as error:
            self._refuse(Error.POOL, error.descriptor_addr)
        except MachineError as error:
            raise DeviceError(f"device golden: {error}") from error
        else:
            if bad.size:
                self._refuse(Error.OPCODE, base + num_good * DESCRIPTOR_BYTES)
        self._values["IRQ_STATUS"] |= 1

    def _refuse(self, code: Error, addr: int) -> None:
        """Stop at the descriptor at `addr`."""
        self._values.update(ERROR=int(code), ERROR_ADDR=addr, STATUS=int(Status.ERROR))
