"""Operators -> tasks of the engines over buffers: where layouts are chosen, conversions inserted, and reshapes made
to vanish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op
from convoy.driver.lower.operands import Refusal, nhwc
from convoy.driver.lower.work import (
    AssignWork,
    ConcatWork,
    ConvWork,
    ElementwiseWork,
    ExtremeWork,
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
    Work,
    ZoomWork,
)

from .orders import AXES, CopyWork, Shape, memory_axes, order_steps, reordered
from .phases import PhaseSplit, SplitConv, Splits
from .pools import Pools, PoolSteps
from .sums import CutConv, TurnedConv
from .turns import Steps

__all__ = ["Buffer", "ConvTask", "HostTask", "PhaseWork", "Schedule", "Task", "TpWork", "Value", "schedule"]


@dataclass(frozen=True)
class Value:
    """A tensor's bytes: a buffer, seen with this NHWC shape in this layout. The bytes of a value are channels."""

    buffer: int
    shape: Shape
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
class PhaseWork:
    """Phase planes that the tensor processor makes of `channels` of the buffer `source`, for this convolution and
    those after it.
    """

    split: PhaseSplit
    channels: range
    source: int


TpWork = PoolWork | ElementwiseWork | LutWork | CopyWork | MoveWork | RepeatWork | InterleaveWork | ZoomWork
"""What the TP engine does."""


@dataclass(frozen=True)
class Task:
    """One piece of work for one engine: reads `sources`, writes `target` (buffer numbers). `position` is the
    operator's in the schedule.
    """

    op: Op
    position: int
    work: TpWork | ConvWork
    sources: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class ConvTask(Task):
    """A convolution on the NN engine."""

    work: ConvWork
    phases: PhaseWork | None = None
    """What goes before the convolution, into its first source."""
    in_offset: int = 0
    """First byte of the source that the convolution reads."""
    out_offset: int = 0


@dataclass(frozen=True)
class HostTask:
    """An operator that the host executes between the programs of the NPU."""

    op: Op
    position: int
    work: HostWork


@dataclass(frozen=True)
class Schedule:
    """What the engines and the host have to do, in order; a task's number is its place in `tasks`."""

    is_transposed: bool
    """Images are stored with columns as rows."""
    tasks: tuple[Task | HostTask, ...]
    buffers: tuple[Buffer, ...]
    """Of all tasks, by their numbers."""
    values: dict[int, Value]
    """Every tensor that lies in memory."""
    aliases: frozenset[int]
    """Positions of operators without a task."""
    fused: frozenset[int]
    """Those of them that another operator's task does."""
    variables: dict[int, Value]
    """By number of the variable: where its value lies at the start of a run, and at the end."""
    ahead: frozenset[int] = frozenset()
    """Numbers of convolutions whose input is made by the task just before: the tensor processor may still do that
    while the convolution is computed, as far as it has not come yet.
    """

    def before(self, number: int) -> Task | None:
        """The task that is done while task `number` is, if there is one."""
        task = self.tasks[number - 1] if number in self.ahead else None
        return task if isinstance(task, Task) else None


def schedule(
    graph: Graph, works: Sequence[Work | FusedWork], splits: Splits, *, edge_inputs: frozenset[int]
) -> Schedule:
    """Tasks for the operators of `graph`, whose lowered forms are `works`, in the orientation of `splits`.

    Parameters
    ----------
    splits : the convolutions whose strides the tensor processor takes
    edge_inputs : tensors that come NHWC; other inputs of the graph come in the layout of the NPU

    Raises
    ------
    Refusal
        When operands of an operator cannot be brought together.
    """
    return _Scheduler(graph, splits, edge_inputs).run(works)


@dataclass
class _State:
    """A variable while the schedule is made."""

    place: Value
    """Where its value lies at the start of a run, and at the end."""
    assigned: tuple[Value, Op] | None = None
    """What has been assigned to it so far in this run, and by whom."""


class _Scheduler:
    def __init__(self, graph: Graph, splits: Splits, edge_inputs: frozenset[int]):
        self.graph, self.splits, self.edge_inputs = graph, splits, edge_inputs
        self.is_transposed = splits.is_transposed
        self.native = "planar_transposed" if self.is_transposed else "planar"
        self.tasks: list[Task | HostTask] = []
        self.buffers: list[Buffer] = []
        self.values: dict[int, Value] = {}
        self.fused: set[int] = set()
        self.states: dict[int, _State] = {}
        self.copies: dict[tuple[Value, str], Value] = {}
        self.oriented: dict[int, ConvWork] = {}
        """By identity of the work."""
        self.flat: dict[int, ConvWork] = {}
        """The same."""
        self.parts: dict[tuple[int, int], range] = {}
        """By buffer and batch, the buffers of the images."""
        self.due: dict[int, list[int]] = {}
        """By position, the variables whose value at the start of the run nothing reads from there on."""
        self.segment_start = 0
        """Number of the first task since the host's last one."""
        self.busy_until = -1
        """Position of the last operator before the host's next one that certainly is a task of the NPU; -1: none."""

    def run(self, works: Sequence[Work | FusedWork]) -> Schedule:
        aliases = set()
        lowering: dict[type, Callable[[Op, int, Any], None]] = {
            ConvWork: self._conv,
            PoolWork: self._pool,
            ExtremeWork: self._extreme,
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
        last = self._last_busy(works)
        for position, (op, work) in enumerate(zip(self.graph.ops, works, strict=True)):
            before, self.busy_until = len(self.tasks), last[position]
            try:
                lowering[type(work)](op, position, work)
                for variable in self.due.get(position, ()):
                    if (assigned := self.states[variable].assigned) is not None:
                        self._keep(position, self.states[variable].place, *assigned)
            except GraphError as error:
                raise Refusal(self.graph, op, str(error)) from error
            if len(self.tasks) == before:
                aliases.add(position)
        for index in self.graph.outputs:
            if index in self.values:
                self.buffers[self.values[index].buffer].last = len(self.tasks)
        for state in self.states.values():
            buffer = self.buffers[state.place.buffer]
            buffer.first, buffer.last = -1, len(self.tasks)
        ahead = dict(self._ahead())
        for conv, maker in ahead.items():
            for source in maker.sources:
                self.buffers[source].last = max(self.buffers[source].last, conv)
        for part in self.buffers:
            whole = part
            while whole.parent is not None:
                whole = self.buffers[whole.parent]
                whole.first, whole.last = min(whole.first, part.first), max(whole.last, part.last)
        return Schedule(
            self.is_transposed,
            tuple(self.tasks),
            tuple(self.buffers),
            self.values,
            frozenset(aliases),
            frozenset(self.fused),
            {number: state.place for number, state in self.states.items()},
            frozenset(ahead),
        )

    def _ahead(self) -> Iterator[tuple[int, Task]]:
        """The convolutions of `Schedule.ahead`, and the tasks before them. Stripes of one with a pool follow its lines,
        not what comes first.
        """
        for number, (before, task) in enumerate(pairwise(self.tasks), 1):
            is_free = isinstance(task, ConvTask) and task.phases is None and not task.work.pool_size
            if isinstance(task, ConvTask) and is_free and type(before) is Task:
                first, *others = task.sources
                if before.target == first and first not in others:
                    yield number, before

    @staticmethod
    def _last_busy(works: Sequence[Work | FusedWork]) -> list[int]:
        """For each position, that of the last operator before the host's next one that always is a task; -1: none."""
        last, found = -1, []
        for position in reversed(range(len(works))):
            if isinstance(works[position], HostWork):
                last = -1
            elif last < 0 and isinstance(works[position], ConvWork | PoolWork | ElementwiseWork | LutWork | ZoomWork):
                last = position
            found.append(last)
        return found[::-1]

    def _has_neighbour(self, position: int) -> bool:
        """Does the NPU have a task between the host's that are around this position?"""
        return len(self.tasks) > self.segment_start or self.busy_until > position

    # Values

    def _byte_shape(self, index: int) -> Shape:
        """Shape of a tensor as NHWC, with the bytes of a value as channels."""
        tensor = self.graph.tensors[index]
        return _in_bytes(nhwc(tensor.shape), tensor.dtype.itemsize)

    def _new(self, shape: Shape, layout: str, is_input: bool = False) -> Value:
        now = len(self.tasks)
        num_bytes = shape[0] * shape[1] * shape[2] * shape[3]
        self.buffers.append(Buffer(num_bytes, -1 if is_input else now, now))
        return Value(len(self.buffers) - 1, shape, layout)

    def _value(self, index: int) -> Value:
        """The value of an operand; a tensor of the host is given a place on its first use by the NPU."""
        if index not in self.values:
            shape = self._byte_shape(index)
            is_cut = index in self.graph.inputs and index not in self.edge_inputs and shape[0] == 1
            self.values[index] = self._new(shape, self.native if is_cut else "linear", is_input=True)
        return self.values[index]

    def _images_of(self, op: Op, position: int, index: int, shape: Shape) -> Value:
        """An operand seen as images of `shape` (NHWC), as many as it holds."""
        value, in_bytes = self._value(index), _in_bytes(shape, self.graph.tensors[index].dtype.itemsize)
        batch = shape[0] * (prod(value.shape) // prod(in_bytes))
        return self._reshaped(op, position, value, _with_extent(in_bytes, 0, batch))

    def _images(self, value: Value) -> list[Value]:
        """The images of a batch, each a part of its buffer."""
        batch, *extents = value.shape
        if batch == 1:
            return [value]
        if (value.buffer, batch) not in self.parts:
            now, num_bytes = len(self.tasks), prod(extents)
            self.parts[value.buffer, batch] = range(len(self.buffers), len(self.buffers) + batch)
            self.buffers += [Buffer(num_bytes, now, now, value.buffer, n * num_bytes) for n in range(batch)]
        shape = _with_extent(value.shape, 0, 1)
        return [Value(part, shape, value.layout) for part in self.parts[value.buffer, batch]]

    def _task(self, op: Op, position: int, work: TpWork, sources: Sequence[Value], target: Value) -> None:
        """A task on whole buffers."""
        self._append(Task(op, position, work, tuple(value.buffer for value in sources), target.buffer))

    def _task_each(self, op: Op, position: int, work: TpWork, sources: Sequence[Value], target: Value) -> None:
        """A task for each image of the batch that sources and target have."""
        for *images, made in zip(*map(self._images, (*sources, target)), strict=True):
            self._task(op, position, work, images, made)

    def _append(self, task: Task, *also_read: int) -> None:
        """Add a task that reads its sources and perhaps other buffers."""
        now = len(self.tasks)
        for number in (*task.sources, *also_read):
            whole: int | None = number
            while whole is not None:
                self.buffers[whole].last = now
                whole = self.buffers[whole].parent
        self.buffers[task.target].last = max(self.buffers[task.target].last, now)
        self.tasks.append(task)

    @staticmethod
    def _same_order(shape: Shape, a: str, b: str) -> bool:
        """Do two layouts of this shape put the elements in the same order?"""
        return [axis for axis in AXES[a] if shape[axis + 1] > 1] == [axis for axis in AXES[b] if shape[axis + 1] > 1]

    def _converted(self, op: Op, position: int, value: Value, layout: str) -> Value:
        if self._same_order(value.shape, value.layout, layout):
            return Value(value.buffer, value.shape, layout)
        if (value, layout) not in self.copies:
            copy = self._new(value.shape, layout)
            work = CopyWork(_hwc(value.shape), AXES[value.layout], AXES[layout])
            self._task_each(op, position, work, (value,), copy)
            self.copies[value, layout] = copy
        return self.copies[value, layout]

    def _reshaped(self, op: Op, position: int, value: Value, shape: Shape) -> Value:
        if value.shape == shape:
            return value
        if value.shape[::3] == shape[::3] and self._same_order(value.shape, value.layout, "planar"):
            return Value(value.buffer, shape, "planar")
        value = self._converted(op, position, value, "linear") if value.layout != "linear" else value
        return Value(value.buffer, shape, "linear")

    # Operators

    def _conv(self, op: Op, position: int, work: ConvWork) -> None:
        value = self._images_of(op, position, op.inputs[work.source], work.in_shape)
        split = self.splits.convs.get(position)
        batch = value.shape[0]
        if split is None and work.covers_image and self._same_order(value.shape, value.layout, "linear"):
            work = self.flat.setdefault(id(work), work.flat)
            shape = _with_extent(_in_bytes(work.in_shape, work.value_bytes), 0, batch)
            value = self._reshaped(op, position, value, shape)
        if isinstance(split, TurnedConv):
            sources = [self._turned(op, position, value, work.value_bytes)]
        elif isinstance(split, SplitConv) and split.is_of_columns:
            height, width = split.split.rows.size_in, split.split.cols.size_in
            value = self._converted(op, position, value, "linear")
            sources = [self._reshaped(op, position, value, (batch, height, width, 1))]
        else:
            sources = [self._converted(op, position, value, self.native)]
        if work.residual is not None:
            sources.append(self._converted(op, position, self._value(work.residual.tensor), self.native))
        if isinstance(split, Steps) and work.interleave is not None:
            height, width = work.interleave.size_out
            target = self._new((batch, height, width, work.interleave.num_c), self.native)
            self._steps(op, position, split, sources[0], target)
            self._define(op, position, target)
            return
        made_shape = split.work.out_shape if isinstance(split, TurnedConv) else work.out_shape
        target = self._new(_with_extent(_in_bytes(made_shape, work.value_bytes), 0, batch), self.native)
        for *images, made in zip(*map(self._images, (*sources, target)), strict=True):
            self._conv_image(op, position, work, images, made)
        if work.pool_size:  # the result of the pool, which takes it from here
            self.values[op.outputs[0]] = target
        elif (interleave := work.interleave and self._oriented(work).interleave) is None:
            self._define(op, position, target)
        else:
            self._interleaved(op, position, interleave, target)

    def _conv_image(self, op: Op, position: int, work: ConvWork, sources: list[Value], target: Value) -> None:
        """The convolution of one image."""
        split = self.splits.convs.get(position)
        if isinstance(split, Pools):
            self._pools_image(op, position, split, sources, target)
        elif split is None or isinstance(split, TurnedConv):
            made = self._oriented(work) if split is None else split.work
            self._append(ConvTask(op, position, made, tuple(value.buffer for value in sources), target.buffer))
        elif isinstance(split, CutConv):
            self._parts(op, position, [(part, None, part.num_in_bytes) for part in split.parts], sources, target)
        elif isinstance(split, SplitConv):
            self._split_conv(op, position, split, sources, target)

    def _oriented(self, work: ConvWork) -> ConvWork:
        """A convolution in the orientation of the schedule, one for all images of a batch."""
        if id(work) not in self.oriented:
            self.oriented[id(work)] = work.oriented(self.is_transposed)
        return self.oriented[id(work)]

    def _turned(self, op: Op, position: int, value: Value, value_bytes: int) -> Value:
        """Images with pixels as planes and channels as their pixels; of int16 each has a plane of low and one of high
        bytes.
        """
        if value_bytes == 1 and self._same_order(value.shape, value.layout, "linear"):
            return value
        _, height, width, num_c = value.shape
        sizes = height * width, value_bytes, num_c // value_bytes
        copy = self._new(value.shape, "linear")
        if value.layout == "linear":
            work = CopyWork((sizes[0], sizes[2], sizes[1]), (0, 1, 2), (0, 2, 1))
        else:
            work = CopyWork(sizes, (2, 1, 0), (0, 1, 2))
        self._task_each(op, position, work, (value,), copy)
        return copy

    def _split_conv(self, op: Op, position: int, conv: SplitConv, sources: list[Value], target: Value) -> None:
        """A convolution over phase planes, in parts of some channels."""
        split, image = conv.split, sources[0].buffer
        planes = self._new(
            (1, split.rows.size, split.cols.size, split.value_bytes * split.num_ic * split.num_planes), self.native
        )
        parts = [
            (part, PhaseWork(split, channels, image) if channels else None, part.num_ic * split.plane_bytes)
            for part, channels in conv.parts
        ]
        self._parts(op, position, parts, [planes, *sources[1:]], target)

    def _parts(
        self,
        op: Op,
        position: int,
        parts: Sequence[tuple[ConvWork, PhaseWork | None, int]],
        sources: Sequence[Value],
        target: Value,
    ) -> None:
        """Convolutions that read parts of the first source, of so many bytes each, and write parts of the target."""
        buffers = tuple(value.buffer for value in sources)
        in_offset = out_offset = 0
        for part, phases, num_bytes in parts:
            task = ConvTask(op, position, part, buffers, target.buffer, phases, in_offset, out_offset)
            self._append(task, *([phases.source] if phases else []))
            in_offset += num_bytes
            out_offset += prod(part.out_shape) * part.value_bytes

    def _pool(self, op: Op, position: int, work: PoolWork) -> None:
        value = self._converted(op, position, self._value(op.inputs[0]), self.native)
        split = self.splits.convs.get(position)
        if work.fill is not None and not isinstance(split, Pools):
            raise GraphError("the NN engine does not take the pool, and no other has its pads")
        if isinstance(split, Pools):
            target = self._pooled(value, work)
            for image, made in zip(self._images(value), self._images(target), strict=True):
                self._pools_image(op, position, split, [image], made)
            value = target
        else:
            for step in split.works if isinstance(split, PoolSteps) else (work.oriented(self.is_transposed),):
                target = self._pooled(value, step.oriented(self.is_transposed))
                self._task_each(op, position, step, (value,), target)
                value = target
        self._define(op, position, value)

    def _pooled(self, value: Value, work: PoolWork) -> Value:
        """A place for the result of a pool."""
        return self._new((value.shape[0], work.rows.size_out, work.cols.size_out, value.shape[3]), self.native)

    def _pools_image(self, op: Op, position: int, pools: Pools, sources: list[Value], target: Value) -> None:
        """The works in place of one, on one image."""
        self._works(op, position, pools.works, tuple(value.buffer for value in sources), target)

    def _works(
        self, op: Op, position: int, works: Sequence[TpWork | ConvWork], sources: tuple[int, ...], target: Value
    ) -> None:
        """Works that each make a part of the target."""
        for work in works:
            if isinstance(work, ConvWork):
                self._append(ConvTask(op, position, work, sources, target.buffer))
            else:
                self._append(Task(op, position, work, sources, target.buffer))

    def _extreme(self, op: Op, position: int, work: ExtremeWork) -> None:
        value = self._images_of(op, position, op.inputs[0], work.in_shape)
        batch, value = value.shape[0], self._converted(op, position, value, self.native)
        if work.is_min:
            value = self._inverted(op, position, value)
        for pool in work.pools:
            target = self._new((batch, pool.rows.size_out, pool.cols.size_out, value.shape[3]), self.native)
            self._task_each(op, position, pool.oriented(self.is_transposed), (value,), target)
            value = target
        _, height, width, _ = value.shape
        for pool in work.across:
            target = self._new((batch, height, width, pool.rows.size_out), self.native)
            self._task_each(op, position, pool, (value,), target)
            value = target
        self._define(op, position, self._inverted(op, position, value) if work.is_min else value)

    def _inverted(self, op: Op, position: int, value: Value) -> Value:
        """-1 - x for every element x of int8."""
        target = self._new(value.shape, value.layout)
        self._task(
            op, position, LutWork(prod(value.shape), ~np.arange(256, dtype=np.uint8).view(np.int8)), (value,), target
        )
        return target

    def _elementwise(self, op: Op, position: int, work: ElementwiseWork) -> None:
        """In the layout that the operands have; if they have several, or int16, in that of the NPU."""
        values = [
            self._value(index) for index, constant in zip(op.inputs, work.constants, strict=False) if constant is None
        ]
        layouts = [value.layout for value in values if value.shape[1:] == work.shape[1:]]
        layout = layouts[0] if layouts else self.native
        if work.is_wide or not all(self._same_order(value.shape, value.layout, layout) for value in values):
            layout = self.native
        values = [self._converted(op, position, value, layout) for value in values]
        shape = _with_extent(_in_bytes(work.shape, work.value_bytes), 0, values[0].shape[0])
        target = self._new(shape, layout)
        self._task_each(op, position, replace(work, axes=AXES[layout]), values, target)
        self._define(op, position, target)

    def _lut(self, op: Op, position: int, work: LutWork) -> None:
        value = self._value(op.inputs[work.source])
        target = self._new(value.shape, value.layout)
        self._task(op, position, replace(work, num_elements=prod(value.shape)), (value,), target)
        self._define(op, position, target)

    def _fused(self, op: Op, position: int, work: FusedWork) -> None:
        """The operand's place holds the result; the operand never exists."""
        self.values[op.outputs[0]] = self.values.pop(work.operand)
        self.fused.add(position)

    def _moves(self, op: Op, position: int, work: MovesWork) -> None:
        """Boxes that are in one piece in memory stay there; the others are copied."""
        views = self._views(position, self._value(op.inputs[work.source]), work, op)
        for number, view in views.items():
            self._define(op, position, view, number)
        work = replace(work, moves=tuple((number, move) for number, move in work.moves if number not in views))
        if not work.moves:
            return
        value_bytes = self.graph.tensors[op.outputs[0]].dtype.itemsize
        value = self._images_of(op, position, op.inputs[work.source], work.in_shape)
        value = self._converted(op, position, value, self.native)
        targets: dict[int, Value] = {}
        for number, move in work.moves:
            move = replace(move, channels=move.channels.repeated(value_bytes))
            if number not in targets:
                targets[number] = self._new(
                    (value.shape[0], move.rows.target_size, move.cols.target_size, move.channels.target_size),
                    self.native,
                )
            self._task_each(op, position, move.oriented(self.is_transposed), (value,), targets[number])
        for number, target in targets.items():
            self._define(op, position, target, number)

    def _views(self, position: int, value: Value, work: MovesWork, op: Op) -> dict[int, Value]:
        """By number of the output, those that are parts of the source's buffer as it is."""
        boxes: dict[int, list[MoveWork]] = {}
        for number, move in work.moves:
            boxes.setdefault(number, []).append(move)
        value_bytes = self.graph.tensors[op.outputs[0]].dtype.itemsize
        found = {}
        for number, (move, *rest) in boxes.items():
            if not rest and move.is_box and move.lut is None and self._has_neighbour(position):
                view = self._view(value, _in_bytes(work.in_shape, value_bytes), move, value_bytes)
                if view is not None:
                    found[number] = view
        return found

    def _view(self, value: Value, in_shape: Shape, move: MoveWork, value_bytes: int) -> Value | None:
        """A box of an image of `in_shape` as a part of the buffer of `value`, if it is in one piece there."""
        axes = move.rows, move.cols, move.channels.repeated(value_bytes)
        counts = [axis.count for axis in axes]
        if prod(value.shape) != prod(in_shape):
            return None
        if self._same_order(value.shape, value.layout, "linear") or value.shape[0] > 1:
            places = [n for n, count in enumerate(counts) if count > 1] or [2]
            if any(axis.count < axis.source_size for axis in axes[places[0] + 1 :]):
                return None
            offset = (axes[0].start * in_shape[2] + axes[1].start) * in_shape[3] + axes[2].start
            if self._same_order(value.shape, value.layout, "linear"):
                return self._part(value, offset, (1, counts[0], counts[1], counts[2]), "linear")
            batch, rest = divmod(prod(counts), prod(value.shape[1:]))
            if rest or offset % prod(value.shape[1:]):
                return None
            return self._part(value, offset, _with_extent(value.shape, 0, batch), value.layout)
        if value.layout != self.native or value.shape != in_shape or counts[:2] != list(in_shape[1:3]):
            return None
        offset = axes[2].start * in_shape[1] * in_shape[2]
        return self._part(value, offset, _with_extent(in_shape, 3, counts[2]), value.layout)

    def _part(self, value: Value, offset: int, shape: Shape, layout: str) -> Value:
        """`shape` bytes of the buffer of `value`, from `offset` on."""
        now = len(self.tasks)
        self.buffers.append(Buffer(prod(shape), now, now, value.buffer, offset))
        return Value(len(self.buffers) - 1, shape, layout)

    def _interleave(self, op: Op, position: int, work: InterleaveWork) -> None:
        value = self._converted(op, position, self._value(op.inputs[0]), self.native)
        self._interleaved(op, position, work.oriented(self.is_transposed), value)

    def _interleaved(self, op: Op, position: int, work: InterleaveWork, value: Value) -> None:
        """The result of `op`, interleaved from `value`; `work` is in the orientation of the schedule."""
        height, width = work.oriented(self.is_transposed).size_out
        target = self._new((value.shape[0], height, width, work.num_c), self.native)
        self._stepwise(op, position, work, value, target)

    def _stepwise(self, op: Op, position: int, work: TpWork, value: Value, target: Value) -> None:
        """`work` for each image of a batch, in the steps that are chosen for it."""
        if (chosen := self.splits.moves.get(position)) is None:
            self._task_each(op, position, work, (value,), target)
        else:
            self._steps(op, position, chosen, value, target)
        self._define(op, position, target)

    def _steps(self, op: Op, position: int, chosen: Steps, value: Value, target: Value) -> None:
        """The steps that are chosen for each image of a batch."""
        for image, made in zip(self._images(value), self._images(target), strict=True):
            buffers = list[Value]()
            for step in chosen.steps:
                source = image if step.source < 0 else buffers[step.source]
                buffers.append(made if step.is_result else self._new((1, 1, 1, step.num_bytes), "linear"))
                if isinstance(step.works[0], ConvWork) and buffers[:-1] and buffers[-2].buffer != source.buffer:
                    for before in buffers[:-1]:  # the tensor processor still reads what was made before
                        self.buffers[before.buffer].last = len(self.tasks)
                self._works(op, position, step.works, (source.buffer,), buffers[-1])

    def _zoom(self, op: Op, position: int, work: ZoomWork) -> None:
        value = self._converted(op, position, self._value(op.inputs[0]), self.native)
        target = self._new((value.shape[0], work.rows.size_out, work.cols.size_out, work.num_ic), self.native)
        self._stepwise(op, position, work.oriented(self.is_transposed), value, target)

    def _transpose(self, op: Op, position: int, work: TransposeWork) -> None:
        """Another order of the same bytes: a copy, or nothing where the layout has it already and the NPU has work
        since the host's last.
        """
        value, shape = self._value(op.inputs[0]), self._byte_shape(op.outputs[0])
        value_bytes = self.graph.tensors[op.inputs[0]].dtype.itemsize
        sizes, order = list(work.shape), list(work.order)
        if value_bytes > 1:
            sizes, order = [*sizes, value_bytes], [*order, len(order)]
        batch = prod(value.shape) // prod(sizes)
        source_image, image = (
            _with_extent(whole, 0, 1) if whole[0] == batch else whole for whole in (value.shape, shape)
        )
        turned = [sizes[axis] for axis in order]
        wanted = {
            layout: [order[place] for place in places]
            for layout in AXES
            if (places := memory_axes(turned, image, layout)) is not None
        }
        source = memory_axes(sizes, source_image, value.layout)
        for layout, axes in wanted.items():
            if source == axes and self._has_neighbour(position):
                self._define(op, position, Value(value.buffer, shape, layout))
                return
        if source is None:
            value = self._converted(op, position, value, "linear")
            source = [axis for axis, size in enumerate(sizes) if size > 1]
        layout = self.native if self.native in wanted else "linear"
        if self._is_only_read_by(op.outputs[0], _MOVING):  # a copy of whole runs
            layout = next((name for name, axes in wanted.items() if axes[-1:] == source[-1:]), layout)
        for step in order_steps(source, wanted[layout]):
            target = self._new(shape, layout)
            add = self._task_each if batch > 1 else self._task
            add(op, position, reordered(sizes, source, step), (value,), target)
            value, source = target, step
        self._define(op, position, value)

    def _is_only_read_by(self, index: int, kinds: frozenset[str]) -> bool:
        """Are all readers of a tensor operators of some kinds?"""
        return index not in self.graph.outputs and {op.kind for op in self.graph.ops if index in op.inputs} <= kinds

    def _resize(self, op: Op, position: int, work: ResizeWork) -> None:
        value = self._converted(op, position, self._value(op.inputs[0]), self.native)
        height, width = work.size_in
        shape = value.shape[0], height * work.times_h, width * work.times_w, work.num_planes
        target = self._new(shape, self.native)
        self._stepwise(op, position, work.repeated(self.is_transposed), value, target)

    def _concat(self, op: Op, position: int, work: ConcatWork) -> None:
        """Channels of the result are where its parts are made; what cannot be made there is copied."""
        value_bytes = self.graph.tensors[op.outputs[0]].dtype.itemsize
        shape = _in_bytes(work.out_shape, value_bytes)
        batch = prod(self._byte_shape(op.outputs[0])) // prod(shape)
        if batch == 1 and prod(shape[1 : 1 + work.axis]) == 1 and self._append_parts(op, position):
            return
        shape = _with_extent(shape, 0, shape[0] * batch)
        target = self._new(shape, self.native)
        start = 0
        for index, in_shape in zip(op.inputs, work.in_shapes, strict=True):
            value = self._images_of(op, position, index, in_shape)
            value = self._converted(op, position, value, self.native)
            size = value.shape[1 + work.axis]
            is_place = work.axis == 2 and shape[0] == 1
            if not (is_place and self._place(position, value, target, start * shape[1] * shape[2])):
                rows, cols, channels = (
                    MoveAxis(have, want, have, target_start=start if axis == work.axis else 0)
                    for axis, (have, want) in enumerate(zip(value.shape[1:], shape[1:], strict=True))
                )
                move = MoveWork(rows, cols, channels, zero_point=0)
                self._task_each(op, position, move.oriented(self.is_transposed), (value,), target)
            start += size
        self._define(op, position, target)

    def _append_parts(self, op: Op, position: int) -> bool:
        """Put tensors one behind the other, as bytes or as images of the NPU's layout, where that is what they are."""
        shape, values = self._byte_shape(op.outputs[0]), [self._value(index) for index in op.inputs]
        if all(self._same_order(value.shape, value.layout, "linear") for value in values):
            layout = "linear"
        elif shape[0] > 1 and all(value.shape[1:] == shape[1:] for value in values):
            layout = self.native
        else:
            return False
        target, offset = self._new(shape, layout), 0
        for value in values:
            made = self._converted(op, position, value, layout)
            if not self._place(position, made, target, offset):
                part = self._part(target, offset, made.shape, layout)
                self._task(op, position, self._flat_copy(made), (made,), part)
            offset += prod(made.shape)
        self._define(op, position, target)
        return True

    def _place(self, position: int, value: Value, target: Value, offset: int) -> bool:
        """Make the buffer of `value` a part of that of `target`, if it is not part of another one and the NPU has
        work between the host's.
        """
        part = self.buffers[value.buffer]
        if (
            part.parent is not None
            or part.num_bytes != prod(value.shape)
            or not self._has_neighbour(position)
            or self._is_state(value)
        ):
            return False
        part.parent, part.offset = target.buffer, offset
        return True

    def _reshape(self, op: Op, position: int, work: ReshapeWork) -> None:
        value, shape = self._value(op.inputs[0]), self._byte_shape(op.outputs[0])
        if value.shape != shape and self._is_only_read_by(op.outputs[0], _CUTTING):  # rows are in one piece then
            value = self._converted(op, position, value, "linear")
        self._define(op, position, self._reshaped(op, position, value, shape))

    # Variables

    def _find_due(self, works: Sequence[Work | FusedWork]) -> None:
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
            elif isinstance(work, ReshapeWork | TransposeWork | MovesWork) and read:
                starts |= dict.fromkeys(op.outputs, read[0])
            elif isinstance(work, AssignWork):
                due[work.variable] = max(position, last_read.get(work.variable, 0))
                (changed.discard if work.variable in read else changed.add)(work.variable)
        for variable, position in due.items():
            self.due.setdefault(position, []).append(variable)

    def _is_state(self, value: Value) -> bool:
        """Is it what a variable was at the start of the run, or a part of it?"""
        whole: int | None = value.buffer
        while whole is not None:
            if any(state.place.buffer == whole for state in self.states.values()):
                return True
            whole = self.buffers[whole].parent
        return False

    def _state(self, number: int) -> _State:
        """A variable, with a place of its own from its first use on."""
        if number not in self.states:
            shape = nhwc(self.graph.variables[number].shape)
            place = self._new(shape, self.native if shape[0] == 1 else "linear", is_input=True)
            self.buffers[place.buffer].last = -1
            self.states[number] = _State(place)
        return self.states[number]

    def _read(self, op: Op, position: int, work: ReadWork) -> None:
        state = self._state(work.variable)
        self._define(op, position, state.assigned[0] if state.assigned else state.place)

    def _assign(self, op: Op, position: int, work: AssignWork) -> None:
        """The new value waits where it is until the old one is no longer needed; the old value of another variable
        is saved from that fate.
        """
        state, value = self._state(work.variable), self._value(op.inputs[0])
        if self._is_state(value) and value.buffer != state.place.buffer:
            copy = self._new(value.shape, value.layout)
            self._task(op, position, self._flat_copy(value), (value,), copy)
            value = copy
        state.assigned = value, op

    def _keep(self, position: int, place: Value, value: Value, assigner: Op) -> None:
        """The new value of a variable is made in the variable's place if that is free by then, else copied there."""
        part, whole = self.buffers[value.buffer], self.buffers[place.buffer]
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
        elif has_order:
            self._task(assigner, position, self._flat_copy(value), (value,), place)
        else:
            work = CopyWork(_hwc(value.shape), AXES[value.layout], AXES[place.layout])
            self._task_each(assigner, position, work, (value,), place)

    def _first(self, number: int) -> int:
        """The first task that writes a buffer or a part of it."""
        parts = (self._first(part) for part, buffer in enumerate(self.buffers) if buffer.parent == number)
        return min([self.buffers[number].first, *parts])

    @staticmethod
    def _flat_copy(value: Value) -> CopyWork:
        """The bytes as they are."""
        return CopyWork((1, 1, prod(value.shape)), AXES["linear"], AXES["linear"])

    def _host(self, op: Op, position: int, work: HostWork) -> None:
        now = len(self.tasks)
        for index in op.inputs:
            if index in self.values:
                self.buffers[self.values[index].buffer].last = now
        self.tasks.append(HostTask(op, position, work))
        self.segment_start = now + 1

    def _define(self, op: Op, position: int, value: Value, number: int = 0) -> None:
        """`value` is result `number` of `op`; seen with the tensor's own shape."""
        shape = self._byte_shape(op.outputs[number])
        is_row = shape[0] == value.shape[0] == 1 and self._same_order(value.shape, value.layout, "planar")
        if shape != value.shape and is_row and shape[3] == value.shape[3]:
            value = Value(value.buffer, shape, "planar")
        elif prod(shape) != prod(value.shape):
            raise GraphError(f"a result of shape {value.shape} cannot be stored as {shape}")
        self.values[op.outputs[number]] = self._reshaped(op, position, value, shape)


_CUTTING = frozenset(["SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "UNPACK"])
_MOVING = _CUTTING | {"RESHAPE", "TRANSPOSE", "CONCATENATION", "QUANTIZE"}


def _in_bytes(shape: Shape, value_bytes: int) -> Shape:
    """A shape with the bytes of a value as channels."""
    return _with_extent(shape, 3, shape[3] * value_bytes)


def _with_extent(shape: Shape, axis: int, extent: int) -> Shape:
    """A shape with another extent along an axis."""
    n, h, w, c = (extent if number == axis else old for number, old in enumerate(shape))
    return n, h, w, c


def _hwc(shape: Shape) -> tuple[int, int, int]:
    """Extents of an image of a batch."""
    return shape[1], shape[2], shape[3]
