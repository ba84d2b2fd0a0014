"""Layouts for waveform viewers beside a dump: the signals that tell what each unit does, grouped by unit."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vcd.gtkw import GTKWSave

from convoy.driver.files import write_file

__all__ = ["write_layouts"]

ROOT_UNITS = frozenset(("control", "nn", "tp"))
"""Scopes by which that of the NPU is known."""
SPLIT = frozenset(("nn", "tp"))
"""Engines whose units have groups of their own."""
MOST_SIGNALS = 24
"""Of a group."""
_TELLING = re.compile(r"(^|_)(valid|ready|state|busy|start|done|active|last|error|irq|cycle|full|empty)\d*$")
_ANONYMOUS = re.compile(r"^U\$\d+$")


@dataclass(frozen=True)
class _Signal:
    scope: tuple[str, ...]
    name: str
    width: int

    @property
    def path(self) -> str:
        """As viewers name it."""
        return ".".join((*self.scope, self.name)) + (f"[{self.width - 1}:0]" if self.width > 1 else "")


def write_layouts(dump: Path) -> list[Path]:
    """Write `.gtkw` (GTKWave) and `.sucl` (commands for Surfer) beside a VCD dump of the NPU; what was written, nothing
    for dumps of other formats or without an NPU.
    """
    if dump.suffix != ".vcd" or not dump.exists():
        return []
    with dump.open(encoding="ascii", errors="replace") as file:
        groups = _groups(list(_signals(file)))
    if not groups:
        return []
    written = []
    for suffix, text in ((".gtkw", _gtkwave(dump, groups)), (".sucl", _surfer(groups))):
        path = dump.with_suffix(suffix)
        write_file(path, text)
        written.append(path)
    return written


def _signals(file: IO[str]) -> Iterator[_Signal]:
    """Those that a dump declares, a line each, as simulators write them."""
    scope: list[str] = []
    for line in file:
        match line.split():
            case ["$scope", _, name, "$end"]:
                scope.append(name)
            case ["$upscope", *_]:
                scope.pop()
            case ["$var", _, width, _, name, *_, "$end"]:
                yield _Signal(tuple(scope), name, int(width))
            case ["$enddefinitions", *_]:
                return


def _groups(signals: list[_Signal]) -> dict[str, list[_Signal]]:
    """Signals by unit, in the order of the dump."""
    children: dict[tuple[str, ...], set[str]] = {}
    for signal in signals:
        for depth in range(len(signal.scope)):
            children.setdefault(signal.scope[:depth], set()).add(signal.scope[depth])
    roots = [scope for scope, names in children.items() if names >= ROOT_UNITS]
    if not roots:
        return {}
    root = min(roots, key=len)
    groups: dict[str, list[_Signal]] = {}
    for signal in signals:
        if signal.scope[: len(root)] != root or not _TELLING.search(signal.name) or "payload" in signal.name:
            continue
        unit = signal.scope[len(root) :]
        is_split = len(unit) == 2 and unit[0] in SPLIT and not _ANONYMOUS.match(unit[1])
        if len(unit) > 1 and not is_split:
            continue
        group = groups.setdefault(" ".join(unit) or "ports", [])
        if len(group) < MOST_SIGNALS:
            group.append(signal)
    return groups


def _gtkwave(dump: Path, groups: dict[str, list[_Signal]]) -> str:
    save = GTKWSave(text := io.StringIO())
    save.dumpfile(dump.name, abspath=False)
    for name, members in groups.items():
        with save.group(name, closed=len(groups) > 1 and name != "ports"):
            for signal in members:
                save.trace(signal.path)
    return text.getvalue()


def _surfer(groups: dict[str, list[_Signal]]) -> str:
    lines = []
    for name, members in groups.items():
        lines.append(f"divider_add {name}")
        lines += [f"variable_add {'.'.join((*signal.scope, signal.name))}" for signal in members]
    return "\n".join([*lines, "zoom_fit"]) + "\n"
