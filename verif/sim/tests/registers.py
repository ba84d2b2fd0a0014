"""The registers, as `spec.csr.REGISTERS` defines them."""

from __future__ import annotations

from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp

from convoy.spec.config import NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS, ID, REGISTERS, Control, Status, WindowControl, config_values
from convoy.verif.sim.coverage import ACCESSES
from convoy.verif.sim.environment import Environment, sim_test
from convoy.verif.sim.networks import KINDS
from convoy.verif.sim.programs import random_job

NAMES = {register.addr: register for register in REGISTERS.values()}
NUM_ACCESSES = 80
"""Random ones, after one read and one write of each register."""


def reset_values(config: NpuConfig) -> dict[str, int]:
    """What each register reads after a reset."""
    return dict.fromkeys(REGISTERS, 0) | {"ID": ID} | config_values(config)


async def check_values(env: Environment, values: dict[str, int]) -> None:
    """Every register reads as it should, in random order."""
    for name in env.rng.sample(sorted(REGISTERS), len(REGISTERS)):
        found = await env.read(name)
        assert found == values[name], f"{name} is {found:#x}, not {values[name]:#x}"
        ACCESSES.sample(
            {"name": name, "kind": REGISTERS[name].access, "direction": "read", "strobes": "read", "kept": "no"}
        )


async def write_bytes(env: Environment, addr: int, value: int, first: int, count: int) -> AxiResp:
    """Write some bytes of a register: strobes `first` .. `first + count - 1`."""
    response = await env.csrs.write(addr + first, value.to_bytes(4, "little")[first : first + count])
    return response.resp


def written(old: int, value: int, first: int, count: int) -> int:
    """A register after some of its bytes were written."""
    mask = ((1 << 8 * count) - 1) << 8 * first
    return old & ~mask | value & mask


@sim_test
async def registers_after_reset(env: Environment):
    """Reset values, also after the registers were written and reset again."""
    values = reset_values(env.config)
    await check_values(env, values)
    for name, register in REGISTERS.items():
        if register.access == "rw":
            await env.write(name, env.rng.getrandbits(32))
    await env.reset()
    await check_values(env, values)
    await env.write("IRQ_ENABLE", 1)
    await ClockCycles(env.dut.clk, 5)
    assert not int(env.dut.irq.value), "interrupt without a program"


@sim_test
async def registers_random(env: Environment):
    """Random reads and writes of all registers and of addresses without one, any strobes, any order of AW and W,
    locks included.
    """
    values = reset_values(env.config)
    for _ in range(env.rounds):
        env.pause()
        unmapped = [addr for addr in range(0, 1 << CSR_ADDR_BITS, 4) if addr not in NAMES]
        each_once = [(addr, is_read) for addr in (*NAMES, env.rng.choice(unmapped)) for is_read in (False, True)]
        others = [
            (env.rng.choice([*NAMES, *env.rng.sample(unmapped, 3)]), env.rng.random() < 0.5)
            for _ in range(NUM_ACCESSES)
        ]
        for addr, is_read in (*env.rng.sample(each_once, len(each_once)), *others):
            register = NAMES.get(addr)
            name, kind = (register.name, register.access) if register else ("unmapped", "unmapped")
            expected_resp = AxiResp.OKAY if register else AxiResp.SLVERR
            if is_read:
                answer = await env.csrs.read(addr, 4)
                assert answer.resp == expected_resp, f"read of {name} at {addr:#x}: response {answer.resp!r}"
                found = int.from_bytes(answer.data, "little")
                assert register is None or found == values[name], f"{name} is {found:#x}, not {values[name]:#x}"
                ACCESSES.sample({"name": name, "kind": kind, "direction": "read", "strobes": "read", "kept": "no"})
                continue
            value, first = env.rng.getrandbits(32), env.rng.randrange(4)
            first, count = env.rng.choice([(0, 4), (first, env.rng.randint(1, 4 - first))])
            if name == "CONTROL":
                value &= ~(Control.DOORBELL | Control.SOFT_RESET)
            if register and register.locked_by == name and env.rng.random() < 0.8:
                value &= ~WindowControl.LOCK
            resp = await write_bytes(env, addr, value, first, count)
            assert resp == expected_resp, f"write of {name} at {addr:#x}: response {resp!r}"
            is_locked = bool(register and register.locked_by and values[register.locked_by] & WindowControl.LOCK)
            if kind == "rw" and not is_locked:
                values[name] = written(values[name], value, first, count)
            ACCESSES.sample(
                {
                    "name": name,
                    "kind": kind,
                    "direction": "write",
                    "strobes": "all" if count == 4 else "some",
                    "kept": "locked" if is_locked else "no",
                }
            )
        await check_values(env, values)


@sim_test
async def registers_locked(env: Environment):
    """A locked window keeps its registers; only the reset unlocks, a soft reset does not."""
    locks = sorted({register.locked_by for register in REGISTERS.values() if register.locked_by})
    for lock in env.rng.sample(locks, len(locks)):
        env.pause()
        kept = {name: env.rng.getrandbits(32) for name, register in REGISTERS.items() if register.locked_by == lock}
        kept[lock] |= WindowControl.LOCK
        for name, value in sorted(kept.items(), key=lambda item: item[0] == lock):
            await env.write(name, value)
        await env.write("CONTROL", Control.SOFT_RESET)
        await env.become_idle()
        for name, value in kept.items():
            await env.write(name, ~value & 0xFFFFFFFF)
            found = await env.read(name)
            assert found == value, f"{name} is {found:#x} though {lock} locks it, not {value:#x}"
            ACCESSES.sample({"name": name, "kind": "rw", "direction": "write", "strobes": "all", "kept": "locked"})
    await env.reset()
    await check_values(env, reset_values(env.config))


@sim_test
async def registers_while_busy(env: Environment):
    """Registers that are held keep their values while a program runs, all others take new ones; a doorbell is
    ignored. The program is not disturbed.
    """
    for _ in range(env.rounds):
        job = random_job(env.rng, env.config, env.rng.sample(list(KINDS), 2), window_mode="tight")
        env.pause()
        await env.start_job(job)
        names = [name for name, register in REGISTERS.items() if register.is_held] + ["WATCHDOG", "TIMEOUT"]
        num_held = 0
        for name in env.rng.sample(names, 6):
            before, value = await env.read(name), env.rng.getrandbits(32) | 1 << 31
            await env.write(name, value)
            after = await env.read(name)
            if not await env.read("STATUS") & Status.BUSY:
                break
            expected = before if REGISTERS[name].is_held else value
            assert after == expected, f"{name} is {after:#x} while a program runs, not {expected:#x}"
            num_held += REGISTERS[name].is_held
            ACCESSES.sample(
                {
                    "name": name,
                    "kind": "rw",
                    "direction": "write",
                    "strobes": "all",
                    "kept": "held" if REGISTERS[name].is_held else "no",
                }
            )
            await env.write("CONTROL", Control.DOORBELL)
        await env.wait()
        assert num_held, "the program ended before a register that is held was written"
        await env.become_idle()
        env.pause({})
        await env.check(job)
        await env.write("WATCHDOG", 0)
        await env.write("TIMEOUT", 0)
