"""Resets at any time: the next program finds no trace of the one that was stopped."""

from __future__ import annotations

from cocotb.triggers import ClockCycles

from convoy.spec.csr import Control, Error
from convoy.verif.sim.coverage import RESETS
from convoy.verif.sim.environment import Environment, sim_test
from convoy.verif.sim.networks import KINDS
from convoy.verif.sim.programs import Job, random_job

THIRDS = ("first third", "second third", "last third")


async def clean_run(env: Environment) -> tuple[Job, int]:
    """A random program, run once, and its cycles."""
    job = random_job(env.rng, env.config, env.rng.sample(list(KINDS), 2), 3, window_mode="tight")
    env.pause()
    await env.run(job)
    return job, await env.read("CYCLES")


async def run_until(env: Environment, job: Job, num_cycles: int, third: int) -> None:
    """Start a program and let it run for a random part of a third of its cycles."""
    await env.start_job(job)
    at = num_cycles * third // 3 + env.rng.randrange(max(1, num_cycles // 3))
    await ClockCycles(env.dut.clk, max(1, at))


@sim_test
async def soft_resets(env: Environment):
    """A soft reset ends the program without an error; nothing outside its windows has changed."""
    await env.write("CONTROL", Control.SOFT_RESET)
    await env.become_idle()
    assert await env.read("IRQ_STATUS") == 0, "a soft reset while idle raised an interrupt"
    RESETS.sample(("soft", "idle"))
    for _ in range(env.rounds):
        job, num_cycles = await clean_run(env)
        for third, name in enumerate(THIRDS):
            await run_until(env, job, num_cycles, third)
            await env.write("CONTROL", Control.SOFT_RESET)
            await env.become_idle()
            assert await env.read("ERROR") == Error.NONE, "a soft reset set ERROR"
            await env.wait()
            env.check_unwritable(job)
            RESETS.sample(("soft", name))
        env.pause()
        await env.run(job)


@sim_test
async def hard_resets(env: Environment):
    """NPU and memory are reset together in the middle of bursts."""
    await env.reset()
    RESETS.sample(("hard", "idle"))
    for _ in range(env.rounds):
        job, num_cycles = await clean_run(env)
        for third, name in enumerate(THIRDS):
            await run_until(env, job, num_cycles, third)
            await env.reset()
            env.check_unwritable(job)
            RESETS.sample(("hard", name))
        env.pause()
        await env.run(job)
