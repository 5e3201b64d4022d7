"""The page of all fields is that of the models, and every field has its line."""

import pytest
from places import EXPERIMENTS, experiment

from mixopt.config import Config, load_config
from mixopt.errors import ConfigError
from mixopt.pretraining import PretrainConfig

surface = experiment("checks", "surface")


def test_the_page_is_that_of_the_models():
    page = (EXPERIMENTS.parent / "docs" / "fields.md").read_text(encoding="utf-8")
    assert page == surface.page(), "run: python experiments/checks/surface.py --write"


@pytest.mark.parametrize(("model", "most"), [(Config, 110), (PretrainConfig, 70)])
def test_every_field_of_an_experiment_and_a_pretraining_has_its_line(model, most):
    found = [(p, name, field) for p, _, fields in surface.sections(model) for name, field in fields]
    assert [(p, name) for p, name, field in found if not field.get("description")] == []
    assert 50 < len(found) <= most


def test_an_error_says_what_the_page_says_of_the_field(config_path):
    fields = next(fields for place, _, fields in surface.sections(Config) if place == "design")
    line = dict(fields)["replicates"]["description"]
    with pytest.raises(ConfigError) as caught:
        load_config(config_path, ["design.replicates=many"])
    assert str(caught.value).endswith(f"got 'many' ({line})")
