"""Setups on the compiled RTL, each in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace

import numpy as np

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.emit.program import NpuStep
from convoy.driver.graph.graph import GraphError
from convoy.driver.report.report import build_report
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.synthetic import make_layer
from convoy.spec.config import NpuConfig

from .case import Measurement, Setup

__all__ = ["measure", "measure_all"]


def measure(setup: Setup, device_name: str = "native") -> Measurement:
    """One layer as in the middle of a network, inputs in the layout of the NPU, compared with LiteRT tensor by tensor.

    Raises
    ------
    DeviceError
        When the device fails. What the compiler refuses is no error here.
    """
    from convoy.driver.workload.reference import run_reference

    made = make_layer(setup.layer)
    graph = replace(made.graph, inputs=())
    try:
        plan = compile_graph(graph, setup.npu, keep_tensors=True, layers=range(len(graph.ops)), is_strict=True)
    except GraphError as error:
        return Measurement(refusal=str(error))
    inputs = random_inputs([graph.tensors[0]], 0)
    expected = run_reference(made.reference_model, list(inputs.values()))
    device = open_device(device_name, setup.npu)
    try:
        execution = Session(plan, device).run(inputs)
        report, _ = build_report(
            plan,
            device,
            execution,
            model=graph.name,
            config=setup.npu.name,
            device_name=device_name,
            reference="litert",
            expected=expected,
        )
    finally:
        device.close()
    weights = graph.tensors[1].values
    engines = (step.engines[index] for step in plan.steps if isinstance(step, NpuStep) for index in step.layers)

    def total(name: str) -> int:
        return sum(layer[name] or 0 for layer in report["layers"])

    return Measurement(
        cycles=execution.cycles,
        tp_cycles=total("tp_cycles"),
        read_bytes=total("read_bytes"),
        write_bytes=total("write_bytes"),
        weight_bytes=total("weight_bytes"),
        macs=total("macs"),
        num_weights=weights.size,
        num_nonzero=int(np.count_nonzero(weights)),
        bit_exact=report["bit_exact"],
        engines=", ".join(engines),
    )


def measure_all(
    setups: Iterable[Setup],
    jobs: int,
    progress: Callable[[str, int, int], None] = lambda text, done, total: None,
    device_name: str = "native",
) -> dict[Setup, Measurement]:
    """Measure each setup once; the result does not depend on `jobs`, the number of processes.

    `progress` is called with a text, the setups measured and their number. Devices are prepared (compiled, if need be)
    side by side, the largest first; a configuration's setups follow when its device is there.
    """
    unique = sorted(dict.fromkeys(setups), key=_work, reverse=True)
    configs = sorted(dict.fromkeys(setup.npu for setup in unique), key=lambda npu: npu.macs_per_cycle, reverse=True)
    found: dict[Setup, Measurement] = {}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        preparing: dict[Future, NpuConfig] = {pool.submit(_prepare, npu, device_name): npu for npu in configs}
        running: dict[Future, Setup] = {}
        try:
            while preparing or running:
                names = ", ".join(npu.name for npu in preparing.values())
                progress(f"measuring; preparing {names}" if names else "measuring", len(found), len(unique))
                for future in wait((*preparing, *running), return_when=FIRST_COMPLETED).done:
                    if future in preparing:
                        future.result()
                        npu = preparing.pop(future)
                        running |= {
                            pool.submit(measure, setup, device_name): setup for setup in unique if setup.npu == npu
                        }
                    else:
                        found[running.pop(future)] = future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    progress("measuring", len(found), len(unique))
    return found


def _prepare(npu: NpuConfig, device_name: str) -> None:
    """Compile a device, if it is not in the cache."""
    open_device(device_name, npu).close()


def _work(setup: Setup) -> float:
    """About proportional to the time that a simulation takes: the longest ones start first."""
    out_h, out_w = setup.layer.output_hw
    depth = 1 if setup.layer.op == "depthwise" else setup.layer.input_hwc[2]
    return (
        out_h * out_w * setup.layer.num_oc * depth * setup.layer.kernel[0] * setup.layer.kernel[1] * setup.layer.density
    )
