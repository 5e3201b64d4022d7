"""A run says in a line which steps are done, in any state, and never fails at it."""

from mixopt.run_directory import Run, load_run


def test_a_run_counts_its_steps_and_of_a_damaged_one_says_what_is_wrong(copied, tmp_path):
    run = load_run(copied)
    assert repr(run) == f"Run({str(copied)!r}: 7 of 7 steps done)"
    assert repr(Run(tmp_path / "new", run.config)).endswith(": 0 of 7 steps done)")
    (copied / "trials.parquet").write_bytes(b"damaged")
    assert "6 of 7 steps done" in repr(run)
    (copied / "steps.json").write_text("[]")
    assert "steps.json" in repr(Run(copied, run.config))


def test_what_a_run_made_says_in_a_line_what_it_is(finished):
    run = load_run(finished)
    assert repr(run.fit).startswith("Fit('skills': 12 trials, 2 domains, ")
    assert repr(run.trials).startswith("Trials(12 finished; 2 domains, ")
    for made in (run.fit, run.trials, run.proposal, run.validation, run.recommendation):
        assert repr(made).startswith(f"{type(made).__name__}(")
        assert "\n" not in repr(made)


def test_a_run_has_at_most_25_public_names(finished):
    assert len([name for name in dir(load_run(finished)) if not name.startswith("_")]) <= 25
