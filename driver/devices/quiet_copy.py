"""A second copy of the model's evaluation in C++, for cycles without a reset."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["can_copy", "write_quiet_copy"]

_ROOT = "Vconvoy___024root"
_RESET = r"convoy_native__DOT__(?:q_rst|npu(?:__DOT__\w+?)*__DOT__resets)"
"""The wrapper's register of the reset, and the NPU's of the resets on their way to its units."""
_EVALUATION = re.compile(rf"\b({_ROOT}___(?:eval_nba|nba_\w+))\(")
_DEFINITION = re.compile(rf"^[\w ]*\b({_ROOT}__\w+)\([^;{{}}]*\) {{\n.*?^}}\n", re.MULTILINE | re.DOTALL)
_READ = re.compile(rf"\bvlSelfRef\.({_RESET})\b(?!\s*=[^=])")


def can_copy(work: Path) -> bool:
    """Whether Verilator's C++ in `work` has the form that the copy and the harness know: triggers of one word, and
    functions of these names.
    """
    header = (work / f"{_ROOT}.h").read_text()
    if any(f"VlUnpacked<QData/*63:0*/, 1> __V{name}Triggered;" not in header for name in ("act", "nba")):
        return False
    defined = {name for path in _quick(work) for name in _DEFINITION.findall(path.read_text())}
    return {f"{_ROOT}___eval_nba", f"{_ROOT}___eval_triggers_vec__act"} <= defined


def write_quiet_copy(work: Path) -> list[Path]:
    """Write the copy beside the C++ in `work`, with every reset 0, and `quiet.h`; the copy's files.

    A reset is read as 0 where a register holds it; those that are computed are left alone. `is_quiet` of `quiet.h`
    says whether those registers are 0.
    """
    copies, resets = [], set()
    for path in _quick(work):
        text = path.read_text()
        if not any(_EVALUATION.search(f"{name}(") for name in _DEFINITION.findall(text)):
            continue
        text = _DEFINITION.sub(lambda each: each[0] if _EVALUATION.search(f"{each[1]}(") else "", text)
        resets.update(_READ.findall(text))
        text = _READ.sub("CData{}", text)
        copies.append(work / f"quiet_{path.name}")
        copies[-1].write_text(_EVALUATION.sub(r"\1__quiet(", text))
    functions = ("eval_nba", "eval_nba__quiet", "eval_triggers_vec__act")
    tests = "".join(f" | root.{name}" for name in sorted(resets))
    (work / "quiet.h").write_text(
        f'#include "{_ROOT}.h"\n'
        + "".join(f"void {_ROOT}___{name}({_ROOT}* vlSelf);\n" for name in functions)
        + f"inline bool is_quiet(const {_ROOT}& root) {{ return !(0{tests}); }}\n"
    )
    return copies


def _quick(work: Path) -> list[Path]:
    return [path for path in sorted(work.glob("Vconvoy*.cpp")) if not path.name.endswith("__Slow.cpp")]
