"""What a command line says is read, or refused with the form that it should have."""

import pytest

from mixopt.cli.options import directions, risk_of, scale_name, unit_name
from mixopt.errors import ConfigError


def test_directions_are_read_by_target():
    assert directions(["a=b=higher", "loss=lower"]) == {"a=b": "higher", "loss": "lower"}
    for wrong in ("higher", "=higher", "a=up", "a="):
        with pytest.raises(ConfigError, match=f"--direction {wrong}: expected TARGET=higher"):
            directions([wrong])


def test_a_risk_is_deviations_or_a_quantile():
    assert risk_of(None) is None
    assert (risk_of("std=1.5").std, risk_of("quantile=0.9").quantile) == (1.5, 0.9)
    for wrong in ("std", "std=x", "mean=1", "std=-1", "quantile=0.4"):
        with pytest.raises(ConfigError, match=f"--risk {wrong}: expected std=K"):
            risk_of(wrong)


def test_names_of_scales_and_units_are_known():
    assert (scale_name("spread"), scale_name("none")) == ("spread", "none")
    assert (unit_name("bits_per_byte"), unit_name(None)) == ("bits_per_byte", None)
    with pytest.raises(ConfigError, match="--scale spred: unknown; did you mean 'spread'"):
        scale_name("spred")
    with pytest.raises(ConfigError, match="--unit bits: unknown"):
        unit_name("bits")
