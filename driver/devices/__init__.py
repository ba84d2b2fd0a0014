"""Devices: the NPU as the golden model, in three simulators, each behind the `Device` protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from convoy.driver.runtime.device import Device, MemoryModel
from convoy.spec.config import NpuConfig

__all__ = ["DEVICES", "check_device", "open_device"]

DEVICES = ("golden", "pysim", "icarus", "native")
"""Names that `open_device` knows: the golden model (no timing); the RTL in Amaranth's simulator, in Icarus Verilog,
in Verilator.
"""


def check_device(name: str, waves: Path | None = None) -> None:
    """Look for the tools that a device needs, without opening it.

    Raises
    ------
    ValueError, DeviceError
        As from `open_device`.
    """
    if name == "golden" and waves is not None:
        raise ValueError("device golden makes no waveforms; use native, pysim or icarus")
    if name == "icarus":
        from .icarus import check_tools as check_icarus

        check_icarus()
    if name == "native":
        from .verilator import check_tools

        check_tools()


def open_device(
    name: str,
    config: NpuConfig,
    memory_model: MemoryModel = MemoryModel(),
    waves: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Device:
    """A device, reset and ready.

    Parameters
    ----------
    name : str
        One of `DEVICES`.
    config : NpuConfig
        The NPU.
    memory_model : MemoryModel
        Timing of the memory; `golden` has none.
    waves : Path | None
        File for the waveforms: VCD; from `icarus` FST.
    progress : callable | None
        Called with a line of text before something slow, such as compiling the model.

    Raises
    ------
    ValueError
        When there is no such device, or it makes no waveforms.
    DeviceError
        When a tool that the device needs is missing or fails; the message says how to install it.
    """
    check_device(name, waves)
    if name == "golden":
        from .golden import GoldenDevice

        return GoldenDevice(config)
    if name == "pysim":
        from .pysim import PysimDevice

        return PysimDevice(config, memory_model, waves=waves, progress=progress)
    if name == "icarus":
        from .icarus import IcarusDevice

        return IcarusDevice(config, memory_model, waves=waves, progress=progress)
    if name == "native":
        from .native import NativeDevice

        return NativeDevice(config, memory_model, waves=waves, progress=progress)
    raise ValueError(f"no device {name!r}; there are {', '.join(DEVICES)}")
