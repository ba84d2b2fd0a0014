"""Tests of the environment itself: but for the first they fail, where it must find something.

Run only when they are named.

The first four are of `convoy.verif.copier`, a small design with the NPU's ports; its flaws are switched on by its
registers.
"""

from __future__ import annotations

from dataclasses import replace

from convoy.driver.emit.program import MemoryWindow
from convoy.spec.csr import Control
from convoy.verif.copier import BURST_BEATS, FLAW_LAST, FLAW_UNSTABLE
from convoy.verif.sim.environment import Environment, sim_test
from convoy.verif.sim.programs import random_job

SOURCE, TARGET, NUM_BURSTS = 0x1000, 0x4000, 6


async def copy(env: Environment, flaws: int = 0, windows: tuple[MemoryWindow, ...] = ()) -> None:
    """Let the copier copy, with back-pressure; memory is as it should be."""
    num_bytes = NUM_BURSTS * BURST_BEATS * env.config.port_bytes
    data = env.rng.randbytes(num_bytes)
    env.memory.bytes[SOURCE : SOURCE + num_bytes] = data
    expected = bytearray(env.memory.bytes)
    expected[TARGET : TARGET + num_bytes] = data
    env.pause({name: "heavy" for name in ("m_axi.ar", "m_axi.r", "m_axi.aw", "m_axi.w", "m_axi.b")})
    for name, value in (
        ("PROGRAM_BASE", SOURCE),
        ("PROGRAM_COUNT", NUM_BURSTS | flaws),
        ("RECORD_BASE", TARGET),
        ("IRQ_ENABLE", 1),
    ):
        await env.write(name, value)
    env.monitor.windows = windows
    await env.write("CONTROL", Control.DOORBELL)
    await env.wait()
    env.compare(bytes(expected), [])


@sim_test
async def copier(env: Environment):
    """Nothing is wrong."""
    await copy(env)


@sim_test
async def copier_unstable(env: Environment):
    """AWADDR changes while it waits."""
    await copy(env, FLAW_UNSTABLE)


@sim_test
async def copier_last(env: Environment):
    """WLAST comes a beat early."""
    await copy(env, FLAW_LAST)


@sim_test
async def copier_outside(env: Environment):
    """A write outside the windows."""
    await copy(env, windows=(MemoryWindow(SOURCE, TARGET, True, False),))


@sim_test
async def wrong_expectation(env: Environment):
    """One bit of what the golden machine left in memory is flipped: what a failure looks like, on the NPU."""
    job = random_job(env.rng, env.config, [], 1)
    env.pause()
    after = bytearray(job.after)
    changed = next(addr for addr in range(len(after)) if job.after[addr] != job.before[addr])
    after[changed] ^= 1
    await env.run(replace(job, after=bytes(after)))
