"""Random programs that keep all rules: memory as the golden machine leaves it."""

from __future__ import annotations

from convoy.verif.sim.coverage import required_bins
from convoy.verif.sim.environment import Environment, sim_test
from convoy.verif.sim.networks import KINDS
from convoy.verif.sim.programs import random_job


def deck(env: Environment) -> list[str]:
    """Every kind of network once, shuffled."""
    return env.rng.sample(list(KINDS), len(KINDS))


@sim_test
async def single_networks(env: Environment):
    """One network at a time, each kind once a round, random back-pressure."""
    for _ in range(env.rounds):
        for number, kind in enumerate(deck(env)):
            env.pause()
            await env.run(random_job(env.rng, env.config, [kind]), is_polled=number % 3 == 0)
    missing = required_bins("nn") | {"job.engines: NN"}
    await env.hit_required(lambda: random_job(env.rng, env.config, [env.rng.choice(list(KINDS))]), missing)


@sim_test
async def tensor_processor(env: Environment):
    """Random blocks of the tensor processor alone."""
    for _ in range(env.rounds):
        for num_blocks in (1, 8, 20):
            env.pause()
            await env.run(random_job(env.rng, env.config, [], num_blocks), is_polled=env.rng.random() < 0.3)
    await env.hit_required(lambda: random_job(env.rng, env.config, [], 20), required_bins("tp"))


@sim_test
async def mixed_programs(env: Environment):
    """Several networks and blocks in one program, their descriptors mixed, on both engines at once."""
    for _ in range(env.rounds):
        kinds = deck(env)
        for number, (num_kinds, num_blocks) in enumerate(
            ((1, 1), (2, 1), (3, env.rng.randint(1, 6)), (env.rng.randint(0, 3), 6))
        ):
            env.pause({} if number == 0 else None)
            await env.run(
                random_job(env.rng, env.config, kinds[3 * number : 3 * number + num_kinds], num_blocks),
                is_polled=env.rng.random() < 0.3,
            )


@sim_test
async def same_program_again(env: Environment):
    """A program run several times, each with other back-pressure: the same result."""
    for _ in range(env.rounds):
        job = random_job(env.rng, env.config, deck(env)[:2], 2)
        for _ in range(3):
            env.pause()
            await env.run(job)
