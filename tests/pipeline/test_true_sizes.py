"""Natural shares, epochs and caps are of the stated sizes, and what was prepared is a sample."""

import pytest
import yaml

from mixopt.config import load_config
from mixopt.errors import ConfigError, InfeasibleError, RunError
from mixopt.pipeline import steps
from mixopt.run_directory import Run, load_run, repetition_of

SIZES = {"code": 6_000_000, "prose": 1_000_000}
STATED = [f"corpus.domains.{name}.tokens={tokens}" for name, tokens in SIZES.items()]
LONG = "propose.target_tokens=4000000"


@pytest.fixture(scope="module")
def prepared(experiment, tmp_path_factory) -> Run:
    """A prepared run that states no sizes."""
    folder = tmp_path_factory.mktemp("sized")
    (folder / "tiny.yaml").write_text(experiment)
    return steps.run(folder / "tiny.yaml", folder / "run", until="prepare")


def of(prepared: Run, *overrides: str) -> Run:
    """The prepared run under other values."""
    return Run(prepared.path, load_config(prepared.source, overrides), prepared.source)


def test_without_a_corpus_the_sizes_are_those_that_are_stated(config_path, tmp_path):
    assert Run(tmp_path / "run", load_config(config_path, STATED)).inventory == SIZES
    for given in ([], [line.replace("tokens", "bytes") for line in STATED]):
        with pytest.raises(RunError, match="corpus: missing, so the tokens of the domains"):
            _ = Run(tmp_path / "run", load_config(config_path, given)).inventory


def test_bytes_become_tokens_at_the_prepared_rate_and_caps_are_of_the_stated_sizes(prepared):
    run = of(prepared, *(line.replace("tokens", "bytes") for line in STATED))
    for domain in run.corpus.domains:
        rate = domain.train.tokens / domain.train.bytes
        assert run.inventory[domain.name] == round(SIZES[domain.name] * rate)
    run = of(prepared, *STATED, "constraints.max_epochs=2", LONG)
    assert run.constraints.upper_D.tolist() == [1.0, 0.5]
    with pytest.raises(InfeasibleError, match="max_epochs"):
        _ = of(prepared, "constraints.max_epochs=1", LONG).constraints


@pytest.mark.parametrize("unit", ["tokens", "bytes"])
def test_a_size_below_what_was_prepared_is_refused_with_both_numbers(prepared, unit):
    held = prepared.corpus.inventory["code"] if unit == "tokens" else ""
    run = of(prepared, f"corpus.domains.code.{unit}=5000", "corpus.domains.prose.tokens=1e9")
    message = rf"tiny.yaml: corpus.domains.code.{unit}: 5000 is less than the {held}"
    with pytest.raises(ConfigError, match=message):
        _ = run.inventory


def test_trials_with_simulated_epochs_repeat_pools_of_whole_domains_or_smaller_samples(prepared):
    known = repetition_of(of(prepared, *STATED, LONG, "proxy.simulate_epochs=true"))
    assert (known.inventory, known.tokens) == (tuple(map(float, SIZES.values())), 4_000_000)
    huge = [line + "00000" for line in STATED]
    held = prepared.corpus.inventory
    run = of(prepared, *huge, LONG, "proxy.simulate_epochs=true")
    assert repetition_of(run).inventory == tuple(held[name] * 200.0 for name in SIZES)


def test_a_design_is_made_again_for_another_size_and_the_corpus_is_kept(
    config_path, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    steps.run(config_path, out, until="prepare")
    before = steps.run(config_path, out, until="design").design[0].mixture["code"]
    index = (out / "corpus" / "index.json").read_bytes()
    with pytest.raises(RunError, match=r"'design' was made from another .*code.tokens is absent"):
        steps.run(config_path, out, overrides=STATED, until="design")
    monkeypatch.setattr("mixopt.pipeline.steps.STEPS", steps.STEPS[:2])
    done = steps.run(config_path, out, overrides=STATED, redo="design")
    assert (out / "corpus" / "index.json").read_bytes() == index
    (natural,) = (trial.mixture for trial in done.design if trial.name == "natural")
    assert natural["code"] == pytest.approx(6 / 7)
    assert before == pytest.approx(done.corpus.natural["code"]) != pytest.approx(6 / 7)


def test_the_content_of_the_file_counts_and_not_its_path(prepared, tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(SIZES))
    run = of(prepared, f"corpus.inventory={tmp_path / 'a.yaml'}")
    for step in ("prepare", "design"):
        assert run.log.fingerprint(step) == of(prepared, *STATED).log.fingerprint(step)
    assert run.log.fingerprint("prepare") == prepared.log.fingerprint("prepare")
    assert run.log.fingerprint("design") != prepared.log.fingerprint("design")


def test_a_sample_that_is_small_for_the_proxy_is_said_before_training(prepared, tmp_path):
    said: list[str] = []
    overrides = [*STATED, "proxy.tokens=3000000", LONG]
    out = steps.run(prepared.source, tmp_path / "run", overrides=overrides, until="prepare").path
    steps.run(prepared.source, out, overrides=overrides, say=said.append, until="design")
    line = next(line for line in said if "the prepared text is small" in line)
    for name, held in prepared.corpus.inventory.items():
        assert f"{name} {3_000_000 / held:.1f} times at a weight of 1" in line
    assert "lower proxy.tokens" in line


def test_a_run_that_was_moved_needs_no_file_of_sizes(config_path, tmp_path):
    (tmp_path / "sizes.yaml").write_text(yaml.safe_dump(SIZES))
    given = [f"corpus.inventory={tmp_path / 'sizes.yaml'}"]
    out = steps.run(config_path, tmp_path / "run", overrides=given, until="prepare").path
    (tmp_path / "sizes.yaml").unlink()
    assert load_run(out.rename(tmp_path / "elsewhere")).inventory == SIZES
