"""What goes wrong is reported by its code, stops the program, stays inside the windows, and leaves no trace in the
next program.
"""

from __future__ import annotations

from dataclasses import replace

from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp

from convoy.spec.csr import WINDOW_ALIGN_BYTES, Error, Status
from convoy.spec.isa import DESCRIPTOR_BYTES, NN, TP, Opcode
from convoy.verif.descriptors import smallest_nn
from convoy.verif.sim.environment import Environment, sim_test
from convoy.verif.sim.networks import KINDS
from convoy.verif.sim.programs import Job, decode, random_job

WATCHDOG_CYCLES = 1500
"""More than any stretch of back-pressure, and than the programs here compute without a movement on the bus."""


async def clean_run(env: Environment, kinds: int = 1, num_blocks: int = 2) -> tuple[Job, list[tuple[bool, int, int]]]:
    """A random program, run once, and its bursts."""
    job = random_job(env.rng, env.config, env.rng.sample(list(KINDS), kinds), num_blocks, window_mode="tight")
    env.pause()
    await env.run(job)
    return job, env.monitor.bursts


@sim_test
async def bus_errors(env: Environment):
    """SLVERR and DECERR, on a read and on a write."""
    for _ in range(env.rounds):
        job, bursts = await clean_run(env)
        for resp in (AxiResp.SLVERR, AxiResp.DECERR):
            for is_write, code in ((False, Error.BUS_READ), (True, Error.BUS_WRITE)):
                addr, num_bytes = env.rng.choice(_only(bursts, is_write))
                env.inject_fault(addr + env.rng.randrange(0, num_bytes, env.config.port_bytes), resp)
                await env.start_job(job)
                await env.wait()
                found = await env.expect_error(code, resp=resp.name)
                assert abs(found - addr) < env.config.max_burst_beats * env.config.port_bytes, (
                    f"ERROR_ADDR = {found:#x}, the fault is in the burst at {addr:#x}"
                )
                env.check_unwritable(job)
                env.inject_fault(None)
        env.pause()
        await env.run(job)


def _only(bursts: list[tuple[bool, int, int]], is_write: bool) -> list[tuple[int, int]]:
    """Address and bytes of the bursts of one direction that share no byte with one of the other."""
    mine, others = ([burst[1:] for burst in bursts if burst[0] == of] for of in (is_write, not is_write))
    return [
        (addr, num)
        for addr, num in mine
        if not any(addr < other + others_num and other < addr + num for other, others_num in others)
    ]


@sim_test
async def access_errors(env: Environment):
    """A window closed to reads or to writes, or smaller by the unit that the program uses first or last: the burst
    never leaves.
    """
    for _ in range(env.rounds):
        job, bursts = await clean_run(env)
        reads, writes = (
            sorted({_window_of(job, addr, is_write) for of, addr, _ in bursts if of == is_write})
            for is_write in (False, True)
        )
        either = sorted({*reads, *writes})
        for numbers, change, codes in (
            (reads, lambda window, _: replace(window, is_readable=False), (Error.ACCESS_READ,)),
            (writes, lambda window, _: replace(window, is_writable=False), (Error.ACCESS_WRITE,)),
            (
                either,
                lambda window, used: replace(window, base=_unit(used.start) + WINDOW_ALIGN_BYTES),
                (Error.ACCESS_READ, Error.ACCESS_WRITE),
            ),
            (
                either,
                lambda window, used: replace(window, limit=_unit(used.stop - 1)),
                (Error.ACCESS_READ, Error.ACCESS_WRITE),
            ),
        ):
            number = env.rng.choice(numbers)
            inside = [
                (addr, num_bytes) for is_write, addr, num_bytes in bursts if _window_of(job, addr, is_write) == number
            ]
            used = range(min(addr for addr, _ in inside), max(addr + num_bytes for addr, num_bytes in inside))
            hurt = replace(
                job, windows=(*job.windows[:number], change(job.windows[number], used), *job.windows[number + 1 :])
            )
            await env.start_job(hurt)
            await env.wait()
            found = await env.expect_error(*codes)
            assert job.windows[number].base <= found < job.windows[number].limit, (
                f"ERROR_ADDR = {found:#x} is not in the window that was changed"
            )
            env.check_unwritable(hurt)
        env.pause()
        await env.run(job)


def _window_of(job: Job, addr: int, is_write: bool) -> int:
    """The number of the window that allows an access."""
    return next(
        number
        for number, window in enumerate(job.windows)
        if window.base <= addr < window.limit and (window.is_writable if is_write else window.is_readable)
    )


def _unit(addr: int) -> int:
    return addr // WINDOW_ALIGN_BYTES * WINDOW_ALIGN_BYTES


@sim_test
async def bad_descriptors(env: Environment):
    """An opcode, a field and a fused pool that are against the rules: what is before them completes, what is behind
    them is not started.
    """
    for _ in range(env.rounds):
        job, _ = await clean_run(env, 1, 4)
        for code in (Error.OPCODE, Error.MALFORMED, Error.POOL):
            index = env.rng.randrange(len(job.descriptors))
            spoilt = job.spoilt(env.config, index, _bad_descriptor(env, job.descriptors[index], code))
            env.pause()
            await env.start_job(spoilt)
            await env.wait()
            found = await env.expect_error(code)
            expected = job.program_addr + index * DESCRIPTOR_BYTES
            assert found == expected, f"ERROR_ADDR = {found:#x}, the descriptor is at {expected:#x}"
            await env.check(spoilt, index)
        await env.run(job)


def _bad_descriptor(env: Environment, raw: bytes, code: Error) -> bytes:
    if code == Error.OPCODE:
        return bytes([env.rng.choice([opcode for opcode in range(256) if opcode not in set(Opcode)])]) + raw[1:]
    if code == Error.POOL:
        return smallest_nn(pool_size=1)
    fields = decode(raw)
    if fields["opcode"] == Opcode.NN:
        return NN.encode(**fields | {env.rng.choice(["num_ic", "num_taps", "num_kernels", "num_slots"]): 0})
    return TP.encode(**fields | {env.rng.choice(["num_0", "num_1", "num_2", "a_run_bytes", "out_run_bytes"]): 0})


@sim_test
async def bad_counts(env: Environment):
    """A number of descriptors that is not legal: nothing is written."""
    job, _ = await clean_run(env)
    for count in (0, 1 << 16, env.rng.getrandbits(15) << 17 | 1 << 16 | 1):
        await env.start_job(job, count=count)
        await env.wait()
        assert await env.expect_error(Error.MALFORMED) == job.program_addr, "ERROR_ADDR is not PROGRAM_BASE"
        assert not [burst for burst in env.monitor.bursts if burst[0]], (
            f"PROGRAM_COUNT = {count}, and something was written"
        )
        env.compare(job.before, [])
    await env.run(job)


@sim_test
async def watchdog(env: Environment):
    """The memory does not answer a burst: the watchdog, and when it answers after all, the NPU works again."""
    for _ in range(env.rounds):
        job, bursts = await clean_run(env)
        _, addr, _ = env.rng.choice([burst for burst in bursts if not burst[0]])
        env.pause({})
        await env.write("WATCHDOG", WATCHDOG_CYCLES)
        env.inject_fault(addr, None)
        await env.start_job(job)
        await env.wait()
        assert await env.read("STATUS") & Status.STOPPING, "bursts are under way, and STATUS does not show STOPPING"
        await ClockCycles(env.dut.clk, env.rng.randrange(100))
        env.inject_fault(None)
        found = await env.expect_error(Error.WATCHDOG)
        assert found <= addr < found + env.config.max_burst_beats * env.config.port_bytes, (
            f"ERROR_ADDR = {found:#x}, the burst is at {addr:#x}"
        )
        env.check_unwritable(job)
        await env.run(job)
        await env.write("WATCHDOG", 0)


@sim_test
async def timeout(env: Environment):
    """A program that takes longer than it may."""
    for _ in range(env.rounds):
        job, _ = await clean_run(env, 2, 2)
        num_cycles = await env.read("CYCLES")
        await env.write("TIMEOUT", env.rng.randrange(1, max(2, num_cycles // 2)))
        await env.start_job(job)
        await env.wait()
        assert await env.expect_error(Error.TIMEOUT) == 0, "ERROR_ADDR is not 0 with TIMEOUT"
        env.check_unwritable(job)
        await env.write("TIMEOUT", 0)
        env.pause()
        await env.run(job)
