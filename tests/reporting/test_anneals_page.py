"""Microanneals in a terminal, as JSON and on their page."""

import json
import shutil

import pytest
from command_line import mixopt
from made_anneals import SOURCES, made_anneals

from mixopt import load_run
from mixopt.pipeline import AnnealAsked
from mixopt.reporting import anneals_json, anneals_text, write_anneals
from mixopt.run_directory import Run


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
