# amaranth: UnusedElaboratable=no
"""Timing diagrams from simulation: a few cycles of the RTL become WaveJSON in `docs/diagrams` and SVG in `docs/images`.

`python -m convoy.verif.diagrams` writes both; a test simulates again and compares. What surrounds a unit is played by
testbenches, so that nothing stalls; what is drawn are the unit's signals, cycle by cycle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from convoy.hw.bus.read_mux import ReadMux
from convoy.hw.nn.core import CORE_FIELDS, Core
from convoy.hw.npu import Npu
from convoy.hw.tp.engine import TpEngine
from convoy.spec.config import PRESETS
from convoy.spec.csr import REGISTERS, WINDOW_ALIGN_BYTES, Control
from convoy.spec.isa import COMPLETION, TP, Opcode, TpOp

from .axi_lite import AxiLiteManager
from .pysim import AxiMemory, send, simulate

__all__ = ["DIAGRAMS", "IMAGES", "SOURCES", "Tracer", "wave_json"]

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "docs" / "diagrams"
IMAGES = ROOT / "docs" / "images"
CONFIG = PRESETS["S"].with_(
    num_lanes=8,
    num_acc_entries=16,
    stripe_bytes=4096,
    window_words=16,
    weight_fifo_beats=32,
    post_lanes=4,
    tp_buffer_bytes=1024,
    max_burst_beats=4,
)
"""Small, so that whole bursts and groups fit a page."""


@dataclass
class Lane:
    """A line of a diagram: a bit, or with `label` a payload that counts while `valid` is 1."""

    name: str
    valid: Any
    payload: Any = None
    label: Callable[[Any], str] | None = None
    values: list = field(default_factory=list)


class Tracer:
    """Samples lanes in every cycle; use `watch` as a background testbench."""

    def __init__(self) -> None:
        self.lanes: list[Lane | None] = []

    def bit(self, name: str, value: Any) -> None:
        """A line for a bit."""
        self.lanes.append(Lane(name, value))

    def data(self, name: str, valid: Any, payload: Any, label: Callable[[Any], str]) -> None:
        """A line for a payload."""
        self.lanes.append(Lane(name, valid, payload, label))

    def space(self) -> None:
        """A gap between lines."""
        self.lanes.append(None)

    async def watch(self, ctx: Any) -> None:
        """The background testbench."""
        lanes = [lane for lane in self.lanes if lane]
        signals = [signal for lane in lanes for signal in (lane.valid, lane.payload) if signal is not None]
        async for _, _, *sampled in ctx.tick().sample(*signals):
            values = iter(sampled)
            for lane in lanes:
                is_valid = next(values)
                payload = next(values) if lane.label else None
                lane.values.append((lane.label(payload) if is_valid else "") if lane.label else int(is_valid))


def wave_json(title: str, tracer: Tracer, *, quiet: int = 6, is_narrow: bool = True) -> dict[str, Any]:
    """WaveJSON of what was traced, from the first change to the last; where nothing changes for more than `quiet`
    cycles, all but the first two are left out. A gap shows as a break in all lines.
    """
    lanes = [lane for lane in tracer.lanes if lane]
    rows = list(zip(*(lane.values for lane in lanes), strict=True))
    changes = [n for n in range(1, len(rows)) if rows[n] != rows[n - 1]]
    first, last = changes[0] - 1, min(changes[-1] + 1, len(rows) - 1)
    shown: list[int | None] = []
    for begin, end in pairwise([first, *(n for n in changes if first < n <= last), last + 1]):
        shown += range(begin, end) if end - begin <= quiet else [begin, begin + 1, None]
    clock = {"name": "clock", "wave": "".join("|" if cycle is None else "." for cycle in shown).replace(".", "p", 1)}
    starts = [
        n
        for n, cycle in enumerate(shown)
        if cycle is not None
        and (None in shown[n - 1 : n] or n == 0 or ((cycle - first) % 10 == 0 and None not in shown[n - 3 : n]))
    ]
    numbers = "".join("|" if cycle is None else "3" if n in starts else "." for n, cycle in enumerate(shown))
    cycles = {"name": "cycle", "wave": numbers, "data": [str(shown[n] - first) for n in starts]}
    waves = [_wave(lane, shown) if lane else {} for lane in tracer.lanes]
    skin = {"config": {"skin": "narrow"}} if is_narrow else {}
    return {"signal": [clock, cycles, *waves], "head": {"text": title}} | skin


def _wave(lane: Lane, shown: list[int | None]) -> dict[str, Any]:
    """One line; an equal payload in a row is drawn as one."""
    wave, data, before = "", [], None
    for cycle in shown:
        value = before if cycle is None else lane.values[cycle]
        if cycle is None:
            wave += "|"
        elif value == before:
            wave += "."
        elif lane.label is None:
            wave += str(value)
        elif value:
            wave += "="
            data.append(value)
        else:
            wave += "x"
        before = value
    return {"name": lane.name, "wave": wave} | ({"data": data} if lane.label else {})


def job() -> dict[str, Any]:
    """A program of one descriptor, from doorbell to interrupt."""
    program, records, source, target = 0x100, 0x400, 0x800, 0xC00
    num_bytes = 32
    fields = dict.fromkeys(TP.fields, 0) | {
        "opcode": Opcode.TP,
        "op": TpOp.COPY,
        "a_addr": source,
        "a_run_bytes": num_bytes,
        "num_a_runs": 1,
        "num_0": 1,
        "num_1": 1,
        "num_2": num_bytes,
        "step_2": 1,
        "tile_ih": 1,
        "tile_iw": num_bytes,
        "out_addr": target,
        "out_run_bytes": num_bytes,
    }
    memory = bytearray(0x1000)
    memory[source : source + num_bytes] = bytes(range(num_bytes))
    memory[program : program + TP.num_bytes] = TP.encode(**fields)
    config = CONFIG.with_(max_burst_beats=16)
    tp = TpEngine(config)
    npu = Npu(config, tp_engine=tp)
    axi, bus, tracer = npu.m_axi, npu.s_axil, Tracer()
    model = AxiMemory(config, axi, memory, latency_cycles=4)
    manager = AxiLiteManager(bus)

    tracer.bit("doorbell written", bus.awvalid & bus.wvalid & (bus.awaddr == REGISTERS["CONTROL"].addr))
    tracer.space()
    places = {program: "D", source: "A", target: "Y", records: "C"}

    def place(addr: int) -> str:
        return next(name for start, name in places.items() if start <= addr < start + TP.num_bytes)

    tracer.data("AR address", axi.arvalid & axi.arready, axi.araddr, place)
    tracer.bit("R beats", axi.rvalid & axi.rready)
    tracer.bit("TP job offered", tp.job.valid)
    tracer.bit("TP job taken", tp.job.valid & tp.job.ready)
    tracer.space()
    tracer.data("AW address", axi.awvalid & axi.awready, axi.awaddr, place)
    tracer.bit("W beats", axi.wvalid & axi.wready)
    tracer.bit("B", axi.bvalid & axi.bready)
    tracer.bit("TP done", tp.done)
    tracer.space()
    tracer.bit("irq", npu.irq)

    async def host(ctx: Any) -> None:
        for name, value in (
            ("IRQ_ENABLE", 1),
            ("PROGRAM_BASE", program),
            ("PROGRAM_COUNT", 1),
            ("RECORD_BASE", records),
        ):
            await manager.write(ctx, REGISTERS[name].addr, value)
        await ctx.tick().repeat(3)
        await manager.write(ctx, REGISTERS["CONTROL"].addr, int(Control.DOORBELL))
        await ctx.tick().until(npu.irq)
        await ctx.tick().repeat(4)
        await manager.write(ctx, REGISTERS["IRQ_STATUS"].addr, 1)
        await ctx.tick().repeat(2)

    simulate(npu, host, background=[model.read_process, model.write_process, tracer.watch])
    assert memory[target : target + num_bytes] == memory[source : source + num_bytes]
    assert COMPLETION.decode(bytes(memory[records : records + COMPLETION.num_bytes]))["cycle"]
    return wave_json("A job: from the doorbell to the interrupt", tracer, quiet=4)


def group() -> dict[str, Any]:
    """Two groups of a core: two windows each, two kernels of two taps, two lane vectors; one weight is zero."""
    num_groups = 2
    fields = dict.fromkeys(CORE_FIELDS, 0) | {
        "num_z": 2,
        "num_z_last": 2,
        "num_phases": 1,
        "seg_words": 2,
        "num_slots": 2,
        "num_vec": 2,
        "num_vec_last": 2,
        "num_vec_x": 2,
        "step_vec_x": CONFIG.num_lanes // 2,
        "kernels_per_z": 2,
        "kernels_per_z_last": 2,
        "num_taps": 2,
    }
    weights = (3, 0, -1, 4, 1, -5, 9, 2)
    core = Core(CONFIG)
    m = core.elaborate(None)
    issue, acc, decoded = m.submodules.sequencer.issue, m.submodules.acc, m.submodules.decoder.weights
    num_entries, num_chunks = 4, CONFIG.num_lanes // CONFIG.post_lanes
    num_free, tracer = fields["num_slots"], Tracer()

    tracer.data("window word", core.window_write.en, core.window_write.word, str)
    tracer.bit("window filled", core.window_filled)
    tracer.bit("window released", core.window_released)
    tracer.space()
    tracer.bit("beat of tokens", core.beats.valid & core.beats.ready)
    tracer.data("weight decoded", decoded.valid & decoded.ready, decoded.p.value, str)
    tracer.space()
    tracer.data("issue: weight", issue.is_valid, issue.value, str)
    tracer.data("issue: entry", issue.is_valid, issue.entry, str)
    tracer.data("add to entry", acc.add_en, acc.add_entry, str)
    tracer.data("buffer", acc.add_en, acc.add_buffer, lambda buffer: "AB"[buffer])
    tracer.bit("group done", core.group_done)
    tracer.space()
    tracer.data("drain entry", core.drain_en, core.drain_entry, str)
    tracer.bit("drain clear", core.drain_clear)
    tracer.bit("group drained", core.group_drained)

    async def give(ctx: Any) -> None:
        for taps_left, offset in enumerate((1, 0)):
            ctx.set(core.tap_write, {"en": 1, "bank": 0, "taps_left": taps_left, "offset": offset})
            await ctx.tick()
        ctx.set(core.tap_write.en, 0)
        await send(ctx, core.job, [fields])
        beat = int.from_bytes(bytes(weight & 0xFF for weight in weights), "little")
        flags = ({"is_last_group": group == num_groups - 1, "is_last_sb": 1} for group in range(num_groups))
        await send(ctx, core.beats, [{"data": beat, "last": 1} | each for each in flags])

    async def count(ctx: Any) -> None:
        nonlocal num_free
        async for _, _, released in ctx.tick().sample(core.window_released):
            num_free += released

    async def fill(ctx: Any) -> None:
        nonlocal num_free
        await ctx.tick().until(core.job.valid & core.job.ready)
        for window in range(num_groups * fields["num_z"]):
            while not num_free:
                await ctx.tick()
            num_free -= 1
            for word in range(fields["seg_words"]):
                place = window % fields["num_slots"] * fields["seg_words"] + word
                ctx.set(core.window_write, {"en": 1, "word": place, "data": [1] * CONFIG.num_lanes})
                await ctx.tick()
            ctx.set(core.window_write.en, 0)
            ctx.set(core.window_filled, 1)
            await ctx.tick()
            ctx.set(core.window_filled, 0)

    async def drain(ctx: Any) -> None:
        await ctx.tick().until(core.group_done)
        await ctx.tick()
        for entry, chunk in product(range(num_entries), range(num_chunks)):
            ctx.set(core.drain_en, 1)
            ctx.set(core.drain_entry, entry)
            ctx.set(core.drain_chunk, chunk)
            ctx.set(core.drain_clear, chunk == num_chunks - 1)
            await ctx.tick()
        ctx.set(core.drain_en, 0)
        ctx.set(core.drain_clear, 0)
        ctx.set(core.group_drained, 1)
        await ctx.tick()
        ctx.set(core.group_drained, 0)
        await ctx.tick().repeat(3)

    simulate(m, drain, background=[give, count, fill, tracer.watch])
    return wave_json("Two groups through a core", tracer)


def burst() -> dict[str, Any]:
    """Two clients of the read multiplexer, then a burst outside the memory windows."""
    allowed, forbidden = 0x1000, 0x8000
    mux = ReadMux(CONFIG, 2)
    m = mux.elaborate(None)
    gate, axi, tracer = m.submodules.gate, mux.axi, Tracer()
    memory = AxiMemory(CONFIG, axi, bytearray(0x1000), base=allowed, latency_cycles=5)

    for number, client in enumerate(mux.clients):
        tracer.data(f"client {number} asks", client.bursts.valid, client.bursts.p.addr, "{:x}".format)
        tracer.bit(f"client {number} ready", client.bursts.ready)
    tracer.space()
    tracer.data("guard passes", gate.o.valid & gate.o.ready, gate.o.p.burst.addr, "{:x}".format)
    tracer.bit("violation", mux.guard.violation)
    tracer.bit("stop", mux.guard.stop)
    tracer.space()
    tracer.data("AR", axi.arvalid, axi.araddr, "{:x}".format)
    tracer.bit("ARREADY", axi.arready)
    tracer.bit("RVALID", axi.rvalid)
    tracer.bit("RLAST", axi.rvalid & axi.rlast)
    for number, client in enumerate(mux.clients):
        tracer.bit(f"beats to {number}", client.beats.valid)
    tracer.space()
    tracer.bit("is_quiet", mux.guard.is_quiet)

    def ask(number: int, addrs: tuple[int, ...]) -> Callable:
        async def client(ctx: Any) -> None:
            await ctx.tick().repeat(2)
            await send(ctx, mux.clients[number].bursts, [{"addr": addr, "last_beat": 3} for addr in addrs])

        return client

    async def supervise(ctx: Any) -> None:
        ctx.set(mux.guard.is_open, 0)
        window = {"base": allowed // WINDOW_ALIGN_BYTES, "limit": 2 * allowed // WINDOW_ALIGN_BYTES, "enable": 1}
        ctx.set(mux.guard.windows[0], window)
        await ctx.tick().until(mux.guard.violation)
        ctx.set(mux.guard.stop, 1)
        await ctx.tick().until(mux.guard.is_quiet)
        await ctx.tick().repeat(3)

    clients = [ask(0, (allowed, forbidden)), ask(1, (allowed + 0x100,))]
    simulate(m, supervise, background=[*clients, memory.read_process, tracer.watch])
    assert all(addr < forbidden for addr, _ in memory.reads)
    return wave_json("Bursts through multiplexer and guard", tracer, quiet=8, is_narrow=False)


DIAGRAMS: dict[str, Callable[[], dict[str, Any]]] = {"timing-job": job, "timing-group": group, "timing-burst": burst}
"""What makes the WaveJSON of each diagram, by its name."""


def source(wave: dict[str, Any]) -> str:
    """The text of a diagram: a line for each signal."""
    lines = ",\n".join(f"  {json.dumps(lane)}" for lane in wave["signal"])
    others = "".join(f',\n"{key}": {json.dumps(value)}' for key, value in wave.items() if key != "signal")
    return f'{{"signal": [\n{lines}\n]{others}}}\n'


def svg(text: str) -> str:
    """The picture of WaveJSON, on white, in any font without serifs."""
    import wavedrom

    drawn = wavedrom.render(text).tostring()
    begin = drawn.index(">", drawn.index("<svg")) + 1
    back = '<rect width="100%" height="100%" fill="white" />'
    return (drawn[:begin] + back + drawn[begin:]).replace("font-family:Helvetica", "font-family:Helvetica,sans-serif")


def main() -> None:
    for name, draw in DIAGRAMS.items():
        text = source(draw())
        (SOURCES / f"{name}.json").write_text(text)
        (IMAGES / f"{name}.svg").write_text(svg(text) + "\n")
        print(f"docs/images/{name}.svg")


if __name__ == "__main__":
    main()
