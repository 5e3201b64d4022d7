"""What the configuration alone tells is told first, all at once, and nothing is written."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import mixopt
from places import PROJECT
from threadpoolctl import threadpool_limits

from mixopt.config import load_config
from mixopt.corpus import prepare_corpus
from mixopt.errors import CorpusError
from mixopt.pipeline import check, steps
from mixopt.pipeline.experiment_cost import estimated_speed, planned_arms, proxy_parameters
from mixopt.system import duration

SIZES = ["corpus.domains.code.tokens=6e6", "corpus.domains.prose.tokens=1e6"]


def checked(config_path, *overrides, **given):
    return check(load_config(config_path, overrides), **given)


def problems(config_path, *overrides):
    return [str(problem) for problem in checked(config_path, *overrides).problems]


def test_sizes_trials_and_tokens_are_those_of_the_run(config_path):
    found = checked(config_path, *SIZES, "validate={rounds: 2, max_seeds: 6}")
    assert (found.problems, found.sizes.basis) == ([], "stated")
    assert found.natural["code"] == pytest.approx(6 / 7)
    parts = {part.part: part for part in found.parts}
    first, validation = parts["first round"], parts["validation"]
    assert (first.least, first.tokens) == (8 + 2 + 2, 20_000)
    # A proposal and four baselines, three seeds each; or two proposals and six seeds.
    assert (validation.least, validation.most, validation.tokens) == (15, 36, 40_000)
    later = [part.part for part in checked(config_path, "design.trials=40").parts]
    assert later == ["first round", "later rounds", "validation"]
    assert [p.part for p in checked(config_path, validates=False).parts] == ["first round"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["constraints.bounds={code: [0, 0.3], prose: [0, 0.3]}"], "of these limits, short by 0.4"),
        (["constraints.max_epochs=1", "propose.target_tokens=1e8"], "allow max_epochs: 14.3"),
        (["fit.folds=40"], "fit.folds: 40 folds need at least 40 different mixtures, and the"),
        (["fit.folds=13"], "raise design.trials, or lower fit.folds"),
        (["proxy.device=cuda"], "proxy.device: cuda: no GPU is visible here; use auto or cpu"),
        (["constraints.radius={reference: none.yaml, tv: 0.1}"], "reference: none.yaml: not found"),
        (["corpus.domains.code.tokens=100"], "code.tokens: 100 is less than its files"),
    ],
)
def test_a_problem_is_one_line_that_says_what_to_do(config_path, overrides, message, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = problems(config_path, *SIZES, *overrides)
    assert message in found
    assert "\n" not in found


def test_an_option_of_a_convex_limit_is_checked_before_sizes_are_known(config_path, monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "examples")
    options = '{"minimum_entropy:MinimumEntropy": {effective_domains: 99}}'
    (found,) = problems(config_path, f"constraints.convex={options}")
    assert "MinimumEntropy: effective_domains should be from 1 to" in found


def test_all_problems_are_told_at_once_before_anything_is_written(config_path, tmp_path):
    overrides = ["corpus.domains.code.path=absent.jsonl", "constraints.bounds={'*': [0, 0.3]}"]
    absent, bounds = problems(config_path, *overrides)
    assert absent.startswith("domain 'code'")
    assert bounds.startswith("no mixture satisfies all of these limits")
    with pytest.raises(CorpusError, match=r"'code'.*\(and 1 more; mixopt check lists all\)$"):
        steps.run(config_path, tmp_path / "run", overrides=overrides)
    assert not (tmp_path / "run").exists()


ROWS = b"".join(b'{"text": "words of document %d"}\n' % k for k in range(200))


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b'{"text": "caf\xe9"}\n', "bad.jsonl:1: invalid UTF-8 at byte 14"),
        (b'{"text": null}\n', "bad.jsonl:1: column 'text' is null, not text"),
        (b'{"text": "a"}\n{"text"\n', "bad.jsonl:2: broken JSON"),
    ],
)
def test_what_prepare_would_refuse_of_the_first_documents_is_a_problem(
    config_path, tmp_path, first, message
):
    (tmp_path / "bad.jsonl").write_bytes(first + ROWS)
    overrides = [f"corpus.domains.code.path={tmp_path}/bad.jsonl"]
    (problem,) = problems(config_path, *overrides)
    assert message in problem
    corpus = load_config(config_path, overrides).corpus
    with pytest.raises(CorpusError) as refused:
        prepare_corpus(corpus, {}, tmp_path / "corpus", fingerprint="f")
    assert message in str(refused.value)
    assert problems(config_path, *overrides, "corpus.on_bad_document=skip") == []


def test_the_estimated_speed_of_a_decoder_is_that_of_matrix_products():
    estimated = estimated_speed(1e6)
    side = np.ones((256, 256), np.float32)
    with threadpool_limits(1, user_api="blas"):
        start = time.process_time()
        for _ in range(50):
            side @ side
    product = 2 * 50 * 256**3 / (time.process_time() - start)
    assert 0.2 * product < estimated * 1e6 < 2 * product


def test_arms_without_a_control_are_said_to_have_none(config_path):
    items, none = "objective={target: code, items: {code: 200}}", "design.anchors=[]"
    arms = [load_config(config_path, asked) for asked in ([items, none], [items])]
    (without,), (within,) = map(planned_arms, arms)
    assert without.endswith("; no arm is a control: set design.anchors: [natural]")
    assert "is told from the control with probability" in within
    assert "no arm is a control" not in within


def test_a_decoder_is_checked_without_torch(config_path):
    code = (
        "import sys; from mixopt.config import load_config; from mixopt import pipeline;"
        "config = load_config(sys.argv[1], ['proxy={name: decoder, tokens: 20000}']);"
        "found = pipeline.check(config, probe=True);"
        "said = any('time here:' in line for line in found.lines());"
        "print(found.problems, said, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code, str(config_path)]
    assert subprocess.check_output(command, env=environment) == b"[] True False\n"


def test_limits_that_need_sizes_refuse_nothing_until_these_are_known(config_path):
    overrides = ["constraints.max_epochs=1", "propose.target_tokens=1e12"]
    found = checked(config_path, *overrides)
    assert found.problems == []
    assert any("sizes of the domains are not given" in line for line in found.warnings)
    assert found.lines()[0] == "2 domains, sizes not given"
    sized = [line.replace("tokens", "bytes") for line in SIZES]
    found = checked(config_path, *sized, *overrides, "corpus.tokenizer=bpe:300")
    assert (found.problems, found.sizes.basis) == ([], "estimated")
    assert any("4 bytes per token" in line for line in found.warnings)


def test_a_sample_that_will_be_small_is_said(config_path):
    """A full run of 12M tokens repeats code twice and prose 12 times: their samples may be too."""
    small = [*SIZES, "corpus.max_bytes=5000"]
    found = checked(config_path, *small)
    assert any("code 4.0 times at a weight of 1 (20k tokens needed)" in w for w in found.warnings)
    for simulates in ("false", "true"):
        overrides = [f"proxy.simulate_epochs={simulates}", "propose.target_tokens=1.2e7"]
        (line,) = (w for w in checked(config_path, *small, *overrides).warnings if "repeat" in w)
        assert "a trial may repeat code 4.0 times at a weight of 1 (10k tokens needed)," in line
        assert "prose" not in line


def test_a_run_begins_with_what_it_will_do(config_path, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("mixopt.pipeline.steps._do", lambda *_: None)
    steps.run(config_path, tmp_path / "run", overrides=SIZES, say=said.append)
    lines = [line for line in said if line.startswith("check: ")]
    assert lines == said[: len(lines)]
    assert "2 domains of 7M tokens (stated)" in lines[0]
    assert lines[1] == "check: first round:   12 trials, 20k tokens each"
    assert not any("\n" in line for line in lines)
    assert any(re.search(r"trains on:.*\d x cpu \(proxy ngram\)", line) for line in lines)


def test_the_time_of_trials_has_their_evaluation_in_it(config_path, tmp_path):
    """Two domains and a target, 500 tokens each, by forward passes alone."""
    overrides = ["proxy.eval_tokens=500", "propose.target_tokens=1.4e7", "validate.max_seeds=6"]
    found = checked(config_path, *overrides, *SIZES)
    assert found.evaluation == 3 * 500 / 3
    least, most = found.tokens
    trials = [sum(getattr(part, end) for part in found.parts) for end in ("least", "most")]
    measured = replace(found, tokens_per_second=10.0, devices=["cpu"] * 2, parameters=1000)
    assert measured.seconds == ((least + trials[0] * 500) / 20, (most + trials[1] * 500) / 20)
    assert measured.flops == (6e3 * least, 6e3 * most)
    lines = measured.lines()
    times = " to ".join(map(duration, measured.seconds))
    assert f"time here:     about {times} (estimate, at 10 tokens/s per worker)" in lines
    assert any("at 1k parameters" in line for line in lines)
    assert "14M tokens are 2 epochs at natural shares" in lines[0]


def command_of(config_path, *settings):
    """Return the exit code, the JSON and the lines of stderr of a check."""
    sets = [part for line in settings for part in ("--set", line)]
    ended = mixopt("check", config_path, "--json", *sets)
    lines = [line.removeprefix("mixopt: ") for line in ended.error.splitlines()]
    return ended.code, json.loads(ended.out), lines


def test_the_command_lists_mistakes_of_the_file_with_their_lines_and_in_json(config_path):
    overrides = ["design.trails=3", "objective.target=hlep", "fit.foldss=2"]
    code, answer, lines = command_of(config_path, *overrides)
    first, second = lines  # names are looked up once all fields are known
    assert "design.trails: unknown field; did you mean 'trials'" in first
    assert "fit.foldss: unknown field; did you mean 'folds'" in second
    assert (code, answer) == (2, {"problems": lines})
    code, answer, lines = command_of(config_path, "fit.folds=40")
    assert (code, answer["problems"], len(lines)) == (2, lines, 1)
    first = {"part": "first round", "least": 12, "most": 12, "tokens": 20_000}
    assert answer["training"][0] == first


def test_the_command_counts_domains_and_prints_what_it_found(config_path, tmp_path):
    sizes = tmp_path / "sizes.yaml"
    ended = mixopt("check", config_path, "--write", sizes)
    assert ended.code == 0, ended.error
    said = ended.out.splitlines()
    assert f"written: {sizes}; to use it, set corpus.inventory: {sizes}" in said
    assert sizes.read_text().startswith("# Sizes of the whole domains, for corpus.inventory")
    sized = load_config(config_path, [f"corpus.inventory={sizes}"]).corpus.domains
    assert all(item.is_sized for item in sized.values())


def test_tasks_are_part_of_the_evaluation(config_path, tmp_path):
    rows = [{"id": n, "context": "c" * 100, "continuation": " a" * 10} for n in range(300)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = f"tasks={{sets: {{t: {tmp_path}/t.jsonl}}}}"
    overrides = ["proxy.eval_every=6000", "proxy.eval_tokens=500"]
    found = checked(config_path, *SIZES, task, *overrides)
    assert found.evaluation == 4 * (3 * 500 + 200 * 120) / 3


def test_a_baseline_beyond_the_limits_and_a_file_in_two_domains_are_warnings(config_path, tmp_path):
    limits = ["propose.target_tokens=1e7", "constraints.max_epochs=2"]
    hand = "validate.baselines=[natural, {hand: {code: 0.1, prose: 0.9}}]"
    (tmp_path / "both.jsonl").write_bytes(ROWS)
    both = [f"corpus.domains.{name}.path={tmp_path}/both.jsonl" for name in ("code", "prose")]
    found = checked(config_path, *SIZES, *limits, hand, *both)
    assert not found.problems
    (warning,) = [line for line in found.warnings if line.startswith("baseline ")]
    assert "hand breaks limits of this run: " in warning
    assert "prose" in warning
    assert f"{tmp_path}/both.jsonl is text of 'code' and 'prose'" in " ".join(found.warnings)


def test_an_own_proxy_may_have_an_option_that_is_called_parameters():
    counts = [lambda vocab_size: 10 * vocab_size, 5_000, None]
    found = [proxy_parameters(SimpleNamespace(parameters=count), 256) for count in counts]
    assert found == [2560, None, None]
    assert proxy_parameters(object(), 256) is None
