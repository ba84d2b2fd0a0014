"""The network as the importers give it and the compiler reads it: tensors, operators, and nothing of any file
format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from convoy.driver.errors import GraphError

__all__ = ["Graph", "GraphError", "Op", "Part", "Quant", "Runtime", "Tensor", "Variable"]


class Runtime(StrEnum):
    """Whose results those of a network are to equal."""

    LITERT = "litert"
    """LiteRT's reference kernels: fixed point."""
    ONNXRUNTIME = "onnxruntime"
    """Sums of integers, scaled in float32 and rounded to even."""


@dataclass(frozen=True)
class Quant:
    """Affine quantisation: real = scale * (value - zero_point); arrays of one entry, or one per slice along `axis`.

    As a file has it: only what an operator reads is checked, by that operator.
    """

    scale: np.ndarray
    """float32, shape (1,) or (n,)."""
    zero_point: np.ndarray
    """int64, the same shape."""
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """One tensor of the network."""

    index: int
    name: str
    shape: tuple[int, ...]
    """NHWC for activations, (OC, KH, KW, IC) for convolution weights, (1, KH, KW, C) for depthwise weights."""
    dtype: np.dtype
    quant: Quant | None = None
    data: np.ndarray | None = None
    """The values of a constant, in `shape`; None for an activation."""
    is_variable: bool = False
    """State that an operator keeps from one run to the next, zero before the first one; no operator writes it as a
    result.
    """
    is_dynamic: bool = False
    """`shape` is only an example: it depends on values, and may have extents of 0."""

    @property
    def is_activation(self) -> bool:
        """Neither a constant nor the state of an operator."""
        return self.data is None and not self.is_variable

    @property
    def values(self) -> np.ndarray:
        """`data` of what must be a constant; `GraphError` for an activation."""
        if self.data is None:
            raise GraphError(f"{self.name!r} must be a constant")
        return self.data

    @property
    def quantisation(self) -> Quant:
        """`quant` of what must be quantised; `GraphError` for a tensor without a scale."""
        if self.quant is None:
            raise GraphError(f"{self.name!r} needs a scale")
        return self.quant


@dataclass(frozen=True)
class Part:
    """Which part an operator is of one that the file has."""

    index: int
    """Of the file's operator."""
    kind: str
    number: int
    """From 1."""
    count: int


@dataclass(frozen=True)
class Op:
    """One operator, named as in the TFLite schema (`CONV_2D`, `DEPTHWISE_CONV_2D`, `ADD`, ...).

    `options` holds plain values under these names, as far as the operator has them: `stride_h`, `stride_w`,
    `dilation_h`, `dilation_w`, `padding` ("SAME", "VALID"), `pads` (explicit (top, bottom, left, right), instead of
    `padding`), `activation` ("NONE", "RELU", "RELU6", "RELU_N1_TO_1"), `depth_multiplier`, `filter_h`, `filter_w`,
    `new_shape`, `beta`, `axis`, `keep_dims`, `squeeze_dims`, `block_size`, `align_corners`, `half_pixel_centers`, the
    masks and `is_offset` of `STRIDED_SLICE`, `alpha`, `approximate`, `quantized_bias_type` ("INT32", "INT64"),
    `variable` (its number), `is_half_up` (averages round halves up), `mode` ("REFLECT", "SYMMETRIC"), `batch_dims`,
    `macs` (multiply-accumulates, if the weights hold zeros that the file does not have). `TABLE`, which is in no file,
    has `table`: int8 (256,), entry `x & 255` for the element x. A `TRANSPOSE` of the compiler's has `view`, the shape
    that its source is seen with, and `order` of those axes. Of networks of onnxruntime: `table` and `pairs` (what it
    makes of each byte or each two, as from `OnnxUnit`), `pixels` (of nearest neighbours: input rows and columns of
    those of the output), `is_pad_counted` (pads count in averages), `is_float` (the runtime computes in float32),
    `clip` (least and greatest result, as real numbers).
    """

    index: int
    """Position in the file, from 0; parts have numbers behind all of those."""
    kind: str
    inputs: tuple[int, ...]
    """Tensor indices; -1 for an optional input that is absent."""
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    raw: Any = field(default=None, compare=False, repr=False)
    """The operator as its file has it (`RawOp`, `OnnxUnit`), for its runtime alone: the compiler does not read it."""
    part: Part | None = None
    """Set if the compiler made it, with others or of another kind, in place of an operator of the file."""
    note: str = ""
    """What the compiler has to say of it."""
    host_reason: str = ""
    """Why the host executes it, where the compiler made it for that."""

    @property
    def number(self) -> str:
        """Position in the file, for people: "5", or "5.2" for the second part."""
        return f"{self.part.index}.{self.part.number}" if self.part and self.part.count > 1 else str(self.index)

    @property
    def place(self) -> tuple[int, int]:
        """What operators are sorted by: position in the file, number of the part or 0."""
        return (self.part.index, self.part.number) if self.part else (self.index, 0)

    @property
    def title(self) -> str:
        """The operator in a table: its kind, or that of the file's operator and which part of it."""
        if self.part is None:
            return self.kind
        part = f" {self.part.number}/{self.part.count}" if self.part.count > 1 else ""
        return f"{self.part.kind}{part}: {self.kind}"


@dataclass(frozen=True)
class Variable:
    """State that a network keeps from one run to the next: `READ_VARIABLE` gives its value, `ASSIGN_VARIABLE`
    replaces it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    initial: np.ndarray | None
    """The value before the first run; None when every run assigns it before it is read."""


@dataclass(frozen=True)
class Graph:
    """A network; `ops` are in execution order."""

    name: str
    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    variables: tuple[Variable, ...] = ()
    notes: tuple[str, ...] = ()
    """What the importer assumed, in sentences for the user."""
    runtime: Runtime = Runtime.LITERT
    num_added: int = 0
    """Tensors at the end of `tensors` that the compiler added: the file does not have them."""

    def is_added(self, tensor: int) -> bool:
        """Has the compiler added this tensor?"""
        return tensor >= len(self.tensors) - self.num_added

    def name_of(self, op: Op) -> str:
        """The name of an operator's first output, or of the variable that it assigns."""
        return self.tensors[op.outputs[0]].name if op.outputs else self.variables[op.options["variable"]].name
