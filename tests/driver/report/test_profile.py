"""Profiles: the timeline against Perfetto's own schema and, where it is installed, its trace processor; the page;
the memory map.
"""

import json
import re
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from subprocess import CalledProcessError

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.report.perfetto import Event, encode_trace
from convoy.driver.report.plan_report import plan_report
from convoy.driver.report.profile import memory_map, timeline, write_profile_page
from convoy.driver.report.report import build_report
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing.estimate import Estimator, estimate
from convoy.spec.config import PRESETS
from convoy.spec.isa import Cause, Opcode

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"
TRACKS = [
    "NN jobs",
    "loader",
    "weights",
    "core 0",
    "core 1",
    "core 2",
    "core 3",
    "drain",
    "writer",
    "TP jobs",
    "TP load",
    "TP process",
    "TP write",
]
EVENTS = [
    Event("a", "one", 5, 9, {"n": -3, "x": 0.5, "s": "t"}),
    Event("a", "two", 9, 300),
    Event("b", "three", 0, 7),
    Event("a", "cut", 2, 6),
]


@pytest.fixture(scope="module")
def profiled():
    plan, memory = compile_graph(read_tflite(DIGITS), PRESETS["Q"], keep_tensors=True), MemoryModel()
    execution = estimate(plan, memory)
    report, _ = build_report(
        plan,
        Estimator(memory),
        execution,
        model="m.tflite",
        config="Q",
        device_name="estimate",
        reference="none",
        expected=None,
    )
    return plan, report, timeline(plan, report, execution, memory)


def parse(raw):
    """Tracks by number, slices (track, name, start, end), and counter values, by Perfetto's definition of the
    format.
    """
    schema = pytest.importorskip(
        "perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="needs Perfetto's schema: pip install perfetto"
    )
    trace = schema.Trace.FromString(raw)
    assert trace.packet[0].sequence_flags == schema.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    tracks = {
        packet.track_descriptor.uuid: packet.track_descriptor
        for packet in trace.packet
        if packet.HasField("track_descriptor")
    }
    slices, values, stacks, last = [], {}, {}, 0
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        if packet.HasField("track_event"):
            event, time = packet.track_event, packet.timestamp
            assert time >= last
            last = time
            stack = stacks.setdefault(event.track_uuid, [])
            if event.type == schema.TrackEvent.TYPE_SLICE_BEGIN:
                stack.append((event.name, time, {note.name: note for note in event.debug_annotations}))
            elif event.type == schema.TrackEvent.TYPE_SLICE_END:
                name, start, notes = stack.pop()
                slices.append((tracks[event.track_uuid].name, name, start, time, notes))
            else:
                assert tracks[event.track_uuid].HasField("counter")
                values.setdefault(tracks[event.track_uuid].name, []).append((time, event.double_counter_value))
            assert len(stack) <= 1
    assert not any(stacks.values())
    return [track.name for track in tracks.values()], slices, values


def test_trace_by_hand():
    names, slices, values = parse(encode_trace("title", ["a", "b"], EVENTS, {"c": [(0, 1.5), (400, 0)]}))
    assert names == ["title", "a", "b", "c"]
    assert sorted(part[:4] for part in slices) == [
        ("a", "cut", 2, 5),
        ("a", "one", 5, 9),
        ("a", "two", 9, 300),
        ("b", "three", 0, 7),
    ]
    notes = next(part[4] for part in slices if part[1] == "one")
    assert (notes["n"].int_value, notes["x"].double_value, notes["s"].string_value) == (-3, 0.5, "t")
    assert values == {"c": [(0, 1.5), (400, 0.0)]}


def test_timeline(profiled):
    plan, report, raw = profiled
    names, slices, values = parse(raw)
    assert names[1:] == [*TRACKS, "read bytes per cycle", "written bytes per cycle"]
    program = next(step.program for step in plan.steps if hasattr(step, "program"))
    jobs = [part for part in slices if part[0].endswith("jobs")]
    opcodes = Counter(raw[0] for raw in program.descriptors)
    assert Counter(part[0] for part in jobs) == {"NN jobs": opcodes[Opcode.NN], "TP jobs": opcodes[Opcode.TP]}
    assert max(part[3] for part in slices) <= report["cycles"]
    busy = sum(part[3] - part[2] for part in slices if part[0].startswith("core"))
    assert busy >= 4 * report["busy_cycles"]
    layer = report["layers"][4]
    notes = next(part[4] for part in jobs if part[1].startswith("4 CONV_2D"))
    cause = max(layer["lost"], key=layer["lost"].get)
    assert notes[f"lost: {cause}"].double_value == layer["lost"][cause] > 0
    for name, key in (("read bytes per cycle", "read_bytes"), ("written bytes per cycle", "write_bytes")):
        samples = values[name]
        assert sum(value * (after - time) for (time, value), (after, _) in pairwise(samples)) == pytest.approx(
            report[key]
        )
        # weights count where they are read, not when their layer completes
        assert max(value for _, value in samples) <= 8


def trace_processor_shell():
    """The program on the PATH, or else the one that the library fetches and keeps."""
    platform = pytest.importorskip("perfetto.trace_processor.platform")
    try:
        return platform.PlatformDelegate().get_shell_path(shutil.which("trace_processor_shell"))
    except CalledProcessError as error:
        pytest.skip(
            f"Perfetto's trace_processor_shell is not on the PATH and cannot be fetched: {' '.join(error.cmd[-1:])}"
        )


def test_trace_processor(profiled, tmp_path):
    processor = pytest.importorskip("perfetto.trace_processor")
    (tmp_path / "t.pftrace").write_bytes(profiled[2])
    config = processor.TraceProcessorConfig(bin_path=trace_processor_shell())
    with processor.TraceProcessor(trace=str(tmp_path / "t.pftrace"), config=config) as opened:
        rows = opened.query(
            "select track.name as track, sum(dur) as dur from slice join track on slice.track_id = track.id group by "
            "track.name"
        )
        found = {row.track: row.dur for row in rows}
    assert set(TRACKS) == found.keys()
    assert sum(found[f"core {core}"] for core in range(4)) >= 4 * profiled[1]["busy_cycles"]


def test_memory_map(profiled):
    plan = profiled[0]
    pieces = memory_map(plan)
    assert {piece["kind"] for piece in pieces} == {"activations", "constants", "descriptors", "records"}
    assert max(piece["end"] for piece in pieces) <= plan.memory_bytes
    assert all(before["end"] <= after["start"] for before, after in pairwise(pieces))  # every tensor keeps its place


def test_page(profiled, tmp_path):
    pytest.importorskip("altair", reason="needs the extra plots")
    from convoy.driver.report.profile_charts import COLOURS

    assert {cause.name.lower() for cause in Cause} - {"busy"} <= COLOURS.keys()
    plan, report, _ = profiled
    deployed = compile_graph(plan.graph, plan.config)
    write_profile_page(tmp_path / "p.html", plan, deployed, report)
    page = (tmp_path / "p.html").read_text()
    charts = [json.loads(text) for text in re.findall(r'draw\("chart-\d+-\d+", (.*)\)</script>', page)]
    assert len(charts) == page.count('id="chart-') == 5
    values = charts[0]["data"]["values"]
    assert sum(value["cycles"] for value in values) == sum(layer["cycles"] for layer in report["layers"])
    assert not re.search(r'(src|href)="http', page)
    assert f"{plan_report(deployed)['memory_bytes']:,} bytes, as <code>convoy compile</code> makes it" in page
    assert max(piece["end"] for piece in charts[4]["data"]["values"]) <= deployed.memory_bytes < plan.memory_bytes
    cells = re.sub(' (class|data-column)="[^"]*"', "", page)
    assert 'data-column="remedy">usual at the end' in page  # a card for each row on a phone
    assert f"<td>SOFTMAX</td><td>0</td><td>{report['host_ops'][0]['reason']}</td>" in cells
    assert "<td>9</td><td>SOFTMAX</td><td>cpu</td><td>-</td>" in cells
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert all(chart["width"] == "container" for chart in charts)
    assert all(f"<h2>{heading}</h2>" in page for heading in ("Roofline", "Utilisation", "Traffic", "Memory", "Layers"))


def test_labels_of_the_roofline_hide_nothing():
    """Dots lie close together: those that have room have a label, on no dot and on no other label."""
    pytest.importorskip("altair", reason="needs the extra plots")
    from convoy.driver.report import profile_charts as charts

    rng = np.random.default_rng(3)
    report = {"cores": 4, "lanes": 16, "port_bits": 64, "layers": []}
    for number in range(60):
        macs, cycles = int(rng.integers(1, 10**6)), int(rng.integers(2000, 20000))
        report["layers"].append(
            {"number": str(number), "op": "CONV_2D", "macs": macs, "cycles": cycles, "floor_cycles": cycles // 2}
            | {"read_bytes": int(rng.integers(1, 10**5)), "write_bytes": 0}
        )
    line, dots, labels = charts.roofline(report).to_dict()["layer"]
    (left, right), (bottom, top) = (dots["encoding"][axis]["scale"]["domain"] for axis in "xy")

    def place(point, shift=0.0):
        x = charts.NARROW * np.log(point["intensity"] / left) / np.log(right / left)
        return x, charts.ROOFLINE_HEIGHT * np.log(top / point["speed"]) / np.log(top / bottom) + shift

    shown = labels["data"]["values"]
    assert 3 < len(shown) < 60
    for label in shown:
        x, y = place(label, label["shift"])
        for dot in dots["data"]["values"]:
            other_x, other_y = place(dot)
            assert np.hypot(x - other_x, y - other_y) > np.sqrt(dot["size"] / np.pi)
    assert min(point["speed"] for point in line["data"]["values"]) >= bottom
