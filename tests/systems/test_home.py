"""HoME's anomalies are found in HoME's own setting without its remedies, and not with them."""

import numpy as np
import pytest
import torch
from systems.home import TASKS, MultiTask, Remedies, meant_for, seen, trained

from mixopt.errors import RoutingError
from mixopt.routing import ReservedThresholds, diagnose_reserved

NONE, ALL = Remedies(), Remedies(normalised=True, hierarchy=True, gates=True)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(remedies, seed=1):
    torch.manual_seed(seed)
    return MultiTask(remedies)


@pytest.fixture(scope="module")
def without():
    return seen(trained(built(NONE)))


@pytest.fixture(scope="module")
def remedied():
    return seen(trained(built(ALL)))


def diagnosed(probe, remedies, **options):
    return diagnose_reserved(
        probe.assignments(), {"0": meant_for(remedies)}, probe=probe, **options
    )


def of_kind(found, kind):
    return [one for one in found if one.kind == kind]


def test_experts_of_relu_that_give_zeros_are_a_collapse(without):
    (found,) = of_kind(diagnosed(without, NONE), "collapse")
    zeros_E = without.layers[0].zeros_UE.sum(0) / without.tokens_U.sum()
    assert found.experts == tuple(np.flatnonzero(zeros_E > 0.9))
    assert found.numbers["zeros"] == zeros_E.max()
    assert "give zeros" in str(found)


def test_a_rare_task_that_leaves_its_own_experts_is_underfitted(without):
    found = of_kind(diagnosed(without, NONE), "underfitting")
    assert {one.domain for one in found} <= {"comment", "collect"}
    assert found
    for one in found:
        assert one.experts == (2 + TASKS.index(one.domain),)
        assert one.numbers["own"] < 0.05


def test_a_shared_expert_that_one_task_has_is_a_degradation():
    model = built(NONE)
    with torch.no_grad():
        # As gates are where one task has taken a shared expert and the others have left it.
        bias_JE = model.router.bias.view(len(TASKS), -1)
        bias_JE[:, 0], bias_JE[1, 0] = -6.0, 6.0
    found = of_kind(diagnosed(seen(trained(model, steps=60)), NONE), "degradation")
    assert [(one.domain, one.experts) for one in found] == [("long view", (0,))]


def test_with_the_remedies_there_is_none_of_them(remedied):
    assert diagnosed(remedied, ALL) == []


def test_thresholds_say_from_where_on(remedied):
    strict = ReservedThresholds(own=1.0, serves=0.5, used=0.0, zeros=-1.0)
    kinds = {one.kind for one in diagnosed(remedied, ALL, thresholds=strict)}
    assert kinds == {"collapse", "degradation", "underfitting"}


@pytest.mark.parametrize(
    ("reserved", "message"),
    [
        ({"0": meant_for(ALL)}, "layer 0: 7 experts are assigned to domains; it has 6"),
        ({"0": [("clik",)] * 6}, "layer 0: unknown domain 'clik'; did you mean 'click'"),
        ({"4": []}, "layer 4 has no router"),
    ],
)
def test_experts_that_cannot_be_reserved_so_are_one_line(without, reserved, message):
    with pytest.raises(RoutingError, match=message):
        diagnose_reserved(without.assignments(), reserved)
