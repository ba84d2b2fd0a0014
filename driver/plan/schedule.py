"""Operators -> tasks of the engines over buffers: where layouts are chosen, conversions inserted, and reshapes made
to vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod

from convoy.driver.graph.graph import Graph, GraphError, Op
from convoy.driver.lower.operands import describe, nhwc
from convoy.driver.lower.work import (
    AssignWork,
    ConcatWork,
    ConvWork,
    ElementwiseWork,
    FusedWork,
    HostWork,
    InterleaveWork,
    LutWork,
    MoveAxis,
    MovesWork,
    MoveWork,
    PoolWork,
    ReadWork,
    RepeatWork,
    ReshapeWork,
    ResizeWork,
    TransposeWork,
    ZoomWork,
)
from convoy.spec.config import NpuConfig

from .phases import PhaseSplit, split_parts

__all__ = ["AXES", "Buffer", "CopyWork", "PhaseWork", "Schedule", "State", "Task", "Value", "schedule"]

AXES = {"linear": (0, 1, 2), "planar": (2, 0, 1), "planar_transposed": (2, 1, 0)}
"""Order in memory of (h, w, c), outermost first, by `Placement.layout`."""


@dataclass(frozen=True)
class Value:
    """A tensor's bytes: a buffer, seen with this NHWC shape in this layout. The bytes of a value are channels."""

    buffer: int
    shape: tuple[int, int, int, int]
    layout: str


@dataclass
class Buffer:
    """A piece of memory and the tasks (numbers) from the one that writes it, or a part of it, to the last one that
    reads it.
    """

    num_bytes: int
    first: int
    last: int
    parent: int | None = None
    """The buffer that it is a part of."""
    offset: int = 0
    """Where it begins there."""


@dataclass(frozen=True)
class CopyWork:
    """A change of layout on the TP engine."""

    sizes: tuple[int, int, int]
    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class PhaseWork:
    """Phase planes that the tensor processor makes of `channels` of the buffer `source`, for this convolution and
    those after it.
    """

    split: PhaseSplit
    channels: range
    source: int


@dataclass(frozen=True)
class Task:
    """One piece of work for one engine: reads `sources`, writes `target` (buffer numbers). `position` is the
    operator's in the schedule.
    """

    op: Op
    position: int
    work: (
        ConvWork
        | PoolWork
        | ElementwiseWork
        | LutWork
        | CopyWork
        | MoveWork
        | RepeatWork
        | InterleaveWork
        | ZoomWork
        | HostWork
    )
    sources: tuple[int, ...]
    target: int | None
    phases: PhaseWork | None = None
    """What goes before a convolution, into its first source."""
    in_offset: int = 0
    """First byte of the source that a convolution reads."""
    out_offset: int = 0


@dataclass
class State:
    """A variable while the schedule is made."""

    place: Value
    """Where its value lies at the start of a run, and at the end."""
    assigned: Value | None = None
    """What has been assigned to it so far in this run."""
    assigner: Op | None = None


@dataclass
class Schedule:
    """Tasks in order, the buffers they use, the value of every tensor that lies in memory, and the operators that
    need no work.
    """

    tasks: list[Task] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    values: dict[int, Value] = field(default_factory=dict)
    aliases: set[int] = field(default_factory=set)
    """Positions of operators without a task."""
    fused: set[int] = field(default_factory=set)
    """Those of them that another operator's task does."""
    states: dict[int, State] = field(default_factory=dict)
    """By number of the variable."""


def schedule(
    graph: Graph,
    works: list,
    config: NpuConfig,
    *,
    is_transposed: bool,
    nn_strides: Callable[[ConvWork], tuple[int, int]],
    edge_inputs: set[int],
) -> Schedule:
    """Tasks for the operators of `graph`, whose lowered forms are `works`, on an NPU of configuration `config`.

    Parameters
    ----------
    is_transposed : store images with columns as rows
    nn_strides : of rows and columns of a convolution, as stored, what is left to the NN engine
    edge_inputs : tensors that come NHWC; other inputs of the graph come in the layout of the NPU

    Raises
    ------
    GraphError
        When operands of an operator cannot be brought together.
    """
    return _Scheduler(graph, config, is_transposed, nn_strides, edge_inputs).run(works)


class _Scheduler:
    def __init__(
        self,
        graph: Graph,
        config: NpuConfig,
        is_transposed: bool,
        nn_strides: Callable[[ConvWork], tuple[int, int]],
        edge_inputs: set[int],
    ):
        self.graph, self.config, self.is_transposed, self.nn_strides = graph, config, is_transposed, nn_strides
        self.native = "planar_transposed" if is_transposed else "planar"
        self.result = Schedule()
        self.copies: dict[tuple[Value, str], Value] = {}
        self.edge_inputs = edge_inputs
        self.due: dict[int, list[int]] = {}
        """By position, the variables whose value at the start of the run nothing reads from there on."""
        self.segment_start = 0
        """Number of the first task since the host's last one."""

    def run(self, works: list) -> Schedule:
        lowering = {
            ConvWork: self._conv,
            PoolWork: self._pool,
            ElementwiseWork: self._elementwise,
            LutWork: self._lut,
            FusedWork: self._fused,
            ReshapeWork: self._reshape,
            HostWork: self._host,
            MovesWork: self._moves,
            ResizeWork: self._resize,
            ZoomWork: self._zoom,
            InterleaveWork: self._interleave,
            TransposeWork: self._transpose,
            ConcatWork: self._concat,
            ReadWork: self._read,
            AssignWork: self._assign,
        }
        self._find_due(works)
        for position, (op, work) in enumerate(zip(self.graph.ops, works, strict=True)):
            before = len(self.result.tasks)
            try:
                lowering[type(work)](op, position, work)
                for variable in self.due.get(position, ()):
                    self._keep(position, self.result.states[variable])
            except GraphError as error:
                raise GraphError(f"{describe(self.graph, op)}: {error}") from error
            if len(self.result.tasks) == before:
                self.result.aliases.add(position)
        for index in self.graph.outputs:
            if index in self.result.values:
                self.result.buffers[self.result.values[index].buffer].last = len(self.result.tasks)
        for state in self.result.states.values():
            buffer = self.result.buffers[state.place.buffer]
            buffer.first, buffer.last = -1, len(self.result.tasks)
        for part in self.result.buffers:
            whole = part
            while whole.parent is not None:
                whole = self.result.buffers[whole.parent]
                whole.first, whole.last = min(whole.first, part.first), max(whole.last, part.last)
        return self.result

    # Values

    def _byte_shape(self, index: int) -> tuple[int, int, int, int]:
        """Shape of a tensor as NHWC, with the bytes of a value as channels."""
        tensor = self.graph.tensors[index]
        *extents, channels = nhwc(tensor.shape)
        return (*extents, channels * tensor.dtype.itemsize)

    def _new(self, shape: tuple[int, int, int, int], layout: str, is_input: bool = False) -> Value:
        now = len(self.result.tasks)
        num_bytes = shape[0] * shape[1] * shape[2] * shape[3]
        self.result.buffers.append(Buffer(num_bytes, -1 if is_input else now, now))
        return Value(len(self.result.buffers) - 1, shape, layout)

    def _value(self, index: int) -> Value:
        """The value of an operand; a tensor of the host is given a place on its first use by the NPU."""
        if index not in self.result.values:
            shape = self._byte_shape(index)
            is_cut = index in self.graph.inputs and index not in self.edge_inputs and shape[0] == 1
            self.result.values[index] = self._new(shape, self.native if is_cut else "linear", is_input=True)
        return self.result.values[index]

    def _task(
        self,
        op: Op,
        position: int,
        work,
        sources: tuple[Value, ...],
        target: Value,
        phases: PhaseWork | None = None,
        **offsets: int,
    ) -> None:
        now = len(self.result.tasks)
        for buffer in [value.buffer for value in sources] + ([phases.source] if phases else []):
            self.result.buffers[buffer].last = now
        self.result.buffers[target.buffer].last = max(self.result.buffers[target.buffer].last, now)
        self.result.tasks.append(
            Task(op, position, work, tuple(value.buffer for value in sources), target.buffer, phases, **offsets)
        )

    @staticmethod
    def _same_order(shape: tuple[int, int, int, int], a: str, b: str) -> bool:
        """Do two layouts of this shape put the elements in the same order?"""
        return [axis for axis in AXES[a] if shape[axis + 1] > 1] == [axis for axis in AXES[b] if shape[axis + 1] > 1]

    def _converted(self, op: Op, position: int, value: Value, layout: str) -> Value:
        if self._same_order(value.shape, value.layout, layout):
            return Value(value.buffer, value.shape, layout)
        if value.shape[0] != 1:
            raise GraphError(f"batch {value.shape[0]}; only batch 1 is supported")
        if (value, layout) not in self.copies:
            copy = self._new(value.shape, layout)
            self._task(op, position, CopyWork(value.shape[1:], AXES[value.layout], AXES[layout]), (value,), copy)
            self.copies[value, layout] = copy
        return self.copies[value, layout]

    def _reshaped(self, op: Op, position: int, value: Value, shape: tuple[int, int, int, int]) -> Value:
        if value.shape == shape:
            return value
        value = self._converted(op, position, value, "linear") if value.layout != "linear" else value
        return Value(value.buffer, shape, "linear")

    # Operators

    def _conv(self, op: Op, position: int, work: ConvWork) -> None:
        *extents, channels = work.in_shape
        value = self._reshaped(
            op, position, self._value(op.inputs[work.source]), (*extents, channels * work.value_bytes)
        )
        value = self._converted(op, position, value, self.native)
        sources = (value,)
        if work.residual is not None:
            sources = value, self._converted(op, position, self._value(work.residual.tensor), self.native)
        *extents, channels = work.out_shape
        target = self._new((*extents, channels * work.value_bytes), self.native)
        work = work.oriented(self.is_transposed)
        strides = self.nn_strides(work)
        if strides == (work.rows.stride, work.cols.stride):
            self._task(op, position, work, sources, target)
        else:
            self._strided_conv(op, position, work, strides, sources, target)
        if work.pool_size:  # the result of the pool, which takes it from here
            self.result.values[op.outputs[0]] = target
        elif work.interleave is None:
            self._define(op, target)
        else:
            self._interleaved(op, position, work.interleave, target)

    def _strided_conv(
        self, op: Op, position: int, work: ConvWork, strides: tuple[int, int], sources: tuple[Value, ...], target: Value
    ) -> None:
        """A convolution over phase planes, in parts of some channels."""
        split, parts = split_parts(work, strides, self.config)
        planes = self._new(
            (1, split.rows.size, split.cols.size, split.value_bytes * split.num_ic * split.num_planes), self.native
        )
        in_offset = out_offset = 0
        for part, channels in parts:
            phases = PhaseWork(split, channels, sources[0].buffer) if channels else None
            self._task(
                op, position, part, (planes, *sources[1:]), target, phases, in_offset=in_offset, out_offset=out_offset
            )
            in_offset += part.num_ic * split.plane_bytes
            out_offset += work.value_bytes * part.num_oc * work.out_shape[1] * work.out_shape[2]

    def _pool(self, op: Op, position: int, work: PoolWork) -> None:
        value = self._converted(op, position, self._value(op.inputs[0]), self.native)
        target = self._new((1, work.rows.size_out, work.cols.size_out, work.num_ic * work.value_bytes), self.native)
        self._task(op, position, work.oriented(self.is_transposed), (value,), target)
        self._define(op, target)

    def _elementwise(self, op: Op, position: int, work: ElementwiseWork) -> None:
        """In the layout that the operands have; if they have several, or int16, in that of the NPU."""
        values = [
            self._value(index) for index, constant in zip(op.inputs, work.constants, strict=False) if constant is None
        ]
        layouts = [value.layout for value in values if value.shape == work.shape]
        layout = layouts[0] if layouts else self.native
        if work.is_wide or not all(self._same_order(value.shape, value.layout, layout) for value in values):
            layout = self.native
        values = [self._converted(op, position, value, layout) for value in values]
        *extents, channels = work.shape
        target = self._new((*extents, channels * work.value_bytes), layout)
        self._task(op, position, replace(work, axes=AXES[layout]), tuple(values), target)
        self._define(op, target)

    def _lut(self, op: Op, position: int, work: LutWork) -> None:
        value = self._value(op.inputs[work.source])
        target = self._new(value.shape, value.layout)
        self._task(op, position, work, (value,), target)
        self._define(op, target)

    def _fused(self, op: Op, position: int, work: FusedWork) -> None:
        """The operand's place holds the result; the operand never exists."""
        self.result.values[op.outputs[0]] = self.result.values.pop(work.operand)
        self.result.fused.add(position)

    def _moves(self, op: Op, position: int, work: MovesWork) -> None:
        value = self._converted(op, position, self._value(op.inputs[work.source]), self.native)
        targets: dict[int, Value] = {}
        value_bytes = self.graph.tensors[op.outputs[0]].dtype.itemsize
        for number, move in work.moves:
            move = replace(move, channels=move.channels.repeated(value_bytes))
            if number not in targets:
                targets[number] = self._new(
                    (1, move.rows.target_size, move.cols.target_size, move.channels.target_size), self.native
                )
            self._task(op, position, move.oriented(self.is_transposed), (value,), targets[number])
        for number, target in targets.items():
            self._define(op, target, number)

    def _interleave(self, op: Op, position: int, work: InterleaveWork) -> None:
        self._interleaved(op, position, work, self._converted(op, position, self._value(op.inputs[0]), self.native))

    def _interleaved(self, op: Op, position: int, work: InterleaveWork, value: Value) -> None:
        """The result of `op`, interleaved from `value`."""
        target = self._new((1, *work.size_out, work.num_c), self.native)
        self._task(op, position, replace(work, is_transposed=self.is_transposed), (value,), target)
        self._define(op, target)

    def _zoom(self, op: Op, position: int, work: ZoomWork) -> None:
        value = self._converted(op, position, self._value(op.inputs[0]), self.native)
        target = self._new((1, work.rows.size_out, work.cols.size_out, work.num_ic), self.native)
        self._task(op, position, work.oriented(self.is_transposed), (value,), target)
        self._define(op, target)

    def _transpose(self, op: Op, position: int, work: TransposeWork) -> None:
        """Another order of the same bytes: a copy, or nothing where the layout has it already and the NPU has work
        since the host's last.
        """
        value = self._value(op.inputs[0])
        source, sizes = AXES[value.layout], value.shape[1:]
        shape = (1, *(sizes[axis] for axis in work.order))
        wanted = {layout: tuple(work.order[axis] for axis in axes) for layout, axes in AXES.items()}
        has_neighbour = len(self.result.tasks) > self.segment_start
        target = next(
            (
                Value(value.buffer, shape, layout)
                for layout, order in wanted.items()
                if has_neighbour
                and [axis for axis in order if sizes[axis] > 1] == [axis for axis in source if sizes[axis] > 1]
            ),
            None,
        )
        if target is None:
            target = self._new(shape, self.native)
            self._task(op, position, CopyWork(sizes, source, wanted[self.native]), (value,), target)
        self._define(op, target)

    def _resize(self, op: Op, position: int, work: ResizeWork) -> None:
        value = self._converted(op, position, self._value(op.inputs[0]), self.native)
        _, height, width, channels = value.shape
        target = self._new((1, height * work.times_h, width * work.times_w, channels), self.native)
        repeat = RepeatWork(channels * height, width, work.times_h, work.times_w)
        if self.is_transposed:
            repeat = RepeatWork(channels * width, height, work.times_w, work.times_h)
        self._task(op, position, repeat, (value,), target)
        self._define(op, target)

    def _concat(self, op: Op, position: int, work: ConcatWork) -> None:
        """Channels of the result are where its parts are made; what cannot be made there is copied."""
        shape = self._byte_shape(op.outputs[0])
        target = self._new(shape, self.native)
        start = 0
        for index in op.inputs:
            value = self._value(index)
            if op.kind == "PACK":
                value = self._reshaped(
                    op,
                    position,
                    value,
                    tuple(1 if axis == work.axis + 1 else extent for axis, extent in enumerate(shape)),
                )
            value = self._converted(op, position, value, self.native)
            size = value.shape[1 + work.axis]
            if not (work.axis == 2 and self._place(value, target, start * shape[1] * shape[2])):
                axes = [MoveAxis(have, want, have) for have, want in zip(value.shape[1:], shape[1:], strict=True)]
                axes[work.axis] = MoveAxis(size, shape[1 + work.axis], size, target_start=start)
                self._task(op, position, MoveWork(*axes, 0).oriented(self.is_transposed), (value,), target)
            start += size
        self._define(op, target)

    def _place(self, value: Value, target: Value, offset: int) -> bool:
        """Make the buffer of `value` a part of that of `target`, if it is not part of another one and the NPU has
        work since the host's last.
        """
        part = self.result.buffers[value.buffer]
        num_bytes = value.shape[1] * value.shape[2] * value.shape[3]
        if (
            part.parent is not None
            or part.num_bytes != num_bytes
            or len(self.result.tasks) == self.segment_start
            or self._is_state(value)
        ):
            return False
        part.parent, part.offset = target.buffer, offset
        return True

    def _reshape(self, op: Op, position: int, work: ReshapeWork) -> None:
        shape = self._byte_shape(op.outputs[0])
        self._define(op, self._reshaped(op, position, self._value(op.inputs[0]), shape))

    # Variables

    def _find_due(self, works: list) -> None:
        """When each variable may get its new value: after the last assignment and everything on the NPU that reads
        its value at the start of the run.
        """
        starts: dict[int, int] = {}  # tensor -> the variable whose value at the start it is
        changed: set[int] = set()
        last_read: dict[int, int] = {}
        due: dict[int, int] = {}
        for position, (op, work) in enumerate(zip(self.graph.ops, works, strict=True)):
            read = [starts[index] for index in op.inputs if index in starts]
            if not isinstance(work, HostWork):
                due |= {variable: position for variable in read if variable in due}
                last_read |= dict.fromkeys(read, position)
            if isinstance(work, ReadWork) and work.variable not in changed:
                starts[op.outputs[0]] = work.variable
            elif isinstance(work, ReshapeWork | TransposeWork) and read:
                starts[op.outputs[0]] = read[0]
            elif isinstance(work, AssignWork):
                due[work.variable] = max(position, last_read.get(work.variable, 0))
                (changed.discard if work.variable in read else changed.add)(work.variable)
        for variable, position in due.items():
            self.due.setdefault(position, []).append(variable)

    def _is_state(self, value: Value) -> bool:
        """Is it what a variable was at the start of the run?"""
        return any(state.place.buffer == value.buffer for state in self.result.states.values())

    def _state(self, number: int) -> State:
        """A variable, with a place of its own from its first use on."""
        if number not in self.result.states:
            shape = nhwc(self.graph.variables[number].shape)
            place = self._new(shape, self.native if shape[0] == 1 else "linear", is_input=True)
            self.result.buffers[place.buffer].last = -1
            self.result.states[number] = State(place)
        return self.result.states[number]

    def _read(self, op: Op, position: int, work: ReadWork) -> None:
        state = self._state(work.variable)
        self._define(op, state.assigned or state.place)

    def _assign(self, op: Op, position: int, work: AssignWork) -> None:
        """The new value waits where it is until the old one is no longer needed; the old value of another variable
        is saved from that fate.
        """
        state, value = self._state(work.variable), self._value(op.inputs[0])
        if self._is_state(value) and value.buffer != state.place.buffer:
            copy = self._new(value.shape, value.layout)
            self._task(op, position, self._flat_copy(value), (value,), copy)
            value = copy
        state.assigned, state.assigner = value, op

    def _keep(self, position: int, state: State) -> None:
        """The new value of a variable is made in the variable's place if that is free by then, else copied there."""
        value, place = state.assigned, state.place
        part, whole = self.result.buffers[value.buffer], self.result.buffers[place.buffer]
        if value.buffer == place.buffer:
            return
        has_order = self._same_order(value.shape, value.layout, place.layout)
        if (
            has_order
            and part.parent is None
            and part.num_bytes == whole.num_bytes
            and self._first(value.buffer) > whole.last
        ):
            part.parent = place.buffer
        else:
            copy = (
                self._flat_copy(value)
                if has_order
                else CopyWork(value.shape[1:], AXES[value.layout], AXES[place.layout])
            )
            self._task(state.assigner, position, copy, (value,), place)

    def _first(self, number: int) -> int:
        """The first task that writes a buffer or a part of it."""
        parts = (self._first(part) for part, buffer in enumerate(self.result.buffers) if buffer.parent == number)
        return min([self.result.buffers[number].first, *parts])

    @staticmethod
    def _flat_copy(value: Value) -> CopyWork:
        """The bytes as they are."""
        return CopyWork((1, 1, prod(value.shape)), AXES["linear"], AXES["linear"])

    def _host(self, op: Op, position: int, work: HostWork) -> None:
        now = len(self.result.tasks)
        for index in op.inputs:
            if index in self.result.values:
                self.result.buffers[self.result.values[index].buffer].last = now
        self.result.tasks.append(Task(op, position, work, (), None))
        self.segment_start = now + 1

    def _define(self, op: Op, value: Value, number: int = 0) -> None:
        """`value` is result `number` of `op`; seen with the tensor's own shape."""
        shape = self._byte_shape(op.outputs[number])
        if shape != value.shape:
            if shape[0] != 1 or shape[3] != value.shape[3] or not self._same_order(value.shape, value.layout, "planar"):
                raise GraphError(f"a result of shape {value.shape} cannot be stored as {shape}")
            value = Value(value.buffer, shape, "planar")
        self.result.values[op.outputs[number]] = value
