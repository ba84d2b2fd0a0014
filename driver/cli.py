"""The command `convoy`: run, layer, estimate, profile, advise, sweep, compare, compile, c-runtime, operators, prune,
quantize, verilog, info, bench.

Exit codes: 0 all went well and every compared tensor is equal (when LiteRT cannot run the network, none is: the report
says so); 1 a tensor differs from the reference, or an error in Convoy itself; 2 the model, an input or an option is
wrong, or the device cannot run (one line on stderr); 130 interrupted; 141 the reader of the output has gone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoy.driver.bench.cli import bench_app
from convoy.driver.report.progress import bar, spinner
from convoy.spec.config import load_config, value_text

from .complete import complete_files
from .errors import GraphError
from .files import check_outputs, is_folder_name, write_file, writing
from .job import Job, choose_workers, layer_workers, start_reference
from .options import (
    ClockOption,
    Config,
    Csv,
    DeviceName,
    DeviceOption,
    Html,
    Json,
    Latency,
    Memory,
    MemoryKind,
    Model,
    NewFile,
    QuantizedType,
    Reference,
    ReferenceName,
    Save,
    Scheduler,
    Seed,
    ShapeOption,
    Stall,
    Strict,
    Waves,
)
from .outcome import exit_code_of

if TYPE_CHECKING:
    from convoy.driver.graph.graph import Graph
    from convoy.driver.runtime.device import MemoryModel

__all__ = ["app", "main"]

MAX_DIGITS = 12
"""Of a number in an option; what it may be is judged elsewhere."""

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(bench_app, name="bench")


@app.callback(invoke_without_command=True)
def _convoy(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> int:
    """Run quantised neural networks on the Convoy NPU, simulated cycle by cycle."""
    if version:
        from convoy.driver.report.config_report import installed

        typer.echo(f"convoy {installed('convoy-npu')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return 0


@app.command()
def run(
    model: Model,
    shape: ShapeOption = None,
    input_path: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE.npy|IMAGE",
            help="Value of the network's input; with --steps, along a leading axis.",
            autocompletion=complete_files,
        ),
    ] = None,
    seed: Seed = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Names of the classes, one per line: the largest are shown.",
            autocompletion=complete_files,
        ),
    ] = None,
    device: DeviceOption = DeviceName.NATIVE,
    config: Config = "Q",
    strict: Strict = False,
    reference: Reference = ReferenceName.LITERT,
    steps: Annotated[
        int,
        typer.Option(
            "--steps",
            metavar="N",
            min=1,
            max=100_000,
            help="Run N times on successive inputs; the network's variables keep their values.",
        ),
    ] = 1,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", metavar="A:B", help="Only operators A to B - 1; their inputs come from the golden model."
        ),
    ] = None,
    save: Save = None,
    waves: Waves = None,
    clock: ClockOption = None,
    json_path: Json = None,
    csv: Csv = None,
    memory: Memory = MemoryKind.SPLIT,
    latency: Latency = 32,
    stall: Stall = 0,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            max=256,
            help="Simulate the layers independently in N processes, inputs from the golden model.",
        ),
    ] = None,
    scheduler: Scheduler = None,
) -> int:
    """Run a network and compare every tensor with the reference."""
    from convoy.driver.graph.reader import load_network
    from convoy.driver.graph.tflite_shapes import parse_shapes
    from convoy.driver.report.answers import load_labels
    from convoy.driver.report.deployment import clock_of
    from convoy.driver.workload.inputs import load_input, load_steps, random_inputs

    if input_path is not None and seed is not None:
        raise GraphError("--input and --seed exclude each other")
    names = None if labels is None else load_labels(labels)
    start_reference(reference)
    if layers is not None and steps > 1:
        raise GraphError("--layers and --steps exclude each other")
    _check(device, waves, read=(model, input_path, labels, config), json_path=json_path, save=save, csv=csv)
    npu, loaded = load_config(config), load_network(model, parse_shapes(shape or ()))
    graph = loaded.graph
    selected = _parse_layers(layers, graph)
    tensors = [graph.tensors[index] for index in graph.inputs]
    if input_path is None:
        inputs = [random_inputs(tensors, (seed or 0) + step) for step in range(steps)]
    elif len(tensors) != 1:
        raise GraphError(f"the network has {len(tensors)} inputs, --input can give only one; use --seed")
    elif steps == 1:
        inputs = [{tensors[0].index: load_input(input_path, tensors[0])}]
    else:
        inputs = [{tensors[0].index: values} for values in load_steps(input_path, tensors[0], steps)]
    job = Job(
        graph,
        loaded,
        str(model),
        npu,
        config,
        device,
        _memory_model(memory, latency, stall, seed),
        waves,
        reference,
        clock_of(clock, npu),
    )
    found = job.run(inputs, selected, workers=layer_workers(jobs, scheduler, waves), is_strict=strict)
    shown = _answers(job, found[2], names, is_wanted=labels is not None or input_path is not None)
    return _finish(job, (found[0] | shown, *found[1:]), save, json_path, csv)


@app.command()
def layer(
    op: Annotated[str, typer.Option("--op", metavar="conv|depthwise", help="Kind of layer.")],
    extents: Annotated[str, typer.Option("--input", metavar="HxWxC", help="Input rows, columns, channels.")],
    oc: Annotated[int, typer.Option("--oc", metavar="N", min=1, help="Output channels.")],
    kernel: Annotated[str, typer.Option("--kernel", metavar="KHxKW", help="Kernel rows, columns.")],
    stride: Annotated[str, typer.Option("--stride", metavar="SHxSW", help="Strides of rows, columns.")] = "1x1",
    dilation: Annotated[str, typer.Option("--dilation", metavar="DHxDW", help="Dilations of rows, columns.")] = "1x1",
    pad: Annotated[str, typer.Option("--pad", metavar="T,B,L,R", help="Pads above, below, left, right.")] = "0,0,0,0",
    density: Annotated[float, typer.Option("--density", metavar="D", help="Share of weights that are not zero.")] = 1.0,
    activation: Annotated[
        str, typer.Option("--activation", metavar="none|relu|relu6", help="Fused activation.")
    ] = "none",
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="int8|uint8|int16", help="Of activations, and of weights but for int16.")
    ] = "int8",
    lut: Annotated[
        str,
        typer.Option(
            "--lut",
            metavar="NAME",
            help="Operator on the outputs, by a table: logistic, tanh, hard_swish, leaky_relu ...",
        ),
    ] = "none",
    pool: Annotated[
        str, typer.Option("--pool", metavar="none|2x2|3x3", help="Maximum pool of stride 2 on the outputs.")
    ] = "none",
    config: Config = "Q",
    device: DeviceOption = DeviceName.NATIVE,
    reference: Reference = ReferenceName.LITERT,
    seed: Seed = None,
    save: Save = None,
    waves: Waves = None,
    clock: ClockOption = None,
    json_path: Json = None,
    csv: Csv = None,
    memory: Memory = MemoryKind.SPLIT,
    latency: Latency = 32,
    stall: Stall = 0,
) -> int:
    """Run one layer with random weights, of any shape."""
    from convoy.driver.report.deployment import clock_of
    from convoy.driver.workload.inputs import random_inputs
    from convoy.driver.workload.synthetic import LayerSpec, make_layer

    _check(device, waves, read=(config,), json_path=json_path, save=save, csv=csv)
    start_reference(reference)
    npu = load_config(config)
    height, width, num_ic = _ints("--input", extents, "x", 3)
    kernel_h, kernel_w = _ints("--kernel", kernel, "x", 2)
    stride_h, stride_w = _ints("--stride", stride, "x", 2)
    dilation_h, dilation_w = _ints("--dilation", dilation, "x", 2)
    top, bottom, left, right = _ints("--pad", pad, ",", 4)
    spec = LayerSpec(
        op,
        (height, width, num_ic),
        oc,
        (kernel_h, kernel_w),
        (stride_h, stride_w),
        (top, bottom, left, right),
        density,
        activation,
        (dilation_h, dilation_w),
        dtype,
        lut,
        pool,
    )
    made = make_layer(spec, seed or 0)
    inputs = random_inputs([made.graph.tensors[0]], seed or 0)
    job = Job(
        made.graph,
        made.reference_model,
        made.graph.name,
        npu,
        config,
        device,
        _memory_model(memory, latency, stall, seed),
        waves,
        reference,
        clock_of(clock, npu),
    )
    return _finish(job, job.run([inputs], None, is_inside=True), save, json_path, csv)


@app.command(name="estimate")
def estimate_command(
    model: Model,
    shape: ShapeOption = None,
    config: Config = "Q",
    strict: Strict = False,
    latency: Latency = 32,
    clock: ClockOption = None,
    json_path: Json = None,
    csv: Csv = None,
) -> int:
    """Predict what `run` reports, without simulation.

    Cycles, bytes and lost cycles of every layer, within 3 % for most networks and 10 % for a
    layer; `run` measures.
    """
    from .network import load

    _check(None, read=(model, config), json_path=json_path, csv=csv)
    network = load(model, config, shapes=shape or (), clock=clock, latency=latency, strict=strict)
    _show(network.estimate(), json_path, csv)
    return 0


class ProfileSource(StrEnum):
    """Where the cycles of a profile come from."""

    NATIVE = "native"
    MODEL = "model"


@app.command()
def profile(
    model: Model,
    shape: ShapeOption = None,
    config: Config = "Q",
    strict: Strict = False,
    source: Annotated[
        ProfileSource, typer.Option("--device", help="native simulates the RTL; model estimates, in seconds.")
    ] = ProfileSource.NATIVE,
    latency: Latency = 32,
    html: Html = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="FILE", help="Write a timeline for ui.perfetto.dev.", autocompletion=complete_files
        ),
    ] = None,
    clock: ClockOption = None,
    json_path: Json = None,
    csv: Csv = None,
) -> int:
    """Show where cycles go, as charts and a timeline."""
    from .network import load

    _check(
        "native" if source == ProfileSource.NATIVE else None,
        read=(model, config),
        json_path=json_path,
        csv=csv,
        files={"--html": html, "--trace": trace},
    )
    if html is not None:
        from .report import html_page as page  # noqa: F401 - what it needs may not be installed
    network = load(model, config, shapes=shape or (), clock=clock, latency=latency, strict=strict)
    with spinner("running") as status:
        report = network.profile(html, trace, device=source, progress=status.step)
    _show(report, json_path, csv)
    return 0


@app.command(name="compile")
def compile_command(
    model: Model,
    shape: ShapeOption = None,
    config: Config = "Q",
    strict: Strict = False,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="DIR",
            help="Write memory image and placements into this folder.",
            autocompletion=complete_files,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="0x80000000", help="With --save: the address of the memory.", show_default="0"),
    ] = None,
    c_array: Annotated[
        Path | None,
        typer.Option(
            "--c-array",
            metavar="FILE.c|FILE.h",
            help="Write the network as C, for the runtime that `convoy c-runtime` writes.",
            autocompletion=complete_files,
        ),
    ] = None,
    constants: Annotated[
        Path | None,
        typer.Option(
            "--constants",
            metavar="FILE",
            help="With --c-array: write weights and tables into this file instead, as bytes.",
            autocompletion=complete_files,
        ),
    ] = None,
    json_path: Json = None,
) -> int:
    """Compile a network; show what becomes of each operator."""
    from convoy.driver.c.arrays import c_name, left_out, write_c_arrays
    from convoy.driver.c.offload import find_offload
    from convoy.driver.compile.pipeline import compile_graph
    from convoy.driver.emit.relocate import relocated
    from convoy.driver.graph.reader import read_network
    from convoy.driver.graph.tflite_shapes import parse_shapes
    from convoy.driver.report.plan_report import plan_report, print_plan, save_plan
    from convoy.driver.report.tables import stdout_console

    files: dict[str, Path | None] = {"--constants": constants}
    if constants is not None and c_array is None:
        raise GraphError("--constants is a part of what --c-array writes; give that too")
    if c_array is not None:
        c_name(c_array)
        header = c_array.with_suffix(".h")
        files |= {"--c-array": c_array, "--c-array, header": header if header != c_array else None}
    if base is not None and save is None:
        raise GraphError("--base is the address of what --save writes; C arrays are moved when they are loaded")
    address = _address("--base", base or "0")
    _check(None, read=(model, config), json_path=json_path, save=save, files=files)
    graph = read_network(model, parse_shapes(shape or ()))
    plan = compile_graph(graph, load_config(config), is_strict=strict)
    offload = find_offload(plan) if c_array is not None else None
    report = {"model": str(model), "config": config} | plan_report(plan)
    if save is not None:
        save_plan(relocated(plan, address), report, save)
    if c_array is not None and offload is not None:
        write_c_arrays(plan, offload, str(model), c_array, constants)
        report |= {"left_to_application": left_out(offload)}
    if not _write_json(report, json_path):
        print_plan(report, stdout_console())
        for line in report.get("left_to_application", ()):
            typer.echo(line)
    return 0


@app.command(name="c-runtime")
def c_runtime(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to.", autocompletion=complete_files)],
) -> int:
    """Write the C runtime: convoy.c, convoy.h and convoy_regs.h, for a CPU beside the NPU."""
    from convoy.driver.c import runtime_files

    check_outputs((), {}, {"FOLDER": folder})
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in runtime_files().items():
        write_file(folder / name, text)
        typer.echo(str(folder / name))
    return 0


@app.command()
def operators(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]", help="TFLite or ONNX file.", show_default=False, autocompletion=complete_files
        ),
    ] = None,
    shape: ShapeOption = None,
    config: Config = "Q",
    json_path: Json = None,
) -> int:
    """List the operators that the NPU takes, or what a network needs: where each kind runs, and why."""
    from convoy.driver.compile.pipeline import compile_graph
    from convoy.driver.graph.reader import read_network
    from convoy.driver.graph.tflite_shapes import parse_shapes
    from convoy.driver.report.onnx_catalogue import onnx_catalogue, print_onnx_catalogue
    from convoy.driver.report.operators import catalogue, needs, print_catalogue, print_needs
    from convoy.driver.report.tables import stdout_console

    _check(None, read=(model, config), json_path=json_path)
    if model is None:
        tables = {
            "operators": [asdict(entry) for entry in catalogue()],
            "onnx": [asdict(entry) for entry in onnx_catalogue()],
        }
        if not _write_json(tables, json_path):
            print_catalogue(stdout_console())
            print_onnx_catalogue(stdout_console())
        return 0
    graph = read_network(model, parse_shapes(shape or ()))
    rows = needs(graph, compile_graph(graph, load_config(config)))
    if not _write_json({"model": str(model), "config": config, "operators": rows}, json_path):
        print_needs(rows, stdout_console())
    return 0


@app.command()
def advise(
    model: Model,
    shape: ShapeOption = None,
    config: Config = "Q",
    latency: Latency = 32,
    apply: Annotated[
        int,
        typer.Option("--apply", metavar="N", min=0, max=1000, help="Make the N changes that win most; see --output."),
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the changed network here.", autocompletion=complete_files
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run both networks on the RTL: the cycles before and after.")
    ] = False,
    html: Html = None,
    json_path: Json = None,
) -> int:
    """Say what in a network breaks a rule, what that costs, what to change, and what it wins.

    Changes are tried in the whole network by the timing model. Weights that a change adds are drawn from those that
    are there: the cycles are those of a trained network, the results are not.
    """
    from convoy.driver.advise.show import advice_report, print_advice, print_applied, write_advice_page
    from convoy.driver.report.tables import stdout_console

    from .advise.advisor import advise as find_advice
    from .advise.advisor import apply as apply_advice
    from .network import changed, load

    if bool(apply) != (output is not None):
        raise GraphError("--apply N and --output FILE belong together")
    if measure and not apply:
        raise GraphError("--measure compares with what --apply N changes; give both")
    _check(
        "native" if measure else None,
        read=(model, config),
        json_path=json_path,
        files={"--output": output, "--html": html},
    )
    if html is not None:
        from .report import html_page as page  # noqa: F401 - what it needs may not be installed
    network = load(model, config, shapes=shape or (), latency=latency)
    with bar("advising") as progress:
        advised = find_advice(network, progress)
    report = {"model": str(model), "config": config} | advice_report(advised)
    console = stdout_console()
    if html is not None:
        write_advice_page(html, str(model), advised)
    if output is not None:
        graph, done = apply_advice(network.graph, advised.advice, apply)
        other = changed(network, graph, output)
        measured = None
        if measure:
            with spinner("running") as status:
                before, after = (each.profile(progress=status.step).cycles or 0 for each in (network, other))
                measured = before, after
        report["applied"] = {
            "changes": [{"number": one.finding.number, "change": option.change.text} for one, option in done],
            "estimated_cycles": [advised.cycles, other.estimate().cycles],
            "measured_cycles": measured and list(measured),
        }
    if not _write_json(report, json_path):
        print_advice(advised, console)
        if output is not None:
            print_applied(done, apply, advised.cycles, report["applied"]["estimated_cycles"][1], measured, console)
    return 0


@app.command()
def sweep(
    model: Model,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="PARAMETER=N,N...",
            help="Values of a parameter of the NPU (convoy info lists them); repeat for others.",
            show_default=False,
        ),
    ],
    shape: ShapeOption = None,
    config: Config = "Q",
    latency: Latency = 32,
    clock: ClockOption = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, max=256, help="Processes.", show_default="all cores")
    ] = None,
    scheduler: Scheduler = None,
    html: Html = None,
    json_path: Json = None,
    csv: Csv = None,
) -> int:
    """Estimate a network on every combination of parameters; those not set are of --config."""
    import os

    from convoy.driver.graph.reader import read_network
    from convoy.driver.graph.tflite_shapes import parse_shapes
    from convoy.driver.report.deployment import parse_clock
    from convoy.driver.report.tables import stdout_console
    from convoy.driver.runtime.device import MemoryModel

    from .bench import sweep as bench

    _check(None, read=(model, config), json_path=json_path, csv=csv, files={"--html": html})
    if html is not None:
        from .report import html_page as page  # noqa: F401 - what it needs may not be installed
    choices = bench.configurations(load_config(config), settings)
    workers = choose_workers(jobs if jobs or scheduler else os.cpu_count(), scheduler)
    graph = read_network(model, parse_shapes(shape or ()))
    frequency = None if clock is None else parse_clock(clock)
    with workers.executor() as executor, bar(text := "estimating") as show:
        points = bench.sweep(
            graph,
            choices,
            MemoryModel(latency_cycles=latency),
            frequency,
            executor,
            lambda done: show(text, done, len(choices)),
        )
    if html is not None:
        bench.write_sweep_page(html, str(model), points)
    if csv is not None:
        write_file(csv, bench.points_csv(points))
    if not _write_json({"model": str(model), "config": config, "points": bench.records(points)}, json_path):
        bench.print_points(points, stdout_console())
    return 0


@app.command()
def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="A.json", help="Report that --json wrote.", show_default=False, autocompletion=complete_files
        ),
    ],
    second: Annotated[
        Path, typer.Argument(metavar="B.json", help="Another.", show_default=False, autocompletion=complete_files)
    ],
    json_path: Json = None,
) -> int:
    """Compare two reports of run, estimate or profile, layer by layer."""
    from convoy.driver.report.difference import difference, print_difference, read_report
    from convoy.driver.report.tables import stdout_console

    _check(None, read=(first, second), json_path=json_path)
    found = difference(read_report(first), read_report(second))
    if not _write_json(found, json_path):
        print_difference(found, stdout_console())
    return 0


@app.command()
def prune(
    model: Model,
    output: NewFile,
    shape: ShapeOption = None,
    share: Annotated[
        float | None,
        typer.Option(
            "--share",
            metavar="S",
            help="Share of each convolution's weights that is zero afterwards.",
            show_default="0.75",
        ),
    ] = None,
    target: Annotated[
        int | None,
        typer.Option("--target-cycles", metavar="N", min=1, help="The least share with at most N cycles, estimated."),
    ] = None,
    config: Config = "Q",
) -> int:
    """Set the smallest weights to zero, to see what zeros save.

    Only those of 2D convolutions, and without training: the cycles are those of a trained network with as many zeros,
    the accuracy is not.
    """
    from convoy.driver.graph.tflite_reader import load_tflite, read_tflite
    from convoy.driver.graph.tflite_shapes import parse_shapes
    from convoy.driver.report.tables import stdout_console
    from convoy.driver.runtime.device import MemoryModel
    from convoy.driver.timing.estimate import estimated_cycles
    from convoy.driver.workload.prune import least_share, print_pruned, prune_file

    if share is not None and target is not None:
        raise GraphError("--share and --target-cycles exclude each other")
    check_outputs((model, Path(config)), {"--output": output})
    data = load_tflite(model, parse_shapes(shape or ())).data
    if target is not None:
        npu = load_config(config)

        def cycles(pruned: bytes) -> int:
            return estimated_cycles(read_tflite(pruned), npu, MemoryModel())

        with bar(text := "looking for the share") as show:
            tried = least_share(data, target, cycles, lambda done: show(text, done, done))
        for one, found in sorted(tried.items()):
            typer.echo(f"{one:.0%} zero weights: {found:,} cycles")
        share = list(tried)[-1]
    pruned, layers = prune_file(data, 0.75 if share is None else share)
    write_file(output, pruned)
    print_pruned(layers, stdout_console())
    return 0


@app.command()
def quantize(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Float ONNX file.", show_default=False, autocompletion=complete_files),
    ],
    calibration: Annotated[
        Path,
        typer.Option(
            "--calibration",
            metavar="FOLDER",
            help="Typical inputs: .npz with all inputs by name, or .npy or images for the only one.",
            show_default=False,
            autocompletion=complete_files,
        ),
    ],
    output: NewFile,
    shape: ShapeOption = None,
    dtype: Annotated[QuantizedType, typer.Option("--dtype", help="Of activations.")] = QuantizedType.INT8,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=1, max=100_000, help="Read at most so many files.")
    ] = 200,
) -> int:
    """Quantise a float ONNX network: weights of int8 per channel, activations of int8 or uint8."""
    from convoy.driver.graph.onnx_file import load_float
    from convoy.driver.graph.tflite_shapes import parse_shapes
    from convoy.driver.ort.quantise import quantise_network
    from convoy.driver.workload.calibration import load_samples

    check_outputs((model,), {"--output": output})
    source, inputs = load_float(model, parse_shapes(shape or ()))
    with bar(text := "calibrating") as show:
        found = load_samples(calibration, inputs, samples)
        show(text, 0, len(found))
        try:
            quantised = quantise_network(
                source,
                found,
                is_unsigned=dtype == QuantizedType.UINT8,
                progress=lambda done: show(text, done, len(found)),
            )
        except GraphError as error:
            raise GraphError(f"{model}: {error}") from None
    write_file(output, quantised)
    typer.echo(f"{output}: {dtype} activations, ranges from {len(found)} samples")
    return 0


@app.command()
def verilog(
    config: Config = "Q",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER|FILE.v",
            help="Write the IP into this folder, or the bare Verilog to this file.",
            show_default="the bare Verilog to stdout",
            autocompletion=complete_files,
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            metavar="NAME",
            help="Name of the top module, with which all others begin.",
            show_default="convoy_npu_CONFIG",
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="OLD=NEW", help="Another name for aclk, aresetn, irq, s_axil or m_axi."),
    ] = None,
    ram: Annotated[
        list[str] | None,
        typer.Option(
            "--ram",
            metavar="UNIT=STYLE",
            help="Ask synthesis for block or distributed memory, or leave it to the tool (auto); the folder's README "
            "lists the units.",
            show_default="accumulators=block",
        ),
    ] = None,
    addr_bits: Annotated[
        int | None,
        typer.Option(
            "--addr-bits",
            min=32,
            max=64,
            help="Address bits of the memory port; the NPU uses 4 GiB from the parameter BASE_ADDRESS on.",
            show_default="32",
        ),
    ] = None,
) -> int:
    """Write the NPU in Verilog-2005: as an IP with what tools need beside it, or the bare design."""
    is_folder = output is not None and is_folder_name("--output", output)
    outputs = {"--output": output}
    check_outputs((Path(config),), {} if is_folder else outputs, outputs if is_folder else {})
    npu = load_config(config)
    from convoy.driver.devices.verilator import TOP, npu_verilog
    from convoy.driver.ip.folder import ip_files, parse_names, parse_ram, prefix_of
    from convoy.driver.ip.verilog import verilog_2005
    from convoy.driver.report.config_report import commit, installed

    name, names, styles = prefix_of(Path(config).stem, prefix), parse_names(rename or ()), parse_ram(ram or ())
    if not is_folder and (prefix or rename or ram or addr_bits):
        raise GraphError("--prefix, --rename, --ram and --addr-bits are for the IP; give a folder: --output FOLDER")
    with spinner("emitting Verilog") as status:
        text = npu_verilog(npu, status.step)
    if output is None:
        typer.echo(verilog_2005(text), nl=False)
    elif not is_folder:
        write_file(output, verilog_2005(text))
    else:
        from convoy.hw.emit import VERILATOR_WAIVERS

        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
        files = ip_files(
            npu,
            text,
            TOP,
            VERILATOR_WAIVERS,
            name=name,
            names=names,
            ram=styles,
            addr_bits=addr_bits or 32,
            version=installed("convoy-npu"),
            commit=commit(),
        )
        for file, content in files.items():
            write_file(output / file, content)
        typer.echo(f"{output}: {', '.join(files)}", err=True)
    return 0


@app.command()
def info(config: Config = "Q", json_path: Json = None) -> int:
    """Show the parameters of an NPU, and versions."""
    from convoy.driver.report.config_report import config_report

    _check(None, read=(config,), json_path=json_path)
    report = config_report(load_config(config))
    if not _write_json(report, json_path):
        for section, values in report.items():
            typer.echo(f"{section}:")
            for name, value in values.items():
                typer.echo(f"  {name:20} {value_text(value)}")
    return 0


def _answers(job: Job, tensors: dict, labels: list[str] | None, is_wanted: bool) -> dict[str, Any]:
    """`answers`, if a network that was given something, or labels, has one output which is a vector of classes."""
    from convoy.driver.report.answers import answers, real_values

    outputs = [index for index in job.graph.outputs if index in tensors]
    if not is_wanted or len(outputs) != 1 or len(job.graph.outputs) != 1:
        if labels is not None:
            raise GraphError("--labels names the classes of a network's only output")
        return {}
    found = answers(real_values(tensors[outputs[0]], job.graph.tensors[outputs[0]]), labels)
    if found is None and labels is not None:
        raise GraphError("--labels names classes, but the network's output is not a vector of them")
    return {} if found is None else {"answers": [asdict(answer) for answer in found]}


def _finish(
    job: Job, outcome: tuple[dict[str, Any], list, dict], save: Path | None, json_path: Path | None, csv: Path | None
) -> int:
    """Show and store a report; the exit code."""
    report, mismatches, tensors = outcome
    _show(report, json_path, csv)
    if report["bit_exact"] is None and report["reference_note"]:
        typer.echo(f"convoy: not compared: {report['reference_note']}", err=True)
    for mismatch in mismatches:
        typer.echo(f"convoy: {mismatch}", err=True)
    if save is not None:
        from convoy.driver.report.plan_report import save_tensors

        save_tensors(job.graph, tensors, report, save)
    return 1 if mismatches else 0


def _show(report: Mapping[str, Any], json_path: Path | None, csv: Path | None) -> None:
    """A report in the files that are wanted, and on the terminal if its JSON does not go there."""
    if csv is not None:
        from convoy.driver.report.csv_table import layers_csv

        write_file(csv, layers_csv(report))
    if not _write_json(report, json_path):
        from convoy.driver.report.report import print_report
        from convoy.driver.report.tables import stdout_console

        print_report(report, stdout_console())


def _write_json(report: Mapping[str, Any], path: Path | None) -> bool:
    """Write a report; True if it went to stdout, where nothing else may go then."""
    if path is None:
        return False
    text = json.dumps(dict(report), indent=2) + "\n"
    if str(path) == "-":
        typer.echo(text, nl=False)
        return True
    write_file(path, text)
    return False


def _check(
    device: str | None,
    waves: Path | None = None,
    *,
    read: tuple[Path | str | None, ...],
    json_path: Path | None,
    save: Path | None = None,
    csv: Path | None = None,
    files: dict[str, Path | None] | None = None,
) -> None:
    """Refuse, before any work, a device whose tools are missing and outputs that could not be written; `read` are
    the files that the command reads.
    """
    if device is not None:
        from .devices import check_device

        try:
            check_device(str(device), waves)
        except ValueError as error:
            raise GraphError(str(error)) from None
    json_file = None if json_path is None or str(json_path) == "-" else json_path
    check_outputs(
        (Path(path) for path in read if path is not None),
        {"--json": json_file, "--csv": csv, "--waves": waves, **(files or {})},
        {"--save": save},
    )


def _memory_model(memory: MemoryKind, latency: int, stall: int, seed: int | None) -> MemoryModel:
    from convoy.driver.runtime.device import MemoryModel

    return MemoryModel(
        latency_cycles=latency, stall_percent=stall, seed=seed or 0, is_shared=memory == MemoryKind.SHARED
    )


def _ints(option: str, text: str, separator: str, count: int) -> tuple[int, ...]:
    """`count` numbers separated by `separator`."""
    parts = text.lower().split(separator)
    if len(parts) != count or not all(part.strip().isdecimal() for part in parts):
        raise GraphError(f"{option} {text}: give {count} numbers separated by {separator!r}")
    if max(len(part.strip()) for part in parts) > MAX_DIGITS:
        raise GraphError(f"{option} {text}: give numbers of at most {MAX_DIGITS} digits")
    return tuple(int(part) for part in parts)


def _address(option: str, text: str) -> int:
    """An address, in any of Python's notations."""
    try:
        if len(text) > MAX_DIGITS:
            raise ValueError
        address = int(text, 0)
        if address < 0:
            raise ValueError
    except ValueError:
        raise GraphError(f"{option} {text}: give an address such as 0x80000000") from None
    return address


def _parse_layers(text: str | None, graph: Graph) -> range | None:
    """Operators A to B - 1 of the text A:B, as in Python; either may be left out, and A alone is one operator."""
    if text is None:
        return None
    parts = text.split(":")
    if len(parts) > 2 or not all(part.isdecimal() or (not part and len(parts) == 2) for part in parts):
        raise GraphError(f"--layers {text}: give A:B, two operator numbers")
    if max(map(len, parts)) > MAX_DIGITS:
        raise GraphError(f"--layers {text}: give numbers of at most {MAX_DIGITS} digits")
    num_ops = graph.ops[-1].index + 1 if graph.ops else 0
    first = int(parts[0] or 0)
    end = first + 1 if len(parts) == 1 else int(parts[1] or num_ops)
    if not 0 <= first < end <= num_ops:
        raise GraphError(
            f"--layers {text}: selects no operators or too many; the network has 0:{num_ops}, B is not included"
        )
    selected = [position for position, op in enumerate(graph.ops) if first <= op.index < end]
    if not selected:
        raise GraphError(f"--layers {text}: selects no operator that is run")
    return range(selected[0], selected[-1] + 1)


def main() -> None:
    """Entry point of the command."""
    sys.exit(exit_code_of(lambda: app(standalone_mode=False)))


if __name__ == "__main__":
    main()
