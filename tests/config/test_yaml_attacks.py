"""YAML that was made to do harm is one line, wherever an experiment's values come in."""

import os

import pytest

from mixopt import Mixture
from mixopt.config import load_config, read_constraints, read_inventory
from mixopt.errors import ConfigError, MixtureError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
ATTACKS = {
    "bomb": (BOMB, "more than 100000 values, aliases counted"),
    "circle": ("a: &a [*a]\n", r"'\*a' is used inside the section that it names"),
    "nest": ("a: " + "[" * 20_000 + "]" * 20_000, "more than 64 nested sections"),
    "key": ("? [a]\n: 1\n", "a key must be plain text"),
    "object": ("a: !!python/object:os.system {}\n", "could not determine a constructor"),
}
READERS = {
    "experiment": (load_config, ConfigError),
    "constraints": (read_constraints, ConfigError),
    "inventory": (lambda path: read_inventory(path, ["web"]), ConfigError),
    "mixture": (Mixture.from_file, MixtureError),
}


@pytest.mark.parametrize(
    ("reader", "attack"), list(zip([*READERS, "mixture"], ATTACKS, strict=True))
)
def test_yaml_that_was_made_to_do_harm_is_one_line(reader, attack, tmp_path):
    path = tmp_path / "a.yaml"
    text, message = ATTACKS[attack]
    path.write_text(text)
    read, error = READERS[reader]
    with pytest.raises(error, match=message) as found:
        read(path)
    assert str(found.value).startswith(str(path))
    assert "\n" not in str(found.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read: it is not a file"):
        load_config(tmp_path / "a.yaml")


def test_an_override_is_measured_too(config_path):
    text, message = ATTACKS["nest"]
    with pytest.raises(ConfigError, match=message) as found:
        load_config(config_path, [f"proxy.options={text.removeprefix('a: ')}"])
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400


def test_a_name_in_a_mixture_holds_to_the_rule(tmp_path):
    (tmp_path / "a.yaml").write_text('"web\\nx": 1.0\n')
    with pytest.raises(MixtureError, match=r"domain 'web\\nx': a name has no control characters"):
        Mixture.from_file(tmp_path / "a.yaml")


def test_an_unknown_field_of_two_lines_is_said_in_one(config_path):
    with pytest.raises(ConfigError, match=r"design\.'a\\nb': unknown field") as found:
        load_config(config_path, ['design={"a\\nb": 1}'])
    assert "\n" not in str(found.value)
