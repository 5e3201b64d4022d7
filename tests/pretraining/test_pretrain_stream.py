"""Pretraining on streams: batches of an undisturbed run, whatever is killed, moved, repeated."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from pretrain_runs import (
    LENGTH,
    STEPS,
    Job,
    assert_goes_on,
    assert_same_weights,
    finished,
    log_of,
    metrics_of,
    weights_of,
    write_config,
)

from mixopt import pretrain
from mixopt.errors import MixoptError
from mixopt.pretraining import load_pretraining
from mixopt.pretraining.batches import batches_of, open_for, prepare_for, scheduled_mixtures
from mixopt.pretraining.ranks import Ranks

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = {"code": 0.7, "prose": 0.3}
HELD_OUT = 5_000
ODM = "estimator={name: odm, observe_every: 2, options: {warmup_steps: 2}}"


@pytest.fixture(scope="module")
def content(text_files) -> dict:
    return {
        "stream": {
            "domains": {name: {"path": str(text_files[name])} for name in WEIGHTS},
            "max_validation_bytes": HELD_OUT,
            "buffer": 2,
        },
        "evaluation": {"help": {"path": str(text_files["help"])}},
        "mixture": {"weights": WEIGHTS},
    }


@pytest.fixture(scope="module")
def config(content, tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"), **content)


@pytest.fixture(scope="module")
def steered(context, config, tmp_path_factory):
    """An undisturbed run that an estimator steers."""
    return finished(context, config, tmp_path_factory.mktemp("steered") / "run", overrides=[ODM])


def documents(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def texts_to_train_on(path: Path) -> bytes:
    """Return the documents of a file after those that are held out."""
    texts, size = documents(path), 0
    while size < HELD_OUT:
        size += len(texts.pop(0).encode())
    return "\0".join(texts).encode()


# --- The order ----------------------------------------------------------------------------------


def test_rows_are_text_of_their_domains_without_what_is_held_out(config, text_files, tmp_path):
    run = load_pretraining(config)
    prepare_for(run, tmp_path, print)
    text = open_for(run, tmp_path)
    alone = Ranks(0, 1, torch.device("cpu"))
    batches = list(batches_of(text, run, scheduled_mixtures(run, text), alone))
    assert len(batches) == STEPS
    allowed = [texts_to_train_on(text_files[name]) for name in WEIGHTS]
    for batch in batches[:4]:
        for row, domain in zip(batch["input_ids"].tolist(), batch["domain"].tolist(), strict=True):
            assert len(row) == LENGTH + 1
            ends = [k for k, token in enumerate(row) if token == 256]
            for start, stop in pairwise([-1, *ends, len(row)]):
                assert bytes(row[start + 1 : stop]) in allowed[domain]


def test_an_estimator_moves_weights_and_losses_fall(steered):
    lines = [json.loads(line) for line in log_of(steered.out).splitlines()]
    assert lines[0]["weights"] == WEIGHTS
    assert len({line["weights"]["code"] for line in lines}) > 5
    train = [line for line in metrics_of(steered.out) if "loss" in line]
    assert train[-1]["loss"] < train[0]["loss"] - 0.3
    assert train[-1]["weight"] != train[0]["weight"]
    held_out = [line["held_out_loss"] for line in metrics_of(steered.out) if "loss" not in line]
    assert set(held_out[-1]) == {"code", "prose", "help"}
    assert held_out[-1]["help"] < held_out[0]["help"]


# --- Killed, moved ------------------------------------------------------------------------------


def test_a_run_killed_at_a_random_step_goes_on_as_if_it_was_not(context, config, steered, tmp_path):
    first = Job(context, config, tmp_path / "run", 1, [ODM])
    passes = random.randrange(2, 2 * STEPS - 4)
    first.until(passes)
    first.kill()
    second = finished(context, config, tmp_path / "run", overrides=[ODM])
    assert_goes_on(first, second, steered)
    assert log_of(tmp_path / "run") == log_of(steered.out), passes
    assert metrics_of(tmp_path / "run") == metrics_of(steered.out), passes
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(steered.out))


def test_two_killed_ranks_are_one_and_go_on_as_one(context, config, steered, tmp_path):
    first = Job(context, config, tmp_path / "run", 2, [ODM])
    passes = random.randrange(7, STEPS - 2)
    first.until(passes)
    first.kill()
    second = finished(context, config, tmp_path / "run", overrides=[ODM])
    assert_goes_on(first, second, steered)
    assert log_of(tmp_path / "run") == log_of(steered.out), passes
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(steered.out))


def test_an_error_while_reading_ends_all_ranks_with_one_line(context, content, tmp_path):
    lines = [json.dumps({"text": f"{k} some prose " * 20}) for k in range(200)]
    (tmp_path / "prose.jsonl").write_text("\n".join([*lines, "{broken", *lines]))
    domains = {**content["stream"]["domains"], "prose": {"path": str(tmp_path / "prose.jsonl")}}
    config = write_config(
        tmp_path, **{**content, "stream": {**content["stream"], "domains": domains}}
    )
    job = Job(context, config, tmp_path / "run", 2, ["training.steps=2000", "held_out.every=0"])
    assert job.wait() == [2, 2]
    assert "domain 'prose'" in job.error
    assert "prose.jsonl:201" in job.error
    assert "\n" not in job.error


# --- What cannot be used ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prepared_corpus=corpus", "give one of corpus, prepared_corpus, stream; got 'prepared_"),
        ("stream=null", "give one of corpus, prepared_corpus, stream; got none"),
        (
            "mixture={anchor: natural}",
            "natural is not known for a stream: give stream.domains.*.tok",
        ),
        ("schedule=[{step: 3, anchor: natural}]", "schedule.0.anchor: natural is not known for a"),
        ("estimator={name: natural}", "estimator.name: natural is not known for a stream"),
        ("mixture={weights: {code: 0.5, prosa: 0.5}}", "unknown domain 'prosa'; did you mean 'pro"),
        ("max_epochs=2", "max_epochs: a stream repeats its text without a limit: leave it out"),
        ("map_domains={}", "a stream resumes only with the same domains"),
        ("stream.tokenizer=bpe:300", "stream.tokenizer: bpe:300 is learned from text"),
        ("stream.domains.code.column=body", "no column 'body'; set 'column' to one of: text"),
        ("stream.domains.code.path=no.jsonl", "domain 'code': no.jsonl: no such file"),
        ("stream.domains.code.path={empty}", "domain 'code': no documents; give it some, or leave"),
        ("stream.domains.code.validation={empty}", "domain 'code': no documents"),
        ("stream.max_validation_bytes=20", "held-out tokens, fewer than one sequence of 33; raise"),
        (
            "stream.max_validation_bytes=100_000_000",
            "0 tokens are left to train on, fewer than one",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(config, tmp_path, override, message):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(MixoptError) as caught:
        pretrain(config, tmp_path / "run", [override.replace("{empty}", str(empty))])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_natural_mixture_is_that_of_the_tokens_that_are_stated(config, tmp_path):
    known = ["stream.domains.code.tokens=3e6", "stream.domains.prose.tokens=1_000_000"]
    steps = ["training.steps=2", "mixture={anchor: natural}"]
    result = pretrain(config, tmp_path / "run", known + steps)
    assert result.weights == {"code": 0.75, "prose": 0.25}


def test_a_run_does_not_go_on_with_another_source(config, tmp_path, text_files):
    pretrain(config, tmp_path / "run", ["training.steps=2"])
    other = f"stream.domains.code.path={text_files['help']}"
    with pytest.raises(MixoptError, match=r"started with stream\.domains\.code\.path"):
        pretrain(config, tmp_path / "run", ["training.steps=2", other])
