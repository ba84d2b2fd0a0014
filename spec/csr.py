"""The AXI4-Lite register map: 32-bit registers, one definition for hardware, driver and documentation."""

from __future__ import annotations

from dataclasses import dataclass

from .config import FEATURES, NpuConfig
from .docs import member_docs
from .enums import IntEnum, IntFlag
from .isa import COMPLETION

__all__ = [
    "CSR_ADDR_BITS",
    "DESCRIPTOR_ERRORS",
    "ID",
    "MAX_DESCRIPTORS",
    "NUM_WINDOWS",
    "REGISTERS",
    "WINDOW_ALIGN_BYTES",
    "Control",
    "Error",
    "Field",
    "Register",
    "Status",
    "WindowControl",
    "config_values",
]

ID = 0x434E5659
"""Value of the ID register: "CNVY"."""
CSR_ADDR_BITS = 12
"""Address bits of the AXI4-Lite slave."""
MAX_DESCRIPTORS = (1 << 16) - 1
"""Of a program."""
NUM_WINDOWS = 4
"""Memory windows."""
WINDOW_ALIGN_BYTES = 32
"""Alignment of the base and the limit of a window: the widest beat. The bits below are ignored."""


class Control(IntFlag, shape=3):
    """Bits of CONTROL."""

    DOORBELL = 1
    """Start the program; ignored unless idle and without error."""
    CLEAR_ERROR = 2
    """Set ERROR to NONE; ignored while busy."""
    SOFT_RESET = 4
    """Stop: start no burst, let those under way end, reset the engines. Then a program that was running has ended,
    without error.
    """


class Status(IntFlag, shape=3):
    """Bits of STATUS."""

    BUSY = 1
    """A program is running or being stopped."""
    ERROR = 2
    """ERROR is not NONE."""
    STOPPING = 4
    """Bursts under way have not ended yet, or the engines are being reset; a doorbell is ignored."""


class WindowControl(IntFlag, shape=3):
    """Bits of WINDOW*_CONTROL."""

    READ = 1
    """Reads are allowed in the window."""
    WRITE = 2
    """Writes are allowed in the window."""
    LOCK = 4
    """The three registers of the window ignore writes from now on, until the hardware reset; a soft reset does not
    unlock.
    """


class Error(IntEnum, shape=8):
    """Why the NPU stopped; the value of the ERROR register."""

    NONE = 0
    """No error."""
    OPCODE = 1
    """A descriptor has an opcode that does not exist; ERROR_ADDR is the descriptor's address."""
    BUS_READ = 2
    """A read got SLVERR or DECERR; ERROR_ADDR is the address of the burst."""
    BUS_WRITE = 3
    """A write got SLVERR or DECERR; ERROR_ADDR is the address of the burst."""
    ACCESS_READ = 4
    """A read outside the memory windows, or one that AXI4 forbids, was stopped before the bus; ERROR_ADDR is the
    address of the burst.
    """
    ACCESS_WRITE = 5
    """A write outside the memory windows, or one that AXI4 forbids, was stopped before the bus; ERROR_ADDR is the
    address of the burst.
    """
    WATCHDOG = 6
    """Neither bus nor engines moved for WATCHDOG cycles; ERROR_ADDR is the address of the oldest read under way,
    else of the oldest write, else 0.
    """
    MALFORMED = 7
    """A descriptor breaks a rule of the instruction set, or needs what FEATURES lacks, and was not started; ERROR_ADDR
    is its address. Earlier descriptors have completed. Or PROGRAM_COUNT is not legal; ERROR_ADDR is PROGRAM_BASE.
    """
    POOL = 8
    """The fused pool of a descriptor breaks a rule of pools, and nothing else is wrong; the same happens as with
    MALFORMED.
    """
    TIMEOUT = 9
    """The program had not ended after TIMEOUT cycles; ERROR_ADDR is 0. The completion records show how far it came."""


DESCRIPTOR_ERRORS = (Error.OPCODE, Error.MALFORMED, Error.POOL)
"""Errors of a descriptor that was not started: those before it complete."""


@dataclass(frozen=True)
class Field:
    """Bits `lsb` .. `lsb + width - 1` of a register. `values` names what they may hold, if that has names."""

    name: str
    lsb: int
    width: int
    doc: str = ""
    values: type[IntEnum] | None = None


def _flags(flags: type[IntFlag]) -> tuple[Field, ...]:
    """A field for each flag."""
    docs = member_docs(flags)
    return tuple(Field(name, flag.bit_length() - 1, 1, docs[name]) for name, flag in flags.__members__.items())


_CONFIG0 = tuple(
    Field(name, 8 * number, 8, f"`NpuConfig.{name}`.")
    for number, name in enumerate(("num_cores", "num_lanes", "port_bytes", "post_lanes"))
)
_FEATURES = tuple(Field(name, number, 1, f"`NpuConfig.{name}`.") for number, name in enumerate(FEATURES))
_IRQ = Field("IRQ", 0, 1, "The interrupt.")


@dataclass(frozen=True)
class Register:
    """One register.

    Attributes
    ----------
    addr : byte address
    access : `ro`, `rw`, `wo` or `w1c`
    doc : meaning
    locked_by : the register whose `WindowControl.LOCK` makes it read-only
    is_held : writes are ignored while STATUS shows BUSY or STOPPING: a program keeps what stood there at its doorbell
    fields : its parts; none: it is one value of 32 bits
    value : what it always reads, if that is always the same
    """

    name: str
    addr: int
    access: str
    doc: str
    locked_by: str | None = None
    is_held: bool = False
    fields: tuple[Field, ...] = ()
    value: int | None = None


def _window(number: int) -> tuple[Register, ...]:
    name, addr = f"WINDOW{number}", 0x40 + 0x10 * number
    lock = f"{name}_CONTROL"
    return (
        Register(
            f"{name}_BASE",
            addr,
            "rw",
            f"First byte of the memory window, a multiple of {WINDOW_ALIGN_BYTES}.",
            lock,
            is_held=True,
        ),
        Register(
            f"{name}_LIMIT",
            addr + 4,
            "rw",
            f"The byte after the window's last one, a multiple of {WINDOW_ALIGN_BYTES}.",
            lock,
            is_held=True,
        ),
        Register(
            lock,
            addr + 8,
            "rw",
            "`WindowControl`. While no window has READ or WRITE set, every access is allowed; "
            "else a burst must lie in one window that allows it.",
            lock,
            is_held=True,
            fields=_flags(WindowControl),
        ),
    )


REGISTERS = {
    register.name: register
    for register in (
        Register("ID", 0x00, "ro", "`ID`, to recognise the NPU.", value=ID),
        Register(
            "CONFIG0",
            0x04,
            "ro",
            ", ".join(
                f"{field.name} in {'bits ' * (field.lsb == 0)}{field.lsb + field.width - 1}:{field.lsb}"
                for field in _CONFIG0
            )
            + ".",
            fields=_CONFIG0,
        ),
        Register("CONTROL", 0x08, "wo", "`Control`.", fields=_flags(Control)),
        Register("STATUS", 0x0C, "ro", "`Status`.", fields=_flags(Status)),
        Register(
            "IRQ_ENABLE", 0x10, "rw", "Bit 0: the interrupt line follows IRQ_STATUS.", fields=(Field("IRQ", 0, 1),)
        ),
        Register(
            "IRQ_STATUS",
            0x14,
            "w1c",
            "Bit 0: a program has ended, all its writes acknowledged, or has been stopped.",
            fields=(_IRQ,),
        ),
        Register("ERROR", 0x18, "ro", "`Error`.", fields=(Field("ERROR", 0, 8, values=Error),)),
        Register("ERROR_ADDR", 0x1C, "ro", "The address that goes with ERROR."),
        Register(
            "PROGRAM_BASE",
            0x20,
            "rw",
            "Address of the first descriptor, aligned to the size of a descriptor.",
            is_held=True,
        ),
        Register(
            "PROGRAM_COUNT",
            0x24,
            "rw",
            f"Number of descriptors, 1..{MAX_DESCRIPTORS}; with another number the doorbell ends in "
            "`Error.MALFORMED`, ERROR_ADDR is PROGRAM_BASE.",
            is_held=True,
        ),
        Register(
            "RECORD_BASE",
            0x28,
            "rw",
            f"Where completion records go, aligned to {COMPLETION.num_bytes} bytes.",
            is_held=True,
        ),
        Register("CYCLES", 0x2C, "ro", "Cycles from the last doorbell to its interrupt, or to now."),
        Register("READ_BYTES", 0x30, "ro", "Bytes read over the port since the last doorbell."),
        Register(
            "WRITE_BYTES",
            0x34,
            "ro",
            "Bytes written over the port since the last doorbell (strobes set), completion records not counted.",
        ),
        Register(
            "WATCHDOG",
            0x38,
            "rw",
            "Cycles without any progress after which a program is stopped with `Error.WATCHDOG`; 0: never.",
        ),
        Register(
            "TIMEOUT",
            0x3C,
            "rw",
            "Cycles from the doorbell after which a program is stopped with `Error.TIMEOUT`, whatever moves; 0: never. "
            "If bursts under way "
            "do not end, the interrupt comes after twice as many cycles, with STOPPING set.",
        ),
        *(register for number in range(NUM_WINDOWS) for register in _window(number)),
        Register(
            "FEATURES",
            0x80,
            "ro",
            f"What this NPU has: {', '.join(f'{field.name} in bit {field.lsb}' for field in _FEATURES)}.",
            fields=_FEATURES,
        ),
    )
}


def config_values(config: NpuConfig) -> dict[str, int]:
    """What the registers hold that tell the configuration, by name."""
    return {
        name: sum(int(getattr(config, field.name)) << field.lsb for field in REGISTERS[name].fields)
        for name in ("CONFIG0", "FEATURES")
    }
