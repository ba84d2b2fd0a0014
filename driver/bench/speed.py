"""`convoy bench speed`: networks on Convoy, and what the compiler of the Ethos-U55 estimates for the same files at as
many multiply-accumulates per cycle.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import load_tflite
from convoy.driver.report.report import build_report
from convoy.driver.runtime.device import Device, DeviceError, MemoryModel
from convoy.driver.runtime.session import Session
from convoy.driver.timing.estimate import Estimator, estimate
from convoy.driver.workload.inputs import random_inputs
from convoy.spec.config import NpuConfig

from .peer import Peer, run_peer

__all__ = ["MODEL_DEVICE", "Speed", "find_models", "measure_speed"]

MODEL_DEVICE = "model"
"""The name that stands for the timing model in the place of a device."""
SEED = 1
"""Of the inputs."""


@dataclass(frozen=True)
class Speed:
    """One network on one configuration."""

    network: str
    config: str
    """As the user named it."""
    macs_per_cycle: int
    macs: int = 0
    """Dense multiply-accumulates."""
    cycles: int = 0
    """From doorbell to interrupt, of all programs; 0 when the compiler refused the network."""
    bit_exact: bool | None = None
    """Every tensor equals LiteRT's; None when nothing ran, or LiteRT cannot run the network."""
    host_kinds: tuple[str, ...] = ()
    """Operators that run on the host."""
    refusal: str = ""
    """Why there are no cycles: what the compiler refuses, or what failed."""
    reference_note: str = ""
    """Why there is nothing to compare with, or what was changed for it."""
    peer: Peer | None = None
    """None when there is no such program or no accelerator of this size."""

    @property
    def peer_cycles(self) -> int:
        """Estimated cycles of the peer for what runs on Convoy's NPU; 0 when there are none."""
        return self.peer.cycles if self.peer else 0

    @property
    def ratio(self) -> float | None:
        """The peer's cycles for one of Convoy's: above 1, Convoy is faster."""
        return self.peer_cycles / self.cycles if self.cycles and self.peer_cycles else None

    def effective_macs(self, cycles: int) -> float | None:
        """Dense multiply-accumulates per cycle."""
        return self.macs / cycles if cycles and self.macs else None

    def utilisation(self, cycles: int) -> float | None:
        """The same as a share of the multipliers."""
        effective = self.effective_macs(cycles)
        return None if effective is None else effective / self.macs_per_cycle

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in the JSON report."""
        peer = None
        if self.peer:
            figures = {
                "cycles": self.peer_cycles,
                "host_cycles": self.peer.host_cycles,
                "utilisation": self.utilisation(self.peer_cycles),
                "effective_macs_per_cycle": self.effective_macs(self.peer_cycles),
            }
            peer = {
                "accelerator": self.peer.accelerator,
                **(dict.fromkeys(figures) if self.peer.refusal else figures),
                "refusal": self.peer.refusal or None,
            }
        return {
            "network": self.network,
            "config": self.config,
            "macs_per_cycle": self.macs_per_cycle,
            "macs": self.macs,
            "cycles": self.cycles or None,
            "utilisation": self.utilisation(self.cycles),
            "effective_macs_per_cycle": self.effective_macs(self.cycles),
            "bit_exact": self.bit_exact,
            "host_ops": list(self.host_kinds),
            "refusal": self.refusal or None,
            "reference_note": self.reference_note or None,
            "peer": peer,
            "ratio": self.ratio,
        }


def find_models(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the TFLite files in them, by name.

    Raises
    ------
    GraphError
        When a path does not exist or a folder holds none.
    """
    models = []
    for path in paths:
        found = sorted(path.glob("*.tflite")) if path.is_dir() else [path]
        if not found:
            raise GraphError(f"{path}: no *.tflite in this folder; name a file or another folder")
        if not path.exists():
            raise GraphError(f"{path}: there is no such file or folder")
        if not all(model.is_file() for model in found):
            raise GraphError(
                f"{next(model for model in found if not model.is_file())}: is not a file; name a TFLite file or a "
                "folder of them"
            )
        models += found
    return list(dict.fromkeys(models))


def measure_speed(
    models: Sequence[Path],
    configs: Sequence[tuple[str, NpuConfig]],
    jobs: int,
    progress: Callable[[str, int, int], None],
    device_name: str = "native",
    peer_program: str | None = None,
) -> list[Speed]:
    """Run each network on each configuration; the result does not depend on `jobs`, the number of processes.

    What fails is a row that says so.

    Parameters
    ----------
    configs : (name, configuration)
    progress : called with a text, the networks run and their number
    device_name : of a device, or `MODEL_DEVICE`
    peer_program : as from `find_peer`; None: no peer
    """
    cases = [(model, name, npu) for model in models for name, npu in configs]
    if device_name != MODEL_DEVICE:
        for name, npu in configs:
            progress(f"preparing configuration {name}", 0, len(cases))
            open_device(device_name, npu).close()
    progress("running", 0, len(cases))
    found: dict[tuple[Path, str, NpuConfig], Speed] = {}

    def run(some: Sequence[tuple[Path, str, NpuConfig]], num_processes: int) -> None:
        with ProcessPoolExecutor(num_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = {pool.submit(measure_network, *case, device_name, peer_program): case for case in some}
            for future in as_completed(futures):
                with suppress(BrokenProcessPool):
                    found[futures[future]] = future.result()
                    progress("running", len(found), len(cases))

    run(cases, jobs)
    for case in [
        case for case in cases if case not in found
    ]:  # a process has died, and took with it what waited; each gets a process of its own
        run([case], 1)
        model, name, npu = case
        found.setdefault(
            case, Speed(model.stem, name, npu.macs_per_cycle, refusal="its process died, as when memory runs out")
        )
    return [found[case] for case in cases]


def measure_network(model: Path, config: str, npu: NpuConfig, device_name: str, peer_program: str | None) -> Speed:
    """One network on one configuration, compared with LiteRT tensor by tensor if both run it.

    What the compiler refuses and what fails are rows too.
    """
    try:
        return _measure(model, config, npu, device_name, peer_program)
    except (GraphError, DeviceError) as error:
        return Speed(model.stem, config, npu.macs_per_cycle, refusal=str(error))


def _measure(model: Path, config: str, npu: NpuConfig, device_name: str, peer_program: str | None) -> Speed:
    from convoy.driver.workload.reference import Compared

    memory, size = MemoryModel(), npu.macs_per_cycle
    loaded = load_tflite(model)
    plan = compile_graph(loaded.graph, npu, keep_tensors=True)
    expected, note = None, None
    timed: Estimator | Device
    if device_name == MODEL_DEVICE:
        timed, execution = Estimator(memory), estimate(plan, memory)
    else:
        inputs = random_inputs([plan.graph.tensors[index] for index in plan.graph.inputs], SEED)
        reference = Compared(loaded)
        expected, note = reference.run(list(inputs.values())), reference.note
        timed = device = open_device(device_name, npu, memory)
        try:
            execution = Session(plan, device).run(inputs)
        finally:
            device.close()
    report, _ = build_report(
        plan,
        timed,
        execution,
        model=str(model),
        config=config,
        device_name=device_name,
        reference="litert",
        expected=expected,
        reference_note=note,
    )
    kinds = tuple(sorted({op["op"] for op in report["host_ops"]}))
    peer = run_peer(peer_program, model, npu, memory, kinds) if peer_program else None
    return Speed(
        model.stem,
        config,
        size,
        report["macs"],
        report["cycles"],
        report["bit_exact"],
        kinds,
        reference_note=note or "",
        peer=peer,
    )
