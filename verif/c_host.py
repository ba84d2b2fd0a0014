"""The C runtime, compiled for this machine, with networks, in front of a device."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from convoy.driver.c.arrays import write_c_arrays
from convoy.driver.c.offload import find_offload
from convoy.driver.emit.program import Plan
from convoy.driver.runtime.device import Device
from convoy.spec.csr import REGISTERS

__all__ = ["C_FLAGS", "RUNTIME", "CHost", "compile_c", "host_compiler"]

RUNTIME = Path(__file__).parents[1] / "driver" / "c"
"""The runtime's sources."""
C_FLAGS = (
    *("-std=c11", "-ffreestanding", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion"),
    *("-Wshadow", "-Wcast-qual", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Werror"),
)
"""With which it compiles without a warning."""
LIBRARY = "host.so"
_NAMES = {register.addr: name for name, register in REGISTERS.items()}
LINE_BYTES = 64
"""Of the cache between the CPU and the memory."""


def host_compiler() -> list[str]:
    """The C compiler of this machine: that in `CC`, else gcc."""
    return shlex.split(os.environ.get("CC", "")) or ["gcc"]


def compile_c(compiler: Sequence[str], *arguments: str | Path) -> None:
    """Run a compiler with `C_FLAGS` and the runtime's headers; a warning is an error.

    Raises
    ------
    AssertionError
        With what it says, when it fails.
    """
    command = [*compiler, *C_FLAGS, "-I", str(RUNTIME), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class CHost:
    """A CPU that runs the C runtime. Between it and the memory is a cache that nothing keeps coherent: what the
    runtime does not write back the device never sees, and the other way round.

    Parameters
    ----------
    folder : what `build` was given
    device : with the NPU
    addr : where the device sees the CPU's memory
    num_bytes : of that memory

    Members
    -------
    overrides : dict
        Registers by name that read as these values.
    waits : callable | None
        What is done while the runtime waits, instead of an interrupt; not 0: it gives up.
    has_memory : bool
        False: the device does not see the memory.
    """

    def __init__(self, folder: Path, device: Device, addr: int = 0, num_bytes: int = 1 << 20):
        self.device, self.addr, self.has_memory = device, addr, True
        self.memory = np.full(num_bytes, 0xA5, np.uint8)
        self.overrides: dict[str, int] = {}
        self.waits: Callable[[], int] | None = None
        self._failure: Exception | None = None
        self._library = ctypes.CDLL(str(folder / LIBRARY))
        self._library.convoy_error_name.restype = ctypes.c_char_p
        self._library.host_tensor.restype = ctypes.c_void_p
        self._library.host_real.restype = ctypes.c_float
        u32, void = ctypes.c_uint32, ctypes.c_void_p
        self._hooks = [
            self._hook("read32", u32, self._read32, u32),
            self._hook("write32", None, device.write32, u32, u32),
            self._hook("wait", ctypes.c_int, self._wait),
            self._hook("clean", None, self._clean, void, ctypes.c_size_t),
            self._hook("invalidate", None, self._invalidate, void, ctypes.c_size_t),
        ]

    @staticmethod
    def build(folder: Path, plans: Mapping[str, Plan], constants: Path | None = None) -> None:
        """Compile the runtime with networks for memory from address 0, by the names that they have in C; `constants`:
        with the only one's in that file.
        """
        sources = []
        for name, plan in plans.items():
            sources.append(folder / f"{name}.c")
            write_c_arrays(plan, find_offload(plan), name, sources[-1], constants)
        mine = Path(__file__).with_suffix(".c")
        compile_c(host_compiler(), "-shared", "-fPIC", "-o", folder / LIBRARY, RUNTIME / "convoy.c", mine, *sources)

    def call(self, name: str, *arguments: int) -> int:
        """`host_NAME` of c_host.c."""
        self._failure = None
        result = getattr(self._library, f"host_{name}")(*map(ctypes.c_uint32, arguments))
        if self._failure:
            raise self._failure
        return result

    def error_name(self, status: int) -> str:
        """`convoy_error_name`."""
        return self._library.convoy_error_name(status).decode()

    def load(self, slot: int, name: str, offset: int = 0, constants_addr: int | None = None, num_bytes=None) -> int:
        """`convoy_load` of a network at an offset of the memory, or `convoy_load_in_place`."""
        network = ctypes.addressof(ctypes.c_char.in_dll(self._library, f"{name}_network"))
        start = ctypes.c_void_p(self.memory.ctypes.data + offset)
        size = self.memory.size - offset if num_bytes is None else num_bytes
        arguments = [ctypes.c_void_p(network), start, ctypes.c_uint32(self.addr + offset), ctypes.c_uint32(size)]
        if constants_addr is None:
            return self._library.host_load(slot, *arguments)
        return self._library.host_load_in_place(slot, *arguments, ctypes.c_uint32(constants_addr))

    def write(self, slot: int, values: np.ndarray, kind: int = 0, number: int = 0) -> None:
        """`convoy_write` of an input (kind 0), an output (1) or a variable (2)."""
        tensor = ctypes.c_void_p(self._library.host_tensor(slot, kind, number))
        raw = np.ascontiguousarray(values)
        self._library.host_write(slot, tensor, ctypes.c_void_p(raw.ctypes.data))

    def read(self, slot: int, like: np.ndarray, kind: int = 1, number: int = 0) -> np.ndarray:
        """`convoy_read`, into an array like that one."""
        tensor = ctypes.c_void_p(self._library.host_tensor(slot, kind, number))
        raw = np.empty_like(np.ascontiguousarray(like))
        self._library.host_read(slot, tensor, ctypes.c_void_p(raw.ctypes.data))
        return raw

    def quantised(self, slot: int, real: float) -> int:
        """`convoy_quantised` for the first input."""
        return self._library.host_quantised(slot, ctypes.c_float(real))

    def real(self, slot: int, value: int) -> float:
        """`convoy_real` for the first input."""
        return self._library.host_real(slot, ctypes.c_int32(value))

    def _hook(self, name: str, result, function: Callable, *arguments):
        def guarded(*values):
            try:
                return function(*values)
            except Exception as error:  # goes on in `call`: C knows none; not 0 ends a wait
                self._failure = error
                return None if result is None else 1

        hook = ctypes.CFUNCTYPE(result, *arguments)(guarded)
        ctypes.c_void_p.in_dll(self._library, f"host_{name}").value = ctypes.cast(hook, ctypes.c_void_p).value
        return hook

    def _read32(self, addr: int) -> int:
        return self.overrides.get(_NAMES[addr], self.device.read32(addr))

    def _wait(self) -> int:
        if self.waits is not None:
            return self.waits()
        if not self.device.read32(REGISTERS["IRQ_ENABLE"].addr):
            return 0  # it asks
        self.device.wait(1 << 32)
        self.call("irq")
        return 0

    def _lines(self, start: int, num_bytes: int) -> slice:
        """The lines of the cache that hold these bytes."""
        first = start - self.memory.ctypes.data
        return slice(first // LINE_BYTES * LINE_BYTES, -(-(first + num_bytes) // LINE_BYTES) * LINE_BYTES)

    def _clean(self, start: int, num_bytes: int) -> None:
        lines = self._lines(start, num_bytes)
        if not self.has_memory:
            return
        self.device.write_memory(self.addr + lines.start, self.memory[lines].tobytes())

    def _invalidate(self, start: int, num_bytes: int) -> None:
        lines = self._lines(start, num_bytes)
        if not self.has_memory:
            return
        raw = self.device.read_memory(self.addr + lines.start, lines.stop - lines.start)
        self.memory[lines] = np.frombuffer(raw, np.uint8)
