"""The page of all fields is that of the models, and every field has its line."""

import pytest
from experiment_modules import EXPERIMENTS, experiment

from mixopt.config import Config, load_config
from mixopt.errors import ConfigError

surface = experiment("checks", "surface")


def test_the_page_is_that_of_the_models():
    page = (EXPERIMENTS.parent / "docs" / "fields.md").read_text(encoding="utf-8")
    assert page == surface.page(), "run: python experiments/checks/surface.py --write"


def test_every_field_of_an_experiment_has_its_line():
    found = [(place, n) for place, _, fields in surface.sections(Config) for n, _ in fields]
    without = [
        (place, name)
        for place, _, fields in surface.sections(Config)
        for name, field in fields
        if not field.get("description")
    ]
    assert without == []
    assert 100 < len(found) <= 116


def test_an_error_says_what_the_page_says_of_the_field(config_path):
    fields = next(fields for place, _, fields in surface.sections(Config) if place == "design")
    line = dict(fields)["replicates"]["description"]
    with pytest.raises(ConfigError) as caught:
        load_config(config_path, ["design.replicates=many"])
    assert str(caught.value).endswith(f"got 'many' ({line})")
