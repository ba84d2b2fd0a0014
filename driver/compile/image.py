"""Tiled schedule -> plan: NPU programs with their constant memory, and host steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from convoy.driver.emit.ahead import blocks_ahead
from convoy.driver.emit.alloc import Arena, place_buffers
from convoy.driver.emit.descriptors import Emitter, SwappedTables, Tables, phase_blocks, row_ends, tp_blocks
from convoy.driver.emit.pack import LayerStreams, Streams, pack_params, pack_streams, pack_taps
from convoy.driver.emit.program import HostStep, Keep, MemoryWindow, NpuStep, Placement, Plan, Program
from convoy.driver.emit.swapped import pack_image, plain_bias
from convoy.driver.graph.graph import Graph, GraphError
from convoy.driver.lower.operands import Refusal
from convoy.driver.lower.work import ConvWork, ElementwiseWork
from convoy.driver.plan.balance import balanced
from convoy.driver.plan.macs import LaneMacs, lane_macs, swapped_lane_macs
from convoy.driver.plan.schedule import ConvTask, PhaseWork, Schedule, Task
from convoy.driver.plan.swap import SwappedTiling
from convoy.driver.plan.tile import Tiling
from convoy.spec.config import NpuConfig
from convoy.spec.csr import MAX_DESCRIPTORS
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, LUT_BYTES, STREAM, TAP_BYTES
from convoy.spec.record import EncodeError

from .segments import Segment
from .tilings import Tiled

__all__ = ["emit_plan"]


def emit_plan(
    graph: Graph,
    config: NpuConfig,
    tiled: Tiled,
    segments: Sequence[Segment],
    notes: dict[int, str],
    *,
    keep_tensors: bool,
) -> Plan:
    """The plan of a tiled schedule for `graph`, one step for each segment.

    With `keep_tensors` no two tensors share memory. `notes` are handed on, behind those of the operators themselves.

    Raises
    ------
    Refusal
        When a field of a descriptor cannot hold what it has to.
    GraphError
        When a program cannot.
    """
    schedule = tiled.schedule
    addrs, end = place_buffers(schedule.buffers, keep_all=keep_tensors)
    arena = Arena(end)
    steps: list[NpuStep | HostStep] = []
    for segment in segments:
        if not segment.host_reasons:
            writer = _ProgramWriter(config, schedule, addrs, arena)
            for number, task in enumerate(schedule.tasks):
                if task.position in segment.positions:
                    try:
                        if isinstance(task, ConvTask):
                            writer.add_conv(task, tiled.tilings[number], schedule.before(number))
                        elif isinstance(task, Task) and number + 1 not in schedule.ahead:
                            writer.add_tp(task)
                    except (EncodeError, GraphError) as error:
                        raise Refusal(graph, task.op, str(error)) from error
            steps.append(writer.step(graph, segment, MemoryWindow(0, end, is_readable=True, is_writable=True)))
        else:
            steps.append(HostStep(tuple(graph.ops[p] for p in segment.positions), segment.host_reasons))
    placements = {
        index: Placement(
            index, addrs[value.buffer], graph.tensors[index].shape, value.layout, graph.tensors[index].dtype.itemsize
        )
        for index, value in schedule.values.items()
    }
    said = {op.index: op.note for op in graph.ops if op.note}
    notes = said | {index: f"{said[index]}; {note}" if index in said else note for index, note in notes.items()}
    activation_bytes = place_buffers(schedule.buffers, keep_all=False)[1] if keep_tensors else end
    keeps = tuple(_keeps(graph, schedule, addrs))
    return Plan(graph, config, tuple(steps), placements, arena.end, activation_bytes, notes, keeps)


def _keeps(graph: Graph, schedule: Schedule, addrs: list[int]) -> Iterator[Keep]:
    for number, place in sorted(schedule.variables.items()):
        variable = graph.variables[number]
        tensors = frozenset(index for index, value in schedule.values.items() if value.buffer == place.buffer)
        placement = Placement(-1, addrs[place.buffer], variable.shape, place.layout)
        yield Keep(variable.name, placement, variable.initial, tensors)


class _ProgramWriter:
    """One program: its tasks are added in order, which puts their constants into memory; `step` closes it."""

    def __init__(self, config: NpuConfig, schedule: Schedule, addrs: list[int], arena: Arena):
        self._config, self._schedule = config, schedule
        self._addrs, self._arena = addrs, arena
        arena.pieces = []
        self._constants_addr = arena.end
        self._emitter = Emitter(config)
        self._streams: dict[int, LayerStreams] = {}
        self._known: dict[tuple[str, int], Any] = {}
        """Where constants lie, by what they are and the identity of what they are of: the images of a batch share."""
        # by operator index:
        self._engines: dict[int, set[str]] = {}
        self._weight_bytes: dict[int, int] = {}
        self._macs: dict[int, LaneMacs] = {}

    def add_tp(self, task: Task) -> None:
        """A task of the TP engine on whole buffers."""
        blocks = self._tp_blocks(task)
        self._emitter.add_tp(task, blocks, [self._span(b) for b in task.sources], self._span(task.target))

    def _tp_blocks(self, task: Task, ends: Sequence[int] = ()) -> list[dict[str, int]]:
        """The fields of the descriptors of a task of the TP engine, as `tp_blocks`."""
        self._engines.setdefault(task.op.index, set()).add("tp")
        lut, constant_addr = self._put_lut(task), self._put_operand(task.work)
        num_bytes = self._schedule.buffers[task.target].num_bytes
        return [fields | lut for fields in tp_blocks(task, self._addrs, num_bytes, self._config, constant_addr, ends)]

    def add_conv(self, task: ConvTask, tiling: Tiling | SwappedTiling, before: Task | None) -> None:
        """A convolution on a part of its buffers, or on all of them, with what the TP engine makes for its stripes: the
        phase planes that they need, or what the task `before` does.
        """
        index, work, phases, addrs = task.op.index, task.work, task.phases, self._addrs
        source, target = addrs[task.sources[0]], addrs[task.target]
        in_addr, out_addr = source + task.in_offset, target + task.out_offset
        num_out_bytes = work.value_bytes * prod(work.out_shape)
        reads = [range(in_addr, in_addr + work.num_in_bytes)]
        for residual in task.sources[1:]:
            res_addr = addrs[residual] + task.out_offset
            reads.append(range(res_addr, res_addr + num_out_bytes))
        writes = range(out_addr, out_addr + num_out_bytes)
        lut = self._put_lut(task)
        if isinstance(tiling, SwappedTiling):
            if before is not None:
                self.add_tp(before)
            self._engines.setdefault(index, set()).add("swapped")
            self._macs[index] = self._macs.get(index, LaneMacs()) + swapped_lane_macs(tiling, self._config)
            self._emitter.add_swapped(task, tiling, self._put_swapped(task, tiling), lut, reads, writes)
            return
        self._engines.setdefault(index, set()).update({"nn", "tp"} if phases else {"nn"})
        if (tables := self._known.get(("conv", id(work)))) is None:
            kernels = balanced(work, tiling)
            packed = pack_streams(work, tiling, kernels, self._config)
            tables = self._known["conv", id(work)] = self._put_tables(work, tiling, kernels, packed)
            self._streams |= _streams_by_addr(tables.stream_addr, packed.layer, tiling, self._config)
            self._weight_bytes[index] = self._weight_bytes.get(index, 0) + packed.num_bytes
        self._macs[index] = self._macs.get(index, LaneMacs()) + lane_macs(work, tiling, self._config)
        images = [self._span(phases.source)] if phases else []
        made = _plane_span(phases, source) if phases else range(0)
        maker: Task = task
        blocks = phase_blocks(phases, work, tiling, images[0].start if images else 0, source, self._config)
        if before is not None:
            images, made, maker = [self._span(b) for b in before.sources], self._span(before.target), before
            blocks = blocks_ahead(self._tp_blocks(before, row_ends(work, tiling)), made, work, tiling, in_addr)
        self._emitter.add_nn(task, tiling, tables, lut, reads, writes, blocks, images, made, maker)

    def step(self, graph: Graph, segment: Segment, activations: MemoryWindow) -> NpuStep:
        """The program of a segment, behind its constants, with room for its records.

        It may write activations and records, and read activations and constants.
        """
        self._emitter.flush()
        descriptors, arena = self._emitter.descriptors, self._arena
        if len(descriptors) > MAX_DESCRIPTORS:
            raise GraphError(f"{len(descriptors)} descriptors; the limit of a program is {MAX_DESCRIPTORS}")
        program_addr = arena.reserve(len(descriptors) * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)
        record_addr = arena.reserve(len(descriptors) * COMPLETION.num_bytes, COMPLETION.num_bytes)
        windows = (
            activations,
            MemoryWindow(self._constants_addr, record_addr, is_readable=True, is_writable=False),
            MemoryWindow(record_addr, arena.end, is_readable=False, is_writable=True),
        )
        program = Program(
            tuple(descriptors),
            tuple(self._emitter.ops),
            program_addr,
            record_addr,
            (*arena.pieces, (program_addr, b"".join(descriptors))) if descriptors else (),
            windows,
            self._streams,
        )
        names = {}
        for position in segment.positions:
            engines = self._engines.get(graph.ops[position].index)
            idle = "fused" if position in self._schedule.fused else "alias"
            names[graph.ops[position].index] = "+".join(sorted(engines)) if engines else idle
        return NpuStep(program, tuple(names), names, self._weight_bytes, self._macs)

    def _span(self, buffer: int) -> range:
        """Addresses of a buffer."""
        return range(self._addrs[buffer], self._addrs[buffer] + self._schedule.buffers[buffer].num_bytes)

    def _put_lut(self, task: Task) -> dict[str, int]:
        """Put the lookup table of a task's outputs into memory, if there is one; the fields that say where it is."""
        table: np.ndarray | None = getattr(task.work, "lut", None)
        if table is None:
            return {"has_lut": 0, "lut_addr": 0}
        if ("lut", id(table)) not in self._known:
            self._known["lut", id(table)] = self._arena.put(table.tobytes(), LUT_BYTES)
        return {"has_lut": 1, "lut_addr": self._known["lut", id(table)]}

    def _put_operand(self, work: object) -> int:
        """Put the constant operand of an elementwise operation into memory; its address, or 0 if there is none."""
        if not isinstance(work, ElementwiseWork):
            return 0
        constants = [values for values in work.constants if values is not None]
        if not constants:
            return 0
        if ("operand", id(work)) in self._known:
            return self._known["operand", id(work)]
        values = constants[0][0].transpose(work.axes)
        if work.is_wide:  # planes of low and of high bytes in turn
            values = np.stack([values & 0xFF, values >> 8], axis=1).astype(np.uint8)
        self._known["operand", id(work)] = addr = self._arena.put(values.tobytes())
        return addr

    def _put_tables(self, work: ConvWork, tiling: Tiling, kernels: np.ndarray, streams: Streams) -> Tables:
        """Put a layer's constants into memory; where they are."""
        plane_bytes = work.value_bytes * work.out_shape[1] * work.out_shape[2]
        return Tables(
            tap_addr=self._arena.put(pack_taps(tiling, self._config)),
            stream_addr=self._arena.put(streams.directory),
            wgt_addr=self._arena.put(streams.data),
            param_addr=self._arena.put(pack_params(work, kernels, plane_bytes)),
            run_bits=streams.run_bits,
        )

    def _put_swapped(self, task: ConvTask, tiling: SwappedTiling) -> SwappedTables:
        """Put the constants of a layer with swapped operands into memory; where they are."""
        index, work = task.op.index, task.work
        if ("swapped", id(work)) not in self._known:
            image, one_tap = pack_image(work, tiling), ("tap", 0)
            if one_tap not in self._known:
                self._known[one_tap] = self._arena.put(bytes(TAP_BYTES))
            plane_bytes = work.out_shape[1] * work.out_shape[2]
            plain = replace(work, bias=plain_bias(work))
            self._known["swapped", id(work)] = SwappedTables(
                tap_addr=self._known[one_tap],
                image_addr=self._arena.put(image),
                param_addr=self._arena.put(pack_params(plain, np.arange(work.num_oc), plane_bytes)),
            )
            self._weight_bytes[index] = self._weight_bytes.get(index, 0) + len(image)
        return self._known["swapped", id(work)]


def _plane_span(phases: PhaseWork, addr: int) -> range:
    """Addresses of the phase planes that are made for a convolution; all planes begin at `addr`."""
    channel_bytes = phases.split.num_planes * phases.split.plane_bytes
    return range(addr + phases.channels.start * channel_bytes, addr + phases.channels.stop * channel_bytes)


def _streams_by_addr(addr: int, layer: LayerStreams, tiling: Tiling, config: NpuConfig) -> dict[int, LayerStreams]:
    """What each part of a layer's stream directory, which is at `addr`, describes."""
    geometry = tiling.geometry
    found = {}
    for part in {stripe.part for stripe in tiling.stripes}:
        num_oc = geometry.num_oc // geometry.num_ic * part.num_ic if geometry.is_depthwise else geometry.num_oc
        found[addr + part.first_sb * config.num_cores * STREAM.num_bytes] = layer.part(part.superblocks, num_oc)
    return found
