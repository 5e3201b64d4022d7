"""`sweep.stop`: the worse trials of a round end early, the others give the losses of whole ones."""

from dataclasses import replace

import numpy as np
import pytest
from fault_runs import quick_config
from work_runs import WorkRun, faulty_job, noted, trials_named

from mixopt.config import Config, SweepConfig
from mixopt.errors import RunError
from mixopt.pipeline.early_stop import with_estimated_ends
from mixopt.pipeline.experiment_cost import training_parts
from mixopt.sweeps import TrialFolder, read_entry, run_trials, trial_paths
from mixopt.trials import Losses, TrialResult, Trials

STOP = SweepConfig(workers=2, stop={"at": 0.5, "keep": 0.5})
NAMES = ("a", "b", "c", "d")


def better_half(results):
    return set(sorted(results)[:2])


@pytest.fixture
def sweep(corpus, tmp_path):
    job, folder = faulty_job(tmp_path, corpus.path), tmp_path / "trials"

    def run(select=better_half, sweep=STOP, **options):
        changed = replace(job, options={**job.options, **options})
        results = run_trials(trials_named(*NAMES), changed, folder, sweep=sweep, select=select)
        return {result.trial: result for result in results}

    run.folder, run.log = folder, tmp_path / "trained.log"
    return run


def test_selected_trials_continue_from_their_states_and_the_others_are_stopped(sweep):
    results = sweep()
    assert [results[name].status for name in NAMES] == ["finished"] * 2 + ["stopped"] * 2
    assert [results[name].tokens for name in NAMES] == [1000, 1000, 500, 500]
    assert [results[name].losses.nats_per_token["code"] for name in NAMES] == [1, 1.25, 2.25, 2.375]
    (before,) = results["b"].curve
    assert (before.tokens, before.nats_per_token["code"], results["b"].seconds) == (500, 2.125, 0.2)
    assert not list((sweep.folder / "files").iterdir())
    assert sweep() == results
    assert sorted(noted(sweep.log, "ended")) == ["a,b", "a,b", "c,d"]


def test_an_owner_killed_between_the_parts_trains_nothing_twice(sweep):
    def killed(results):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(killed)
    assert {read_entry(path)[1].status for path in trial_paths(sweep.folder)} == {"stopped"}
    # Selected trials of mixed groups form groups of their own, one for each worker.
    results = sweep(lambda results: {"b", "c"})
    assert [name for name in NAMES if results[name].status == "finished"] == ["b", "c"]
    assert sorted(noted(sweep.log, "ended")[2:]) == ["b", "c"]


def test_an_owner_killed_while_it_writes_a_group_leaves_the_curves_of_an_undisturbed_one(
    sweep, monkeypatch
):
    def killed(files, trials, results):
        write(files, trials[:1], results[:1])
        raise KeyboardInterrupt

    def select(results):
        if not list(sweep.folder.glob("selected")):
            (sweep.folder / "selected").touch()
            monkeypatch.setattr(TrialFolder, "write", killed)
        return better_half(results)

    write = TrialFolder.write
    with pytest.raises(KeyboardInterrupt):
        sweep(select)
    monkeypatch.setattr(TrialFolder, "write", write)
    for result in map(sweep().get, "ab"):
        assert ([point.tokens for point in result.curve], result.seconds) == ([500], 0.2)


def test_a_trial_selected_after_its_state_is_gone_trains_again(sweep):
    sweep()
    results = sweep(lambda results: {"a", "c"})
    assert [results[name].status for name in NAMES] == ["finished"] * 3 + ["stopped"]
    assert results["c"].losses.nats_per_token["code"] == 1.5
    assert not list((sweep.folder / "files").iterdir())


def test_a_trial_that_failed_before_the_cut_takes_no_other_with_it(sweep):
    one = STOP.model_copy(update={"workers": 1})
    results = sweep(lambda results: {"a", "c"}, one, fault="raises", at="b")
    assert [results[name].status for name in NAMES] == ["failed"] * 2 + ["finished", "stopped"]


def test_trials_that_all_fail_after_the_cut_are_an_error_with_their_reason(sweep):
    def spoilt(results):
        (sweep.folder / "files/b/state").write_text("spoilt")
        return {"b"}

    with pytest.raises(RunError, match="none of 4 trials finished; the first failed: Assertion"):
        sweep(spoilt)


def test_anchors_and_replicates_cost_their_whole_length(short_texts):
    design = {"trials": 8, "rounds": [6, 2], "anchors": ["natural"], "replicates": 1}
    content = {**quick_config(short_texts), "design": design, "sweep": {"stop": {}}}
    first, later, _ = training_parts(Config.model_validate(content))
    assert (first.most, first.tokens) == (8, 4000 * (6 * 0.75 + 2) / 8)
    assert (later.most, later.tokens) == (2, 3000)


def test_each_round_keeps_its_better_trials_and_all_anchors(short_texts, tmp_path):
    run = WorkRun(tmp_path, short_texts, trials=24)
    settings = ("sweep.stop={keep: 0.25}", "design.anchors=[natural]", "design.rounds=[16, 8]")
    run.owner(*[word for one in settings for word in ("--set", one)]).communicate(timeout=300)
    table = Trials.read(run.path / "trials.parquet").table
    kept = table.filter(status="finished")
    assert sorted(kept["round"].to_list()) == [0, 0, 0, 0, 0, 1, 1]
    assert "natural" in kept["trial"]
    for number in range(2):
        rows = table.filter(round=number, role="chosen" if number else "axial")
        ended = rows.filter(status="stopped")["loss/code"]
        assert ended.min() >= rows.filter(status="finished")["loss/code"].max()
    # The faulty proxy's losses at half lie on a line with those at the end.
    assert np.allclose(table["loss/code"], 1 + table["weight/code"], atol=1e-9)
    assert set(table["tokens"]) == {4000}


def result_at(name, status, early, end):
    curve = Losses(5, {"x": early}, {})
    losses = curve if status == "stopped" else Losses(10, {"x": end}, {})
    return TrialResult(name, status, losses.tokens, 1, 0.0, losses, curve=(curve,))


def test_a_stopped_trial_ends_on_the_line_of_the_others_or_their_mean_step_from_two():
    whole = [result_at(n, "finished", v, 1 + 2 * v) for n, v in (("a", 1.0), ("b", 2.0))]
    stopped = result_at("c", "stopped", 3.0, None)
    *_, ended = with_estimated_ends([*whole, stopped])
    assert (ended.status, ended.tokens) == ("stopped", 10)
    assert ended.losses.nats_per_token["x"] == 5.5
    *_, ended = with_estimated_ends([*whole, result_at("d", "finished", 5.0, 11.0), stopped])
    assert ended.losses.nats_per_token["x"] == pytest.approx(7.0)
    failed = TrialResult("e", "failed", 0, 0, 0.0, reason="no room")
    assert with_estimated_ends([failed, stopped]) == [failed, stopped]
