"""The compiler's product: a memory image with descriptors, and where every tensor lies."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from convoy.driver.graph.graph import Graph, Op
from convoy.driver.lower.operands import nhwc
from convoy.driver.plan.macs import LaneMacs
from convoy.spec.config import NpuConfig

from .pack import LayerStreams

__all__ = ["HostStep", "Keep", "MemoryWindow", "NpuStep", "Placement", "Plan", "Program"]


@dataclass(frozen=True)
class Placement:
    """Where a tensor lies in memory and in what order.

    uint8 values are stored less 128, as int8. int16 values are stored as bytes, the low and the high one of a channel
    like two channels.
    """

    tensor: int
    """-1: a variable."""
    addr: int
    shape: tuple[int, ...]
    """As in the graph."""
    layout: str
    """"linear": as in the graph (NHWC); "planar": channel, row, column; "planar_transposed": channel, column, row."""
    value_bytes: int = 1
    """Bytes of an element."""

    @property
    def num_bytes(self) -> int:
        """Size in memory."""
        return int(np.prod(self.shape)) * self.value_bytes

    def pack(self, values: np.ndarray) -> bytes:
        """Bytes in memory of a tensor given in the graph's shape."""
        raw: np.ndarray = np.ascontiguousarray(values).view(np.uint8).reshape(self._byte_shape)
        raw = raw ^ 0x80 if values.dtype == np.uint8 else raw
        return np.ascontiguousarray(raw.transpose(self._axes)).tobytes()

    def unpack(self, raw: bytes, dtype: np.dtype) -> np.ndarray:
        """The tensor in the graph's shape from its bytes in memory."""
        planar: np.ndarray = np.frombuffer(raw, np.uint8).reshape([self._byte_shape[axis] for axis in self._axes])
        planar = planar ^ 0x80 if dtype == np.uint8 else planar
        return np.ascontiguousarray(planar.transpose(np.argsort(self._axes))).view(dtype).reshape(self.shape)

    @property
    def _byte_shape(self) -> tuple[int, ...]:
        """NHWC with the bytes of a value as channels."""
        *extents, channels = nhwc(self.shape)
        return (*extents, channels * self.value_bytes)

    @property
    def _axes(self) -> tuple[int, ...]:
        return {"linear": (0, 1, 2, 3), "planar": (0, 3, 1, 2), "planar_transposed": (0, 3, 2, 1)}[self.layout]


@dataclass(frozen=True)
class MemoryWindow:
    """Memory from `base` to below `limit` that the NPU may read, write or both; both are multiples of
    `WINDOW_ALIGN_BYTES`.
    """

    base: int
    limit: int
    is_readable: bool
    is_writable: bool


@dataclass(frozen=True)
class Program:
    """One run of the NPU from doorbell to interrupt."""

    descriptors: tuple[bytes, ...]
    ops: tuple[int, ...]
    """For each descriptor the index of the operator that it works for."""
    program_addr: int
    record_addr: int
    image: tuple[tuple[int, bytes], ...]
    """(address, bytes) pieces of constant memory: descriptors, weights, tables."""
    windows: tuple[MemoryWindow, ...] = ()
    """All that the program may touch, at most `NUM_WINDOWS`; none: no limits."""
    streams: dict[int, LayerStreams] = field(default_factory=dict)
    """What the weight streams hold, by `stream_addr`."""


@dataclass(frozen=True)
class NpuStep:
    """Operators that one program executes; `layers` are the graph's operators in order, `engines` theirs ("nn",
    "swapped", "tp", "nn+tp", "alias", "fused").
    """

    program: Program
    layers: tuple[int, ...]
    engines: dict[int, str]
    weight_bytes: dict[int, int]
    lane_macs: dict[int, LaneMacs]
    """By operator, for those with work on the NN engine."""


@dataclass(frozen=True)
class HostStep:
    """Operators that the host executes one after another, and why it does each."""

    ops: tuple[Op, ...]
    reasons: tuple[str, ...]

    @property
    def outputs(self) -> tuple[int, ...]:
        """The tensors that they write."""
        return tuple(index for op in self.ops for index in op.outputs)

    def inputs(self, graph: Graph) -> tuple[int, ...]:
        """The activations that they read from others, in order of first use."""
        made = set(self.outputs)
        read = dict.fromkeys(index for op in self.ops for index in op.inputs if index >= 0)
        return tuple(index for index in read if index not in made and graph.tensors[index].is_activation)


@dataclass(frozen=True)
class Keep:
    """A variable: memory that a run leaves to the next one."""

    name: str
    placement: Placement
    initial: np.ndarray | None
    """What is there before the first run; None if every run writes it before it reads it."""
    tensors: frozenset[int]
    """Those whose value is what the variable holds when a run starts; a run may overwrite it."""


@dataclass(frozen=True)
class Plan:
    """A compiled network: steps in order, and the placement of every activation that lies in NPU memory."""

    graph: Graph
    config: NpuConfig
    steps: tuple[NpuStep | HostStep, ...]
    placements: dict[int, Placement]
    memory_bytes: int
    """Size of the memory that the plan uses, from `base` on."""
    activation_bytes: int = 0
    """Of it, what activations take when dead ones are overwritten, as they are in a deployed network."""
    notes: dict[int, str] = field(default_factory=dict)
    """By operator index: what it was fused with, or why not."""
    keeps: tuple[Keep, ...] = ()
    doubts: dict[int, int] = field(default_factory=dict)
    """By operator index: sums of channels, or pairs of operands, whose result may differ by one from the runtime's."""
    base: int = 0
    """The address at which its memory begins."""

    @property
    def doubtful(self) -> frozenset[int]:
        """The stored tensors of which `doubts` speaks."""
        ops = (op for op in self.graph.ops if op.index in self.doubts)
        return frozenset(index for op in ops for index in op.outputs if index in self.placements)
