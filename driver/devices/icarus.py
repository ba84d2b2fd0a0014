"""The NPU's RTL in Icarus Verilog, driven by cocotb."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.spec.config import NpuConfig

from .verilator import TOP, npu_verilog, settle_at_zero

__all__ = ["IcarusDevice", "check_tools"]

START_SECONDS = 120
"""Longest wait for the simulator to compile the design and start."""
POLL_SECONDS = 0.2


def check_tools() -> None:
    """Look for what the device needs.

    Raises
    ------
    DeviceError
        When Icarus Verilog or cocotb is missing; the message says how to install it.
    """
    if shutil.which("iverilog") is None:
        raise DeviceError(
            "device icarus needs Icarus Verilog and iverilog is not in PATH; run: apt-get install iverilog"
        )
    if importlib.util.find_spec("cocotb") is None:
        raise DeviceError("device icarus needs cocotb; run: pip install cocotb==2.1.0")


class IcarusDevice:
    """The NPU in Icarus Verilog. Implements `convoy.driver.runtime.device.Device`.

    A simulator process lives as long as the device; its cocotb test (`icarus_server.py`) obeys one operation after
    another. Timing is exact to the cycle and the same as that of `NativeDevice`; the protocol of the AXI4 port is
    checked every cycle.

    Parameters
    ----------
    config : NpuConfig
        The NPU.
    memory_model : MemoryModel
        Timing of the memory.
    waves : Path | None
        File for the waveforms, in FST format (the other simulators write VCD), complete after `close`.
    progress : callable | None
        Called with a line of text before emitting Verilog and compiling.
    verilog : str | None
        Another design with the NPU's ports, top module `convoy_npu`, instead of the NPU.

    Raises
    ------
    DeviceError
        When Icarus Verilog or cocotb is missing, the message says how to install it; or when the design does not
        compile.
    """

    def __init__(
        self,
        config: NpuConfig,
        memory_model: MemoryModel = MemoryModel(),
        *,
        waves: Path | None = None,
        progress: Callable[[str], None] | None = None,
        verilog: str | None = None,
    ):
        check_tools()
        self.config = config
        self.memory_model = memory_model
        text = verilog or npu_verilog(config, progress)
        if progress:
            progress("starting Icarus Verilog")
        self._work = tempfile.TemporaryDirectory(prefix="convoy-icarus-")
        self._connection: Connection | None = None
        self._failure: BaseException | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(Path(self._work.name) / "socket"))
        self._socket.listen(1)
        self._thread = threading.Thread(target=self._simulate, args=(text, waves), daemon=True)
        self._thread.start()
        try:
            self._connection = self._accept()
            self._call("open", config, memory_model)
        except DeviceError:
            self.close()
            raise

    def read32(self, addr: int) -> int:
        """Read a CSR; takes simulated cycles."""
        return self._call("read32", addr)

    def write32(self, addr: int, value: int) -> None:
        """Write a CSR; takes simulated cycles. Those of the memory windows are read back."""
        self._call("write32", addr, value)

    def read_memory(self, addr: int, num_bytes: int) -> bytes:
        """Read the memory; no simulated time passes."""
        return self._call("read_memory", addr, num_bytes)

    def write_memory(self, addr: int, data: bytes) -> None:
        """Write the memory; no simulated time passes."""
        self._call("write_memory", addr, bytes(data))

    def wait(self, max_cycles: int, progress: Callable[[int], None] | None = None) -> int:
        """Run until the interrupt; the cycles that took.

        Raises
        ------
        DeviceError
            After `max_cycles` without an interrupt, or when the AXI4 protocol is violated; the message says at which
            cycle and address.
        """
        return self._call("wait", max_cycles, progress=progress)

    def inject_fault(self, addr: int, num_bytes: int, resp: int = 2, only_beats: bool = False) -> None:
        """Answer every burst that touches these bytes with SLVERR (2) or DECERR (3) from now on, or not at all (0);
        0 bytes: none.

        With `only_beats` a read's other beats are answered as always.
        """
        self._call("inject_fault", addr, num_bytes, resp, only_beats)

    def silence(self, *channels: str) -> None:
        """From now on the memory takes nothing on these of AR, AW and W, and gives nothing new on these of R and B;
        none: all work.
        """
        self._call("silence", *channels)

    def close(self) -> None:
        """End the simulation; finish the waveforms."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._thread.join(START_SECONDS)
        self._socket.close()
        self._work.cleanup()

    def _call(self, operation: str, *args, progress: Callable[[int], None] | None = None):
        if self._connection is None:
            raise DeviceError("device icarus is closed")
        try:
            self._connection.send((operation, args))
            while True:
                kind, value = self._connection.recv()
                if kind == "result":
                    return value
                if kind == "error":
                    raise DeviceError(f"device icarus: {value}")
                if progress:
                    progress(value)
        except (EOFError, OSError):
            self._thread.join()
            raise DeviceError(f"device icarus: the simulation died\n{self._log()}") from None

    def _simulate(self, text: str, waves: Path | None) -> None:
        """Compile and run the simulation until its test ends; runs in a thread of its own."""
        from cocotb_tools.runner import get_runner

        work = Path(self._work.name)
        source = work / f"{TOP}.v"
        source.write_text(settle_at_zero(text))
        try:
            runner = get_runner("icarus")
            runner.build(
                sources=[source],
                hdl_toplevel=TOP,
                build_dir=work,
                build_args=["-g2012"],
                timescale=("1ns", "1ps"),
                always=True,
                waves=waves is not None,
                log_file=work / "build.log",
            )
            runner.test(
                test_module="convoy.driver.devices.icarus_server",
                hdl_toplevel=TOP,
                build_dir=work,
                test_dir=work,
                timescale=("1ns", "1ps"),
                log_file=work / "test.log",
                results_xml=str(work / "results.xml"),
                waves=waves is not None,
                plusargs=[f"+dumpfile_path={Path(waves).absolute()}"] if waves is not None else [],
                extra_env={"CONVOY_ICARUS_SOCKET": str(work / "socket"), "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        except BaseException as error:
            self._failure = error

    def _accept(self) -> Connection:
        """Wait until the simulation calls, or has failed."""
        self._socket.settimeout(POLL_SECONDS)
        for _ in range(int(START_SECONDS / POLL_SECONDS)):
            is_running = self._thread.is_alive()
            try:
                connected, _ = self._socket.accept()
            except TimeoutError:
                if not is_running:
                    break
                continue
            connected.setblocking(True)
            return Connection(connected.detach())
        raise DeviceError(f"device icarus: the simulator did not start: {self._failure}\n{self._log()}")

    def _log(self) -> str:
        text = "".join(
            path.read_text(errors="replace")
            for path in (Path(self._work.name) / name for name in ("build.log", "test.log"))
            if path.exists()
        )
        lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
        return "\n".join(lines[-20:])
