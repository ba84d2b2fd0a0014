"""Writes `driver/c/convoy_regs.h` from `convoy.spec`: registers, bits, errors, and what of descriptors and records the
C runtime has to know.

`python -m convoy.verif.c_header` writes it; a test checks that it is up to date.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

from convoy.driver.c.arrays import format_code
from convoy.driver.emit.relocate import DESCRIPTORS, address_fields, lsb
from convoy.driver.report.markdown import LINE_COLUMNS
from convoy.spec import csr, isa
from convoy.spec.docs import member_docs

__all__ = ["HEADER_PATH", "header"]

HEADER_PATH = Path(__file__).parents[1] / "driver" / "c" / "convoy_regs.h"
C_NAMES = {
    "ID": "CONVOY_ID",
    "Control": "CONVOY_CONTROL_...",
    "Status": "CONVOY_STATUS_...",
    "WindowControl": "CONVOY_WINDOW_...",
    "Error": "enum convoy_error",
}
WINDOW_FIELDS = ("BASE", "LIMIT", "CONTROL")


def header() -> str:
    """The text of the header."""
    lines = [
        "/* Registers, errors and records of the Convoy NPU. Written by `make reference` from `spec/`; do not edit. */",
        "#ifndef CONVOY_REGS_H",
        "#define CONVOY_REGS_H",
        "",
        *_comment("Changes whenever what this header says of descriptors does: a network must have been made for it."),
        f"#define CONVOY_FORMAT {format_code():#010x}u",
        "",
        *_comment("Value of the register ID."),
        f"#define CONVOY_ID {csr.ID:#010x}u",
        "",
        "/* Registers of 32 bits: offsets from ID. Those of the memory windows take their number. */",
        *_registers(),
        *_bits("CONTROL", csr.Control),
        *_bits("STATUS", csr.Status),
        *_bits("WINDOW", csr.WindowControl),
        "",
        "/* X(name, bit) for each bit of FEATURES. */",
        "#define CONVOY_FEATURES(X) \\",
        " \\\n".join(
            f"    X({field.name.removeprefix('has_').upper()}, {field.lsb})"
            for field in csr.REGISTERS["FEATURES"].fields
        ),
        "",
        "/* ERROR: why the NPU stopped. */",
        "enum convoy_error {",
    ]
    docs = member_docs(csr.Error)
    for error in csr.Error:
        lines += [*_comment(docs[error.name], "    "), f"    CONVOY_ERROR_{error.name} = {error.value},"]
    lines += [
        "};",
        "",
        "/* X(name, code) for each of them. */",
        "#define CONVOY_ERRORS(X) \\",
        " \\\n".join(f"    X({error.name}, {error.value})" for error in csr.Error),
        "",
        "/* Memory windows: number, and alignment of base and limit. */",
        f"#define CONVOY_NUM_WINDOWS {csr.NUM_WINDOWS}u",
        f"#define CONVOY_WINDOW_ALIGN {csr.WINDOW_ALIGN_BYTES}u",
        "",
        "/* Descriptors: size and alignment; the first byte is the opcode; bits from which on they hold an address. */",
        f"#define CONVOY_DESCRIPTOR_BYTES {isa.DESCRIPTOR_BYTES}u",
    ]
    lines += [f"#define CONVOY_OPCODE_{opcode.name} {opcode.value}u" for opcode in isa.Opcode]
    for record in DESCRIPTORS.values():
        bits = ", ".join(f"{lsb(record, name)}u" for name in address_fields(record))
        lines.append(f"#define CONVOY_{record.name}_ADDRESS_BITS {{{bits}}}")
    lines += [
        "",
        "/* Completion records, one for each descriptor of a program: size, and offsets of 32-bit values. */",
        f"#define CONVOY_RECORD_BYTES {isa.COMPLETION.num_bytes}u",
        *(f"#define CONVOY_RECORD_{name.upper()} {lsb(isa.COMPLETION, name) // 8}u" for name in isa.COMPLETION.fields),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _registers() -> list[str]:
    lines = []
    windows = [f"WINDOW{number}_{field}" for number in range(csr.NUM_WINDOWS) for field in WINDOW_FIELDS]
    for register in csr.REGISTERS.values():
        if register.name not in windows:
            held = ", held while BUSY or STOPPING" if register.is_held else ""
            lines += _comment(f"{register.access}{held}: {register.doc}")
            lines.append(f"#define CONVOY_REG_{register.name} {register.addr:#05x}u")
    for field in WINDOW_FIELDS:
        first, second = (csr.REGISTERS[f"WINDOW{number}_{field}"] for number in (0, 1))
        lines += _comment(f"{first.access}, held while BUSY or STOPPING: {first.doc}")
        step = second.addr - first.addr
        lines.append(f"#define CONVOY_REG_WINDOW_{field}(n) ({first.addr:#05x}u + {step:#x}u * (n))")
    return lines


def _bits(prefix: str, enum: type) -> list[str]:
    docs, lines = member_docs(enum), ["", *_comment(inspect.getdoc(enum) or "")]
    for member in enum:  # type: ignore[attr-defined]
        lines += [*_comment(docs[member.name]), f"#define CONVOY_{prefix}_{member.name} {member.value:#x}u"]
    return lines


def _comment(text: str, indent: str = "") -> list[str]:
    """Text as a comment; what it names of `spec` has the names of this header."""
    text = re.sub(r"`Error\.(\w+)`", r"CONVOY_ERROR_\1", text)
    for name, c_name in C_NAMES.items():
        text = text.replace(f"`{name}`", c_name)
    words = textwrap.wrap(text, LINE_COLUMNS - len(indent) - 6, break_long_words=False, break_on_hyphens=False)
    first, *rest = words
    lines = [f"{indent}/* {first}", *(f"{indent} * {line}" for line in rest)]
    return [*lines[:-1], f"{lines[-1]} */"]


def main() -> None:
    """Write the header."""
    HEADER_PATH.write_text(header())
    print(HEADER_PATH.relative_to(HEADER_PATH.parents[2]))


if __name__ == "__main__":
    main()
