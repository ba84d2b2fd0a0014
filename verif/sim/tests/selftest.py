"""Tests of the environment itself: they fail where it must find something. Not part of a run unless they are named."""

from __future__ import annotations

from dataclasses import replace

from convoy.verif.sim.environment import Environment, sim_test
from convoy.verif.sim.programs import random_job


@sim_test
async def wrong_expectation(env: Environment):
    """One bit of the golden machine's memory is flipped: the scoreboard must say so. What a failure looks like."""
    job = random_job(env.rng, env.config, ["conv"])
    env.pause()
    after = bytearray(job.after)
    changed = next(addr for addr in range(len(after)) if job.after[addr] != job.before[addr])
    after[changed] ^= 1
    await env.run(replace(job, after=bytes(after)))
