"""Writes `docs/reference/`: registers, descriptors and configuration from `convoy.spec`, operators from
`convoy.driver`.

`python -m convoy.verif.refdoc` writes the pages; a test checks that they are up to date.
"""

import inspect
import re
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from convoy.driver.graph.onnx_bytes import HANDLERS
from convoy.driver.graph.onnx_float import CORES, ELEMENTWISE
from convoy.driver.graph.onnx_moves import MOVES
from convoy.driver.report.markdown import filled
from convoy.driver.report.onnx_catalogue import onnx_catalogue, onnx_introduction
from convoy.driver.report.operators import catalogue, introduction
from convoy.spec import config, csr, isa, limits
from convoy.spec.docs import constant_docs, member_docs

from .operators import NO_REFERENCE

__all__ = ["pages", "where_tested", "where_tested_onnx"]

ALL_DTYPES = "tests/driver/lower/test_tensor_rules.py"
"""Runs a file of every operator in every dtype (`convoy.verif.operators`)."""
ONNX_TABLES: dict[str, Collection[str]] = {"moves": MOVES, "bytes": HANDLERS, "float": CORES, "reader": ELEMENTWISE}
"""Of the reader, by the files that test what stands in them."""
ONNX_FUNCTIONS = "tests/driver/report/test_onnx_catalogue.py"
NOTE = "Written by `make reference` from `spec/`; do not edit.\n"


def pages() -> dict[str, str]:
    """The Markdown pages of `docs/reference` by file name."""
    return {
        "registers.md": _registers(),
        "descriptors.md": _descriptors(),
        "configuration.md": _configuration(),
        "limits.md": _limits(),
        "operators.md": _operators(),
    }


def _operators() -> str:
    lines = [
        "# Operators",
        "",
        "Written by `make reference` from `driver/`; do not edit. `convoy operators` prints it, and",
        "`convoy operators MODEL` what of it a network needs.",
        "",
        "## TFLite",
        "",
        *(line for text in introduction() for line in [*filled(text), ""]),
        *filled(
            "Every result is compared with LiteRT's reference kernels (BUILTIN_REF); of "
            f"{', '.join(sorted(NO_REFERENCE))}, which they lack, with its ordinary ones."
        ),
        "",
        "| operator | dtypes | engine | limits | in other forms | oracle | tested in |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in catalogue():
        cells = [
            f"`{entry.kind}`",
            ", ".join(entry.dtypes),
            ", ".join(entry.engines),
            "<br>".join(map(_cell, entry.limits)),
            "<br>".join(map(_cell, entry.forms)),
            "LiteRT",
            f"`{where_tested(entry.kind)}`",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## ONNX",
        "",
        *(line for text in onnx_introduction() for line in [*filled(text), ""]),
        "| operator | written on | becomes | engine | note | oracle | tested in |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in onnx_catalogue():
        cells = [
            f"`{entry.kind}`",
            ", ".join(entry.forms),
            ", ".join(f"`{kind}`" for kind in entry.becomes),
            ", ".join(entry.engines),
            "<br>".join(map(_cell, entry.notes)),
            "onnxruntime",
            f"`{tested}`" if (tested := where_tested_onnx(entry.kind)) else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def where_tested_onnx(kind: str) -> str:
    """The file that tests an operator of ONNX, below the root: of those of the reader that name it, or what
    onnxruntime makes it of, best that of a table in which it stands; else the one that runs every function of one
    element, or none.
    """
    root, named = Path(__file__).parents[1], f'"{re.sub("^(QLinear|Fused)", "", kind)}"'
    for part in sorted(ONNX_TABLES, key=lambda part: {kind, f"ms.{kind}"}.isdisjoint(ONNX_TABLES[part])):
        path = root / f"tests/driver/graph/test_onnx_{part}.py"
        if named in path.read_text():
            return path.relative_to(root).as_posix()
    return ONNX_FUNCTIONS if kind in ELEMENTWISE else ""


def where_tested(kind: str) -> str:
    """The first test file that names an operator, below the root: of the lowerings, else of the driver, else the one
    that runs a file of every operator.
    """
    root = Path(__file__).parents[1]
    folders = root / "tests/driver/lower", root / "tests/driver"
    paths = (path for folder in folders for path in sorted(folder.rglob("test_*.py")))
    found = next((path for path in paths if f'"{kind}"' in path.read_text()), root / ALL_DTYPES)
    return found.relative_to(root).as_posix()


def _registers() -> str:
    lines = [
        "# Registers",
        "",
        NOTE,
        "32 bits each, behind AXI4-Lite. Unmapped addresses answer SLVERR; writes to `ro` registers are ignored.",
        (
            "*Held*: writes are ignored while STATUS shows BUSY or STOPPING; a program keeps what stood there at its "
            "doorbell."
        ),
        "",
        "| address | register | access | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| 0x{r.addr:02X} | {r.name} | {r.access}{', held' if r.is_held else ''} | {_cell(r.doc)} |"
        for r in csr.REGISTERS.values()
    ]
    lines += ["", "## ERROR", "", *_enum(csr.Error)]
    for enum in (csr.Control, csr.Status, csr.WindowControl):
        lines += ["", f"## {enum.__name__}", "", inspect.getdoc(enum), "", *_enum(enum)]
    return "\n".join(lines) + "\n"


def _descriptors() -> str:
    lines = [
        "# Descriptors and tables",
        "",
        NOTE,
        (
            "Fields are packed from bit 0 upwards, little-endian; bits not listed are zero. `docs/architecture.md` "
            "says what they do."
        ),
        "",
    ]
    for enum in (isa.Opcode, isa.Rounding, isa.TpOp):
        lines += [f"## {enum.__name__}", "", inspect.getdoc(enum), "", *_enum(enum), ""]
    docs = constant_docs(isa)
    for record in isa.RECORDS:
        lines += [
            f"## {record.name}: {record.num_bytes} bytes, {record.num_bits} bits used",
            "",
            *filled(docs[record.name]),
            "",
            "| bits | field | type | meaning |",
            "|---|---|---|---|",
        ]
        lsb = 0
        for field in record.fields.values():
            bits = f"{lsb + field.bits - 1}:{lsb}" if field.bits > 1 else f"{lsb}"
            lines.append(
                f"| {bits} | `{field.name}` | {'i' if field.signed else 'u'}{field.bits} | {_cell(field.doc)} |"
            )
            lsb += field.bits
        lines.append("")
    return "\n".join(lines)


def _configuration() -> str:
    docs = member_docs(config.NpuConfig)
    presets = config.PRESETS
    lines = [
        "# Configuration",
        "",
        NOTE,
        "Parameters of `NpuConfig`; a TOML file given as a configuration sets any of them.",
        "",
        f"| parameter | {' | '.join(presets)} | meaning |",
        f"|---|{'---|' * len(presets)}---|",
    ]
    for field in fields(config.NpuConfig):
        values = " | ".join(str(getattr(preset, field.name)).lower() for preset in presets.values())
        lines.append(f"| `{field.name}` | {values} | {_cell(docs[field.name])} |")
    return "\n".join(lines) + "\n"


def _limits() -> str:
    lines = [
        "# Limits",
        "",
        NOTE,
        "## Fused maximum pools",
        "",
        *filled(constant_docs(limits)["FUSED_POOL_LIMITS"]),
        "Numbers are those of the default configuration.",
        "",
        *(
            line
            for limit in limits.FUSED_POOL_LIMITS
            for line in filled(limits.limit_text(limit, config.NpuConfig()), "* ")
        ),
    ]
    return "\n".join(lines) + "\n"


def _enum(enum) -> list[str]:
    docs = member_docs(enum)
    return [
        "| value | name | meaning |",
        "|---|---|---|",
        *(f"| {member.value} | {member.name} | {_cell(docs[member.name])} |" for member in enum),
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the pages."""
    folder = Path(__file__).parents[1] / "docs" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()
