"""Where the parts of a network lie for the C runtime, which loads it at any address: activations, constants,
descriptors, records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convoy.driver.emit.alloc import align
from convoy.driver.emit.program import Program
from convoy.driver.emit.relocate import with_addresses
from convoy.spec.csr import WINDOW_ALIGN_BYTES
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, LUT_BYTES

__all__ = ["ALIGN_BYTES", "Layout", "layout_of"]

ALIGN_BYTES = max(DESCRIPTOR_BYTES, LUT_BYTES, WINDOW_ALIGN_BYTES)
"""Nothing in a network is aligned to more: `CONVOY_ALIGN`."""


@dataclass(frozen=True)
class Layout:
    """A network's memory: activations from offset 0, constants from `constants_offset`; behind them, or behind the
    activations where constants are elsewhere, descriptors and the records of a program.
    """

    activation_bytes: int
    constants: bytes
    descriptors: tuple[bytes, ...]
    """Of all programs; their addresses are offsets."""
    programs: tuple[tuple[int, int], ...]
    """The first descriptor of each, and how many."""

    @property
    def constants_offset(self) -> int:
        """A multiple of `ALIGN_BYTES`."""
        return align(self.activation_bytes, ALIGN_BYTES)

    @property
    def num_records(self) -> int:
        """Of the longest program; each writes its own over those of the one before."""
        return max(count for _, count in self.programs)

    @property
    def memory_bytes(self) -> int:
        """All of it."""
        return self.memory_bytes_in_place + len(self.constants)

    @property
    def memory_bytes_in_place(self) -> int:
        """Without constants."""
        return (
            self.constants_offset + len(self.descriptors) * DESCRIPTOR_BYTES + self.num_records * COMPLETION.num_bytes
        )


def layout_of(programs: Sequence[Program]) -> Layout:
    """The parts of the programs of a plan for memory from address 0: the constants of all of them in one piece."""
    activations = programs[0].windows[0].limit
    offset = align(activations, ALIGN_BYTES)
    constants, descriptors, ranges = bytearray(), list[bytes](), list[tuple[int, int]]()
    for program in programs:
        pieces = program.image[:-1]  # the last one is the descriptors
        start = min((addr for addr, _ in pieces), default=0) // ALIGN_BYTES * ALIGN_BYTES
        end = max((addr + len(data) for addr, data in pieces), default=start)
        move = _mover(activations, offset + len(constants) - start)
        part = bytearray(align(end - start, ALIGN_BYTES))
        for addr, data in pieces:
            part[addr - start : addr - start + len(data)] = data
        constants += part
        ranges.append((len(descriptors), len(program.descriptors)))
        descriptors += [with_addresses(each, move) for each in program.descriptors]
    return Layout(activations, bytes(constants), tuple(descriptors), tuple(ranges))


def _mover(activations: int, moved: int) -> Callable[[int], int]:
    """Addresses of constants go on by `moved`, those of activations stay."""
    return lambda addr: addr if addr < activations else addr + moved
