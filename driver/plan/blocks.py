"""Work of the tensor processor in blocks, each of which is loaded while the one before is computed: how many units are
in each.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["block_sizes", "blocks_cycles"]


@lru_cache(maxsize=1024)
def block_sizes(num_units: int, most: int, load: float, walk: float, overhead: float, step: int = 1) -> tuple[int, ...]:
    """How many units are in each of some blocks that follow one another, of which each is loaded while the one before
    is computed: as many as may be, or fewer, or few at first and then twice as many each time, whichever takes the
    fewest cycles.

    Parameters
    ----------
    most : units that a block may have
    load, walk : cycles to load a unit and to compute it
    overhead : cycles of a block besides
    step : blocks but for the last one have a multiple of so many units, or as many as may be
    """

    largest = min(most, num_units)
    choices = [_sizes(num_units, largest, largest)]
    size = largest // 2 // step * step
    while size and size * load > overhead / 2:
        choices.append(_sizes(num_units, size, largest))
        if -(-num_units // size) * overhead < largest * load:
            choices.append(_sizes(num_units, size, size))
        size = size // 2 // step * step
    return min(choices, key=lambda sizes: blocks_cycles(sizes, load, walk, overhead))


def blocks_cycles(sizes: tuple[int, ...], load: float, walk: float, overhead: float) -> float:
    """Cycles of blocks of so many units, the rest as for `block_sizes`."""
    loaded = done = done_before = 0.0
    for size in sizes:
        loaded = max(loaded, done_before) + size * load
        done_before, done = done, max(loaded, done) + size * walk + overhead
    return done


def _sizes(num_units: int, first: int, largest: int) -> tuple[int, ...]:
    """Twice as many each time, up to the largest block."""
    sizes, size = list[int](), first
    while num_units > 0:
        sizes.append(min(size, num_units))
        num_units, size = num_units - sizes[-1], min(2 * size, largest)
    return tuple(sizes)
