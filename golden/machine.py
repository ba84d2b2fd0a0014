"""`Machine`: executes programs over a byte array, exactly as `docs/architecture.md` defines them, and refuses
malformed ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.csr import MAX_DESCRIPTORS
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, HEADER, NN, TP, Opcode

from .hazards import Hazards
from .memory import ADDR_MASK, AccessError, MachineError, MemoryView, OpcodeError, PoolError, Window
from .nn import PoolLines, execute_nn
from .nn_check import check_nn, check_nn_sizes
from .tp import execute_tp
from .tp_check import check_tp, check_tp_sizes

__all__ = ["AccessError", "Machine", "MachineError", "OpcodeError", "PoolError", "Window"]


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

    def run(self, program_addr: int, count: int, record_addr: int, windows: Sequence[Window] = ()) -> None:
        """Execute `count` descriptors from `program_addr`, one after another; completion records of zeros go to
        `record_addr`.

        Nothing outside the windows is touched; without one all is allowed.

        Raises
        ------
        MachineError
            When a descriptor is malformed, depends on another without waiting for it, or asks for more than the golden
            model executes in bounded time and memory. The message names the descriptor's index and address. Earlier
            descriptors have been executed; of this one a part of the results may have been written where the rule that
            it breaks is one about tables, or about where outputs go.
        AccessError
            When an access is outside the windows or the memory. The same holds.
        """
        if program_addr % DESCRIPTOR_BYTES or not 1 <= count <= MAX_DESCRIPTORS or record_addr % COMPLETION.num_bytes:
            error = MachineError(
                f"program_addr = {program_addr:#x}, count = {count}, record_addr = {record_addr:#x}: use multiples of "
                f"{DESCRIPTOR_BYTES} and {COMPLETION.num_bytes}, and 1..{MAX_DESCRIPTORS}"
            )
            error.addr = program_addr
            raise error
        hazards = Hazards(len(self.memory))
        view, records = MemoryView(self.memory, hazards, windows), MemoryView(self.memory, windows=windows)
        order, lines = _Order(), PoolLines()
        for index in range(count):
            addr = (program_addr + index * DESCRIPTOR_BYTES) & ADDR_MASK
            try:
                self._execute(view, addr, order, lines, hazards, index)
                places = record_addr + index * COMPLETION.num_bytes + np.arange(COMPLETION.num_bytes)
                records.scatter("record_addr", places, np.zeros(COMPLETION.num_bytes))
            except MachineError as error:
                error.args = (f"descriptor {index} at {addr:#x}: {error}",)
                error.addr = addr if error.addr is None else error.addr
                raise

    def _execute(
        self, view: MemoryView, addr: int, order: _Order, lines: PoolLines, hazards: Hazards, index: int
    ) -> None:
        raw = view.read("descriptor", addr, DESCRIPTOR_BYTES).tobytes()
        header = HEADER.decode(raw[: HEADER.num_bytes])
        if header["opcode"] not in set(Opcode):
            raise OpcodeError(
                f"HEADER.opcode = {header['opcode']} is unknown: use "
                f"{', '.join(str(opcode.value) for opcode in Opcode)}"
            )
        if header["reserved"]:
            raise MachineError(f"HEADER.reserved = {header['reserved']}: use 0")
        is_swapped = header["opcode"] == Opcode.NN and NN.decode(raw)["is_swapped"] == 1
        hazards.begin(index, header, is_swapped)
        if header["opcode"] == Opcode.NN:
            d = NN.decode(raw)
            check_nn(self.config, d)
            check_nn_sizes(self.config, d)
            order.check_nn(self.config, d)
            execute_nn(self.config, view, self._stripe, lines, d)
        else:
            d = TP.decode(raw)
            check_tp(self.config, d)
            check_tp_sizes(d)
            order.check_tp(d)
            execute_tp(self.config, view, d)


class _Order:
    """Rules between successive descriptors of a program."""

    def __init__(self) -> None:
        self._stripe = np.arange(0)
        self._half: int | None = None

    def check_nn(self, config: NpuConfig, d: dict[str, int]) -> None:
        """A stripe that overlaps the one before needs `load_after_fill`. Of a ring its first channels count, as many as
        it holds, when it follows, and its last ones when another one follows.
        """
        num_held = min(d["ring_channels"] or d["num_ic"], d["num_ic"]) * d["channel_words"]
        words = (d["stripe_word"] + np.arange(num_held)) % config.stripe_words
        overlap = np.intersect1d(words, self._stripe)
        if overlap.size and not d["load_after_fill"]:
            raise MachineError(
                f"NN.load_after_fill = 0, but stripe words {words[0]}..{words[-1]} overlap the previous stripe's, "
                f"{self._stripe[0]}..{self._stripe[-1]}"
            )
        self._stripe = (words + d["num_ic"] * d["channel_words"] - num_held) % config.stripe_words

    def check_tp(self, d: dict[str, int]) -> None:
        """Successive TP descriptors use the two halves of the buffer in turn."""
        if d["buffer_half"] == self._half:
            raise MachineError(
                f"TP.buffer_half = {d['buffer_half']}: the previous TP descriptor uses this half, alternate"
            )
        self._half = d["buffer_half"]
