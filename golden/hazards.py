"""Finds memory hazards that a program's wait bits do not rule out.

`Machine` runs descriptors one after another; the hardware overlaps them. For each byte, `Hazards` remembers which descriptor of which
engine touched it last, and refuses an access that the hardware could make before an earlier one that it depends on.
"""

from __future__ import annotations

import numpy as np

from convoy.spec.isa import Opcode

from .memory import MachineError

__all__ = ["Hazards"]


class Hazards:
    """Follows one program; `begin` each descriptor, then report its accesses. Descriptors are numbered from 1 inside.

    What is known to be complete when a descriptor touches memory: `wait_tp`, and `wait_nn` on a TP descriptor, hold the dispatcher and so
    everything that follows; `wait_nn` on an NN descriptor holds the loader and so only NN descriptors.
    """

    def __init__(self) -> None:
        self._writer = {engine: np.zeros(0, np.uint16) for engine in Opcode}
        self._reader = {engine: np.zeros(0, np.uint16) for engine in Opcode}
        self._done = {(engine, other): 0 for engine in Opcode for other in Opcode}
        self._engine, self._number = Opcode.NN, 0

    def begin(self, index: int, d: dict[str, int]) -> None:
        """The descriptor with this index and these header fields starts."""
        self._engine, self._number = Opcode(d["opcode"]), index + 1
        if d["wait_tp"]:
            self._done[Opcode.NN, Opcode.TP] = self._done[Opcode.TP, Opcode.TP] = index
        if d["wait_nn"]:
            self._done[Opcode.NN, Opcode.NN] = index
            if self._engine is Opcode.TP:
                self._done[Opcode.TP, Opcode.NN] = index

    def read_constant(self, what: str, span: slice) -> None:
        """Descriptors, tables and weights are prefetched without waiting: the program must not have written them."""
        self._grow(span.stop)
        for engine in Opcode:
            self._check(what, "reads ahead", self._writer[engine][span], 0, "written by", "put constants where no descriptor writes")

    def read(self, what: str, index: np.ndarray) -> None:
        """The descriptor reads activations."""
        self._grow(int(index.max()) + 1)
        for other in Opcode:
            self._check(what, "reads", self._writer[other][index], self._done[self._engine, other], "written by", self._remedy(other))
        self._reader[self._engine][index] = self._number

    def write(self, what: str, index: np.ndarray) -> None:
        """The descriptor writes its results."""
        self._grow(int(index.max()) + 1)
        other = Opcode.TP if self._engine is Opcode.NN else Opcode.NN
        done = self._done[self._engine, other]
        self._check(what, "writes", self._writer[other][index], done, "written by", self._remedy(other))
        self._check(what, "writes", self._reader[other][index], done, "read by", self._remedy(other))
        if self._engine is Opcode.NN and (self._reader[Opcode.NN][index] == self._number).any():
            raise MachineError(f"{what}: the descriptor writes bytes that it reads itself; its loader may still be reading")
        self._writer[self._engine][index] = self._number

    def _grow(self, num_bytes: int) -> None:
        """Follow at least the first `num_bytes` bytes of memory."""
        for table in (self._writer, self._reader):
            for engine, last in table.items():
                if len(last) < num_bytes:
                    table[engine] = np.concatenate([last, np.zeros(2 * num_bytes - len(last), np.uint16)])

    @staticmethod
    def _remedy(other: Opcode) -> str:
        return f"set wait_{other.name.lower()}"

    @staticmethod
    def _check(what: str, access: str, last: np.ndarray, done: int, earlier: str, remedy: str) -> None:
        if last.size and (latest := int(last.max())) > done:
            raise MachineError(f"{what}: {access} bytes {earlier} descriptor {latest - 1}, which may not have completed: {remedy}")
