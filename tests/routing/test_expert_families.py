"""Every family of transformers that has experts: counts are the ids that reach its experts."""

import pytest
from experiment_modules import experiment

from mixopt.errors import RoutingError
from mixopt.routing import FAMILIES, REFUSED

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
reached_experts = experiment("checks", "reached_experts")
expert_families = experiment("checks", "expert_families")
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


def test_every_family_of_the_installed_transformers_is_known_or_refused_by_name():
    found = expert_families.installed_routers(expert_families.installed_models())
    assert len(found) >= len(FAMILIES) - 5
    assert expert_families.unknown(found) == {}
    types = expert_families.installed_types(expert_families.installed_models())
    assert len(types) >= len(found)
    assert expert_families.unknown_types(types, found) == []
    new = {"new_moe": ["NewTopKRouter"], "inline_moe": [], "mixtral": ["MixtralTopKRouter"]}
    assert expert_families.unknown(new) == {"new_moe": ["NewTopKRouter"], "inline_moe": []}


@pytest.mark.parametrize(
    ("configuration", "missing"),
    [
        ("num_experts: int = 8", ["new_moe"]),
        ("moe_n_routed_experts: int | None = None", ["new_moe"]),
        ("num_experts_per_tok: int = 2", []),
        ("n_shared_experts: int = 1", []),
    ],
)
def test_a_new_family_is_noticed_by_its_configuration_whatever_its_classes_are_called(
    tmp_path, configuration, missing
):
    for name, field in (("new_moe", configuration), ("mixtral", "num_local_experts: int = 8")):
        (tmp_path / name).mkdir()
        text = f'class Config(Base):\n    model_type = "{name}"\n    {field}\n'
        (tmp_path / name / f"configuration_{name}.py").write_text(text)
        (tmp_path / name / f"modeling_{name}.py").write_text("class Feedforward(Module):\n")
    routers = expert_families.installed_routers(tmp_path)
    assert expert_families.unknown(routers) == {}
    types = expert_families.installed_types(tmp_path)
    assert expert_families.unknown_types(types, routers) == missing
    refused = {"new_moe": [next(iter(REFUSED))]}
    assert expert_families.unknown_types(types, refused) == []


def test_the_table_of_the_documentation_has_each_family_as_the_registry_has_it():
    page = expert_families.PAGE.read_text(encoding="utf-8")
    table = page.partition(expert_families.BEGIN)[2].partition(expert_families.END)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n") if line
    ][2:]
    states = {row[0].strip("`"): row[1] for row in rows}
    partial = {name: "partial" if known.limits else "exact" for name, known in FAMILIES.items()}
    assert states == partial | dict.fromkeys(REFUSED, "refused")
    for name, *_, balance, shared, last in rows:
        family = FAMILIES.get(name.strip("`"))
        if family is None:
            assert last == REFUSED[name.strip("`")]
            continue
        assert balance == expert_families.balance_of(family)
        assert shared == (family.shared or "")
        assert (family.limits or "") in last


def test_a_family_that_is_refused_says_why_when_it_is_attached():
    with pytest.raises(RoutingError, match=r"Inkling2LoopTopKRouter\) is not counted: layers of"):
        experiment("checks", "tiny_experts").tiny_experts("inkling2_loop_text", loop_gate_rank=4)
