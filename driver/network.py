"""Networks in Python: `convoy.driver.load` compiles a file, runs it on the NPU, estimates and profiles it."""

from __future__ import annotations

import html
import io
import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from rich.console import Console

from convoy.spec.config import NpuConfig, load_config

from .compile.pipeline import compile_graph
from .devices import check_device, open_device
from .errors import GraphError
from .files import write_file
from .graph.graph import Graph, Tensor
from .graph.reader import load_network
from .graph.tflite_shapes import parse_shapes
from .graph.tflite_writer import write_tflite
from .report.answers import NUM_ANSWERS, Answer, answers, real_values
from .report.csv_table import layers_csv
from .report.deployment import Clock, clock_of
from .report.profile import timeline, write_profile_page
from .report.report import Mismatch, build_report, estimate_report, layer_cells, print_report, summary
from .runtime.device import Device, MemoryModel
from .runtime.session import Execution, Session
from .timing.estimate import estimate
from .workload.inputs import fits, image_value, load_input, quantise_real, random_inputs
from .workload.reference import Compared

if TYPE_CHECKING:
    from PIL.Image import Image

    from .emit.program import Plan

__all__ = ["Network", "Outputs", "Report", "Stream", "TensorInfo", "changed", "load"]

TABLE_WIDTH = 160
"""Columns of a report as text."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a network."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float | None
    """A real number is `scale * (value - zero_point)`; None where the tensor is real already."""
    zero_point: int | None


class Report(Mapping[str, Any]):
    """What a run, an estimate or a profile says: the dictionary that `--json` writes, shown as a table."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def cycles(self) -> int | None:
        """Of the NPU; None on a device without timing."""
        return self["cycles"]

    @property
    def milliseconds(self) -> float | None:
        """Of the NPU; None without timing or without a clock."""
        return self["milliseconds"]

    @property
    def layers(self) -> list[dict[str, Any]]:
        """A dictionary for each operator that the NPU executes, in order."""
        return self["layers"]

    def save(self, path: str | Path) -> None:
        """Write the whole report as `.json`, or its layers as `.csv`.

        Raises
        ------
        GraphError
            When the name ends in anything else, or the file cannot be written.
        """
        path = Path(path)
        texts = {".json": lambda: json.dumps(self._values, indent=2) + "\n", ".csv": lambda: layers_csv(self)}
        if path.suffix not in texts:
            raise GraphError(f"{path}: a report is written as {' or '.join(texts)}")
        write_file(path, texts[path.suffix]())

    def __str__(self) -> str:
        console = Console(file=(text := io.StringIO()), width=TABLE_WIDTH)
        print_report(self, console)
        return text.getvalue()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For notebooks."""
        titles, rows = layer_cells(self)
        lines = [_html_row("th", titles), *(_html_row("td", row) for row in rows)]
        return f"<table>{''.join(lines)}</table>" + "".join(f"<p>{html.escape(line)}</p>" for line in summary(self))


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


class Outputs(Mapping[str, np.ndarray]):
    """The outputs of a run by name, in the network's order; what the run cost, in `report`; and the tensors that
    differ from the reference, of which there should be none, in `mismatches`.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        values: Sequence[np.ndarray],
        report: Report,
        mismatches: Sequence[Mismatch],
        inputs: Sequence[np.ndarray] = (),
    ):
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._values = {tensor.name: value for tensor, value in zip(tensors, values, strict=True)}
        self.report, self.mismatches, self._inputs = report, tuple(mismatches), tuple(inputs)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def value(self, name: str | None = None) -> np.ndarray:
        """An output as the network writes it; the name may be left out where there is only one.

        Raises
        ------
        GraphError
            When there is no such output, or a name is needed.
        """
        return self._values[self._only(name)]

    def real(self, name: str | None = None) -> np.ndarray:
        """`value` in real numbers, float32: quantised integers are `scale * (value - zero_point)`."""
        name = self._only(name)
        return real_values(self._values[name], self._tensors[name])

    def top(
        self, number: int = NUM_ANSWERS, labels: Sequence[str] | None = None, name: str | None = None
    ) -> list[Answer]:
        """The classes with the largest values of an output that is a vector of them.

        Raises
        ------
        GraphError
            When it is no such vector, or there are not as many labels.
        """
        found = answers(self.real(name), labels, number)
        if found is None:
            raise GraphError(f"output {self._only(name)} is not a vector of classes")
        return found

    def _only(self, name: str | None) -> str:
        if name is None and len(self) == 1:
            return next(iter(self))
        if name not in self._values:
            raise GraphError(f"the network has no output {name!r}; it has {', '.join(self)}")
        return name

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value.dtype} {list(value.shape)}" for name, value in self.items())

    def _repr_html_(self) -> str:
        """For notebooks: inputs that are images, and the classes with the largest values."""
        texts = [_picture(value) for value in self._inputs]
        for name in self:
            texts.append(f"<p>{html.escape(name)}: {self[name].dtype} {list(self[name].shape)}</p>")
            found = answers(self.real(name)) or []
            most = max((abs(answer.value) for answer in found), default=0) or 1
            for answer in found:
                width = round(100 * max(0.0, answer.value) / most)
                bar = f'<div style="background:#6baed6;height:.8em;width:{width}%"></div>'
                texts.append(f'<div style="max-width:20em">{html.escape(str(answer))}{bar}</div>')
        return "".join(texts)


def _picture(value: np.ndarray) -> str:
    """An image of 1 or 3 channels as an element of a page; nothing of other values."""
    from PIL import Image

    if value.ndim == 4 and value.shape[1] in (1, 3) and value.shape[3] not in (1, 3):
        value = value.transpose(0, 2, 3, 1)
    if value.ndim != 4 or value.shape[0] != 1 or value.shape[3] not in (1, 3) or min(value.shape[1:3]) < 2:
        return ""
    low, high = float(value.min()), float(value.max())
    pixels = ((value[0].astype(np.float64) - low) * 255 / ((high - low) or 1)).astype(np.uint8)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(file := io.BytesIO(), "PNG")
    style = "image-rendering:pixelated;min-width:8em;max-width:20em"
    return f'<img style="{style}" src="data:image/png;base64,{b64encode(file.getvalue()).decode()}">'


Value: TypeAlias = "np.ndarray | str | Path | Image | Sequence[Any] | Mapping[str, Any]"
"""Of one input, an image of Pillow too; or of several, by name or in order."""


class Network:
    """A network compiled for a configuration of the NPU; `load` makes one.

    Everything that is run or estimated here agrees with the command of the same name.
    """

    def __init__(self, model: Path, config: str, clock: str | None, memory: MemoryModel, plan: Plan, loaded: Any):
        self.name, self.config, self.plan = model.name, plan.config, plan
        self.clock: Clock | None = clock_of(clock, plan.config)
        self.memory = memory
        self._model, self._config_name, self.loaded = str(model), config, loaded
        self.graph = loaded.graph
        self.inputs = [_info(self.graph.tensors[index]) for index in self.graph.inputs]
        self.outputs = [_info(self.graph.tensors[index]) for index in self.graph.outputs]

    def run(self, x: Value | None = None, *, device: str | Device = "native", reference: bool = False) -> Outputs:
        """Run once; variables of the network begin with their first values.

        Parameters
        ----------
        x
            The value of the network's input: its shape, axes of 1 may be left out; its dtype, or real numbers, which
            are quantised; or the path of an image or a `.npy` file, as `convoy run --input` takes it. Of several
            inputs a dictionary by name, or a list. None: random values.
        device : `native` (the RTL, compiled), `golden` (exact, without cycles), `icarus` or `pysim`; or one of your
            own, such as a board, which stays open
        reference : compare every tensor with the network's own runtime, as `convoy run` does

        Raises
        ------
        GraphError
            When a value does not fit its input; the message names it.
        DeviceError
            When the device cannot run.
        """
        with self.stream(device=device, reference=reference) as stream:
            return stream.run(x)

    def stream(
        self, *, device: str | Device = "native", reference: bool = False, progress: Callable[[str], None] | None = None
    ) -> Stream:
        """The network on a device that stays open: each `run` begins with the variables that the one before left.

        Close it in the end, or use it in a `with` statement. `progress` is called with what is done before the first
        run, which may take minutes: the RTL of a configuration is compiled when it is used for the first time.
        """
        return Stream(self, device, reference, progress)

    def estimate(self) -> Report:
        """What a run will cost, without one: within 3 % for most networks and 10 % for a layer."""
        return Report(
            estimate_report(self.plan, self.memory, model=self._model, config=self._config_name, clock=self.clock)
        )

    def profile(
        self,
        page: str | Path | None = None,
        trace: str | Path | None = None,
        *,
        device: str = "native",
        progress: Callable[[str], None] | None = None,
    ) -> Report:
        """Where the cycles of a run on random values go; `device` may be `model` too, which estimates.

        Parameters
        ----------
        page : write charts into this file (HTML; needs the extra `plots`)
        trace : write a timeline for ui.perfetto.dev into this file
        """
        if device == "model":
            report, execution = self.estimate(), estimate(self.plan, self.memory)
        else:
            with self.stream(device=device, progress=progress) as stream:
                report = stream.run().report
                execution = stream.last
        if page is not None:
            write_profile_page(Path(page), self.plan, compile_graph(self.plan.graph, self.config), report)
        if trace is not None:
            write_file(Path(trace), timeline(self.plan, report, execution, self.memory))
        return report

    def report_of(self, device_name: str, device: Any, execution: Execution, compared: Any = None, values: Any = None):
        """The report of an execution, and the tensors that differ from those of `compared`, which ran on `values`."""
        report, mismatches = build_report(
            self.plan,
            device,
            execution,
            model=self._model,
            config=self._config_name,
            device_name=device_name,
            reference=compared.name if compared else "none",
            expected=compared.run(values, execution.tensors) if compared else None,
            reference_note=compared.note if compared else None,
            clock=self.clock,
        )
        return Report(report), mismatches

    def values_of(self, x: Value | None, seed: int) -> dict[int, np.ndarray]:
        """A value for each input, by tensor: `x` as for `run`, random ones of this seed without."""
        tensors = [self.graph.tensors[index] for index in self.graph.inputs]
        if x is None:
            return random_inputs(tensors, seed)
        names = ", ".join(tensor.name for tensor in tensors)
        if isinstance(x, Mapping):
            if x.keys() != {tensor.name for tensor in tensors}:
                raise GraphError(f"the inputs are {names}, but values are given for {', '.join(map(str, x))}")
            given: list[Any] = [x[tensor.name] for tensor in tensors]
        elif len(tensors) == 1:
            given = [x]
        else:
            given = list(x) if isinstance(x, Sequence | np.ndarray) and not isinstance(x, str) else [x]
            if len(given) != len(tensors):
                raise GraphError(f"the network has {len(tensors)} inputs ({names}), but {len(given)} values are given")
        return {tensor.index: _fitted(value, tensor) for tensor, value in zip(tensors, given, strict=True)}

    def __repr__(self) -> str:
        shapes = "; ".join(f"{info.name} {info.dtype} {list(info.shape)}" for info in (*self.inputs, *self.outputs))
        return f"{self.name} on {self.config.name}: {shapes}"


class Stream:
    """A network on an open device: runs one after another, with variables kept from one to the next."""

    def __init__(
        self, network: Network, device: str | Device, reference: bool, progress: Callable[[str], None] | None = None
    ):
        self._is_own = isinstance(device, str)
        if isinstance(device, str):
            try:
                check_device(device, None)
                self._device = open_device(device, network.config, network.memory, progress=progress)
            except ValueError as error:
                raise GraphError(str(error)) from None
        else:
            self._device = device
        self._network, self._name, self._runs = network, device if isinstance(device, str) else type(device).__name__, 0
        self._compared = Compared(network.loaded, network.plan.doubtful) if reference else None
        self._session = Session(network.plan, self._device)
        self.last = Execution()
        """Of the last run, with every tensor that was stored, by index."""

    def run(self, x: Value | None = None) -> Outputs:
        """As `Network.run`, on what the run before left.

        Raises
        ------
        GraphError, DeviceError
            As from `Network.run`.
        """
        network = self._network
        values = network.values_of(x, self._runs)
        self._runs += 1
        self.last = self._session.run(values)
        report, mismatches = network.report_of(
            self._name, self._device, self.last, self._compared, list(values.values())
        )
        graph = network.plan.graph
        tensors = [graph.tensors[index] for index in graph.outputs]
        return Outputs(
            tensors, [self.last.tensors[tensor.index] for tensor in tensors], report, mismatches, list(values.values())
        )

    def reset(self) -> None:
        """Variables have their first values again."""
        self._session.reset_state()

    def close(self) -> None:
        """Release the device, unless it was given open."""
        if self._is_own:
            self._device.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load(
    model: str | Path,
    config: str | NpuConfig = "Q",
    *,
    shapes: Sequence[str] = (),
    clock: str | None = None,
    latency: int = 32,
    strict: bool = False,
) -> Network:
    """Compile a network.

    Parameters
    ----------
    model : a TFLite or ONNX file
    config : a preset (`S`, `D`, `Q`, `O`, `X`; lean `SL` ...), a TOML file of parameters, or a configuration
    shapes : of inputs of unknown size, as `[INPUT=]1x96x96x3`
    clock : a frequency such as `100MHz`, for milliseconds; None: that of the placed preset, if it was placed
    latency : of the memory, in cycles
    strict : refuse operators that the NPU does not take, instead of leaving them to the CPU

    Raises
    ------
    GraphError
        When the file cannot be read or the network cannot run; the message names the file or the operator.
    """
    npu = config if isinstance(config, NpuConfig) else load_config(config)
    loaded = load_network(Path(model), parse_shapes(shapes))
    plan = compile_graph(loaded.graph, npu, keep_tensors=True, is_strict=strict)
    return Network(Path(model), npu.name, clock, MemoryModel(latency_cycles=latency), plan, loaded)


def changed(network: Network, graph: Graph, path: Path) -> Network:
    """Another network than one that was loaded, written to a TFLite file and loaded from it.

    Raises
    ------
    GraphError
        When it has an operator that cannot be written, or no other result than the file can be made.
    """
    write_file(path, write_tflite(graph))
    return Network(
        path,
        network.config.name,
        None,
        network.memory,
        compile_graph((loaded := load_network(path)).graph, network.config, keep_tensors=True),
        loaded,
    )


def _info(tensor: Tensor) -> TensorInfo:
    quant = tensor.quant if tensor.dtype.kind in "iu" else None
    if quant is None or quant.scale.size != 1:
        return TensorInfo(tensor.name, tensor.shape, tensor.dtype, None, None)
    return TensorInfo(tensor.name, tensor.shape, tensor.dtype, float(quant.scale[0]), int(quant.zero_point[0]))


def _fitted(given: Any, tensor: Tensor) -> np.ndarray:
    """A value in the shape and dtype of an input."""
    if isinstance(given, str | Path):
        return load_input(Path(given), tensor)
    if hasattr(given, "convert") and hasattr(given, "size"):
        return image_value(given, tensor, "the image")
    value = np.asarray(given)
    if not fits(value.shape, tensor.shape):
        raise GraphError(f"input {tensor.name}: shape {list(value.shape)} does not fit {list(tensor.shape)}")
    value = value.reshape(tensor.shape)
    if value.dtype == tensor.dtype:
        return np.ascontiguousarray(value)
    if value.dtype.kind == "f":
        if not np.isfinite(value).all():
            raise GraphError(f"input {tensor.name}: holds a number that is not finite")
        return quantise_real(value, tensor)
    if value.dtype.kind in "iu" and tensor.dtype.kind in "iu":
        info = np.iinfo(tensor.dtype)
        if value.size and (value.min() < info.min or value.max() > info.max):
            raise GraphError(
                f"input {tensor.name}: integers {value.min()} .. {value.max()} are beyond {tensor.dtype}; give "
                "real numbers to have them quantised"
            )
        return value.astype(tensor.dtype)
    raise GraphError(f"input {tensor.name}: {value.dtype} is neither {tensor.dtype} nor real numbers to be quantised")
