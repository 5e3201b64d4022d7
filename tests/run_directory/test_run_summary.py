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
