"""A network or layer on a device, whole or its layers on several workers, compared with its reference."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from convoy.driver.report.progress import bar, restore_interrupt, spinner
from convoy.spec.config import NpuConfig

from .errors import DeviceError, GraphError
from .options import ReferenceName

if TYPE_CHECKING:
    from convoy.driver.emit.program import Plan
    from convoy.driver.graph.graph import Graph
    from convoy.driver.graph.onnx_reader import OnnxModel
    from convoy.driver.graph.tflite_reader import TfliteModel
    from convoy.driver.report.deployment import Clock
    from convoy.driver.runtime.device import Device, MemoryModel
    from convoy.driver.runtime.session import Execution

__all__ = ["Job", "Workers", "choose_workers", "layer_workers", "start_reference"]


def start_reference(reference: str) -> None:
    """Let the reference's process get ready while something else is done."""
    if reference != ReferenceName.NONE:
        from convoy.driver.litert.process import start_server

        start_server()


@dataclass(frozen=True)
class Job:
    """One network on one device; `run` compiles, runs and compares."""

    graph: Graph
    model: bytes | TfliteModel | OnnxModel
    model_name: str
    npu: NpuConfig
    config_name: str
    device_name: str
    memory_model: MemoryModel
    waves: Path | None
    reference: str
    clock: Clock | None

    def run(
        self,
        steps: list[dict],
        selected: range | None,
        is_inside: bool = False,
        workers: Workers | None = None,
        is_strict: bool = False,
    ) -> tuple[dict[str, Any], list, dict]:
        """Report, tensors that differ, and all of the file's tensors of the last step; `selected` operators only.

        `steps` are the inputs of each step. `is_inside`: as in the middle of a network, where the inputs are already in
        the layout of the NPU. `workers`: run the layers independently on these. `is_strict`: as in `compile_graph`.
        """
        from convoy.driver.compile.pipeline import compile_graph
        from convoy.driver.report.deployment import memory_needs
        from convoy.driver.report.report import build_report, join_steps
        from convoy.driver.runtime.session import Session, plan_inputs

        with spinner("compiling"):
            if is_inside:
                plan = compile_graph(
                    replace(self.graph, inputs=()),
                    self.npu,
                    keep_tensors=True,
                    layers=range(len(self.graph.ops)),
                    is_strict=True,
                )
            else:
                plan = compile_graph(self.graph, self.npu, keep_tensors=True, layers=selected, is_strict=is_strict)
        reference = None
        if self.reference != ReferenceName.NONE:
            from convoy.driver.workload.reference import Compared

            reference = Compared(self.model, plan.doubtful)
        if selected is not None:
            missing = set(plan_inputs(plan)) - set(steps[0])
            steps = [
                steps[0]
                | {
                    index: value
                    for index, value in self._golden_tensors(self.graph, steps[0]).items()
                    if index in missing
                }
            ]

        def report(plan: Plan, device: Device, execution: Execution, inputs: dict) -> tuple[dict[str, Any], list]:
            expected = (
                reference.run([inputs[index] for index in self.graph.inputs], execution.tensors) if reference else None
            )
            return build_report(
                plan,
                device,
                execution,
                model=self.model_name,
                config=self.config_name,
                device_name=str(self.device_name),
                reference=reference.name if reference else str(self.reference),
                expected=expected,
                reference_note=reference.note if reference else None,
                clock=self.clock,
            )

        if workers is not None:
            merged, device, execution = self._run_parts(plan, steps, workers)
            found, mismatches = report(merged, device, execution, steps[0])
            return found | memory_needs(plan), mismatches, self._tensors_of_file(execution)
        outcomes = []
        with spinner(f"running on {self.device_name}") as status, _device(self, status) as device:
            session = Session(
                plan, device, progress=lambda cycles: status(f"running on {self.device_name}: {cycles:,} cycles")
            )
            for inputs in steps:
                execution = session.run(inputs)
                outcomes.append(report(plan, device, execution, inputs))
        return *join_steps(outcomes), self._tensors_of_file(execution)

    def _tensors_of_file(self, execution: Execution) -> dict:
        return {index: values for index, values in execution.tensors.items() if index < len(self.graph.tensors)}

    def _run_parts(self, plan: Plan, steps: list[dict], workers: Workers) -> tuple[Plan, Device, Execution]:
        """The parts of a plan, each by itself on one of the workers: the plan and execution that they amount to, and
        a device like theirs, closed.
        """
        from .parallel import parts_of, run_parts

        graph = replace(plan.graph, inputs=self.graph.inputs)
        if len(steps) > 1 or self.graph.variables:
            raise GraphError(
                "layers of a network with variables or of several steps depend on one another; leave out --jobs and "
                "--scheduler"
            )
        tensors = self._golden_tensors(plan.graph, steps[0]) | steps[0]
        parts = parts_of(plan)
        with workers.executor() as executor:
            with spinner(f"preparing {self.device_name}") as status, _device(self, status) as device:
                pass
            with bar(text := f"running on {self.device_name}") as show:
                numbers = count(1)
                show(text, 0, len(parts))
                merged, execution = run_parts(
                    graph,
                    self.npu,
                    parts,
                    tensors,
                    str(self.device_name),
                    self.memory_model,
                    executor,
                    lambda _: show(text, next(numbers), len(parts)),
                )
        return merged, device, execution

    def _golden_tensors(self, graph: Graph, inputs: dict) -> dict:
        """Every tensor of a network, from the golden model."""
        from convoy.driver.compile.pipeline import compile_graph
        from convoy.driver.runtime.session import Session

        from .devices import open_device

        with spinner("running the golden model"):
            plan = compile_graph(graph, self.npu, keep_tensors=True, layers=None, is_fusing=False)
            device = open_device("golden", self.npu)
            try:
                return Session(plan, device).run(inputs).tensors
            finally:
                device.close()


@contextmanager
def _device(job: Job, status):
    """The job's device, closed in the end."""
    from .devices import open_device

    try:
        device = open_device(str(job.device_name), job.npu, job.memory_model, waves=job.waves, progress=status.step)
    except ValueError as error:
        raise GraphError(str(error)) from None
    try:
        yield device
    finally:
        device.close()
        if job.waves is not None:
            from .devices.wave_layout import write_layouts

            for path in write_layouts(job.waves):
                typer.echo(f"convoy: {path}: layout of the waves for a viewer", err=True)


@dataclass(frozen=True)
class Workers:
    """Processes of this machine, or the workers of a Dask scheduler."""

    jobs: int
    scheduler: str | None

    @contextmanager
    def executor(self):
        """An `Executor` on them while the block runs."""
        if self.scheduler is None:
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context

            with ProcessPoolExecutor(self.jobs, get_context("spawn"), restore_interrupt) as executor:
                yield executor
            return
        try:
            from distributed import Client
        except ImportError:
            raise DeviceError("--scheduler needs Dask: pip install 'convoy-npu[dask]'") from None
        try:
            client = Client(self.scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise DeviceError(f"no Dask scheduler answers at {self.scheduler}: {error}") from None
        with client:
            yield client.get_executor(pure=False)


def layer_workers(jobs: int | None, scheduler: str | None, waves: Path | None) -> Workers | None:
    """Where layers run by themselves; None: all one behind another on one device."""
    if jobs is None and scheduler is None:
        return None
    if waves is not None:
        raise GraphError("--waves needs one device for all layers; leave out --jobs and --scheduler")
    return choose_workers(jobs, scheduler)


def choose_workers(jobs: int | None, scheduler: str | None) -> Workers:
    if jobs is not None and scheduler is not None:
        raise GraphError("--jobs and --scheduler exclude each other")
    return Workers(jobs or 1, scheduler)
