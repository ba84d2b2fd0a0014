"""`Machine`: executes programs over a byte array, exactly as `docs/architecture.md` defines them, and refuses malformed ones."""

from __future__ import annotations

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, HEADER, NN, TP, Opcode

from .hazards import Hazards
from .memory import MachineError, MemoryView, PoolError
from .nn import PoolLines, execute_nn
from .tp import execute_tp

__all__ = ["Machine", "MachineError", "PoolError"]


class Machine:
    """The NPU without time.

    Parameters
    ----------
    config : the instance whose limits hold
    memory : bytearray or flat uint8 array
        Addressed from 0 and written in place. May be replaced between runs; a bytearray may also grow between runs.
    """

    def __init__(self, config: NpuConfig, memory: bytearray | np.ndarray):
        self.config = config
        self.memory = memory
        self._stripe = np.zeros(config.stripe_bytes, np.int8)
        self._lines = PoolLines()

    def run(self, program_addr: int, count: int, record_addr: int) -> None:
        """Execute `count` descriptors from `program_addr`, one after another; completion records of zeros go to `record_addr`.

        Raises
        ------
        MachineError
            When a descriptor is malformed, or depends on another without waiting for it; the message names its index and address. Earlier descriptors have been executed.
        """
        if program_addr % DESCRIPTOR_BYTES or not 1 <= count <= 65535 or record_addr % COMPLETION.num_bytes:
            raise MachineError(f"program_addr = {program_addr:#x}, count = {count}, record_addr = {record_addr:#x}: use multiples of {DESCRIPTOR_BYTES} and {COMPLETION.num_bytes}, and 1..65535")
        hazards = Hazards()
        view = MemoryView(self.memory, hazards)
        records = MemoryView(self.memory)
        order = _Order()
        for index in range(count):
            addr = program_addr + index * DESCRIPTOR_BYTES
            try:
                self._execute(view, addr, order, hazards, index)
                records.write_runs("record_addr", record_addr + index * COMPLETION.num_bytes, COMPLETION.num_bytes, 1, 0, np.zeros(COMPLETION.num_bytes))
            except MachineError as error:
                located = type(error)(f"descriptor {index} at {addr:#x}: {error}")
                located.descriptor_addr = addr
                raise located from None

    def _execute(self, view: MemoryView, addr: int, order: _Order, hazards: Hazards, index: int) -> None:
        raw = view.read("descriptor", addr, DESCRIPTOR_BYTES).tobytes()
        header = HEADER.decode(raw[: HEADER.num_bytes])
        if header["reserved"]:
            raise MachineError(f"HEADER.reserved = {header['reserved']}: use 0")
        if header["opcode"] == Opcode.NN:
            d = NN.decode(raw)
            hazards.begin(index, d)
            order.check_nn(d)
            execute_nn(self.config, view, self._stripe, self._lines, d)
        elif header["opcode"] == Opcode.TP:
            d = TP.decode(raw)
            hazards.begin(index, d)
            order.check_tp(d)
            execute_tp(self.config, view, d)
        else:
            raise MachineError(f"HEADER.opcode = {header['opcode']} is unknown: use {', '.join(str(opcode.value) for opcode in Opcode)}")


class _Order:
    """Rules between successive descriptors of a program."""

    def __init__(self) -> None:
        self._stripe: range | None = None
        self._half: int | None = None

    def check_nn(self, d: dict[str, int]) -> None:
        """A stripe that overlaps the one before needs `load_after_fill`."""
        stripe = range(d["stripe_word"], d["stripe_word"] + d["num_ic"] * d["channel_words"])
        overlaps = self._stripe is not None and stripe.start < self._stripe.stop and self._stripe.start < stripe.stop
        if overlaps and not d["load_after_fill"]:
            raise MachineError(f"NN.load_after_fill = 0, but stripe words {stripe.start}..{stripe.stop - 1} overlap the previous stripe's, {self._stripe.start}..{self._stripe.stop - 1}")
        self._stripe = stripe

    def check_tp(self, d: dict[str, int]) -> None:
        """Successive TP descriptors use the two halves of the buffer in turn."""
        if d["buffer_half"] == self._half:
            raise MachineError(f"TP.buffer_half = {d['buffer_half']}: the previous TP descriptor uses this half, alternate")
        self._half = d["buffer_half"]
