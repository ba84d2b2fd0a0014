"""C: the runtime for a CPU beside the NPU (`convoy.c`), and networks as arrays for it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["runtime_files"]


def runtime_files() -> dict[str, str]:
    """The sources of the runtime by file name."""
    return {name: Path(__file__).with_name(name).read_text() for name in ("convoy.c", "convoy.h", "convoy_regs.h")}
