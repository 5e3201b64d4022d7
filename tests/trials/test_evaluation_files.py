"""What lm-eval and OLMES leave becomes trials: bits per byte by samples, else their metrics."""

from __future__ import annotations

import json
import math
import shutil

import polars as pl
import pytest
from command_line import mixopt

from mixopt.errors import TrialsError
from mixopt.trials import Trials, read_evaluations

SLOPE = 0.7
CHOICES = [" a", " bé", " ccc"]


@pytest.fixture(scope="module")
def lm_eval_runs(tmp_path_factory):
    """Results and samples of two models, as lm-eval writes them of tasks that we export."""
    pytest.importorskip("lm_eval")
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    from mixopt.integrations import export_lm_eval_tasks

    class Letters(LM):
        """Gives each byte of an answer the same ln p."""

        def __init__(self, slope):
            super().__init__()
            self.slope = slope

        def loglikelihood(self, requests, **_):
            return [(-self.slope * len(one.args[1].encode()), False) for one in requests]

        def loglikelihood_rolling(self, requests, **_):
            raise NotImplementedError

        def generate_until(self, requests, **_):
            raise NotImplementedError

    folder = tmp_path_factory.mktemp("lm_eval")
    (folder / "tasks").mkdir()
    arc = [
        {"id": n, "context": f"Q{n}\nAnswer:", "choices": CHOICES[: 2 + n % 2], "gold": n % 2}
        for n in range(6)
    ]
    names = [{"id": 0, "contexts": ["so Ann", "so Bob"], "choices": [" ran", " ran"], "gold": 1}]
    code = [{"id": 0, "context": "def f():\n", "continuation": "    return é"}]
    for name, rows in {"arc": arc, "names": names, "code": code}.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "tasks" / f"{name}.jsonl").write_text(lines)
    exported = export_lm_eval_tasks(folder / "tasks", folder / "yaml")
    manager = TaskManager(include_path=str(folder / "yaml"), include_defaults=False)
    for trial, slope in (("t0", SLOPE), ("t1", 2 * SLOPE)):
        found = simple_evaluate(
            model=Letters(slope),
            tasks=exported,
            task_manager=manager,
            log_samples=True,
            bootstrap_iters=0,
        )
        samples = found.pop("samples")
        tracker = EvaluationTracker(output_path=str(folder / "runs" / trial))
        tracker.save_results_aggregated(results=found, samples=samples)
        for task in found["configs"]:
            tracker.save_results_samples(task_name=task, samples=samples[task])
    (folder / "w.csv").write_text("trial,web,law\nt1,0.4,0.6\nt0,0.5,0.5\n")
    return folder


def test_bits_per_byte_are_of_the_gold_answer_by_the_samples(lm_eval_runs):
    found = read_evaluations(f"{lm_eval_runs}/runs/*/*/results*.json", "lm-eval")
    bits = SLOPE / math.log(2)
    tasks = ("mixopt_arc", "mixopt_code")
    assert {name: found.values["t0"][f"task/{name}/bits_per_byte"] for name in tasks} == (
        dict.fromkeys(tasks, pytest.approx(bits))
    )
    assert found.values["t1"]["task/mixopt_arc/bits_per_byte"] == pytest.approx(2 * bits)
    assert found.values["t0"].keys() == found.values["t1"].keys()


def test_without_samples_the_metrics_stand_with_their_direction(lm_eval_runs, tmp_path):
    shutil.copytree(lm_eval_runs / "runs", tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("samples*"):
        path.unlink()
    found = read_evaluations(f"{tmp_path}/runs/*/*/results*.json", "lm-eval")
    assert found.values["t0"]["task/mixopt_arc/acc"] == pytest.approx(0.5)
    assert "task/mixopt_arc/acc_norm" in found.values["t0"]
    assert "task/mixopt_code/acc" in found.values["t0"]
    assert found.higher == ()  # acc is known to be better when it is higher
    assert not any("stderr" in name for name in found.values["t0"])


def test_import_joins_them_with_mixtures_by_the_first_wildcard(lm_eval_runs, tmp_path):
    files = ("--lm-eval", f"{lm_eval_runs}/runs/*/*/results*.json")
    out = tmp_path / "t.parquet"
    ended = mixopt("import", *files, "--mixtures", lm_eval_runs / "w.csv", "--out", out)
    assert ended.code == 0, ended.error
    assert f"{out}: 2 trials (2 finished), 2 domains, 4 evaluation domains" in ended.out
    trials = Trials.read(out)
    assert trials.table["trial"].to_list() == ["t1", "t0"]
    values = trials.table["task/mixopt_arc/bits_per_byte"]
    assert values[0] == pytest.approx(2 * values[1])


def test_the_newest_result_of_a_task_counts(lm_eval_runs, tmp_path):
    shutil.copytree(lm_eval_runs / "runs", tmp_path / "runs")
    (path,) = (tmp_path / "runs" / "t0").rglob("results*.json")
    content = json.loads(path.read_text())
    for shift, score in ((-60, 0.1), (60, 0.9)):
        own = {"mixopt_arc": {"acc,none": score}}
        newer = {**content, "date": content["date"] + shift, "results": own}
        path.with_name(f"results_{shift}.json").write_text(json.dumps(newer))
    found = read_evaluations(f"{tmp_path}/runs/*/*/results*.json", "lm-eval")
    assert found.values["t0"]["task/mixopt_arc/acc"] == 0.9
    assert "task/mixopt_arc/bits_per_byte" not in found.values["t0"]
    assert len(found.notes) == 2


def results(path, own, higher=None, groups=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"results": own, "higher_is_better": higher or {}, "group_subtasks": groups or {}}
    path.write_text(json.dumps({**content, "date": 1.0}))


def test_groups_are_left_to_their_tasks_and_unknown_metrics_keep_their_direction(tmp_path):
    own = {
        "mmlu": {"acc,none": 0.3},
        "mmlu_law": {"acc,none": 0.3},
        "x": {"bleu,a": 1, "bleu,b": 2},
    }
    results(
        tmp_path / "runs" / "a" / "results_1.json",
        own,
        {"x": {"bleu": True}},
        {"mmlu": ["mmlu_law"]},
    )
    found = read_evaluations(f"{tmp_path}/runs/*/results*.json", "lm-eval")
    assert found.values == {
        "a": {"task/mmlu_law/acc": 0.3, "task/x/bleu:a": 1.0, "task/x/bleu:b": 2.0}
    }
    results(tmp_path / "runs" / "a" / "results_1.json", {"x": {"bleu,a": 1}}, {"x": {"bleu": True}})
    found = read_evaluations(f"{tmp_path}/runs/*/results*.json", "lm-eval")
    assert found.higher == ("task/x/bleu",)


OLMES = {
    "task_name": "arc_easy",
    "task_config": {"metadata": {"alias": "arc_easy:rc::olmes"}},
    "metrics": {
        "bits_per_byte_corr": 0.9,
        "norm_correct_prob": 0.4,
        "primary_score": 0.6,
        "logits_per_byte_corr": 1.0,
        "extra": {"a": 1},
        "odd": 2.0,
    },
}
ARC = "task/arc_easy:rc::olmes"


@pytest.mark.parametrize("content", [OLMES, {"tasks": [OLMES]}])
def test_olmes_metrics_become_ours_where_they_are_the_same(tmp_path, content):
    (tmp_path / "runs" / "t0").mkdir(parents=True)
    (tmp_path / "runs" / "t0" / "metrics.json").write_text(json.dumps(content))
    found = read_evaluations(f"{tmp_path}/runs/*/metrics.json", "olmes")
    assert found.values["t0"] == {
        f"{ARC}/bits_per_byte": 0.9,
        f"{ARC}/choice_probability": 0.4,
        f"{ARC}/primary_score": 0.6,
        f"{ARC}/logits_per_byte_corr": 1.0,
        f"{ARC}/odd": 2.0,
    }
    assert found.higher == (f"{ARC}/odd",)


def test_directions_are_part_of_the_next_command_and_of_the_fit(tmp_path):
    rows = ["name,web,law"]
    for n in range(8):
        folder = tmp_path / "runs" / f"t{n}"
        folder.mkdir(parents=True)
        metrics = {"primary_score": n / 10, "odd": 1 - n / 20}
        content = {"task_name": "arc", "metrics": metrics}
        (folder / "metrics.json").write_text(json.dumps(content))
        rows.append(f"t{n},{n / 8},{1 - n / 8}")
    (tmp_path / "w.csv").write_text("\n".join(rows))
    files = ("--olmes", f"{tmp_path}/runs/*/metrics.json", "--mixtures", tmp_path / "w.csv")
    ended = mixopt("import", *files, "--out", tmp_path)
    assert ended.code == 0, ended.error
    assert ended.out.endswith("fits/trials --direction task/arc/odd=higher\n")
    trials = Trials.read(tmp_path / "trials.parquet")
    fit = trials.fit(regressors="linear", objective="task/arc/primary_score")
    assert fit.objective.higher == ("task/arc/primary_score",)


def test_a_trial_without_a_task_is_left_out_where_that_is_asked(tmp_path):
    for n in range(3):
        own = {"a": {"acc,none": n / 3}} | ({"b": {"acc,none": n / 4}} if n else {})
        results(tmp_path / "runs" / f"t{n}" / "results_1.json", own)
    (tmp_path / "w.csv").write_text("trial,web\nt0,1\nt1,1\nt2,1\n")
    files = ("--lm-eval", f"{tmp_path}/runs/*/results*.json", "--mixtures", tmp_path / "w.csv")
    ended = mixopt("import", *files, "--out", tmp_path / "t.parquet")
    assert "row t0: task/b/acc: is empty; fill it in, or leave such rows out" in ended.error
    ended = mixopt("import", *files, "--out", tmp_path / "t.parquet", "--drop-incomplete")
    assert ended.code == 0, ended.error
    assert pl.read_parquet(tmp_path / "t.parquet")["trial"].to_list() == ["t1", "t2"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results_1.json", "no", "results_1.json: "),
        ("results_1.json", "[]", "is not a file of lm-eval's results"),
        ("samples_a_1.jsonl", "{", "samples_a_1.jsonl: cannot be read"),
        ("samples_a_1.jsonl", '{"doc_id": 0}\n', "cannot be read: KeyError"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path, name, content, said):
    results(tmp_path / "runs" / "t0" / "results_1.json", {"a": {"acc,none": 0.5}})
    (tmp_path / "runs" / "t0" / name).write_text(content)
    with pytest.raises(TrialsError, match=said):
        read_evaluations(f"{tmp_path}/runs/*/results*.json", "lm-eval")


def test_a_glob_that_fits_nothing_has_no_wildcard_or_goes_without_mixtures(tmp_path):
    with pytest.raises(TrialsError, match="matches no file"):
        read_evaluations(f"{tmp_path}/*/results*.json", "lm-eval")
    with pytest.raises(TrialsError, match="give a glob whose first wildcard is the trial"):
        read_evaluations(f"{tmp_path}/results.json", "lm-eval")
    asked = ("import", "--olmes", "x/*/metrics.json", "--out", tmp_path)
    assert "import: --mixtures FILE is missing: the weights of each trial" in mixopt(*asked).error
    assert "import: give --uri and --experiment, or --lm-eval" in mixopt(*asked, "--uri", "u").error


def test_columns_of_tasks_come_after_those_of_domains_in_a_table_of_ones_own(tmp_path):
    (tmp_path / "w.csv").write_text("trial,web\na,1\nb,1\n")
    (tmp_path / "l.csv").write_text("trial,task/x/accuracy,help\na,0.5,2\nb,0.6,3\n")
    found = Trials.from_csv(tmp_path / "w.csv", tmp_path / "l.csv")
    assert found.targets == ("help", "task/x/accuracy")
    found.write(tmp_path / "t.parquet")
    assert Trials.read(tmp_path / "t.parquet") == found
