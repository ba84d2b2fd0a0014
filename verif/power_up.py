"""Registers without reset that come up with rubbish, as in a chip, where nothing initialises them."""

import random

from amaranth.hdl import Shape, ShapeCastable, Signal

__all__ = ["rubbish_at_power_up"]


def rubbish_at_power_up(seed: int):
    """A function in the place of `Signal.__init__`: signals with `reset_less` and no initial value get one at random.

    Registers keep it until they are written, through every reset. A design whose results do not change waits for
    nothing that such a register holds.
    """
    create, rng = Signal.__init__, random.Random(seed)

    def create_with_rubbish(self, shape=None, *, init=None, reset_less=False, src_loc_at=0, **options):
        if reset_less and init is None and shape is not None:
            width, is_signed = Shape.cast(shape).width, Shape.cast(shape).signed
            init = rng.getrandbits(width) - (1 << width - 1 if is_signed else 0)
            if isinstance(shape, ShapeCastable):
                init = shape.from_bits(init)
        create(self, shape, init=init, reset_less=reset_less, src_loc_at=src_loc_at + 1, **options)

    return create_with_rubbish
