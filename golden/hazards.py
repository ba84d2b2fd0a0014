"""Finds memory hazards that a program's wait bits do not rule out.

`Machine` runs descriptors one after another; the hardware overlaps them. For each byte, `Hazards` remembers which
descriptor of which engine touched it last, and refuses an access that the hardware could make before an earlier one
that it depends on.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from convoy.spec.isa import Opcode

from .memory import MachineError

__all__ = ["MAX_FOLLOWED_BYTES", "Hazards"]

_BLOCK_LOG2 = 8
"""Of the bytes for which numbers are kept together."""
MAX_FOLLOWED_BYTES = 1 << 28
"""Most bytes that one engine may read, or write, in a program."""


class _Numbers:
    """A number for each byte of memory, 0 at first. Takes memory only for pages in which a number was set."""

    def __init__(self, num_bytes: int):
        self._places = np.zeros(
            (num_bytes >> _BLOCK_LOG2) + 1, np.int64
        )  # where in `_numbers` each page is; 0: it has none
        self._numbers = np.zeros(1 << _BLOCK_LOG2, np.uint16)
        self._end = 1 << _BLOCK_LOG2

    def get(self, index: np.ndarray) -> np.ndarray:
        return self._numbers[self._places[index >> _BLOCK_LOG2] + (index & ((1 << _BLOCK_LOG2) - 1))]

    def get_span(self, span: slice) -> np.ndarray:
        """What has been set in the pages of consecutive bytes; a byte in a page that has none, or outside the span,
        is left out.
        """
        index = np.arange(span.start >> _BLOCK_LOG2, -(-span.stop >> _BLOCK_LOG2))
        pages = index[self._places[index] > 0]
        index = ((pages << _BLOCK_LOG2)[:, None] + np.arange(1 << _BLOCK_LOG2)).ravel()
        return self.get(index[(index >= span.start) & (index < span.stop)])

    def set(self, what: str, index: np.ndarray, number: int) -> None:
        """Raises `MachineError` when too many bytes have been touched."""
        pages = index >> _BLOCK_LOG2
        missing = pages[self._places[pages] == 0]
        if missing.size:
            missing = np.unique(missing)
            start, self._end = self._end, self._end + (len(missing) << _BLOCK_LOG2)
            if self._end > MAX_FOLLOWED_BYTES:
                raise MachineError(
                    f"{what}: the program's activations take more than the {MAX_FOLLOWED_BYTES} bytes that the golden "
                    "model follows"
                )
            if self._end > len(self._numbers):
                self._numbers = np.concatenate([self._numbers, np.zeros(self._end, np.uint16)])
            self._places[missing] = start + (np.arange(len(missing)) << _BLOCK_LOG2)
        self._numbers[self._places[pages] + (index & ((1 << _BLOCK_LOG2) - 1))] = number


class _Waiter(Enum):
    """What a descriptor's waits hold."""

    DISPATCH = "dispatch"
    LOAD = "load"
    GATHER = "gather"


class Hazards:
    """Follows one program; `begin` each descriptor, then report its accesses. Descriptors are numbered from 1 inside.

    What is known to be complete when a descriptor touches memory: `wait_nn` and, but for `tp_ahead` descriptors,
    `wait_tp` on a TP descriptor hold the dispatcher and so everything that follows; on an NN descriptor they hold the
    loader and so only NN descriptors, or, where operands are swapped, the gathering of activations and so only such
    descriptors.

    Parameters
    ----------
    num_bytes
        Size of the memory.
    """

    def __init__(self, num_bytes: int) -> None:
        self._writer = {engine: _Numbers(num_bytes) for engine in Opcode}
        self._reader = {engine: _Numbers(num_bytes) for engine in Opcode}
        self._done = {(waiter, other): 0 for waiter in _Waiter for other in Opcode}
        self._engine, self._number, self._waiter = Opcode.NN, 0, _Waiter.LOAD
        self._tp_numbers: list[int] = []

    def begin(self, index: int, d: dict[str, int], is_swapped: bool = False) -> None:
        """The descriptor with this index and these header fields starts."""
        self._engine, self._number = Opcode(d["opcode"]), index + 1
        self._waiter = _Waiter.GATHER if is_swapped else _Waiter.LOAD if self._engine is Opcode.NN else _Waiter.DISPATCH
        done = {}
        if d["wait_tp"]:
            latest = self._tp_numbers[len(self._tp_numbers) - d["tp_ahead"] :] if d["tp_ahead"] else []
            done[Opcode.TP] = min([self._number, *latest]) - 1
        if d["wait_nn"]:
            done[Opcode.NN] = index
        for waiter in _Waiter if self._waiter is _Waiter.DISPATCH else (self._waiter,):
            for other, number in done.items():
                self._done[waiter, other] = max(number, self._done[waiter, other])
        if self._engine is Opcode.TP:
            self._tp_numbers.append(self._number)

    def read_constant(self, what: str, span: slice) -> None:
        """Descriptors, tables and weights are prefetched without waiting: the program must not have written them."""
        for engine in Opcode:
            self._check(
                what,
                "reads ahead",
                self._writer[engine].get_span(span),
                0,
                "written by",
                "put constants where no descriptor writes",
            )

    def read(self, what: str, index: np.ndarray) -> None:
        """The descriptor reads activations."""
        for other in Opcode:
            done = self._done[self._waiter, other]
            self._check(what, "reads", self._writer[other].get(index), done, "written by", self._remedy(other))
        self._reader[self._engine].set(what, index, self._number)

    def write(self, what: str, index: np.ndarray) -> None:
        """The descriptor writes its results: each byte once, for the hardware has an order of its own, and none that it
        reads, for it may write the first results while it reads on.
        """
        other = Opcode.TP if self._engine is Opcode.NN else Opcode.NN
        done = self._done[self._waiter, other]
        self._check(what, "writes", self._writer[other].get(index), done, "written by", self._remedy(other))
        self._check(what, "writes", self._reader[other].get(index), done, "read by", self._remedy(other))
        if (self._reader[self._engine].get(index) == self._number).any():
            raise MachineError(
                f"{what}: the descriptor writes bytes that it reads itself; its loader may still be reading"
            )
        if (self._writer[self._engine].get(index) == self._number).any() or not _is_unique(index):
            raise MachineError(
                f"{what}: outputs overlap, the descriptor writes a byte more than once; give every output a place of "
                "its own"
            )
        self._writer[self._engine].set(what, index, self._number)

    @staticmethod
    def _remedy(other: Opcode) -> str:
        return f"set wait_{other.name.lower()}"

    @staticmethod
    def _check(what: str, access: str, last: np.ndarray, done: int, earlier: str, remedy: str) -> None:
        if last.size and (latest := int(last.max())) > done:
            raise MachineError(
                f"{what}: {access} bytes {earlier} descriptor {latest - 1}, which may not have completed: {remedy}"
            )


def _is_unique(index: np.ndarray) -> bool:
    return bool((index[1:] > index[:-1]).all()) or len(np.unique(index)) == len(index)
