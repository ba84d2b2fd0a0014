"""The NPU's RTL compiled by Verilator, with a memory in C++: the fast simulation."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.spec.config import PRESETS, NpuConfig

from .bus_model import channel_mask
from .verilator import native_library, npu_verilog, title
from .windows import WindowRegisters

__all__ = ["NativeDevice"]

CHUNK_CYCLES = 100_000
"""Cycles between two calls of `progress`."""


class NativeDevice:
    """The NPU in Verilator. Implements `convoy.driver.runtime.device.Device`.

    Timing is exact to the cycle, the protocol of the AXI4 port is checked every cycle. The global interpreter lock is
    free while the model runs.

    Parameters
    ----------
    config : NpuConfig
        The NPU.
    memory_model : MemoryModel
        Timing of the memory.
    waves : Path | None
        File for the waveforms (VCD); the model is compiled with tracing then, and slow.
    progress : callable | None
        Called with a line of text before emitting Verilog and compiling.
    verilog : str | None
        Another design with the NPU's ports, top module `convoy_npu`, instead of the NPU.
    library : Path | None
        The compiled model, instead of one from the cache.
    never_rests : bool
        Units at rest are simulated all the same: slower, and nothing else may change. For tests; not with `waves` or
        `verilog`.

    Members
    -------
    library : Path
        The compiled model, with the interface in C at the end of native.cc.

    Raises
    ------
    DeviceError
        When Verilator or the C++ compiler is missing or fails.
    """

    def __init__(
        self,
        config: NpuConfig,
        memory_model: MemoryModel = MemoryModel(),
        *,
        waves: Path | None = None,
        progress: Callable[[str], None] | None = None,
        verilog: str | None = None,
        library: Path | None = None,
        never_rests: bool = False,
    ):
        self.config = config
        self.memory_model = memory_model
        if library is None:
            is_trained = config in PRESETS.values() and waves is None and verilog is None
            library = native_library(
                verilog or npu_verilog(config, progress, is_gated=waves is None),
                config.port_bits,
                name="another design" if verilog else title(config),
                has_waves=waves is not None,
                train=self._train if is_trained else None,
                progress=progress,
            )
        self.library = library
        self._library = _load(library)
        self._npu = self._library.convoy_create(
            memory_model.latency_cycles,
            memory_model.stall_percent,
            memory_model.seed & (2**64 - 1),
            memory_model.is_shared,
            str(waves or "").encode(),
        )
        if not self._npu:
            raise DeviceError("device native: the system does not give the address space for the memory")
        if never_rests:
            self._library.convoy_stay_awake(self._npu)
        self._memory = self._library.convoy_memory(self._npu)
        self._memory_bytes = self._library.convoy_memory_bytes()
        self._windows = WindowRegisters()

    def _train(self, library: Path) -> None:
        """Collect the profile of a typical workload."""
        command = [
            sys.executable,
            "-m",
            "convoy.driver.devices.profile_run",
            str(library),
            json.dumps(self.config.to_dict()),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise DeviceError(f"device native: the profiling run failed:\n{result.stderr[-2000:]}")

    def read32(self, addr: int) -> int:
        """Read a CSR; takes simulated cycles."""
        value = ctypes.c_uint32()
        if not self._library.convoy_read32(self._npu, addr, ctypes.byref(value)):
            raise self._error()
        return value.value

    def write32(self, addr: int, value: int) -> None:
        """Write a CSR; takes simulated cycles. Those of the memory windows are read back."""
        if not self._library.convoy_write32(self._npu, addr, value):
            raise self._error()
        if addr in self._windows:
            windows = self._windows.put(addr, self.read32(addr))
            flat = [each for window in windows for each in window]
            self._library.convoy_set_windows(self._npu, (ctypes.c_uint32 * len(flat))(*flat), len(windows))

    def read_memory(self, addr: int, num_bytes: int) -> bytes:
        """Read the memory; no simulated time passes."""
        self._check_range(addr, num_bytes)
        return ctypes.string_at(self._memory + addr, num_bytes)

    def write_memory(self, addr: int, data: bytes) -> None:
        """Write the memory; no simulated time passes."""
        self._check_range(addr, len(data))
        ctypes.memmove(self._memory + addr, bytes(data), len(data))

    def wait(self, max_cycles: int, progress: Callable[[int], None] | None = None) -> int:
        """Run until the interrupt; the cycles that took.

        Raises
        ------
        DeviceError
            After `max_cycles` without an interrupt, or when the AXI4 protocol is violated; the message says at which
            cycle and address.
        """
        cycles = 0
        while cycles < max_cycles and not self._library.convoy_irq(self._npu):
            cycles += self._library.convoy_run(self._npu, min(CHUNK_CYCLES, max_cycles - cycles))
            if self._library.convoy_error(self._npu):
                raise self._error()
            if progress:
                progress(cycles)
        if not self._library.convoy_irq(self._npu):
            raise DeviceError(f"device native: no interrupt within {max_cycles} cycles")
        return cycles

    def inject_fault(self, addr: int, num_bytes: int, resp: int = 2, only_beats: bool = False) -> None:
        """Answer every burst that touches these bytes with SLVERR (2) or DECERR (3) from now on, or not at all (0);
        0 bytes: none.

        With `only_beats` a read's other beats are answered as always.
        """
        self._library.convoy_inject_fault(self._npu, addr, addr + num_bytes, resp, only_beats)

    def silence(self, *channels: str) -> None:
        """From now on the memory takes nothing on these of AR, AW and W, and gives nothing new on these of R and B;
        none: all work.
        """
        self._library.convoy_silence(self._npu, channel_mask(channels))

    def close(self) -> None:
        """Free the model; finish the waveforms."""
        if self._npu:
            self._library.convoy_destroy(self._npu)
            self._npu = None

    def _check_range(self, addr: int, num_bytes: int) -> None:
        if not self._npu:
            raise DeviceError("device native is closed")
        if addr < 0 or addr + num_bytes > self._memory_bytes:
            raise DeviceError(
                f"device native: {num_bytes} bytes at {addr:#x} are outside the memory of {self._memory_bytes:#x} bytes"
            )

    def _error(self) -> DeviceError:
        return DeviceError(f"device native: {self._library.convoy_error(self._npu).decode()}")


def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(
            f"device native: the compiled model cannot be loaded ({error}); delete {path} and run again"
        ) from None
    npu, u32, u64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    for name, result, arguments in (
        ("create", npu, [u32, u32, u64, u32, ctypes.c_char_p]),
        ("destroy", None, [npu]),
        ("memory_bytes", u64, []),
        ("memory", npu, [npu]),
        ("error", ctypes.c_char_p, [npu]),
        ("stay_awake", None, [npu]),
        ("irq", ctypes.c_int, [npu]),
        ("run", u64, [npu, u64]),
        ("write32", ctypes.c_int, [npu, u32, u32]),
        ("read32", ctypes.c_int, [npu, u32, ctypes.POINTER(u32)]),
        ("inject_fault", None, [npu, u64, u64, u32, u32]),
        ("silence", None, [npu, u32]),
        ("set_windows", None, [npu, ctypes.POINTER(u32), u32]),
    ):
        function = getattr(library, f"convoy_{name}")
        function.restype, function.argtypes = result, arguments
    return library
