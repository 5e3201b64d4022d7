"""What the story of a model prints of its runs."""

from __future__ import annotations

import json

import pytest
from experiment_modules import experiment

tables = experiment("story", "story_tables")
ARMS = ("recommended", "natural", "recommended, then natural")
NUMBERS = {"base": 10, "anneal": 5, "items": 2}


def scores(level):
    families = {"arc_rc_0shot": "knowledge", "mbpp_gold_bpb_0shot": "coding"}
    tasks = {
        name: {"family": family, "metrics": {"bits_per_byte": level + (family == "coding")}}
        for name, family in families.items()
    }
    return {"losses": {"web": level, "code": level}, "tasks": tasks}


@pytest.fixture
def printed(tmp_path, capsys):
    (tmp_path / "scores").mkdir()
    for stage in ("base", "annealed"):
        mixtures = {"recommended": {"web": 0.25, "code": 0.75}, "natural": {"web": 1.0}}
        (tmp_path / f"mixtures_{stage}.json").write_text(json.dumps(mixtures))
    for seed in (1, 2, 3):
        for arm, less in zip(ARMS, (0.5, 0.0, 0.25), strict=True):
            for stage in ("base", "annealed") if arm != ARMS[2] else ("annealed",):
                name = f"{stage}-{tables.folder_name(arm)}-{seed}.json"
                text = json.dumps(scores(2.0 + seed / 8 - less))
                (tmp_path / "scores" / name).write_text(text)
    tables.print_story(tmp_path, ARMS, NUMBERS)
    return capsys.readouterr().out


def test_a_difference_that_all_seeds_have_is_certain_whatever_the_seeds_differ_by(printed):
    assert "| recommended - natural | -0.500 ± 0.000 | -0.500 ± 0.000 |" in printed
    assert "| recommended - recommended, then natural | -0.250 ± 0.000 |" in printed


def test_families_count_alike_and_shares_are_in_percent(printed):
    assert "| natural | 2.750 | 2.250 | 3.250 | 2.250 | 3.250 |" in printed
    assert "| recommended | 25% | 75% |" in printed
    assert "| natural | 100% | 0% |" in printed
