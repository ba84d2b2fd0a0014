"""A compiled network as C for the runtime in `convoy.h`: constants, descriptors, and tables that say what is where."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np

from convoy.driver.emit.program import Keep, Placement, Plan
from convoy.driver.emit.relocate import DESCRIPTORS, address_fields, lsb
from convoy.driver.errors import GraphError
from convoy.driver.files import write_file
from convoy.driver.graph.graph import Quant
from convoy.driver.report.config_report import installed
from convoy.driver.report.markdown import LINE_COLUMNS
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import timeout_limit, watchdog_limit
from convoy.spec.csr import config_values
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES

from .layout import layout_of
from .offload import Offload

__all__ = ["DTYPES", "LAYOUTS", "MAX_DIMS", "c_files", "c_name", "format_code", "left_out", "write_c_arrays"]

MAX_DIMS = 8
"""`CONVOY_MAX_DIMS`."""
DTYPES = {"int8": "CONVOY_INT8", "uint8": "CONVOY_UINT8", "int16": "CONVOY_INT16", "bool": "CONVOY_BOOL"}
LAYOUTS = {"linear": "CONVOY_LINEAR", "planar": "CONVOY_PLANAR", "planar_transposed": "CONVOY_PLANAR_TRANSPOSED"}
WORDS_PER_LINE = 9
OWN_NAME = "convoy"
"""How the names of the runtime begin."""


def format_code() -> int:
    """A number that changes with what the runtime knows of descriptors, where their addresses are and their size:
    `CONVOY_FORMAT`.
    """
    places = [
        (int(opcode), [(lsb(record, name), record.fields[name].bits) for name in address_fields(record)])
        for opcode, record in DESCRIPTORS.items()
    ]
    return zlib.crc32(repr((places, DESCRIPTOR_BYTES, COMPLETION.num_bytes)).encode())


def c_name(path: Path) -> str:
    """What the names of a network begin with that is written into this file.

    Raises
    ------
    GraphError
        When it cannot be made of the file's name, or the file is neither `.c` nor `.h`.
    """
    name = path.stem.replace("-", "_")
    if path.suffix not in (".c", ".h"):
        raise GraphError(f"--c-array {path}: name a file that ends in .c (a .h is written beside it) or in .h")
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise GraphError(
            f"--c-array {path}: names in C will begin like the file's; use letters, digits and underscores, and no "
            "digit in front"
        )
    if name.lower().startswith(OWN_NAME):
        raise GraphError(f"--c-array {path}: names that begin with {OWN_NAME} are the runtime's; give another one")
    return name


def left_out(found: Offload) -> list[str]:
    """What the application has to do itself, a sentence for each operator."""
    return [
        f"left to the application, {place} the NPU's: operator {op.number} {op.title}: {reason}"
        for place, ops in (("before", found.before), ("behind", found.after))
        for op, reason in ops
    ]


def write_c_arrays(plan: Plan, found: Offload, model: str, path: Path, constants: Path | None = None) -> None:
    """Write a network into a `.c` file with a header beside it, or into a header alone.

    Parameters
    ----------
    plan : for memory from address 0
    found : what of it the runtime executes
    model : the network's file
    constants : write them here, as bytes, and not as C

    Raises
    ------
    GraphError
        As from `c_files`, and when a file cannot be written.
    """
    for each, text in c_files(plan, found, model, path, has_constants=constants is None).items():
        write_file(each, text)
    if constants is not None:
        write_file(constants, layout_of([step.program for step in found.steps]).constants)


def c_files(plan: Plan, found: Offload, model: str, path: Path, *, has_constants: bool = True) -> dict[Path, str]:
    """The text of each file that `write_c_arrays` writes, with constants or without.

    Raises
    ------
    GraphError
        As from `c_name`, and when an input, output or variable is of a type or has a number of dimensions that the
        runtime does not know.
    """
    name, is_header = c_name(path), path.suffix == ".h"
    layout = layout_of([step.program for step in found.steps])
    inputs, outputs = ([_activation(plan, index) for index in each] for each in (found.inputs, found.outputs))
    variables = [_Variable.of(plan, keep) for keep in plan.keeps]
    watchdog, registers = watchdog_limit(plan.config), config_values(plan.config)
    fields = {
        "name": _text(name),
        "config": f"{registers['CONFIG0']:#010x}u",
        "features": f"{registers['FEATURES']:#x}u",
        "activation_bytes": f"{layout.activation_bytes}u",
        "constants_offset": f"{layout.constants_offset}u",
        "constant_bytes": f"{len(layout.constants)}u",
        "constants": f"{name}_constants" if has_constants else "NULL",
        "num_descriptors": f"{len(layout.descriptors)}u",
        "descriptors": f"{name}_descriptors",
        "num_records": f"{layout.num_records}u",
        "memory_bytes": f"{name.upper()}_MEMORY_BYTES",
        "memory_bytes_in_place": f"{name.upper()}_MEMORY_BYTES_IN_PLACE",
        "watchdog_cycles": f"{watchdog}u",
        "timeout_cycles": f"{min(timeout_limit(plan, MemoryModel(), watchdog), 2**32 - 1)}u",
        "num_programs": f"{len(layout.programs)}u",
        "programs": f"{name}_programs",
    }
    for kind, rows in (("inputs", inputs), ("outputs", outputs), ("variables", variables)):
        fields |= {f"num_{kind}": f"{len(rows)}u", kind: f"{name}_{kind}" if rows else "NULL"}
    initials = {number: each.initial for number, each in enumerate(variables) if each.initial}
    tables = [
        _words(f"CONVOY_CONSTANTS static const _Alignas(CONVOY_ALIGN) uint32_t {name}_constants", layout.constants)
        if has_constants
        else [],
        _words(f"static const uint32_t {name}_descriptors", b"".join(layout.descriptors)),
        *(_words(f"static const uint32_t {name}_initial_{number}", data) for number, data in initials.items()),
        _table("convoy_program", f"{name}_programs", [f"{first}u, {count}u" for first, count in layout.programs]),
        _table("convoy_tensor", f"{name}_inputs", [each.row for each in inputs]),
        _table("convoy_tensor", f"{name}_outputs", [each.row for each in outputs]),
        _table(
            "convoy_variable",
            f"{name}_variables",
            [each.row(f"{name}_initial_{number}") for number, each in enumerate(variables)],
        ),
        [
            f"{'static ' * is_header}const convoy_network {name}_network = {{",
            *(f"    .{member} = {value}," for member, value in fields.items()),
            "};",
        ],
    ]
    about = [
        f"{Path(model).name} for configuration {plan.config.name} of the Convoy NPU, written by `convoy compile "
        f"--c-array` of Convoy {installed('convoy-npu')}.",
        *(
            f"{kind}[{number}]: {each.about}"
            for kind, rows in (("inputs", inputs), ("outputs", outputs), ("variables", [v.tensor for v in variables]))
            for number, each in enumerate(rows)
        ),
        *left_out(found),
    ]
    guard = f"{name.upper()}_H"
    head = [
        *_comment(about),
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        '#include "convoy.h"',
        "",
        f"#if CONVOY_FORMAT != {format_code():#010x}u",
        '#error "the runtime is of another version of Convoy than the compiler of this network"',
        "#endif",
        "",
        "/* Memory that it needs, with its constants in it and without. */",
        f"#define {name.upper()}_MEMORY_BYTES {layout.memory_bytes}u",
        f"#define {name.upper()}_MEMORY_BYTES_IN_PLACE {layout.memory_bytes_in_place}u",
        "",
    ]
    body = [line for table in tables if table for line in (*table, "")][:-1]
    if is_header:
        return {path: _lines(*head, *body, "", "#endif")}
    header = path.with_suffix(".h")
    return {
        path: _lines(f'#include "{header.name}"', "", *body),
        header: _lines(*head, f"extern const convoy_network {name}_network;", "", "#endif"),
    }


@dataclass(frozen=True)
class _Tensor:
    """A `convoy_tensor`."""

    row: str
    """Its members."""
    about: str
    """What it is, for people."""


def _activation(plan: Plan, index: int) -> _Tensor:
    tensor = plan.graph.tensors[index]
    return _tensor(tensor.name, tensor.dtype, tensor.quant, plan.placements[index])


def _tensor(name: str, dtype: np.dtype, quant: Quant | None, placement: Placement) -> _Tensor:
    shape = placement.shape
    if dtype.name not in DTYPES:
        raise GraphError(f"tensor {name!r} is {dtype}; the C runtime copies {', '.join(DTYPES)}")
    if len(shape) > MAX_DIMS:
        raise GraphError(f"tensor {name!r} has {len(shape)} dimensions; the C runtime takes at most {MAX_DIMS}")
    scale = float(quant.scale[0]) if quant is not None and quant.scale.size == 1 else 0.0
    zero_point = int(quant.zero_point[0]) if scale and quant is not None else 0
    members = (
        _text(name),
        f"{placement.addr}u",
        f"{placement.num_bytes}u",
        f"{len(shape)}u",
        f"{{{', '.join(f'{extent}u' for extent in shape) or '0u'}}}",
        DTYPES[dtype.name],
        LAYOUTS[placement.layout],
        f"{np.float32(scale)!s}f",
        str(zero_point),
    )
    real = f", real value {np.float32(scale)!s} * (value - {zero_point})" if scale else ""
    return _Tensor(", ".join(members), f"{name}: {dtype} {list(shape)}{real}")


@dataclass(frozen=True)
class _Variable:
    """A `convoy_variable`."""

    tensor: _Tensor
    has_initial: bool
    initial: bytes
    """Empty where all bytes are `fill`."""
    fill: int

    @classmethod
    def of(cls, plan: Plan, keep: Keep) -> _Variable:
        (variable,) = (each for each in plan.graph.variables if each.name == keep.name)
        quant = next((plan.graph.tensors[index].quant for index in sorted(keep.tensors)), None)
        tensor = _tensor(keep.name, variable.dtype, quant, keep.placement)
        data = keep.placement.pack(keep.initial) if keep.initial is not None else b""
        is_uniform = len(set(data)) <= 1
        return cls(tensor, bool(data), b"" if is_uniform else data, data[0] if data and is_uniform else 0)

    def row(self, array: str) -> str:
        """Its members; `array` holds `initial`."""
        has_initial, initial = str(self.has_initial).lower(), array if self.initial else "NULL"
        return f"{{{self.tensor.row}}}, {has_initial}, {initial}, {self.fill}u"


def _table(kind: str, name: str, rows: Sequence[str]) -> list[str]:
    """An array of structures; nothing without rows."""
    return [f"static const {kind} {name}[] = {{", *(f"    {{{row}}}," for row in rows), "};"] if rows else []


def _words(declaration: str, data: bytes) -> list[str]:
    """An array of bytes as little-endian words; one of zero if there are none, as C has no empty array."""
    words = np.frombuffer(data + bytes(-len(data) % 4) or bytes(4), "<u4").tolist()
    rows = (words[start : start + WORDS_PER_LINE] for start in range(0, len(words), WORDS_PER_LINE))
    return [f"{declaration}[] = {{", *(f"    {', '.join(map(hex, row))}," for row in rows), "};"]


def _text(text: str) -> str:
    """A string of C, of UTF-8."""
    plain = set(range(ord(" "), 127)) - set(b'"\\?')
    return (
        '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode("utf-8", "replace")) + '"'
    )


def _comment(sentences: Sequence[str]) -> list[str]:
    """A comment of a paragraph for each sentence."""
    plain = ["".join(c if c.isprintable() else "?" for c in text).replace("*/", "* /") for text in sentences]
    lines = [line for text in plain for line in wrap(text, LINE_COLUMNS - 6, subsequent_indent="  ")]
    return [*(f"{'/*' if not number else ' *'} {line}" for number, line in enumerate(lines[:-1])), f" * {lines[-1]} */"]


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
