"""Microanneals in a terminal, as JSON and on their page."""

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest
from command_line import mixopt
from made_anneals import SOURCES, made_anneals

from mixopt import load_run
from mixopt.pipeline import AnnealAsked
from mixopt.reporting import anneals_json, anneals_text, write_anneals
from mixopt.reporting.anneals import _paired
from mixopt.run_directory import Run
from mixopt.trials import Trials


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("anneals")
    guarded = {"constraints": {"guardrails": {"reference": "natural", "margin": 0.05}}}
    return made_anneals(folder, AnnealAsked(SOURCES), changes=guarded).path


def test_the_tables_fit_into_80_columns(trained, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ended = mixopt("anneal", trained)
    assert ended.code == 0, ended.error
    wide = [line for line in ended.out.splitlines() if len(line) > 80]
    assert [line for line in wide if not line.startswith(("next: ", "page: "))] == []
    assert f"next: mixopt anneal {trained} --combine" in ended.out


def test_sources_are_in_the_order_of_their_rank(trained):
    text = anneals_text(load_run(trained))
    places = [text.index(f"\n  {name}") for name in ("maths_news", "code_news", "books_news")]
    assert places == sorted(places)


def test_json_has_ranks_costs_and_epochs(trained):
    found = json.loads(mixopt("anneal", trained, "--json").out)
    assert found == json.loads(json.dumps(anneals_json(load_run(trained))))
    books = found["sources"]["books_news"]
    assert books["ranks"] == {"exam": 3, "reading": 1}
    assert books["epochs"] == pytest.approx(1.05, abs=0.01)
    assert books["tokens_of_source"] == 2_000_000
    assert books["largest_cost"]["loss"] == "forums_news"


def test_a_source_that_lost_a_pair_is_told_from_the_others(trained, tmp_path):
    run = load_run(shutil.copytree(trained, tmp_path / "copy"))
    lose(run, "anneal_books_news-s1")
    text = anneals_text(run)
    rows = [line.split() for line in text.splitlines() if line.startswith("  books_news")]
    assert "2" in rows[0]
    assert "warning: books_news: 2 of 3 pairs finished together; its change, interval" in text
    page = write_anneals(run).read_text()
    assert "books_news: 2 of 3 pairs finished together" in page
    assert "pairs finished together" not in (trained / "anneals.html").read_text()


def lose(run, trial):
    """Have a trial of a run diverge, in the table that it has read."""
    table = run.trials
    lost = pl.col("trial") == trial
    changed = table.table.with_columns(
        pl.when(lost).then(pl.lit("diverged")).otherwise(pl.col("status")).alias("status")
    )
    vars(run)["trials"] = Trials(changed, table.domains, table.targets, table.notes)


@pytest.mark.parametrize(
    ("proxy", "shared"),
    [
        ("decoder", "begin with the same weights and read the same base text"),
        ("continued", "begin with the checkpoint, as all others do, and read the same base"),
        ("ngram", "share what the proxy draws from the seed"),
        ("command", "are given the same seed; how far that pairs them is up to the trainer"),
    ],
)
def test_the_page_says_what_the_proxy_pairs(trained, proxy, shared):
    run = load_run(trained)
    config = run.config.model_copy(
        update={"proxy": run.config.proxy.model_copy(update={"name": proxy})}
    )
    assert f"a seed {shared}" in _paired(replace(run, config=config))


def test_a_broken_guardrail_is_said(trained):
    assert "warning: maths_news breaks the guardrail on" in anneals_text(load_run(trained))


def test_a_guardrail_on_a_mixture_stays_one_where_a_checkpoint_was_measured(trained, monkeypatch):
    text = anneals_text(load_run(trained))
    losses = dict.fromkeys(load_run(trained).objective.evaluation, 99.0)
    monkeypatch.setattr(Run, "base_losses", property(lambda run: losses))
    assert anneals_text(load_run(trained)) == text


def test_the_page_is_the_same_when_it_is_written_again(trained):
    page = trained / "anneals.html"
    before = page.read_bytes()
    write_anneals(load_run(trained))
    assert page.read_bytes() == before


def test_the_page_escapes_what_comes_from_a_run(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    text = write_anneals(load_run(copy)).read_text()
    assert "<script>alert" not in text
    assert "Content-Security-Policy" in text
    assert text.count("<svg") == 1
