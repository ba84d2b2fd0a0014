"""The register map in SystemRDL 2.0, from which PeakRDL and others make C headers, pages and UVM models."""

from __future__ import annotations

from convoy.spec.csr import REGISTERS, Error, Field, Register
from convoy.spec.docs import member_docs

__all__ = ["fields_of", "systemrdl"]

ACCESS = {
    "ro": "sw = r; hw = w;",
    "rw": "sw = rw; hw = r; reset = 0;",
    "wo": "sw = w; hw = r; reset = 0; singlepulse;",
    "w1c": "sw = rw; onwrite = woclr; hw = r; hwset; reset = 0;",
}
"""Properties of a field by the access of its register."""


def fields_of(register: Register) -> tuple[Field, ...]:
    """The fields of a register; one named VALUE if it is not divided."""
    return register.fields or (Field("VALUE", 0, 32),)


def register_doc(register: Register) -> str:
    """What a register means, with what its access does not say."""
    held = "Writes are ignored while STATUS shows BUSY or STOPPING." * register.is_held
    lock = f"Read-only while LOCK of {register.locked_by} is set." if register.locked_by else ""
    return " ".join(part for part in (register.doc, held, lock) if part)


def systemrdl(name: str, header: list[str]) -> str:
    """An address map called `name`; `header` is a comment, line by line."""
    lines = [*(f"// {line}".rstrip() for line in header), "", f"enum {name}_error_e {{"]
    docs = member_docs(Error)
    lines += [f"  {error.name} = 8'd{error.value} {{ desc = {_text(docs[error.name])}; }};" for error in Error]
    lines += [
        "};",
        "",
        f"addrmap {name} {{",
        '  name = "Convoy NPU";',
        '  desc = "Registers behind AXI4-Lite. Unmapped addresses answer SLVERR.";',
        "  default regwidth = 32;",
        "  default accesswidth = 32;",
    ]
    for register in REGISTERS.values():
        lines += ["", "  reg {", f"    desc = {_text(register_doc(register))};"]
        for field in fields_of(register):
            encode = f" encode = {name}_error_e;" if field.values is Error else ""
            doc = f" desc = {_text(field.doc)};" if field.doc else ""
            place = f"{field.name}[{field.lsb + field.width - 1}:{field.lsb}]"
            access = (
                ACCESS[register.access] if register.value is None else f"sw = r; hw = na; reset = {register.value};"
            )
            lines.append(f"    field {{ {access}{encode}{doc} }} {place};")
        lines.append(f"  }} {register.name} @ 0x{register.addr:03X};")
    return "\n".join([*lines, "};", ""])


def _text(text: str) -> str:
    """A string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
