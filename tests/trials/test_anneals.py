"""Microanneals as a design: mixtures, seeds, and sources that have too few tokens."""

import pytest
from refusals import refuses

from mixopt.config import AnnealsConfig, ConstraintsConfig, DesignConfig
from mixopt.constraints import Constraints
from mixopt.errors import DesignError, InfeasibleError
from mixopt.mixture import Mixture
from mixopt.trials import anneal_mixtures, make_design

INVENTORY = {"web": 600, "books": 200, "code": 150, "maths": 50}
NATURAL = Mixture.natural(INVENTORY)


def config_of(**changes):
    fields = {"sources": ["code", "maths"], "share": 0.4, "seeds": 2} | changes
    return DesignConfig(method="anneals", anneals=AnnealsConfig(**fields))


def by_name(config, constraints=None):
    return {trial.name: trial for trial in make_design(config, NATURAL, constraints, 7)}


def test_an_anneal_is_its_source_and_the_control_the_natural_mixture_of_the_others():
    found = by_name(config_of())
    control, anneal = found["control-s0"].mixture, found["anneal_code-s0"].mixture
    assert dict(control) == pytest.approx({"web": 0.75, "books": 0.25, "code": 0, "maths": 0})
    assert dict(anneal) == pytest.approx({"web": 0.45, "books": 0.15, "code": 0.4, "maths": 0})
    first = {trial.seed for name, trial in found.items() if name.endswith("-s0")}
    second = {trial.seed for name, trial in found.items() if name.endswith("-s1")}
    assert len(first) == len(second) == 1, "trials of one repetition share a seed"
    assert first != second


def test_a_base_domain_without_tokens_enough_and_a_source_twice_or_in_the_base_are_refused():
    limits = Constraints.from_config(ConstraintsConfig(max_epochs=3), INVENTORY, 1000)
    config = config_of(sources=["code"], base={"maths": 0.5, "web": 0.5})
    said = "base domain 'maths': a weight of 0.5 of 1k tokens needs 10 epochs of its 50 tokens"
    refuses(InfeasibleError, said, by_name, config, limits)
    empty = Mixture({"web": 0.0, "books": 0.0, "code": 0.5, "maths": 0.5})
    refuses(DesignError, "have no tokens", dict, anneal_mixtures(config_of().anneals, empty))
    with pytest.raises(ValueError, match="'code' is given twice"):
        config_of(sources=["code", "code"])
    with pytest.raises(ValueError, match="'code' is a source and has a weight of 0.5"):
        config_of(base={"web": 0.5, "code": 0.5})


def test_the_first_of_several_rounds_is_the_anneals():
    config = AnnealsConfig(sources=["code"])
    found = DesignConfig(method="anneals", anneals=config, rounds=[2, 6])
    assert (found.planned_rounds, found.first_trials) == ((2, 6), 6)
