"""What `mixopt import` reads and `mixopt export` writes."""

import json

import numpy as np
import polars as pl
import pytest
from command_line import mixopt
from read_fragments import read_shares

from mixopt import Trials, load_run
from mixopt.corpus import TokenShards
from mixopt.integrations import EXPORT_TOOLS


def test_tokens_of_another_tool_become_shards(tmp_path):
    np.arange(100, dtype=np.uint16).tofile(tmp_path / "train.bin")
    out = tmp_path / "corpus" / "web" / "train"
    given = [tmp_path / "train.bin", "--out", out, "--tokenizer", "gpt2", "--dtype", "uint16"]
    ended = mixopt("import", *given)
    assert ended.code == 0, ended.error
    assert TokenShards.open(out).read(0, 100).tolist() == list(range(100))
    repeated = mixopt("import", *given)
    assert (repeated.code, repeated.error.count("\n")) == (2, 1)
    assert "already exists" in repeated.error


def test_tables_of_runs_become_trials(tmp_path):
    (tmp_path / "w.csv").write_text("step,a,b,note\nx,0.25,0.75,p\ny,0.5,0.48,q\n")
    (tmp_path / "l.csv").write_text("step,a,b\nx,2,3\ny,1,4\n")
    tables, out = [tmp_path / "w.csv", tmp_path / "l.csv"], tmp_path / "trials.parquet"
    args = ["--key", "step", "--ignore", "note", "--tolerance", 0.05, "--unit", "bits_per_byte"]
    ended = mixopt("import", *tables, "--out", out, *args)
    assert ended.out == f"{out}: 2 trials, 2 domains, 2 losses\n", ended.error
    trials = Trials.read(out)
    assert (trials.unit, trials.domains, len(trials)) == ("bits_per_byte", ("a", "b"), 2)


def imported(folder):
    """Import all results in a folder; return how many metrics they have."""
    files = sorted(folder.rglob("*.json"))
    ended = mixopt("import", *files, "--out", folder / "L.csv", "--json")
    assert ended.code == 0, ended.error
    return json.loads(ended.out)["metrics"]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_results_of_tasks_become_a_table_of_losses(tmp_path):
    for run, accuracy in (("t1", 0.5), ("t2", 0.625)):
        metrics = {"acc,none": accuracy, "acc_stderr,none": 0.1, "alias": "arc"}
        write(tmp_path / run / "model" / "results_1.json", {"results": {"arc": metrics}})
    tasks = [{"task_name": "arc", "metrics": {"acc": 0.25}}]
    write(tmp_path / "t3" / "metrics.json", {"tasks": tasks})
    assert imported(tmp_path) == 1
    lines = (tmp_path / "L.csv").read_text().splitlines()
    assert lines == ["trial,task/arc/acc", "t1,0.5", "t2,0.625", "t3,0.25"]


def test_the_questions_of_lm_eval_are_those_of_its_shares_of_right_answers(tmp_path):
    for run, accuracy in (("t1", 0.5), ("t2", 0.625)):
        samples = {"original": 9, "effective": 8}
        metrics = {"acc,none": accuracy, "perplexity,none": 3.5}
        content = {"results": {"arc": metrics}, "n-samples": {"arc": samples}}
        write(tmp_path / f"{run}.json", content)
    assert imported(tmp_path) == 2
    (tmp_path / "W.csv").write_text("trial,a,b\nt1,1,0\nt2,0,1\n")
    trials = Trials.from_csv(tmp_path / "W.csv", tmp_path / "L.csv")
    assert trials.items == {"task/arc/acc": 8}
    assert trials.targets == ("task/arc/acc", "task/arc/perplexity")


@pytest.mark.parametrize("samples", [None, {}, {"arc": {}}, {"arc": {"effective": None}}])
def test_results_without_a_number_of_questions_are_read_without_it(tmp_path, samples):
    for run in ("t1", "t2"):
        write(tmp_path / f"{run}.json", {"results": {"arc": {"acc": 0.5}}, "n-samples": samples})
    assert imported(tmp_path) == 1
    assert (tmp_path / "L.csv").read_text().splitlines()[0] == "trial,task/arc/acc"


def test_runs_that_answer_the_same_questions_differ_by_less_than_their_number_says(tmp_path):
    rng = np.random.default_rng(0)
    hard_I = rng.beta(0.3, 0.3, 400)
    shares = []
    for run in range(40):
        right_I = (rng.random(400) < hard_I).astype(float)
        metrics = {"exact_match,strict": right_I.mean()}
        content = {"results": {"gsm8k": metrics}, "n-samples": {"gsm8k": {"effective": 400}}}
        folder = tmp_path / f"t{run}"
        write(folder / "results_1.json", content)
        answers = pl.DataFrame({"doc_id": range(400), "filter": "strict", "exact_match": right_I})
        loose = answers.with_columns(filter=pl.lit("loose"), exact_match=0.0)
        pl.concat([answers, loose]).write_ndjson(folder / "samples_gsm8k_1.jsonl")
        shares.append(right_I.mean())
    imported(tmp_path)
    items = int(pl.read_csv(tmp_path / "L.csv")["items/task/gsm8k/exact_match,strict"][0])
    claimed, p = np.sqrt(0.25 / items), np.mean(shares)
    expected = np.sqrt((hard_I * (1 - hard_I)).mean() / 400) * np.sqrt(0.25 / (p * (1 - p)))
    assert items > 700
    assert claimed == pytest.approx(expected, rel=0.1)


def test_the_list_has_every_tool_with_its_unit_and_needs():
    listed = mixopt("export", "--list").out
    for tool in EXPORT_TOOLS.values():
        (line,) = [line for line in listed.splitlines() if line.split()[:1] == [tool.name]]
        assert tool.unit.name in line
        assert all(need in line for need in tool.unit.needs)
    found = json.loads(mixopt("export", "--list", "--json").out)["tools"]
    assert [tool["name"] for tool in found] == list(EXPORT_TOOLS)


UNITS = {tool.unit.name: tool.name for tool in EXPORT_TOOLS.values()}


@pytest.mark.parametrize("tool", UNITS.values())
def test_a_run_gives_its_recommendation_with_all_that_units_need(finished, tool, tmp_path):
    out = tmp_path / "fragment"
    ended = mixopt("export", finished, "--to", tool, "--out", out)
    assert ended.code == 0, ended.error
    found = load_run(finished)
    trained = {domain.name: domain.train for domain in found.corpus.domains if domain.train}
    known = {"inventory": found.inventory}
    known["sample_tokens"] = {name: part.tokens / part.documents for name, part in trained.items()}
    weights = read_shares(out.read_text(), tool, **known)
    assert weights == pytest.approx(dict(found.recommendation.mixture), abs=1e-3)


def test_the_length_of_the_full_run_is_that_of_the_configuration(finished, tmp_path):
    def swift(*more):
        return mixopt("export", finished, "--to", "swift", *more).out

    assert swift().splitlines()[2:] == swift("--tokens", "25e9").splitlines()[2:]
    answer = json.loads(swift("--json"))
    assert (answer["tool"], answer["fragment"].strip()) == ("swift", swift().strip())
    path = tmp_path / "mix.json"
    assert json.loads(swift("--json", "--out", path)) == {"tool": "swift", "files": [str(path)]}
    assert path.read_text().splitlines()[2:] == swift().splitlines()[2:]
