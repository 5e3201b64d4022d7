"""A run shows which steps are done, at any time and in any state, and never fails at it."""

from dataclasses import replace

import mixopt
from mixopt.run_directory import Run, load_run


def steps(run):
    """Return the state of each step, as a notebook shows it."""
    rows = run._repr_html_().partition("<tbody>")[2].split("<tr>")[1:]
    cells = [
        [part.partition("</td>")[0] for part in row.split(">", 1)[1].split('">')] for row in rows
    ]
    return {row[0]: row[1] for row in cells}


def test_a_finished_run_says_so_in_a_line_and_shows_its_recommendation(finished):
    run = load_run(finished)
    assert repr(run) == f"Run({str(finished)!r}: 7 of 7 steps done)"
    assert set(steps(run).values()) == {"done"}
    assert "Recommendation: " in run._repr_html_()


def test_a_run_where_nothing_is_done_names_the_first_command(finished, tmp_path):
    run = Run(tmp_path / "new", load_run(finished).config)
    assert repr(run).endswith("0 of 7 steps done; next: prepare)")
    assert set(steps(run).values()) == {"not done yet"}
    assert "next: mixopt prepare " in run._repr_html_()


def test_a_sweep_that_is_half_done_counts_its_trials(copied):
    run = load_run(copied)
    run.discard("sweep", only=True, keep=["trials"])
    run.begin("sweep")
    for path in sorted(run.path.glob("trials/t*.json"))[:5]:
        path.unlink()
    again = load_run(copied)
    said = "interrupted, 7 trials ended"  # of 12
    assert steps(again)["sweep"] == said
    assert repr(again).endswith(f"next: sweep, {said})")


def test_a_damaged_run_shows_what_is_wrong(copied):
    run = load_run(copied)
    (copied / "trials.parquet").write_bytes(b"damaged")
    assert "trials.parquet" in steps(run)["sweep"]
    assert "steps done; next: sweep, cannot be used" in repr(run)
    (copied / "steps.json").write_text("[]")
    run = Run(copied, run.config)
    assert "steps.json" in steps(run)["prepare"]
    assert "0 of 7 steps done" in repr(run)


def test_a_run_of_another_configuration_names_the_field(copied):
    run = load_run(copied)
    other = Run(copied, run.config.model_copy(update={"seed": run.config.seed + 1}))
    assert "seed" in steps(other)["prepare"]


def test_the_name_of_a_run_is_escaped(finished):
    run = load_run(finished)
    odd = replace(run, config=run.config.model_copy(update={"name": "<script>"}))
    assert "&lt;script&gt;" in odd._repr_html_()
    assert "<script>" not in odd._repr_html_()


def test_a_corpus_counts_domains_targets_and_tokens(finished):
    corpus = mixopt.Corpus.open(finished / "corpus", verify=False)
    shown, total = corpus._repr_html_(), sum(corpus.inventory.values())
    assert repr(corpus).startswith(f"Corpus({str(finished / 'corpus')!r}: 2 domains, 1 target, ")
    for name, tokens in corpus.inventory.items():
        assert f">{name}</td>" in shown
        assert f">{tokens:,}</td>" in shown
        assert f">{100 * tokens / total:.1f}%</td>" in shown
    assert shown.count(">target</td>") == 1
