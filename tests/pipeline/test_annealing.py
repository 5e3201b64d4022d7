"""Microanneals as a run: what is trained, resumed, refused, said, and combined."""

import json
import shlex
import shutil
from dataclasses import replace

import pytest
import yaml
from command_line import mixopt
from made_anneals import SOURCES, made_anneals, made_experiment
from made_run import made_importable
from mixopt.tracking.outcome_metrics import run_outcome

from mixopt import load_run, run
from mixopt.config import load_config
from mixopt.errors import ConfigError, InfeasibleError, RunError
from mixopt.mixture import Mixture
from mixopt.pipeline import AnnealAsked, anneal, combining, run_status, status_lines
from mixopt.pipeline.rounds import check_rounds
from mixopt.run_directory.step_records import read_steps, write_steps
from mixopt.trials import TrialFolder, read_entry


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Anneals that are trained: the folder, and what was said."""
    folder, said = tmp_path_factory.mktemp("anneals"), []
    made_anneals(folder, say=said.append)
    return folder, said


@pytest.fixture
def own(done, tmp_path):
    """A copy of their directory that a test may change."""
    return shutil.copytree(done[0] / "run", tmp_path / "run")


def written(directory):
    """When each result of an anneal and a control was written."""
    return {path.name: path.stat().st_mtime_ns for path in (directory / "trials").glob("*-s*.json")}


def refused(folder, asked, error=ConfigError, **options):
    with pytest.raises(error) as found:
        made_anneals(folder, asked, **options)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_the_trials_are_the_control_and_each_source_with_every_seed(done):
    table = load_run(done[0] / "run").trials.table
    assert table["role"].value_counts().sort("role").rows() == [("anneal", 9), ("control", 3)]


def test_the_sources_of_what_the_targets_are_made_rank_first(done):
    found = load_run(done[0] / "run").anneals
    assert set(found.ranks("exam")) == set(SOURCES)
    assert found.ranks("exam")["books_news"] == 3
    assert found.ranks("reading")["books_news"] == 1
    assert found.effect("maths_news", "exam").verdict == "better"


def test_no_more_is_trained_than_the_anneals(done):
    steps = run_status(load_run(done[0] / "run"))["steps"]
    assert [name for name, one in steps.items() if one["state"] == "done"] == [
        "prepare",
        "design",
        "sweep",
    ]
    assert not any("validation" in line for line in done[1])


def test_a_source_that_the_full_run_repeats_is_said(done):
    (line,) = [line for line in done[1] if "max_epochs to refuse" in line]
    assert line.startswith("design: warning: at this share the full run reads books_news 1.1 times")


def test_the_same_command_trains_nothing_again(done, own):
    before = written(own)
    made_anneals(done[0], out=own)
    assert written(own) == before


def test_the_directory_of_a_run_needs_no_sources(own):
    with made_importable():
        found = anneal(own / "config.yaml", own, AnnealAsked(), trust=True)
    assert found.anneals.sources == SOURCES


def test_what_is_not_said_again_is_as_the_run_has_it(done, own):
    before = written(own)
    found = made_anneals(done[0], AnnealAsked(), out=own)
    assert found.anneals.share == 0.5
    assert written(own) == before


def test_interrupted_anneals_go_on_by_their_own_command(own):
    assert load_run(own).command("run") == f"mixopt run {own} --trust"
    steps = read_steps(own)
    write_steps(own, {**steps, "sweep": steps["sweep"].model_copy(update={"seconds": None})})
    found = load_run(own)
    said = list(status_lines(run_status(found)))
    assert said[0] == f"sweep: interrupted; resume it with: mixopt anneal {own} --trust"
    assert found.command("sweep") == f"mixopt anneal {own} --trust"
    assert found.command("fit") == f"mixopt fit {own}"


def test_anneals_that_failed_are_trained_again_by_their_own_command(done, own):
    made_by = load_run(own).trial_fingerprint("sweep")
    steps, said, results = read_steps(own), [], TrialFolder(own / "trials", made_by)
    write_steps(own, {**steps, "sweep": steps["sweep"].model_copy(update={"seconds": None})})
    trial, result = read_entry(own / "trials/control-s0.json")
    results.forget(trial.name)
    results.write(0, [trial], [replace(result, status="failed", reason="no disk")])
    made_anneals(done[0], out=own, say=said.append)
    (line,) = [line for line in said if "1 of 12 trials did not finish" in line]
    assert line.endswith(f"to train them again: mixopt anneal {own} --retry-failed --trust")


def test_another_share_needs_another_directory(done, own):
    said = refused(done[0], AnnealAsked(SOURCES, 0.3), RunError, out=own)
    assert "design.anneals.share is 0.5 there and 0.3 here; use another --out" in said


def test_combining_keeps_the_anneals_and_the_base_in_its_ratios(done, own):
    before = written(own)
    found = made_anneals(done[0], AnnealAsked(SOURCES, rounds=(2,)), out=own, combine=True)
    assert written(own) == before
    assert len(found.trials) == 14
    base, proposed = found.anneals.base, found.proposal.mixture
    total = sum(proposed[name] for name in base if name not in SOURCES)
    for name in base:
        if name not in SOURCES:
            assert proposed[name] == pytest.approx(base[name] * total, abs=1e-5)
    chosen = [one for one in found.design if one.role == "chosen"]
    assert len(chosen) == 2
    assert all(found.constraints.violations(one.mixture) == [] for one in chosen)
    assert "control" in found.validation.baselines
    assert found.validation.mixture("control") == Mixture(base)
    assert 'id="anneals"' in (found.path / "report.html").read_text()


def test_rounds_are_added_after_those_that_are_trained(done, own):
    entry = {"round": 1, "trials": 4, "regressor": "power", "acquisition": "variance"}
    entry |= {"proposal": {}, "predicted": 1.0, "expected_gain": 0.1}
    content = {"chosen_by": None, "rounds": [entry], "stopped": None}
    (own / "trials/rounds.json").write_text(json.dumps(content))
    before = (own / "config.yaml").read_bytes()
    for rounds, asked in (((8,), "8 give --rounds 4,8"), ((2, 8), "2,8 give --rounds 4,2,8")):
        more = AnnealAsked(rounds=rounds)
        said = refused(done[0], more, RunError, out=own, combine=True)
        assert said == f"{own}: rounds 4 are trained; to add {asked}"
    assert (own / "config.yaml").read_bytes() == before
    check_rounds(own, (4, 8))


def test_later_rounds_come_with_a_combination_alone(tmp_path):
    said = refused(tmp_path, AnnealAsked(SOURCES, rounds=(4,)))
    assert said == "anneal: --rounds come after the anneals: add --combine"


def test_what_the_design_says_of_limits_and_of_later_rounds_is_kept(tmp_path):
    design = {"method": "anneals", "anneals": {"sources": [*SOURCES], "seeds": 1}}
    design |= {"rounds": [4, 2], "minimum": 1e-3, "max_usage": 30, "acquisition": "variance"}
    changes, limits = {"design": design}, ["design.max_weights={web_news: 0.9}"]
    found = made_anneals(tmp_path, AnnealAsked(), changes=changes, overrides=limits).config.design
    assert (found.minimum, found.max_usage, found.max_weights) == (1e-3, 30, {"web_news": 0.9})
    assert (found.rounds, found.acquisition) == ([4], None)
    path, plain = tmp_path / "made.yaml", load_config(tmp_path / "made.yaml")
    found = load_config(path, AnnealAsked().overrides(plain, combine=True)).design
    assert (found.rounds, found.acquisition, found.max_usage) == ([4, 2], "variance", 30)


def test_how_rounds_are_chosen_may_be_set_beside_them(tmp_path):
    design = {"method": "anneals", "anneals": {"sources": [*SOURCES]}}
    asked, more = AnnealAsked(rounds=(4,)), ["design.stop_gain=0", "fit.folds=9"]
    changes = {"design": design}
    said = refused(tmp_path, asked, changes=changes, overrides=more, combine=True)
    assert said.startswith("fit.folds: 9 folds")  # and not that there are no rounds


def test_fewer_mixtures_than_folds_are_refused_before_anything_is_trained(tmp_path):
    said = refused(tmp_path, AnnealAsked(SOURCES), combine=True, overrides=["fit.folds=5"])
    assert "fit.folds: 5 folds need as many mixtures, and 3 sources" in said
    assert not (tmp_path / "run").exists()


def test_the_command_that_is_printed_combines_where_folds_are_more_than_mixtures(done, own):
    with made_importable():
        ended = mixopt("anneal", done[0] / "made.yaml", "--out", own, "--set", "fit.folds=5")
        (line,) = [one for one in ended.out.splitlines() if one.startswith("next: ")]
        assert line.endswith("--set fit.folds=5 --combine --set fit.folds=4")
        combined = mixopt(*shlex.split(line)[2:])
    assert combined.code == 0, combined.error
    assert load_run(own).fit.folds == 4


@pytest.mark.parametrize(
    ("sources", "folds", "options"),
    [(3, 5, "--combine --set fit.folds=4"), (3, 3, "--combine"), (5, 5, "--combine"), (2, 2, None)],
)
def test_options_that_combine_are_those_that_work(tmp_path, done, sources, folds, options):
    base = load_run(done[0] / "run")
    design = base.config.design.model_copy(update={"rounds": None, "trials": 1 + sources})
    fit = base.config.fit.model_copy(update={"folds": folds})
    config = base.config.model_copy(update={"design": design, "fit": fit})
    found = combining(replace(base, config=config))
    assert found == options


@pytest.mark.parametrize(("count", "few"), [(1, "1 source is"), (2, "2 sources are")])
def test_too_few_sources_to_combine_are_refused_before_anything_is_trained(tmp_path, count, few):
    said = refused(tmp_path, AnnealAsked(SOURCES[:count]), combine=True)
    assert said.startswith(f"anneal --combine: {few} too few to combine: give at least 3,")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (AnnealAsked(), "give the candidate sources: --sources a,b,c"),
        (AnnealAsked(("code_new",)), "unknown domain 'code_new'; did you mean 'code_news'?"),
        (AnnealAsked(("code_news", "code_news")), "'code_news' is given twice"),
        (AnnealAsked(SOURCES, 1.0), "--share 1: should be above 0 and below 1"),
        (AnnealAsked(SOURCES, seeds=0), "--seeds 0: should be 1 or more"),
    ],
)
def test_what_cannot_be_right_is_one_line(tmp_path, asked, said):
    assert said in refused(tmp_path, asked)


def test_a_base_with_a_source_in_it_is_refused(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump({"weights": {"web_news": 0.5, "code_news": 0.5}}))
    said = refused(tmp_path, AnnealAsked(SOURCES, base=base))
    assert "'code_news' has a weight of 0.5 in the base" in said


def test_a_user_s_own_file_may_name_files(tmp_path):
    base, other = tmp_path / "base.yaml", tmp_path / "other.yaml"
    base.write_text(yaml.safe_dump({"weights": {"web_news": 0.75, "papers_news": 0.25}}))
    names = yaml.safe_load(made_experiment(tmp_path).read_text())["corpus"]["domains"]
    other.write_text(yaml.safe_dump({name: float(name == "web_news") for name in names}))
    changes = {
        "design": {"method": "anneals", "anneals": {"sources": [*SOURCES], "base": str(base)}},
        "validate": {"baselines": ["natural", {"other": str(other)}]},
    }
    found = made_anneals(tmp_path, AnnealAsked(seeds=1), changes=changes)
    assert found.anneals.base["web_news"] == 0.75
    assert [one.name for one in found.config.validation.baselines] == [
        "natural",
        "other",
        "control",
    ]


def test_every_domain_as_a_source_leaves_no_base(tmp_path):
    path = made_experiment(tmp_path)
    names = tuple(yaml.safe_load(path.read_text())["corpus"]["domains"])
    assert "every domain is a source" in refused(tmp_path, AnnealAsked(names))


def test_a_source_with_too_few_tokens_is_refused_before_anything_is_trained(tmp_path):
    changes = {"constraints": {"max_epochs": 1}}
    said = refused(tmp_path, AnnealAsked(SOURCES), InfeasibleError, changes=changes)
    assert "source 'books_news': a weight of 0.5 of 25B tokens needs 1.05 epochs" in said
    assert not (tmp_path / "run/corpus").exists()


def test_a_base_domain_that_the_control_repeats_is_refused_before_anything_is_trained(tmp_path):
    changes = {"constraints": {"max_epochs_of": {"web_news": 0.01}}}
    said = refused(tmp_path, AnnealAsked(SOURCES), InfeasibleError, changes=changes)
    assert said.startswith("base domain 'web_news': a weight of ")
    assert not (tmp_path / "run/corpus").exists()


def test_a_source_with_a_limit_of_its_own_is_not_said_to_need_one(tmp_path):
    anneals = {"method": "anneals", "anneals": {"sources": list(SOURCES), "seeds": 1}}
    limits, said = {"max_epochs_of": {"books_news": 2}}, []
    path = made_experiment(tmp_path, design=anneals, constraints=limits)
    with made_importable():
        run(path, tmp_path / "run", until="design", say=said.append)
    assert any(line.startswith("design: ") for line in said)
    assert not any("books_news" in line for line in said if "max_epochs to refuse" in line)


def test_a_run_of_another_command_is_refused(tmp_path):
    path = made_experiment(tmp_path)
    with made_importable():
        run(path, tmp_path / "run", until="design")
    said = refused(tmp_path, AnnealAsked(SOURCES), RunError)
    assert "is a run of mixtures (design.method: dirichlet), not of microanneals" in said
    assert said.endswith("use another --out")


def test_anneals_are_refused_as_a_run_of_another_command(done, own):
    with made_importable(), pytest.raises(RunError, match="use another --out"):
        run(done[0] / "made.yaml", own)


def test_one_seed_has_no_interval_and_that_is_said(tmp_path):
    said = []
    found = made_anneals(tmp_path, AnnealAsked(SOURCES, seeds=1), say=said.append)
    assert any(line.startswith("anneal: one seed has no interval") for line in said)
    assert {one.verdict for one in found.anneals.effects()} == {"one seed"}


def test_metrics_have_each_source_s_effect(done):
    found = load_run(done[0] / "run")
    values = {}
    for _, line in run_outcome(found):
        values |= line
    effect = found.anneals.effect("code_news")
    assert values["anneal/code_news"] == effect.mean
    assert values["anneal_low/code_news"] == effect.low
    assert values["anneal_on/exam/code_news"] == found.anneals.effect("code_news", "exam").mean


def test_what_was_asked_for_is_in_the_record(done):
    content = yaml.safe_load((done[0] / "run/config.yaml").read_text())
    assert content["design"]["anneals"]["sources"] == list(SOURCES)
    base = ["web_news", "papers_news", "forums_news"]
    assert content["constraints"]["proportions"]["base"]["domains"] == sorted(base)
