"""The emitted Verilog, written as Verilator likes it."""

from __future__ import annotations

import re
from collections import Counter

__all__ = ["drop_zeros", "fold_registers", "narrow", "repeat_bits", "rewritten"]

_NEXT = r"\\\$\d+ "
_PROCESS = re.compile(r"^  always(?: @\*|_comb) begin\n((?:    .*\n)*?)  end\n", re.MULTILINE)
_ASSIGNMENT = re.compile(r"^( *)(\\\S+ |\w+ )( ?\[[^\]]*\])? *= ", re.MULTILINE)
_REGISTER = re.compile(rf"^  always @\(posedge (\w+)\)\n    (\\\S+ |\w+) *<= ({_NEXT});\n", re.MULTILINE)
_TRIGGER = re.compile(r"^    if \(\\\$auto\S+ \) begin end\n", re.MULTILINE)
_REPEATED = re.compile(r"(?P<bit>(?:\\\S+ |\w+)\[\d+\])(?:, (?P=bit)){2,}")

_NAME = r"(?:\\\S+ |[A-Za-z_]\w*)"
_OPERAND = rf"(?:{_NAME}(?:\[[\d:]+\])?|\{{[^{{}}]*\}}|\d+'h[0-9a-f]+)"
_OPERAND = rf"(?:\$signed\({_OPERAND} ?\)|{_OPERAND})"
_ARITHMETIC = re.compile(rf"^  assign ({_NEXT}) = {_OPERAND} ?(?:[-+*]|<<) ?{_OPERAND} ?;\n", re.MULTILINE)
_ZEROS = re.compile(r"^  initial begin\n(?:    \w+\[\d+\] = \d+'h0+;\n)*  end\n", re.MULTILINE)


def rewritten(verilog: str) -> str:
    """The same design with all of these."""
    return repeat_bits(narrow(fold_registers(drop_zeros(verilog))))


def drop_zeros(verilog: str) -> str:
    """The same design without initial values of memories that are all 0, which Verilator's are anyway."""
    return _ZEROS.sub("", verilog)


def narrow(verilog: str) -> str:
    """The same design with sums, differences, products and left shifts only as wide as they are used.

    Amaranth's are as wide as their values may be; one bit more than a word of the simulator costs several times as
    much.
    """
    return "".join(_narrow_module(module) for module in re.split(r"^(?=module )", verilog, flags=re.MULTILINE))


def _narrow_module(module: str) -> str:
    results = set(_ARITHMETIC.findall(module))
    num_uses = Counter(re.findall(_NEXT, module))
    num_parts: Counter[str] = Counter()
    width: dict[str, int] = {}
    for name, highest in re.findall(rf"({_NEXT})\[(\d+):0\]", module):
        num_parts[name] += 1
        width[name] = max(width.get(name, 0), int(highest))

    def declare(wire: re.Match[str]) -> str:
        name, highest = wire[2], int(wire[1])
        # Elsewhere it is declared and assigned, no more
        if name not in results or num_uses[name] != num_parts[name] + 2 or width.get(name, highest) >= highest:
            return wire[0]
        return f"  wire [{width[name]}:0] {name};\n"

    return re.sub(rf"^  wire \[(\d+):0\] ({_NEXT});\n", declare, module, flags=re.MULTILINE)


def repeat_bits(verilog: str) -> str:
    """The same design with bits that follow one another in a concatenation written as a repetition: `{ a[7], a[7],
    a[7], a }` as `{ {3{a[7]}}, a }`.

    So Yosys extends the sign of a value, and Verilator then moves each bit by itself.
    """
    return _REPEATED.sub(lambda match: f"{{{match[0].count(',') + 1}{{{match['bit']}}}}}", verilog)


def fold_registers(verilog: str) -> str:
    """The same design with the combinational process of a register's next value moved into the register's clocked
    process.

    Yosys writes a register as `always @(posedge clk) q <= d;` and a process that starts with `d = q;` and overwrites
    `d` under conditions. Verilator then evaluates the process after each edge and keeps `d` until the next one, which
    doubles the state and writes all of it in every cycle. As `always @(posedge clk) begin if (condition) q <= value;
    end` a register that does not change costs only its condition, and one whose clock stands still costs nothing.
    Registers whose `d` is read elsewhere are left alone.
    """
    return "".join(_fold_module(module) for module in re.split(r"^(?=module )", verilog, flags=re.MULTILINE))


def _fold_module(module: str) -> str:
    registers = {following: (clock, register) for clock, register, following in _REGISTER.findall(module)}
    num_uses = Counter(re.findall(_NEXT, module))
    folded = set()

    def fold(process: re.Match[str]) -> str:
        body = _TRIGGER.sub("", process[1])
        targets = [assignment[2] for assignment in _ASSIGNMENT.finditer(body)]
        following = targets[0] if targets else ""
        # Elsewhere it is declared and handed to the register, no more
        if following not in registers or set(targets) != {following} or num_uses[following] != len(targets) + 2:
            return process[0]
        clock, register = registers[following]
        folded.add(following)
        body = _ASSIGNMENT.sub(lambda a: f"{a[1]}{register}{a[3] or ''} <= ", body)
        body = body.replace(f"    {register} <= {register};\n", "", 1)
        return f"  always @(posedge {clock}) begin\n{body}  end\n"

    module = _PROCESS.sub(fold, module)
    module = _REGISTER.sub(lambda match: "" if match[3] in folded else match[0], module)
    return re.sub(
        rf"^  reg (?:\[\d+:0\] )?({_NEXT});\n",
        lambda match: "" if match[1] in folded else match[0],
        module,
        flags=re.MULTILINE,
    )
