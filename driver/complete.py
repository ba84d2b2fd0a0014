"""What a shell completes, and what a help text says of it; the commands that install completion are
`convoy --install-completion` and `--show-completion`.
"""

from __future__ import annotations

from convoy.spec.config import ALL_PRESETS, LEAN_PRESETS, PRESETS

__all__ = ["complete_config", "complete_files", "config_help"]


def complete_config(incomplete: str) -> list[str]:
    """Presets, also the last one of several; where there is none, the shell completes files."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in ALL_PRESETS if name.startswith(last)]


def complete_files(incomplete: str) -> list[str]:
    """Nothing: the shell does it."""
    return []


def config_help() -> str:
    """The help text of `--config`."""
    presets = ", ".join(f"{name}: {npu.macs_per_cycle}" for name, npu in PRESETS.items())
    lean = ", ".join(LEAN_PRESETS)
    return f"The NPU: a preset (multipliers: {presets}; with less in them: {lean}) or a TOML file of parameters."
