"""Sums, differences and products of two bytes that are to have given results: factors of the tensor processor that
come as near as possible.
"""

from __future__ import annotations

import numpy as np

from convoy.spec.isa import ADD_SHIFT, MAX_PRODUCT_SHIFT, TpOp

from .operands import require
from .quantise import quantise_multiplier

__all__ = ["pair_fields"]

_HALF = 1 << 30
"""Q31 multiplier that takes one bit off."""
_MAX_SHIFT = 31
_STEPS = np.arange(-12, 13)
"""Tried around the usual factors, in units of what float32 can tell apart."""
_STEP = 2.0**-26
MAX_DOUBTS = 1 << 10
"""Pairs of 65,536 whose result may differ by one; with more the tensor processor is not the right place."""


def pair_fields(
    kind: TpOp, pairs: np.ndarray, scales: tuple[float, float, float], zero_points: tuple[int, int, int]
) -> tuple[dict[str, int], int]:
    """Multipliers, shifts and limits of ADD, SUB or MUL, and the number of pairs of 65,536 whose result differs by one
    from what it should be.

    Parameters
    ----------
    pairs : int8 (256, 256), the result for each A and B, both from -128
    scales, zero_points : of A, B and the result

    Raises
    ------
    GraphError
        When no factors come near enough.
    """
    make = _product if kind == TpOp.MUL else _sum
    limits = int(pairs.min()), int(pairs.max())
    fields, num_doubts = make(kind, pairs.astype(np.int64), scales, zero_points, limits)
    require(num_doubts <= MAX_DOUBTS, f"{num_doubts:,} of 65,536 results of the NPU would differ from onnxruntime's")
    return fields | {"act_min": limits[0], "act_max": limits[1]}, num_doubts


def _double(total: np.ndarray, mult: int, left: int, right: int) -> np.ndarray:
    """Double rounding, as the tensor processor does it."""
    high = ((total << left) * mult + (1 << 30)) >> 31
    return (high + ((1 << right) >> 1) - ((high < 0) & (right > 0))) >> right


def _count(found: np.ndarray, expected: np.ndarray, limits: tuple[int, int]) -> int:
    """Results that differ; all of them if one differs by more than one."""
    difference = np.abs(np.clip(found, *limits) - expected)
    return int(expected.size if difference.max(initial=0) > 1 else difference.sum())


def _sum(
    kind: TpOp, expected: np.ndarray, scales: tuple, zero_points: tuple, limits: tuple[int, int]
) -> tuple[dict[str, int], int]:
    """Operands become fixed point of as many bits as fit, so that their sum needs a shift only."""
    ratios = np.array(scales[:2], np.float64) / scales[2]
    spare = max(0, int(np.ceil(np.log2(max(ratios.max(), 1e-30) * 2))))
    bits = ADD_SHIFT - spare
    require(bits > 8, f"an operand's scale is {ratios.max():.3g} times the result's")
    values = [np.arange(-128, 128) - zero_point for zero_point in zero_points[:2]]
    sign = 1 if kind == TpOp.ADD else -1

    def factors(ratio: float) -> tuple[int, int]:
        mult, exponent = quantise_multiplier(ratio * 2.0 ** (bits - ADD_SHIFT))
        return (mult, -exponent) if -exponent <= _MAX_SHIFT else (0, 0)

    def results(a: tuple[int, int], b: tuple[int, int], rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        left = _double(values[0][rows] << ADD_SHIFT, a[0], 0, a[1])
        right = _double(values[1][cols] << ADD_SHIFT, b[0], 0, b[1])
        return _double(left + sign * right, _HALF, 0, bits - 1) + zero_points[2]

    rows, cols = (axis.reshape(-1) for axis in np.indices((256, 256)))
    exact = values[0][rows] * ratios[0] + sign * values[1][cols] * ratios[1]
    near = np.abs(exact - np.floor(exact) - 0.5) < 1e-3
    best: tuple[int, tuple, tuple] | None = None
    target = expected[rows[near], cols[near]]
    for step in sorted(np.ndindex(len(_STEPS), len(_STEPS)), key=lambda at: sum(abs(_STEPS[n]) for n in at)):
        a, b = (factors(ratio * (1 + _STEPS[n] * _STEP)) for ratio, n in zip(ratios, step, strict=True))
        num_doubts = _count(results(a, b, rows[near], cols[near]), target, limits)
        if best is None or num_doubts < best[0]:
            best = num_doubts, a, b
        if num_doubts == 0:
            break
    assert best is not None
    _, a, b = best
    fields = {
        "a_mult": a[0], "a_shift": a[1], "b_mult": b[0], "b_shift": b[1], "out_mult": _HALF, "out_shift": bits - 1
    }  # fmt: skip
    return fields, _count(results(a, b, rows, cols), expected.reshape(-1), limits)


def _product(
    kind: TpOp, expected: np.ndarray, scales: tuple, zero_points: tuple, limits: tuple[int, int]
) -> tuple[dict[str, int], int]:
    mult, exponent = quantise_multiplier(scales[0] * scales[1] / scales[2])
    require(
        -_MAX_SHIFT <= exponent <= MAX_PRODUCT_SHIFT,
        f"the factor of the product needs a left shift of {exponent}; the limit is {MAX_PRODUCT_SHIFT}",
    )
    a, b = (np.arange(-128, 128) - zero_point for zero_point in zero_points[:2])
    products = a[:, None] * b
    # As many bits behind the point as fit, for the first of two roundings.
    left = min(MAX_PRODUCT_SHIFT, _MAX_SHIFT + exponent)
    right = left - exponent
    real = products * (mult / 2.0 ** (31 - exponent))
    near = np.abs(real - np.floor(real) - 0.5) < 1e-3
    counts = {}
    for step in sorted(_STEPS.tolist(), key=abs):
        candidate = mult + round(step * _STEP * 2**31)
        if 0 <= candidate < 1 << 31:
            found = _double(products[near], candidate, left, right) + zero_points[2]
            counts[candidate] = _count(found, expected[near], limits)
            if not counts[candidate]:
                break
    best = min(counts, key=lambda candidate: counts[candidate])
    fields = {"out_mult": best, "b_shift": left, "out_shift": right}
    return fields, _count(_double(products, best, left, right) + zero_points[2], expected, limits)
