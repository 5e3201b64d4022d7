"""The page says what is recommended against all others, and of which mixture and seeds."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from made_proposal import made_proposal, made_recommendation
from made_validation import MIXTURES, made_validation

from mixopt.constraints import Guardrails
from mixopt.difference import Difference
from mixopt.integrations import EXPORT_TOOLS
from mixopt.mixture import Mixture, Phases
from mixopt.pipeline import run_status
from mixopt.proposals import Interval, named
from mixopt.reporting import report, terminal
from mixopt.reporting.answer import (
    _axis,
    _by_change,
    _groups,
    _mixture_row,
    answer_of,
    weight_fragments,
)
from mixopt.reporting.report import _by_loss, _validation
from mixopt.reporting.terminal import (
    broken_guardrails,
    forgetting_table,
    gain_table,
    in_order,
    proposal_text,
    recommendation_text,
)
from mixopt.reporting.what_if import starts_of

MADE = made_proposal()
RECOMMENDED = made_recommendation()
MOVED = "more prose, less code than natural."
VALUES = {"proposal": [1.0, 1.0, 1.0], "natural": [1.2, 1.3, 1.25], "uniform": [0.8, 0.9, 0.85]}


def words(text):
    return re.sub(r"\s+", " ", text)


def gains(*names):
    return {name: gain_of(0.1, 0.05, 0.15) for name in names}


def gain_of(mean, low, high, unit="bits_per_byte"):
    return Difference(mean, low, high, 0.95, unit, pairs=3)


@pytest.mark.parametrize("chosen", ["proposal", "uniform"])
def test_each_loss_has_the_gain_of_what_is_recommended_over_each_other(chosen, monkeypatch):
    validation = made_validation(VALUES)
    others = [name for name in VALUES if name != chosen]
    recommendation = replace(RECOMMENDED, chosen=chosen, gains=gains(*others))
    run = SimpleNamespace(
        validation=validation, objective=validation.objective, recommendation=recommendation
    )
    shown, unit = _by_loss(run), "A task's metric is in its own unit."
    assert unit not in unescape(shown)
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", shown)
    columns, *cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows)
    others = list(in_order(gains(*others)))
    assert columns[1:] == [named(chosen), *(f"over {named(name)}" for name in others)]
    mean = {"proposal": 1.0, "natural": 1.25, "uniform": 0.85}
    value, *found = next(row for row in cells if row[0] == "help")[1:]
    assert float(value) == pytest.approx(mean[chosen])
    for other, text in zip(others, found, strict=True):
        gain = float(text.split(" ")[0].replace("\N{MINUS SIGN}", "-"))
        assert gain == pytest.approx(mean[other] - mean[chosen], abs=1e-4)
    monkeypatch.setattr(report, "task_metric", lambda name: ("exam", "acc"))
    assert unit in unescape(_by_loss(run))


def test_the_user_s_own_mixture_is_the_second_baseline_and_none_is_left_out():
    given = ("proposal", "uniform", "best_trial", "best_trial_2", "unimax", "ours", "natural")
    first, second, *others, last = in_order(gains(*given))
    assert (first, second, last) == ("natural", "ours", "proposal")
    assert sorted(others) == ["best_trial", "best_trial_2", "uniform", "unimax"]
    found = replace(RECOMMENDED, chosen="proposal_2", gains=gains("proposal", "ours", "natural"))
    values = {**VALUES, "ours": [1.1] * 3, "proposal_2": [0.9] * 3}
    *_, rows = gain_table(found, made_validation(values))
    assert [row[0] for row in rows] == ["proposal 2", "natural", "ours", "proposal 1"]


@pytest.fixture
def second(tmp_path):
    """A run decided by proposal 2, which breaks a guardrail by the mean over seeds."""
    values = {"proposal": [1.0] * 3, "proposal_2": [0.9] * 3, "natural": [1.2] * 3}
    validation = made_validation({**values, "ours": [1.1] * 3}, {"proposal_2": 0.5, "natural": 0.0})
    both = {"mixture": MIXTURES["proposal_2"], "natural": MIXTURES["natural"]}
    limit = made_proposal(**both, epochs=None, binding=("code <= 40%",))
    limit.to_file(tmp_path / "later_proposals" / "proposal_2.yaml")
    recommendation = replace(
        RECOMMENDED,
        **both,
        chosen="proposal_2",
        gains=gains("proposal", "natural", "ours"),
        other_losses={"code": gain_of(-0.2, -0.3, -0.1)},
    )

    def violations(mixture):
        return ["code: share 60.0%, at most 40.0%", "x"] if mixture == MIXTURES["ours"] else []

    rails = Guardrails("natural", targets={"code": 0.1, "help": 0.1})
    return SimpleNamespace(
        path=tmp_path,
        outcome=SimpleNamespace(state="validated"),
        recommendation=recommendation,
        validation=validation,
        proposal=made_proposal(),
        constraints=SimpleNamespace(guardrails=rails, violations=violations),
        is_done=lambda step: True,
        natural=MIXTURES["natural"],
        config=SimpleNamespace(
            validation=SimpleNamespace(baselines={}), design=SimpleNamespace(phases=None)
        ),
        objective=validation.objective,
    )


def test_page_terminal_and_status_say_a_broken_guardrail_first_and_a_baseline_beyond_limits(
    second, monkeypatch
):
    answer = answer_of(second)
    assert answer.sentence == f"Train on proposal 2, which breaks 1 guardrail: {MOVED}"
    (line,) = answer.broken
    assert line.startswith("code: gain over natural \N{MINUS SIGN}0.2000 (95%")
    assert line.endswith("), allowed \N{MINUS SIGN}0.1")
    assert answer.limits == ("code <= 40%",)
    assert list(starts_of(second)) == ["Recommended", "Proposal 1", "Natural"]
    beyond = "baseline ours breaks limits of this run: code: share 60.0%, at most 40.0%"
    assert answer.warnings == (f"{beyond} (and 1 more)",)
    said = recommendation_text(second)
    first = "BREAKS guardrail code: gain over natural \N{MINUS SIGN}0.2000 "
    assert said.startswith(first)
    assert f"warning: {beyond} (and 1 more)" in words(said)
    monkeypatch.setattr(run_status, "_step_status", lambda *_, **__: {"state": "done"})
    headline = run_status.status(second)["recommendation"]["headline"]
    assert headline.startswith(first)
    assert headline.endswith(second.recommendation.headline)


@pytest.mark.parametrize(
    ("chosen", "standing", "sentence"),
    [
        ("proposal_2", "undecided", f"Undecided; for now proposal 2: {MOVED}"),
        ("natural", "not the proposal", "Keep the natural mixture."),
        ("ours", "not the proposal", f"Train on ours: {MOVED}"),
    ],
)
def test_the_first_line_says_what_to_do(second, chosen, standing, sentence):
    second.constraints.guardrails = None
    found = {"chosen": chosen, "standing": standing, "mixture": MIXTURES[chosen]}
    second.recommendation = replace(second.recommendation, **found)
    assert answer_of(second).sentence == sentence


def test_a_mixture_that_is_one_in_all_phases_is_shown_of_domains(second):
    phases = Phases({"1": 0.75, "2": 0.25})
    tied, natural = (phases.tied(MIXTURES[name]) for name in ("proposal_2", "natural"))
    epochs = dict.fromkeys(tied, 0.5)
    found = replace(
        second.recommendation, mixture=tied, natural=natural, phases=phases, epochs=epochs
    )
    second.recommendation, second.constraints.guardrails = found, None
    answer = answer_of(second)
    assert dict(answer.mixture) == pytest.approx(dict(MIXTURES["proposal_2"]))
    assert dict(answer.natural) == pytest.approx(dict(MIXTURES["natural"]))
    assert answer.epochs == {"code": 1.0, "prose": 1.0}
    assert answer.sentence.endswith(": more prose, less code than natural.")
    parts = {"1": MIXTURES["natural"], "2": MIXTURES["uniform"]}
    second.recommendation = replace(found, mixture=phases.joined(parts))
    assert set(answer_of(second).mixture) == set(tied)


def grouped(answer, **groups):
    """Return the rows of the groups of a page: name, how many domains, share and change."""
    limits = SimpleNamespace(groups={name: (limit, 0.0, 1.0) for name, limit in groups.items()})
    config = SimpleNamespace(design=SimpleNamespace(phases=None))
    keys = ("name", "count", "is_member", "moved")
    bodies = _groups(SimpleNamespace(constraints=limits, config=config), answer)
    return [[tuple(row[key] for key in keys) for row in rows] for rows in bodies]


def test_groups_have_their_domains_and_those_in_none_theirs_the_largest_first(second):
    answer = answer_of(second)
    assert grouped(answer, text=["prose"]) == [
        [("text", "1 domain", False, "+40.0"), ("prose", "", True, "+40.0")],
        [("in no group", "1 domain", False, "-40.0"), ("code", "", True, "-40.0")],
    ]
    assert grouped(answer) == []


def test_of_more_than_twelve_domains_those_that_move_most_come_first(second):
    names = [f"d{place:02}" for place in range(13)]
    natural = Mixture.uniform(names)
    moved = {"d03": 0.02, "d07": -0.05, "d11": 0.03}
    mixture = Mixture({name: 1 / 13 + moved.get(name, 0.0) for name in names})
    answer = replace(answer_of(second), mixture=mixture, natural=natural)
    assert _by_change(answer)[:3] == ["d07", "d11", "d03"]
    few = {name: mixture[name] / (1 - mixture["d00"]) for name in names[1:]}
    assert _by_change(replace(answer, mixture=Mixture(few)))[:3] == ["d11", "d03", "d01"]


def test_a_mixture_of_cells_is_copied_as_yaml_alone():
    config = SimpleNamespace(design=SimpleNamespace(phases={"1": 0.5, "2": 0.5}))
    corpus = SimpleNamespace(domain_names=("web", "code"))
    run = SimpleNamespace(config=config, corpus=corpus, path=Path("runs/two"))
    cells = Mixture.uniform(("1/web", "1/code", "2/web", "2/code"))
    found = weight_fragments(run, cells)
    assert yaml.safe_load(found.pop("yaml")["text"])["weights"] == dict(cells)
    why = "has phases: mixopt export two --to schedule makes stages of them"
    assert found == {tool: {"why": why} for tool in EXPORT_TOOLS}


def test_what_the_checkpoint_knew_stands_beside_what_mixtures_keep(second, monkeypatch):
    monkeypatch.setattr(terminal, "base_losses", lambda run: {"code": 1.2, "help": 1.0})
    title, columns, rows = forgetting_table(second)
    assert columns[2:4] == ("natural", "proposal 2")
    lost, won = "\N{MINUS SIGN}0.2000", "+0.1000"
    assert rows == [
        ("code", "1.2000", "1.2000", "1.4000", lost, f"{lost} to {lost}"),
        ("help", "1.0000", "1.2000", "0.9000", won, f"{won} to {won}"),
    ]
    assert title == "What the checkpoint knew; below 0 is forgotten, bits per byte"
    assert f"{title}." in _validation(second).body
    second.is_done = lambda step: False
    assert forgetting_table(second) is None


@pytest.mark.parametrize(("noise", "count"), [(0.3, 0), (0.1, 1)])
def test_a_margin_of_noise_is_that_of_the_trials(second, monkeypatch, noise, count):
    monkeypatch.setattr(terminal, "noise_of", lambda fit: SimpleNamespace(by_name={"code": noise}))
    second.fit = None
    second.constraints.guardrails = Guardrails("natural", targets={"code": "noise"})
    assert len(broken_guardrails(second)) == count  # it is 0.2 worse


@pytest.mark.parametrize("leaves", [12, 13])
def test_a_tree_of_more_than_24_domains_is_listed_by_branch(leaves):
    tree = {f"{branch}/{leaf}": 0.0 for branch in ("web", "code") for leaf in range(leaves)}
    mixture = Mixture(tree | {"web/0": 0.25, "code/0": 0.5, "code/1": 0.25})
    natural = Mixture.uniform(tuple(tree))
    said = proposal_text(made_proposal(mixture=mixture, natural=natural, epochs=None, region=None))
    assert said.startswith("Proposal for math, by branch") == (leaves == 13)
    assert ("code 50.0% 75.0% web 50.0% 25.0%" in words(said)) == (leaves == 13)
    assert ("code/0 4.2% 50.0%" in words(said)) == (leaves == 12)
    assert "Not found by a search." in said


def test_a_loss_that_gets_worse_has_a_gain_below_0_on_the_page_and_in_the_terminal(second):
    assert answer_of(second).other_losses == {"code": gain_of(-0.2, -0.3, -0.1)}
    said = words(recommendation_text(second))
    assert "Losses outside the objective (above 0 is better)" in said
    assert "code \N{MINUS SIGN}0.2000" in said
    others = {f"loss{place}": gain_of(place / 10 - 0.6, -1, 0) for place in range(6)}
    second.recommendation = replace(second.recommendation, other_losses=others)
    said = words(recommendation_text(second))
    assert "Losses outside the objective, and 1 more in the report (above 0 is better)" in said
    assert re.findall("loss[0-9]", said) == [f"loss{place}" for place in range(5)]
    del others["loss5"]
    assert "Losses outside the objective (above 0" in words(recommendation_text(second))


def test_intervals_lie_on_one_axis_with_0():
    both = gain_of(0.1, -0.1, 0.3)
    place = _axis([both, both, gain_of(0.2, 0, 0.7)])
    assert [place(at) for at in (-0.1, 0.0, 0.7)] == ["0%", "12.5%", "100%"]
    assert _axis([])(0.0) == "0%"
    ranges = ((0.1, 0.2), (-0.2, -0.1), (0.0, 1.0), (-1.0, 0.0))
    said = [gain_of(0.0, low, high).verdict for low, high in ranges]
    assert said == ["better", "worse", "not significant", "not significant"]


def test_a_row_of_a_domain_has_its_passes_and_how_far_it_moved(second):
    epochs = {"code": 0.004, "prose": 0.006}
    answer = replace(answer_of(second), epochs=epochs)
    still = replace(answer, natural=answer.mixture, epochs={"code": 0.0, "prose": 2.0})
    rows = [_mixture_row(answer, name, [name]) for name in ("code", "prose")]
    rows += [_mixture_row(still, "code", ["code"])]
    rows += [_mixture_row(still, "text", ["code", "prose"], count="2 domains")]
    assert [(row["epochs"], row["moved"]) for row in rows] == [
        ("<0.01", "-40.0"),
        ("0.01", "+40.0"),
        ("0.00", "+0.0"),
        ("", "+0.0"),
    ]


def test_the_terminal_says_that_means_and_gains_are_over_other_seeds(second):
    values = {"best_trial": [1.0, 1.1, 1.2, 1.6, 1.5, 1.4]}
    values |= {"proposal": [1.1, 1.2, 1.3], "natural": [1.3, 1.4, 1.5]}
    found = replace(RECOMMENDED, chosen="best_trial", gains=gains("proposal", "natural"))
    second.recommendation, second.constraints.guardrails = found, None
    second.validation = made_validation({name: losses[:3] for name, losses in values.items()})
    assert "Seeds:" not in recommendation_text(second)
    second.validation = made_validation(values)
    said = words(recommendation_text(second))
    note = "Seeds: 6 of the best trial, 3 of the proposal and natural. A mean is over all seeds of"
    assert f"{note} a mixture, a difference over those that both have." in said
    for mean in ("1.3000", "1.2000"):  # over 6 seeds and over 3
        assert mean in said


def test_an_objective_of_accuracy_is_shown_in_points_in_terminal_and_page(second):
    higher = replace(second.objective, higher=("help",), items={"help": 500})
    values = {"proposal": [0.5043] * 3, "proposal_2": [0.52] * 3, "natural": [0.48] * 3}
    second.validation = replace(made_validation(values), objective=higher)
    second.objective, second.constraints.guardrails = higher, None
    second.recommendation = replace(
        second.recommendation,
        unit=higher.value_unit,
        gains=dict.fromkeys(("proposal", "natural"), gain_of(0.1, 0.05, 0.15, "right_answers")),
        other_losses={"help": gain_of(0.1, -0.1, 0.2, "right_answers")},
    )
    shown = words(re.sub(r"<[^>]+>", " ", _by_loss(second)))
    assert "help, points 52.00 +4.00 \N{PLUS-MINUS SIGN} 0.00" in shown
    title, _, rows = gain_table(second.recommendation, second.validation)
    assert title == "Gain of proposal 2, points (above 0 is better)"
    assert [row[1] for row in rows] == ["52.00", "48.00", "50.43"]
    assert rows[1][2:4] == ("+10.00", "+5.00 to +15.00")
    said = words(recommendation_text(second))
    assert "over metric validated gain" in said
    assert "help, points +10.00 \N{MINUS SIGN}10.00 to +20.00" in said
    proposal = made_proposal(unit="right_answers", predicted_objective=Interval(0.5, 0.48, 0.52))
    assert "predicted: 50.00 points, 90% interval 48.00 to 52.00" in proposal_text(proposal)
    assert repr(proposal).endswith("predicted 50.00 (48.00 to 52.00) points)")
