"""The cocotb test that `IcarusDevice` runs in the simulator: obeys the operations that come over a socket until it
is closed.
"""

import os
import socket
from multiprocessing.connection import Connection
from typing import Any

import cocotb
from cocotb.triggers import Timer

from convoy.driver.runtime.device import DeviceError

from .bus_model import SparseMemory
from .harness import Bench

HALF_PERIOD_NS = 5


class Ports:
    """The `Simulation` of a `Bench`."""

    def __init__(self, dut):
        self._dut = dut
        self._handles = {}
        self._half_period = Timer(HALF_PERIOD_NS, "ns")
        self._is_settled = False

    def get(self, port: str) -> int:
        """Value of an output; undefined bits are an error."""
        try:
            return int(self._handle(port).value)
        except ValueError:
            raise DeviceError(f"{port} is undefined: {self._handle(port).value}") from None

    def set(self, port: str, value: int) -> None:
        """Set an input."""
        self._handle(port).value = value

    async def settle(self) -> None:
        """The low half of the clock period."""
        if not self._is_settled:
            await self._half_period
            self._is_settled = True

    async def edge(self) -> None:
        """The rising edge and the high half of the clock period."""
        self.set("clk", 1)
        await self._half_period
        self.set("clk", 0)
        self._is_settled = False

    def _handle(self, port: str):
        if port not in self._handles:
            self._handles[port] = getattr(self._dut, port)
        return self._handles[port]


@cocotb.test
async def serve(dut: Any) -> None:
    """Obey until the device closes the connection."""
    with socket.socket(socket.AF_UNIX) as called:
        called.connect(os.environ["CONVOY_ICARUS_SOCKET"])
        connection = Connection(called.detach())
    memory = SparseMemory()
    bench: Any = None
    result: Any
    ports = Ports(dut)
    ports.set("clk", 0)
    while True:
        try:
            operation, args = connection.recv()
        except EOFError:
            return
        try:
            if operation == "open":
                bench = Bench(ports, memory, *args)
                result = await bench.reset()
            elif operation == "read_memory":
                result = memory.read(*args)
            elif operation == "write_memory":
                memory.write(*args)
                result = None
            elif operation in ("inject_fault", "silence"):
                result = getattr(bench.bus, operation)(*args)
            elif operation == "wait":
                result = await bench.wait(*args, progress=lambda cycles: connection.send(("progress", cycles)))
            else:
                result = await getattr(bench, operation)(*args)
        except DeviceError as error:
            connection.send(("error", str(error)))
        else:
            connection.send(("result", result))
