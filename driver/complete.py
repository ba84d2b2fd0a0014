"""What a shell completes; the commands that install it are `convoy --install-completion` and `--show-completion`."""

from __future__ import annotations

from convoy.spec.config import PRESETS

__all__ = ["complete_config", "complete_files"]


def complete_config(incomplete: str) -> list[str]:
    """Presets, also the last one of several; where there is none, the shell completes files."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in PRESETS if name.startswith(last)]


def complete_files(incomplete: str) -> list[str]:
    """Nothing: the shell does it."""
    return []
