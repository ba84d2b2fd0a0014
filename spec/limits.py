"""Limits of the contract, each one predicate: its docstring is what the compiler reports and the row in the docs, with
the values of a configuration in it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from .config import NpuConfig

__all__ = ["FUSED_POOL_LIMITS", "FusedPool", "broken_limit", "limit_text"]


@dataclass(frozen=True)
class FusedPool:
    """A maximum pool on the outputs of a convolution."""

    kernel: tuple[int, int]
    """Rows and columns of the window."""
    stride: tuple[int, int]
    has_pads: bool
    size_in: tuple[int, int]
    """Rows and columns of the convolution's output that windows have; others are not made."""
    element_bytes: int = 1
    """1 in the 8-bit modes, 2 in the 16-bit mode."""

    def __str__(self) -> str:
        return (
            f"{self.kernel[0]}x{self.kernel[1]} pool of stride {self.stride[0]}x{self.stride[1]} reading "
            f"{self.size_in[0]}x{self.size_in[1]}"
        )


def _unit(pool: FusedPool, config: NpuConfig) -> bool:
    """only an NPU that has the unit fuses pools (`has_fused_pool`)"""
    return config.has_fused_pool


def _window(pool: FusedPool, config: NpuConfig) -> bool:
    """a fused pool has a 2x2 or 3x3 window"""
    return pool.kernel in ((2, 2), (3, 3))


def _stride(pool: FusedPool, config: NpuConfig) -> bool:
    """a fused pool has stride 2"""
    return pool.stride == (2, 2)


def _pads(pool: FusedPool, config: NpuConfig) -> bool:
    """a fused pool has no pads"""
    return not pool.has_pads


def _even(pool: FusedPool, config: NpuConfig) -> bool:
    """a fused 2x2 pool takes an even number of rows and of columns"""
    return pool.kernel != (2, 2) or all(size % 2 == 0 for size in pool.size_in)


def _odd(pool: FusedPool, config: NpuConfig) -> bool:
    """a fused 3x3 pool takes an odd number of rows and of columns, and not one"""
    return pool.kernel != (3, 3) or all(size % 2 == 1 and size != 1 for size in pool.size_in)


def _width(pool: FusedPool, config: NpuConfig) -> bool:
    """a fused 3x3 pool takes rows of fewer than {config.pool_line_bytes} bytes (`pool_line_bytes`)"""
    return pool.kernel != (3, 3) or pool.size_in[1] * pool.element_bytes < config.pool_line_bytes


FUSED_POOL_LIMITS: tuple[Callable[[FusedPool, NpuConfig], bool], ...] = (
    _unit,
    _window,
    _stride,
    _pads,
    _even,
    _odd,
    _width,
)
"""What makes a maximum pool legal in the drain of the NN engine; any other one is a layer of its own."""


def limit_text(limit: Callable[[FusedPool, NpuConfig], bool], config: NpuConfig) -> str:
    """What a limit says of an NPU of configuration `config`."""
    return (inspect.getdoc(limit) or "").format(config=config)


def broken_limit(pool: FusedPool, config: NpuConfig) -> str | None:
    """The first limit that a pool breaks on an NPU of configuration `config`, and the pool; None if it is legal."""
    for limit in FUSED_POOL_LIMITS:
        if not limit(pool, config):
            return f"{limit_text(limit, config)}; this is a {pool}"
    return None
