"""Every family of transformers that has experts: counts are the ids that reach its experts."""

import pytest
from experiment_modules import experiment

from mixopt.routing import FAMILIES

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
reached_experts = experiment("checks", "reached_experts")
counted = reached_experts.counted

# transformers cannot compute their layers again in the backward pass.
NOT_CHECKPOINTED = {"jetmoe", "diffusion_gemma_text"}


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_the_ids_that_reach_the_experts_and_probabilities_the_routers_own(family):
    total, reached = counted(family)
    assert len(total.layers) == len(reached) > 0
    assert reached_experts.wrong_counts(total, reached) == 0
    wrong = reached_experts.wrong_probability(total, reached)
    if family == "phimoe":  # its limits say so
        assert wrong > 1e-3
    else:
        assert wrong < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_are_computed_again_are_counted_once(family):
    if family in NOT_CHECKPOINTED:
        with pytest.raises(ValueError, match="checkpointing"):
            counted(family, checkpointed=True)
        return
    assert reached_experts.wrong_counts(*counted(family, checkpointed=True)) == 0
