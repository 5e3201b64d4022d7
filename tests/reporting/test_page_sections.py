"""The page says what is recommended against all others, and of which mixture and seeds."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from made_proposal import made_proposal
from made_validation import MIXTURES, made_validation

from mixopt.objective import Objective
from mixopt.proposals import Comparison, Gain, Interval, Recommendation
from mixopt.reporting.answer import _recommended
from mixopt.reporting.terminal import recommendation_text
from mixopt.reporting.validation_section import _curves, _domains, _mixtures, _says
from mixopt.sweeps import TrialFolder
from mixopt.trials import Losses, Trial, TrialResult

MADE = made_proposal()
RECOMMENDED = Recommendation(
    MADE.mixture, "proposal", "significantly better", "why", MADE.natural, "help", "bits_per_byte",
    1000, {}, {}, None, (), {},
)  # fmt: skip
VALUES = {"proposal": [1.0, 1.0, 1.0], "natural": [1.2, 1.3, 1.25], "uniform": [0.8, 0.9, 0.85]}


def test_a_difference_that_is_not_shown_is_called_not_significant():
    assert _says(Comparison("natural", 0.1, -0.1, 0.3, 4)) == "not significant"
    assert _says(Comparison("natural", -0.2, -0.3, -0.1, 4)) == "better"


def table(chosen):
    """Return the heads of the table by evaluation domain, and the rows by their name."""
    validation = made_validation(VALUES)
    recommendation = replace(RECOMMENDED, chosen=chosen)
    run = SimpleNamespace(
        validation=validation, objective=validation.objective, recommendation=recommendation
    )
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", _domains(run))
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return cells[0], {row[0]: row[1:] for row in cells[1:]}


@pytest.mark.parametrize(
    ("chosen", "heads"),
    [
        ("proposal", ["the proposal", "- natural", "- uniform"]),
        ("uniform", ["uniform", "- the proposal", "- natural"]),
    ],
)
def test_each_loss_is_that_of_what_is_recommended_less_each_other(chosen, heads):
    columns, rows = table(chosen)
    assert columns[1:] == heads
    mean = {"proposal": 1.0, "natural": 1.25, "uniform": 0.85}
    names = [head.removeprefix("- ").removeprefix("the ") for head in heads]
    own, *differences = rows["help"]
    assert float(own) == pytest.approx(mean[chosen])
    for other, text in zip(names[1:], differences, strict=True):
        found = float(text.split(" ")[0].replace("\N{MINUS SIGN}", "-"))
        assert found == pytest.approx(mean[chosen] - mean[other], abs=1e-4)


TASK = "task/arc/bits_per_byte"


def curves(path, tasks_of):
    """Return the curves of a validation of one mixture, whose runs measured these tasks."""
    names = [f"natural-s{seed}" for seed in range(3)]
    trials = [Trial(name, MIXTURES["natural"], 0, role="validation") for name in names]
    curve = tuple(
        Losses(tokens, {"help": 9.0}, {"help": 8.0}, tasks)
        for tokens, tasks in zip((100, 200, 400), tasks_of, strict=True)
    )
    ended = [TrialResult(name, "finished", 400, 1, 0.0, curve[-1], curve) for name in names]
    TrialFolder(path / "validation").write(trials, ended)
    run = SimpleNamespace(
        path=path,
        validation=made_validation({"natural": [1.0, 1.0, 1.0]}),
        objective=Objective(("help", TASK), "target", {TASK: 1.0}),
        losses=("help", TASK),
    )
    return _curves(run)


def test_learning_curves_of_an_objective_over_tasks_are_those_of_the_tasks(tmp_path):
    found = curves(tmp_path, [{TASK: 3.0}, {TASK: 2.5}, {TASK: 2.25}])
    assert list(found) == ["natural"]
    assert len(found["natural"]) == 3
    for tokens, objective in found["natural"]:
        assert tokens.tolist() == [100, 200, 400]
        assert objective.tolist() == [3.0, 2.5, 2.25]


def test_tasks_that_were_measured_at_the_end_alone_have_no_learning_curve(tmp_path):
    assert curves(tmp_path, [{}, {}, {TASK: 2.25}]) == {}


PROPOSAL = replace(made_proposal(), warnings=("it is far from all trials",))


def recommendation(mixture, warnings=()):
    return Recommendation(
        mixture, "some", "undecided", "why", PROPOSAL.natural, "help", "bits_per_byte",
        1000, {}, {}, None, warnings, {},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        (PROPOSAL.mixture, "it is far from all trials"),
        (PROPOSAL.natural, "of the proposal: it is far from all trials"),
    ],
)
def test_a_warning_names_the_proposal_where_another_mixture_is_recommended(mixture, said):
    found = _recommended(recommendation(mixture, ("tasks are few",)), PROPOSAL)
    assert found.warnings == ("tasks are few", said)


def test_a_warning_of_both_is_said_once_and_of_what_is_recommended():
    both = recommendation(PROPOSAL.natural, PROPOSAL.warnings)
    assert _recommended(both, PROPOSAL).warnings == PROPOSAL.warnings


def test_a_warning_that_names_the_proposal_is_not_said_to_be_of_it():
    line = "the proposal (predicted 1.5) is not predicted to beat the best trial"
    proposal = replace(PROPOSAL, warnings=(line,))
    assert _recommended(recommendation(PROPOSAL.natural), proposal).warnings == (line,)


OTHER_SEEDS = {
    "best_trial": [1.0, 1.1, 1.2, 1.6, 1.5, 1.4],
    "proposal": [1.1, 1.2, 1.3],
    "natural": [1.3, 1.4, 1.5],
}
NOTE = (
    "Seeds: 6 of the best trial, 3 of the proposal and natural. A mean is over all seeds of a"
    " mixture, a difference over the seeds that both mixtures have, so the two may not agree."
)


@pytest.fixture
def of_best_trial():
    made = made_proposal()
    gains = {
        name: Gain(Interval(0.1, 0.05, 0.15), 3, "better", None) for name in ("proposal", "natural")
    }
    return Recommendation(
        made.mixture, "best_trial", "not the proposal", "why", made.natural, "help",
        "bits_per_byte", 1000, gains, {}, None, (), {},
    )  # fmt: skip


def words(text):
    return re.sub(r"\s+", " ", text)


def test_the_terminal_says_that_means_and_gains_are_over_other_seeds(of_best_trial):
    said = recommendation_text(of_best_trial, made_validation(OTHER_SEEDS))
    assert NOTE in words(said)
    for mean in ("1.3000", "1.2000"):  # over 6 seeds and over 3
        assert mean in said


def test_the_page_says_so_beside_the_table_of_means(of_best_trial):
    validation = made_validation(OTHER_SEEDS)
    objective = validation.objective
    run = SimpleNamespace(validation=validation, objective=objective, recommendation=of_best_trial)
    assert NOTE in _mixtures(run)


def test_nothing_is_said_where_all_mixtures_have_the_same_seeds(of_best_trial):
    same = made_validation({name: values[:3] for name, values in OTHER_SEEDS.items()})
    assert same.means_note == ""
    assert "Seeds:" not in recommendation_text(of_best_trial, same)
