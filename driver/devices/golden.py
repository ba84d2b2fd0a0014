"""The golden model as a device: the registers of the NPU around `convoy.golden.machine.Machine`."""

from __future__ import annotations

from collections.abc import Callable

from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.spec.config import NpuConfig
from convoy.spec.csr import (
    ID,
    NUM_WINDOWS,
    REGISTERS,
    WINDOW_ALIGN_BYTES,
    Control,
    Status,
    WindowControl,
    config_values,
)
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES

from .bus_model import SparseMemory

__all__ = ["GoldenDevice"]

_NAMES = {register.addr: name for name, register in REGISTERS.items()}


class GoldenDevice:
    """The golden model behind the registers. Implements `convoy.driver.runtime.device.Device`.

    Its registers behave as those of the RTL: errors, interrupt, memory windows, locks, soft reset. What differs:

    * It has no timing: the doorbell runs the whole program, the counters and completion records are zero, WATCHDOG and
      TIMEOUT only keep their values. So there is nothing for a soft reset to stop, and STATUS never says that the NPU
      is busy.
    * Descriptors are executed one after another. When an access is stopped by a window, those before have completed,
      and ERROR_ADDR is that of the first beat that is not allowed; in the RTL later descriptors may have begun, and
      ERROR_ADDR is where a burst begins. Two windows that touch count as one; the RTL refuses a burst that lies in
      both.
    * Where there is no memory, it answers BUS_READ or BUS_WRITE. Simulators of the RTL call that a violation of the bus
      protocol.
    * It stops with MALFORMED at every broken rule, also those that the RTL does not check (see `DescriptorCheck`), and
      at a descriptor that would take it too long (`convoy.golden.budget`).

    Attributes
    ----------
    explanation : str
        What is wrong, as long as ERROR is set: the descriptor, its field, the value and the limit.
    """

    def __init__(self, config: NpuConfig):
        from convoy.golden.machine import Machine

        self.config = config
        self.memory_model: MemoryModel | None = None
        self.explanation = ""
        self._memory = SparseMemory()
        self._machine = Machine(config, self._memory.array)
        self._values = dict.fromkeys(REGISTERS, 0) | {"ID": ID} | config_values(config)

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
            When there is no such register.
        """
        name = self._name("write", addr)
        access = REGISTERS[name].access
        if name == "CONTROL":
            self._control(Control(value & sum(Control)))
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
        name = _NAMES.get(addr & ~3)  # as on the bus
        if name is None:
            raise DeviceError(f"device golden: {what} of register {addr:#05x}: response 2")
        return name

    def _control(self, bits: Control) -> None:
        """All bits of a write take effect at once: a doorbell together with CLEAR_ERROR still meets the error."""
        is_started = (
            Control.DOORBELL in bits and Control.SOFT_RESET not in bits and not self._values["STATUS"] & Status.ERROR
        )
        if Control.CLEAR_ERROR in bits:
            self._values.update(ERROR=0, ERROR_ADDR=0, STATUS=0)
            self.explanation = ""
        if is_started:
            self._execute()

    def _execute(self) -> None:
        from convoy.golden.machine import MachineError

        program_addr = self._values["PROGRAM_BASE"] & -DESCRIPTOR_BYTES
        count = self._values["PROGRAM_COUNT"]
        try:
            self._machine.run(program_addr, count, self._values["RECORD_BASE"] & -COMPLETION.num_bytes, self._windows())
        except MachineError as error:
            self._values.update(
                ERROR=int(error.code), ERROR_ADDR=error.error_addr & -self.config.port_bytes, STATUS=int(Status.ERROR)
            )
            self.explanation = str(error)
        except MemoryError:
            raise DeviceError(
                f"device golden: the system has too little memory for the program at {program_addr:#x}"
            ) from None
        self._values["IRQ_STATUS"] |= 1

    def _windows(self) -> list:
        """The windows that allow anything."""
        from convoy.golden.machine import Window

        windows = []
        for name in (f"WINDOW{number}" for number in range(NUM_WINDOWS)):
            base, limit = (self._values[f"{name}_{which}"] & -WINDOW_ALIGN_BYTES for which in ("BASE", "LIMIT"))
            control = self._values[f"{name}_CONTROL"]
            if control & (WindowControl.READ | WindowControl.WRITE):
                windows.append(
                    Window(base, limit, bool(control & WindowControl.READ), bool(control & WindowControl.WRITE))
                )
        return windows
