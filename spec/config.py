"""`NpuConfig`: every parameter of a Convoy instance, its presets, and the sizes derived from them."""

from __future__ import annotations

import os
import reprlib
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

__all__ = [
    "ALL_PRESETS",
    "FEATURES",
    "LEAN_PRESETS",
    "MIN_TP_BUFFER_BYTES",
    "PAGE_BYTES",
    "PRESETS",
    "ConfigError",
    "NpuConfig",
    "load_config",
    "value_text",
]


PAGE_BYTES = 4096
"""No burst of AXI4 crosses a multiple of it."""
MIN_TP_BUFFER_BYTES = 1024
"""Of every legal configuration."""
MAX_CONFIG_BYTES = 1 << 16
"""A longer TOML file is refused."""


class ConfigError(ValueError):
    """A parameter of `NpuConfig` is outside its legal range."""


@dataclass(frozen=True)
class NpuConfig:
    """Parameters of one accelerator instance. Frozen, hashable, validated on construction.

    Raises
    ------
    ConfigError
        When a value is illegal; the message names the parameter, the value seen and the legal values.
    """

    num_cores: int = 4
    """Cores; each takes one non-zero weight per cycle. 1, 2, 4, 8 or 16."""
    num_lanes: int = 16
    """Multipliers per core (P), each on one output pixel. 8, 16 or 32. A *word* is `num_lanes` pixels."""
    num_acc_entries: int = 64
    """Lane vectors of accumulators per core and buffer (T*K at most). A power of two, 16..256."""
    port_bits: int = 64
    """Width of the AXI4 data port in bits. 32, 64, 128 or 256."""
    post_lanes: int = 8
    """Outputs that are requantised per cycle. A power of two, 1 .. num_lanes/2."""
    stripe_bytes: int = 65536
    """Input stripe memory, shared by the stripe in use and the one prefetched. A power of two of at least 4096."""
    window_words: int = 64
    """Depth of a core's window memory in words. A power of two, 16..256."""
    weight_fifo_beats: int = 256
    """Depth of a core's weight queue in port beats. A power of two of at least 32."""
    pool_line_bytes: int = 64
    """Line buffer of the fused pool per output channel: a 3x3 pool takes rows of fewer bytes. A power of two,
    16..256. (Maxima of columns are kept: half of it exists.)
    """
    pool_channels: int = 64
    """Output channels with a line buffer: a 3x3 pool over several groups takes superblocks of at most so many. A
    power of two, num_cores..4096.
    """
    tp_lanes: int = 4
    """Elements of two tensors whose sum, product or maximum the tensor processor computes per cycle. 1, 2 or 4."""
    tp_buffer_bytes: int = 16384
    """Local memory of the tensor processor, two halves used alternately. A power of two of at least 1024."""
    max_burst_beats: int = 16
    """Longest AXI burst the NPU issues. A power of two, 1..256."""
    max_reads: int = 8
    """Read bursts in flight at once. 1..32."""
    has_int16: bool = True
    """Activations of int16. Without: the CPU computes those operators."""
    has_residual: bool = True
    """Sums fused behind a convolution. Without: the tensor processor adds."""
    has_fused_pool: bool = True
    """Maximum pools fused behind a convolution. Without: the tensor processor makes them."""
    has_lut: bool = True
    """Lookup tables behind a convolution. Without: the tensor processor looks up."""
    has_descriptor_check: bool = True
    """Descriptors are checked before they start. Without: only the memory windows, the watchdog and TIMEOUT stop a
    program that breaks a rule.
    """
    tp_has_arithmetic: bool = True
    """Sums, products and maxima of two tensors on the tensor processor. Without: the NN engine adds behind a
    convolution, and the CPU does the rest.
    """
    tp_has_pools: bool = True
    """Pools on the tensor processor. Without: the NN engine pools where that is exact, else the CPU."""
    tp_has_resize: bool = True
    """Interpolation on the tensor processor, by its arithmetic. Without: the NN engine interpolates where it can,
    else the CPU.
    """

    def __post_init__(self) -> None:
        def is_pow2(value: int) -> bool:
            return value > 0 and value & (value - 1) == 0

        def check(name: str, legal: bool, remedy: str) -> None:
            if not legal:
                raise ConfigError(f"{name} = {reprlib.repr(getattr(self, name))} is not legal: {remedy}")

        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in FEATURES:
                check(field.name, isinstance(value, bool), "use true or false")
            else:
                check(field.name, isinstance(value, int) and not isinstance(value, bool), "use an integer")
        check("num_cores", self.num_cores in (1, 2, 4, 8, 16), "use 1, 2, 4, 8 or 16")
        check("num_lanes", self.num_lanes in (8, 16, 32), "use 8, 16 or 32")
        check(
            "num_acc_entries",
            is_pow2(self.num_acc_entries) and 16 <= self.num_acc_entries <= 256,
            "use a power of two, 16..256",
        )
        check("port_bits", self.port_bits in (32, 64, 128, 256), "use 32, 64, 128 or 256")
        check(
            "post_lanes",
            is_pow2(self.post_lanes) and self.post_lanes <= self.num_lanes // 2,
            f"use a power of two, 1..{self.num_lanes // 2} (half of num_lanes)",
        )
        check(
            "stripe_bytes",
            is_pow2(self.stripe_bytes) and 4096 <= self.stripe_bytes <= 1 << 20,
            "use a power of two, 4096..1048576",
        )
        check(
            "window_words", is_pow2(self.window_words) and 16 <= self.window_words <= 256, "use a power of two, 16..256"
        )
        check(
            "weight_fifo_beats",
            is_pow2(self.weight_fifo_beats) and 32 <= self.weight_fifo_beats <= 4096,
            "use a power of two, 32..4096",
        )
        check(
            "max_burst_beats",
            self.max_burst_beats <= self.weight_fifo_beats,
            f"use at most weight_fifo_beats ({self.weight_fifo_beats})",
        )
        check(
            "pool_line_bytes",
            is_pow2(self.pool_line_bytes) and 16 <= self.pool_line_bytes <= 256,
            "use a power of two, 16..256",
        )
        check(
            "pool_channels",
            is_pow2(self.pool_channels) and self.num_cores <= self.pool_channels <= 4096,
            f"use a power of two, {self.num_cores} (num_cores) .. 4096",
        )
        check("tp_lanes", self.tp_lanes in (1, 2, 4), "use 1, 2 or 4")
        check(
            "tp_buffer_bytes",
            is_pow2(self.tp_buffer_bytes) and MIN_TP_BUFFER_BYTES <= self.tp_buffer_bytes <= 1 << 16,
            f"use a power of two, {MIN_TP_BUFFER_BYTES}..65536",
        )
        check(
            "max_burst_beats",
            is_pow2(self.max_burst_beats)
            and self.max_burst_beats <= 256
            and self.max_burst_beats * self.port_bytes <= PAGE_BYTES,
            f"use a power of two, 1..256, of at most {PAGE_BYTES} bytes",
        )
        check("max_reads", 1 <= self.max_reads <= 32, "use 1..32")

    # Derived values

    @property
    def port_bytes(self) -> int:
        """Bytes of a port beat."""
        return self.port_bits // 8

    @property
    def stripe_words(self) -> int:
        """Depth of the stripe memory in words of `num_lanes` bytes."""
        return self.stripe_bytes // self.num_lanes

    @property
    def macs_per_cycle(self) -> int:
        """Peak multiply-accumulates per cycle."""
        return self.num_cores * self.num_lanes

    @property
    def residual_lanes(self) -> int:
        """Outputs per cycle to which a fused sum adds its second operand; each takes eight 18 x 18 multipliers."""
        return max(1, self.post_lanes // 4)

    @property
    def pool_lanes(self) -> int:
        """Bytes of outputs per cycle that the fused pool takes: at least two outputs of int16."""
        return max(4, self.post_lanes)

    @property
    def chunk_lanes(self) -> int:
        """Bytes of a chunk that the drain writes: at least the two that the fused pool makes in a cycle."""
        return max(2, self.post_lanes) if self.has_fused_pool else self.post_lanes

    @property
    def pool_max_row_bytes(self) -> int:
        """Bytes of the widest row that a fused 2x2 pool takes: its maxima fill the whole line buffer."""
        return self.pool_channels * self.pool_line_bytes

    @property
    def name(self) -> str:
        """The preset's name, or `custom`."""
        return next((name for name, preset in ALL_PRESETS.items() if preset == self), "custom")

    def absent(self, features: Mapping[str, str]) -> list[str]:
        """Fields of a descriptor that must be 0, as this NPU lacks what they need; `features` by field."""
        return [name for name, feature in features.items() if not getattr(self, feature)]

    def to_dict(self) -> dict[str, int]:
        """All parameters by name."""
        return asdict(self)

    def to_toml(self) -> str:
        """The TOML file of all parameters, a line each."""
        return "".join(f"{name} = {value_text(value)}\n" for name, value in self.to_dict().items())

    def with_(self, **changes: Any) -> NpuConfig:
        """A copy with some parameters changed, validated again."""
        return replace(self, **changes)


FEATURES = tuple(field.name for field in fields(NpuConfig) if isinstance(field.default, bool))
"""Parameters that are true or false: units that an instance may lack."""
PRESETS: dict[str, NpuConfig] = {
    "S": NpuConfig(num_cores=1, post_lanes=2),
    "D": NpuConfig(num_cores=2, post_lanes=4),
    "Q": NpuConfig(num_cores=4, post_lanes=8),
    "O": NpuConfig(num_cores=8, post_lanes=8),
    "X": NpuConfig(num_cores=16, post_lanes=8),
}
"""The presets of the family: single, dual, quad (the default), octa, sixteen (X)."""


LEAN_PRESETS: dict[str, NpuConfig] = {
    f"{name}L": preset.with_(
        post_lanes=preset.post_lanes // 2,
        window_words=32,
        pool_channels=32,
        tp_lanes=1,
        tp_buffer_bytes=8192,
        weight_fifo_beats=128,
        has_int16=False,
    )
    for name, preset in PRESETS.items()
}
"""The same sizes with less in them: SL, DL, QL, OL, XL (docs/lean.md says what that costs)."""


ALL_PRESETS = PRESETS | LEAN_PRESETS
"""By name, as `load_config` takes them."""


def value_text(value: object) -> str:
    """A value as TOML and the command line have it: `true` for True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def load_config(text: str) -> NpuConfig:
    """A preset by its name, or a TOML file of `NpuConfig` parameters (those left out keep their defaults).

    Raises
    ------
    ConfigError
        When there is no such preset or file, or the file holds an unknown parameter or an illegal value.
    """
    if text in ALL_PRESETS:
        return ALL_PRESETS[text]
    label = f"config {text or repr(text)}"
    try:
        with open(text, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            raw = (file.read(MAX_CONFIG_BYTES + 1) if is_file else None) or b""
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        is_file = False
    except (OSError, ValueError) as error:
        raise ConfigError(f"{label} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not is_file:
        raise ConfigError(f"{label} is neither a preset ({', '.join(ALL_PRESETS)}) nor a TOML file")
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{label}: more than {MAX_CONFIG_BYTES:,} bytes; a configuration is a few lines")
    try:
        values = tomllib.loads(raw.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{label}: not valid TOML: {error}") from None
    except ValueError:
        raise ConfigError(f"{label}: a number of too many digits") from None
    except RecursionError:
        raise ConfigError(f"{label}: nested too deeply; a configuration is a list of parameters") from None
    known = {field.name for field in fields(NpuConfig)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(
            f"{label}: unknown parameter {reprlib.repr(unknown[0])}; known are {', '.join(sorted(known))}"
        )
    try:
        return NpuConfig(**values)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from None
