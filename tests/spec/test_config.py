"""`NpuConfig`: what it accepts, and what it says about what it refuses."""

import pytest

from convoy.spec.config import FEATURES, PRESETS, ConfigError, NpuConfig, load_config


@pytest.mark.parametrize(("name", "num_cores"), [("S", 1), ("D", 2), ("Q", 4), ("O", 8), ("X", 16)])
def test_presets_scale_cores(name, num_cores):
    config = load_config(name)
    assert config.num_cores == num_cores
    assert config.macs_per_cycle == 16 * num_cores
    assert config.name == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_cores": 3}, "num_cores = 3 is not legal: use 1, 2, 4, 8 or 16"),
        ({"num_lanes": 12}, "num_lanes = 12 is not legal"),
        ({"post_lanes": 16}, "post_lanes = 16 is not legal: use a power of two, 1..8"),
        ({"port_bits": 48}, "port_bits = 48 is not legal"),
        ({"max_burst_beats": 64, "weight_fifo_beats": 32}, r"use at most weight_fifo_beats \(32\)"),
        ({"stripe_bytes": True}, "stripe_bytes = True is not legal: use an integer"),
        ({"has_int16": 1}, "has_int16 = 1 is not legal: use true or false"),
    ],
)
def test_illegal_values_are_named_with_the_remedy(change, message):
    with pytest.raises(ConfigError, match=message):
        NpuConfig(**change)


def test_toml_file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text("num_cores = 2\nport_bits = 128\n")
    assert load_config(str(path)) == PRESETS["Q"].with_(num_cores=2, port_bits=128)
    path.write_text("cores = 2\n")
    with pytest.raises(ConfigError, match="unknown parameter 'cores'"):
        load_config(str(path))
    lean = PRESETS["Q"].with_(**dict.fromkeys(FEATURES, False))
    path.write_text(lean.to_toml())
    assert load_config(str(path)) == lean != PRESETS["Q"]
    path.write_text("num_cores = = 2\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(str(path))
    with pytest.raises(ConfigError, match="neither a preset"):
        load_config("Z")
