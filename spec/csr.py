"""The AXI4-Lite register map: 32-bit registers, one definition for hardware, driver and documentation."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.lib import enum

__all__ = ["CSR_ADDR_BITS", "ID", "REGISTERS", "Error", "Register"]

ID = 0x434E5659
"""Value of the ID register: "CNVY"."""
CSR_ADDR_BITS = 12
"""Address bits of the AXI4-Lite slave."""


class Error(enum.IntEnum, shape=8):
    """Why the NPU stopped; the value of the ERROR register."""

    NONE = 0
    """No error."""
    OPCODE = 1
    """A descriptor has an opcode that does not exist; ERROR_ADDR is the descriptor's address."""
    BUS_READ = 2
    """A read got SLVERR or DECERR; ERROR_ADDR is the address of the burst."""
    BUS_WRITE = 3
    """A write got SLVERR or DECERR; ERROR_ADDR is the address of the burst."""


@dataclass(frozen=True)
class Register:
    """One register: byte address, access (`ro`, `rw`, `wo`, `w1c`) and meaning."""

    name: str
    addr: int
    access: str
    doc: str


REGISTERS = {register.name: register for register in (
    Register("ID", 0x00, "ro", "`ID`, to recognise the NPU."),
    Register("CONFIG0", 0x04, "ro", "num_cores in bits 7:0, num_lanes in 15:8, port_bytes in 23:16, post_lanes in 31:24."),
    Register("CONTROL", 0x08, "wo", "Bit 0: doorbell, start the program (ignored while busy or in error). Bit 1: clear ERROR (ignored while busy)."),
    Register("STATUS", 0x0C, "ro", "Bit 0: busy. Bit 1: error."),
    Register("IRQ_ENABLE", 0x10, "rw", "Bit 0: the interrupt line follows IRQ_STATUS."),
    Register("IRQ_STATUS", 0x14, "w1c", "Bit 0: a program has ended, all its writes acknowledged, or has stopped with an error."),
    Register("ERROR", 0x18, "ro", "`Error`."),
    Register("ERROR_ADDR", 0x1C, "ro", "The address that goes with ERROR."),
    Register("PROGRAM_BASE", 0x20, "rw", "Address of the first descriptor, aligned to the size of a descriptor."),
    Register("PROGRAM_COUNT", 0x24, "rw", "Number of descriptors, 1..65535."),
    Register("RECORD_BASE", 0x28, "rw", "Where completion records go, aligned to 32 bytes. Not to be changed while busy."),
    Register("CYCLES", 0x2C, "ro", "Cycles from the last doorbell to its interrupt, or to now."),
    Register("READ_BYTES", 0x30, "ro", "Bytes read over the port since the last doorbell."),
    Register("WRITE_BYTES", 0x34, "ro", "Bytes written over the port since the last doorbell (strobes set), completion records not counted."),
)}
