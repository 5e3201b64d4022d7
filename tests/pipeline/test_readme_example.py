"""The experiment that README.md prints works as printed, on a small sample of each domain."""

import json
import re
from pathlib import Path

import pytest
import zstandard

from mixopt.pipeline import steps

README = Path(__file__).parents[2] / "README.md"
# What is trained is made small; everything else is as printed.
QUICK = [
    "proxy={name: ngram, tokens: 20000, eval_tokens: 4096}",
    "design.trials=8",
    "fit={folds: 3, regressors: [linear]}",
    "propose.bootstrap=3",
    "propose.samples=1000",
    "tracking.enabled=false",
]


def rows(path: Path, column: str) -> str:
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    return "".join(json.dumps({column: text}) + "\n" for text in texts)


@pytest.fixture
def folder(text_files, tmp_path, monkeypatch) -> Path:
    """A folder with the printed experiment, and the files that it names."""
    import polars as pl

    monkeypatch.chdir(tmp_path)
    for name in ("web", "code"):
        (tmp_path / "data" / name).mkdir(parents=True)
    web, books = rows(text_files["prose"], "text"), rows(text_files["prose"], "content")
    (tmp_path / "data/web/0.jsonl.zst").write_bytes(zstandard.compress(web.encode()))
    pl.read_ndjson(text_files["code"]).write_parquet(tmp_path / "data/code/0.parquet")
    (tmp_path / "data/books.jsonl").write_text(books)
    (tmp_path / "data/exams.jsonl").write_text(rows(text_files["help"], "text"))
    text = next(b for b in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.S))
    (tmp_path / "experiment.yaml").write_text(text)
    return tmp_path


def test_the_printed_experiment_ends_with_a_proposal_within_its_epochs(folder):
    done = steps.run("experiment.yaml", folder / "runs" / "mine", overrides=QUICK)
    assert done.config.propose.target_tokens == 25_000_000_000
    assert sum(done.corpus.inventory.values()) < 1_000_000
    assert done.inventory == {"web": 1_200 * 10**9, "code": 200 * 10**9, "books": 25 * 10**9}
    assert max(done.proposal.epochs.values()) <= 4
    assert (done.path / "report.html").exists()
