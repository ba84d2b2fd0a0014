"""The accelerator that Convoy is compared with, Arm's Ethos-U55: cycles that its compiler `ethos-u-vela` estimates for
a network, run as a program of its own, read from the tables it writes.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

from convoy.driver.graph.graph import GraphError
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import NpuConfig

__all__ = ["INSTALL", "PEER_NAME", "Peer", "accelerator_of", "find_peer", "peer_version", "run_peer"]

PEER_NAME = "ethos-u-vela"
INSTALL = f"no comparison with Ethos-U55: {PEER_NAME} is not installed; run: pip install 'convoy-npu[peer]'"
_SIZES = (32, 64, 128, 256)
"""Multiply-accumulates per cycle of the Ethos-U55."""
_SYSTEM, _MEMORY = "Ethos_U55_Convoy", "Sram_Only"
"""Vela takes the number of ports from its configuration only if the system's name begins like this."""
_PORT_BYTES, _BURST_BYTES, _NUM_PORTS = 8, 32, 1
"""A port of the peer, the burst for which its estimates are best, and ports as Convoy has them."""
_SETTINGS = """[System_Config.{system}]
core_clock=500e6
axi0_port=Sram
axi1_port=OffChipFlash
Sram_clock_scale={scale}
Sram_ports_used={ports}
Sram_burst_length={burst}
Sram_read_latency={latency}
Sram_write_latency={latency}
Sram_max_reads={max_reads}
Sram_max_writes={max_reads}

[Memory_Mode.{memory}]
const_mem_area=Axi0
arena_mem_area=Axi0
cache_mem_area=Axi0
"""


@dataclass(frozen=True)
class Peer:
    """An estimate for one network."""

    accelerator: str
    """As Vela calls it."""
    total_cycles: int = 0
    host_cycles: int = 0
    """Part of them for operators that Convoy leaves to the host."""
    refusal: str = ""
    """Why there is no estimate."""

    @property
    def cycles(self) -> int:
        """For what runs on Convoy's NPU too."""
        return self.total_cycles - self.host_cycles


def find_peer() -> str | None:
    """The program, next to this interpreter or on the PATH; None if it is not installed."""
    return which("vela", path=str(Path(sys.executable).parent)) or which("vela")


def peer_version() -> str | None:
    """Its version, if it is installed beside this package."""
    try:
        return version(PEER_NAME)
    except PackageNotFoundError:
        return None


def accelerator_of(npu: NpuConfig) -> str | None:
    """The accelerator with as many multiply-accumulates per cycle, if there is one."""
    return f"ethos-u55-{npu.macs_per_cycle}" if npu.macs_per_cycle in _SIZES else None


def run_peer(
    program: str, model: Path, npu: NpuConfig, memory: MemoryModel, host_kinds: Collection[str]
) -> Peer | None:
    """Estimate a network on the accelerator of the same size, weights and activations behind one port as wide and as
    late as Convoy's.

    Parameters
    ----------
    program : as `find_peer` gives it
    host_kinds : operators as in a graph, such as SOFTMAX, that Convoy leaves to the host

    Returns
    -------
    None when no accelerator has that size.

    Raises
    ------
    GraphError
        When the program's tables are not what this version expects.
    """
    if (accelerator := accelerator_of(npu)) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        settings, out = Path(folder) / "vela.ini", Path(folder) / "out"
        settings.write_text(
            _SETTINGS.format(
                system=_SYSTEM,
                memory=_MEMORY,
                scale=npu.port_bytes / _PORT_BYTES,
                ports=_NUM_PORTS,
                burst=_BURST_BYTES,
                latency=memory.latency_cycles,
                max_reads=npu.max_reads,
            )
        )
        done = subprocess.run(
            [
                program,
                str(model),
                "--accelerator-config",
                accelerator,
                "--config",
                str(settings),
                "--system-config",
                _SYSTEM,
                "--memory-mode",
                _MEMORY,
                "--verbose-performance",
                "--output-dir",
                str(out),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            return Peer(accelerator, refusal=f"{PEER_NAME}: {lines[-1].strip()}")
        try:
            (summary,) = _table(out, "*_summary_*.csv")
            cycles = round(float(summary["cycles_total"]))
            host = sum(
                float(row["Op Cycles"])
                for row in _table(out, "*_per-layer.csv")
                if _kind(row["Original Operator"]) in map(_kind, host_kinds)
            )
        except (KeyError, ValueError) as error:
            raise GraphError(
                f"the tables of {PEER_NAME} are not as expected ({error}); this was written for version 5"
            ) from None
    return Peer(accelerator, cycles, round(host))


def _table(folder: Path, pattern: str) -> list[dict[str, str]]:
    """Rows of the one table of this name."""
    paths = list(folder.glob(pattern))
    if len(paths) != 1:
        raise ValueError(f"{len(paths)} files {pattern}")
    with paths[0].open(newline="") as file:
        return list(csv.DictReader(file))


def _kind(name: str) -> str:
    """An operator's name without its spelling: SOFTMAX is Softmax."""
    return name.replace("_", "").lower()
