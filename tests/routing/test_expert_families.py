"""Every family of transformers that has experts: counts are the ids that reach its experts.

One family of each shape runs by default, all of them nightly.
"""

import inspect
import re
from pathlib import Path

import pytest
from reached_experts import counted, wrong_counts
from tiny_experts import FAMILIES, NOT_RECOMPUTED, tiny_experts

from mixopt.errors import RoutingError
from mixopt.routing import coefficient_of

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
SHAPES = {
    *("mixtral", "gpt_oss", "gemma4_text", "doge", "jetmoe", "llama4_text", "longcat_flash"),
    *("switch_transformers", "zaya"),
}
BY_SHAPE = [
    family if family in SHAPES else pytest.param(family, marks=pytest.mark.nightly)
    for family in FAMILIES
]
# Configurations of families that cannot be counted, or whose experts are of images.
NOT_COUNTED = {"dots3_note_vision_encoder", "inkling2_loop_text", "nllb-moe", "vitpose_backbone"}
# What some families multiply their auxiliary loss by, and the path in the configuration.
COEFFICIENTS = {"jetmoe": ("aux_loss_coef", 0.01), "llama4_text": ("", None)}


@pytest.mark.parametrize("family", BY_SHAPE)
def test_counts_are_the_ids_that_reach_the_experts_once_though_layers_are_computed_again(family):
    total, reached = counted(family, checkpointed=family not in NOT_RECOMPUTED)
    assert len(total.layers) == len(reached) > 0
    assert wrong_counts(total, reached) == 0


@pytest.mark.parametrize("family", COEFFICIENTS)
def test_the_coefficient_of_a_family_is_found(family):
    assert coefficient_of(tiny_experts(family)) == COEFFICIENTS[family]


def test_every_family_of_the_installed_transformers_has_a_test():
    """A family is a configuration with a number of experts, in a package that has experts."""
    size = re.compile(r"^    (\w*(?:num|n|nb)_(?:\w+_)?experts|\w*expert_num)\s*:", re.MULTILINE)
    other = re.compile(r"shared|zero|activated|selected")
    kind = re.compile(r"^    model_type = \"([^\"]+)\"", re.MULTILINE)
    folder = Path(inspect.getfile(transformers)).parent / "models"
    missing = set()
    for file in folder.glob("*/configuration_*.py"):
        source = file.read_text(encoding="utf-8")
        for part in re.split(r"^(?=class )", source, flags=re.MULTILINE):
            if any(not other.search(name) for name in size.findall(part)):
                missing |= {name for name in kind.findall(part) if name not in FAMILIES}
    assert missing == NOT_COUNTED


def test_a_family_that_is_refused_says_why_when_it_is_attached():
    with pytest.raises(RoutingError, match=r"Inkling2LoopExperts\) is not counted: layers of"):
        tiny_experts("inkling2_loop_text", loop_gate_rank=4)
