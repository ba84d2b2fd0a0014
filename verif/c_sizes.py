"""How large the C runtime is: `python -m convoy.verif.c_sizes` writes the table in docs/c-runtime.md, a row for each of
`TARGETS` whose compiler is installed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from convoy.driver.devices.compiler import run_tool

from .c_host import C_FLAGS, RUNTIME

__all__ = ["PAGE", "TARGETS", "rows"]

PAGE = Path(__file__).parents[1] / "docs" / "c-runtime.md"
TARGETS = {
    "Cortex-M0": ["arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb"],
    "Cortex-M4": ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"],
    "RV32IMAC": ["riscv64-unknown-elf-gcc", "-march=rv32imac", "-mabi=ilp32"],
    "RV64IMAC": ["riscv64-unknown-elf-gcc", "-march=rv64imac", "-mabi=lp64"],
}
"""Name -> compiler."""
HEAD = ["| target | compiler | text | data | bss | NPU and a network |", "| -- | -- | -- | -- | -- | -- |"]
STATE = '#include "convoy.h"\nextern convoy_npu npu;\nextern convoy_instance digits;\nconvoy_npu npu;\n' + (
    "convoy_instance digits;\n"
)
"""What an application keeps."""


def rows() -> list[str]:
    """The table's rows: bytes of the runtime's sections, and of an application's `convoy_npu` and `convoy_instance`."""
    found = []
    for name, command in TARGETS.items():
        if shutil.which(command[0]) is not None:
            version = run_tool([command[0], "-dumpversion"]).strip()
            with tempfile.TemporaryDirectory() as folder:
                state = Path(folder) / "state.c"
                state.write_text(STATE)
                text, data, bss = _sections(command, RUNTIME / "convoy.c", Path(folder))
                kept = _sections(command, state, Path(folder))[2]
            cells = f"`{' '.join(command)}` {version} | {text:,} | {data} | {bss} | {kept}"
            found.append(f"| {name} | {cells} |")
    return found


def _sections(command: list[str], source: Path, folder: Path) -> tuple[int, int, int]:
    """Bytes of text, data and bss."""
    result = folder / f"{source.stem}.o"
    run_tool([*command, *C_FLAGS, "-Os", "-I", str(RUNTIME), "-c", "-o", str(result), str(source)])
    text, data, bss = run_tool([command[0].removesuffix("gcc") + "size", str(result)]).split("\n")[1].split()[:3]
    return int(text), int(data), int(bss)


def main() -> None:
    """Write the table."""
    table = "\n".join([*HEAD, *rows()])
    before = PAGE.read_text()
    PAGE.write_text(re.sub(re.escape(HEAD[0]) + r"\n(\|.*\n)*", lambda _: table + "\n", before))
    print(table)


if __name__ == "__main__":
    main()
