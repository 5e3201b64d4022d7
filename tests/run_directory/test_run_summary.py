"""A run says in a line which steps are done, in any state, and never fails at it."""

from mixopt.run_directory import Run, load_run


def test_a_finished_run_says_so(finished):
    assert repr(load_run(finished)) == f"Run({str(finished)!r}: 7 of 7 steps done)"


def test_a_run_where_nothing_is_done_names_the_first_step(finished, tmp_path):
    run = Run(tmp_path / "new", load_run(finished).config)
    assert repr(run).endswith("0 of 7 steps done; next: prepare)")


def test_a_sweep_that_is_half_done_counts_its_trials(copied):
    run = load_run(copied)
    run.log.discard("sweep", only=True, keep=["trials"])
    run.log.begin("sweep")
    for path in sorted(run.path.glob("trials/t*.json"))[:5]:
        path.unlink()
    assert repr(load_run(copied)).endswith("next: sweep, interrupted, 7 trials ended)")  # of 12


def test_a_damaged_run_shows_what_is_wrong(copied):
    run = load_run(copied)
    (copied / "trials.parquet").write_bytes(b"damaged")
    assert "steps done; next: sweep, cannot be used" in repr(run)
    (copied / "steps.json").write_text("[]")
    again = repr(Run(copied, run.config))
    assert "0 of 7 steps done; next: prepare, cannot be used" in again
    assert "steps.json" in again
