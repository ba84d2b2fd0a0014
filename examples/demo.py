"""Recognise handwritten digits on the RTL: what `make demo` runs.

    python examples/demo.py [--images 100] [--device native] [--config Q]

Shows one digit, what the NPU makes of it, the accuracy over a sample of images that the network was not trained on, and
what each layer cost. Every tensor of every image is compared with LiteRT's reference kernels.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from digits import MODEL_PATH, NUM_TRAIN, load_digits
from rich.console import Console
from rich.progress import Progress, track

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import DEVICES, open_device
from convoy.driver.emit.program import Plan
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.report.report import build_report, print_report
from convoy.driver.runtime.device import Device, DeviceError
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import quantise_real
from convoy.driver.workload.reference import Reference
from convoy.spec.config import ConfigError, load_config

SHADES = " ░▒▓█"


def picture(image: np.ndarray) -> list[str]:
    """An image (8, 8) with values in 0..1 as lines of blocks."""
    levels = np.rint(image * (len(SHADES) - 1)).astype(int)
    return ["".join(SHADES[level] * 2 for level in row) for row in levels]


def sample(count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` images (count, 8, 8, 1) by writers that the network has not seen, evenly spaced, and their labels."""
    images, labels = load_digits()
    chosen = np.linspace(NUM_TRAIN, len(images) - 1, count).astype(int)
    return images[chosen], labels[chosen]


def recognise(plan: Plan, device: Device, images: np.ndarray, console: Console) -> list[tuple[dict, np.ndarray]]:
    """For each image the report and the probabilities of the ten digits."""
    graph, reference, session = plan.graph, Reference(MODEL_PATH.read_bytes()), Session(plan, device)
    tensor = graph.tensors[graph.inputs[0]]
    outcomes = []
    for image in track(images, "running the RTL", console=console, disable=not console.is_terminal, transient=True):
        values = quantise_real(image[np.newaxis], tensor)
        execution = session.run({tensor.index: values})
        report, _ = build_report(
            plan,
            device,
            execution,
            model=MODEL_PATH.name,
            config=plan.config.name,
            device_name=type(device).__name__,
            reference="litert",
            expected=reference.run([values]),
        )
        out = graph.tensors[graph.outputs[0]]
        probabilities = (execution.tensors[out.index].reshape(-1) - out.quant.zero_point[0]) * out.quant.scale[0]
        outcomes.append((report, probabilities))
    return outcomes


def show(image: np.ndarray, label: int, probabilities: np.ndarray, console: Console) -> None:
    """One digit beside the three most probable answers."""
    best = np.argsort(-probabilities, kind="stable")[:3]
    notes = [
        "",
        f"prediction {best[0]}, label {label}",
        "",
        *(f"{digit}  {probabilities[digit]:6.1%}" for digit in best),
        "",
        "",
    ]
    for line, note in zip(picture(image[..., 0]), notes, strict=True):
        console.print(f"  {line}    {note}", highlight=False, markup=False)
    console.print()


def main() -> int:
    """Exit code 0 if every tensor of every image equals the reference, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--device", choices=DEVICES, default="native")
    parser.add_argument("--config", default="Q")
    args = parser.parse_args()
    console = Console()
    try:
        plan = compile_graph(read_tflite(MODEL_PATH), load_config(args.config), keep_tensors=True, layers=None)
        with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("building the model of the NPU", total=None)
            device = open_device(
                args.device, plan.config, progress=lambda text: progress.update(task, description=text)
            )
    except (ConfigError, DeviceError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 2
    images, labels = sample(args.images)
    try:
        outcomes = recognise(plan, device, images, console)
    finally:
        device.close()
    show(images[0], labels[0], outcomes[0][1], console)
    print_report(outcomes[0][0] | {"device": args.device}, console)
    hits = sum(int(probabilities.argmax() == label) for (_, probabilities), label in zip(outcomes, labels, strict=True))
    exact = sum(bool(report["bit_exact"]) for report, _ in outcomes)
    console.print(
        f"\n{hits} of {len(images)} digits recognised ({hits / len(images):.1%}); "
        f"{exact} of {len(images)} runs equal to LiteRT's reference kernels in every tensor",
        highlight=False,
        soft_wrap=True,
    )
    return 0 if exact == len(images) else 1


if __name__ == "__main__":
    sys.exit(main())
