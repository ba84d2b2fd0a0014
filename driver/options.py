"""Options that several commands have, and the words that they take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .complete import complete_config, complete_files, config_help

__all__ = [
    "ClockOption",
    "Config",
    "Csv",
    "DeviceName",
    "DeviceOption",
    "Html",
    "Json",
    "Latency",
    "Memory",
    "MemoryKind",
    "Model",
    "NewFile",
    "QuantizedType",
    "Reference",
    "ReferenceName",
    "Save",
    "Scheduler",
    "Seed",
    "ShapeOption",
    "Stall",
    "Strict",
    "Waves",
]


class DeviceName(StrEnum):
    """Where the NPU is."""

    GOLDEN = "golden"
    PYSIM = "pysim"
    ICARUS = "icarus"
    NATIVE = "native"


class ReferenceName(StrEnum):
    """What tensors are compared with."""

    LITERT = "litert"
    NONE = "none"


class QuantizedType(StrEnum):
    """Types of activations that a network can be quantised to."""

    INT8 = "int8"
    UINT8 = "uint8"


class MemoryKind(StrEnum):
    """How reads and writes get at the memory."""

    SPLIT = "split"
    SHARED = "shared"


Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="TFLite or ONNX file.", show_default=False, autocompletion=complete_files),
]
NewFile = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the new network here.",
        show_default=False,
        autocompletion=complete_files,
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="[INPUT=]1x96x96x3", help="Shape of an input of unknown size; once per input."),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse a network with operators that the NPU does not take (else: on the CPU)."),
]
Config = Annotated[
    str, typer.Option("--config", metavar="S|D|Q|O|X|FILE.toml", help=config_help(), autocompletion=complete_config)
]
DeviceOption = Annotated[
    DeviceName,
    typer.Option(
        "--device",
        help=(
            "native: the RTL, compiled; golden: exact results without cycles; pysim, icarus: the RTL in other "
            "simulators."
        ),
    ),
]
Latency = Annotated[int, typer.Option("--latency", min=1, max=10000, help="Memory latency in cycles.")]
Stall = Annotated[int, typer.Option("--stall", min=0, max=99, help="Chance in percent that the memory stalls a beat.")]
Memory = Annotated[
    MemoryKind, typer.Option("--memory", help="One beat per cycle for reads and one for writes, or one shared by both.")
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the report to this file; - for stdout.", autocompletion=complete_files
    ),
]
ClockOption = Annotated[
    str | None,
    typer.Option(
        "--clock", metavar="62MHz", help="Clock frequency, for milliseconds.", show_default="the placed preset's"
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Write the layers as a table.", autocompletion=complete_files),
]
Save = Annotated[
    Path | None,
    typer.Option("--save", metavar="DIR", help="Write every tensor into this folder.", autocompletion=complete_files),
]
Waves = Annotated[
    Path | None,
    typer.Option(
        "--waves",
        metavar="FILE",
        help="Write waveforms (VCD), and beside them layouts for GTKWave and Surfer.",
        autocompletion=complete_files,
    ),
]
Reference = Annotated[
    ReferenceName,
    typer.Option(
        "--reference", help="Compare with the network's own runtime (LiteRT's reference kernels, onnxruntime), or not."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=2**63 - 1, metavar="N", help="Seed of random values.", show_default="0"),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write it as a page (extra plots).", autocompletion=complete_files),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="The same on the workers of a Dask scheduler.")
]
