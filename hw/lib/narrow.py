"""Narrowing said aloud: an assignment to fewer bits drops the upper ones without a word."""

from amaranth.hdl import Const, Mux, Shape, ShapeLike, Value

__all__ = ["is_at_most", "saturate", "truncate"]


def truncate(value: Value, shape: ShapeLike) -> Value:
    """The low bits of `value`, as many as `shape` has, with its sign: `value` modulo 2**width.

    For values of which the upper bits are zero, copies of the sign, or of no meaning. A value of fewer bits comes back
    as it is, and an assignment extends it: where widths follow from the configuration, one statement may cut in some
    and extend in others.
    """
    value, shape = Value.cast(value), Shape.cast(shape)
    if len(value) < shape.width:
        return value
    low = value[: shape.width]
    return low.as_signed() if shape.signed else low


def is_at_most(value: Value, limit: Value) -> Value:
    """Whether `value` is not more than a `limit` of fewer bits, neither of them negative; without a carry chain as wide
    as `value`.
    """
    return ~value[len(limit) :].any() & (value[: len(limit)] <= limit)


def saturate(value: Value, shape: ShapeLike) -> Value:
    """`value`, or the end of the range of `shape` that is nearest to it.

    A value whose every bit has room comes back as it is.
    """
    value, shape = Value.cast(value), Shape.cast(shape)
    is_signed = value.shape().signed
    num_bits, room = len(value) - is_signed, shape.width - shape.signed  # beside the signs
    if num_bits <= room and shape.signed >= is_signed:
        return value
    beyond = value[min(room, num_bits) :]  # fits if these are zero or, in a signed shape, copies of the sign
    fits = ~beyond.any()
    if shape.signed and is_signed:
        fits |= beyond.all()
    lowest, highest = Const(-1 << room if shape.signed else 0, shape), Const((1 << room) - 1, shape)
    return Mux(fits, truncate(value, shape), Mux(value[-1] & is_signed, lowest, highest))
