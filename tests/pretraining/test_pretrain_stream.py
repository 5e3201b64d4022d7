"""Pretraining on streams: batches of an undisturbed run, whatever is killed, moved, repeated."""

from __future__ import annotations

import json
import random
import zlib
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from pretrain_runs import (
    BATCH,
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

from mixopt import MixtureSampler, pretrain
from mixopt.errors import MixoptError
from mixopt.tracking import streamed_datasets

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


def rows_to_train_on(path: Path) -> list[int]:
    """Return checksums of a file's rows, after the documents that are held out."""
    texts, size = documents(path), 0
    while size < HELD_OUT:
        size += len(texts.pop(0).encode())
    tokens = np.array([byte for text in texts for byte in (*text.encode(), 256)], np.int64)
    rows = tokens[: len(tokens) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    return [zlib.crc32(row[:-1].tobytes()) for row in rows]


# --- The order ----------------------------------------------------------------------------------


def test_batches_are_rows_of_the_sources_without_what_is_held_out(
    context, config, text_files, tmp_path
):
    job = finished(context, config, tmp_path / "run", overrides=["held_out.tokens=64"])
    seen = list(chain(*job.batches()))
    assert len(set(seen)) == len(seen) == STEPS * BATCH
    sizes = dict.fromkeys(WEIGHTS, 10**6)
    order = MixtureSampler(sizes, WEIGHTS, batch_size=BATCH, rank=0, world_size=1)
    domain_N = order.locate(0, STEPS * BATCH)[0]
    for number, name in enumerate(WEIGHTS):
        rows = rows_to_train_on(text_files[name])
        places = [rows.index(seen[n]) for n in np.flatnonzero(domain_N == number)]
        assert places != sorted(places)
        beyond = max(places) - len(places)
        assert beyond < 2 * 2100 / LENGTH, "rows of a later block than that of two documents"


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


# --- Text that ends -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short(content, text_files, tmp_path_factory) -> Path:
    """The configuration with 24 rows of prose, and documents in a file that are held out."""
    folder = tmp_path_factory.mktemp("short")
    texts = [text for text in documents(text_files["prose"]) if text.isascii()]
    text = " ".join(texts)[: 24 * (LENGTH + 1) - 1]
    (folder / "prose.jsonl").write_text(json.dumps({"text": text}))
    (folder / "held_out.jsonl").write_text(json.dumps({"text": " ".join(texts[-20:])}))
    prose = {"path": str(folder / "prose.jsonl"), "validation": str(folder / "held_out.jsonl")}
    domains = {**content["stream"]["domains"], "prose": prose}
    stream = {**content["stream"], "domains": domains}
    return write_config(folder, **{**content, "stream": stream})


def test_a_domain_repeats_up_to_max_epochs_and_goes_on_when_that_is_raised(
    context, short, tmp_path
):
    whole = finished(context, short, tmp_path / "whole")
    seen = list(chain(*whole.batches()))
    repeated = Counter(Counter(seen).values())
    assert {times for times, rows in repeated.items() if rows > 9} == {1, 2, 3}  # 58 of 24 rows
    with pytest.raises(MixoptError, match=r"domain 'prose': its text was exhausted in batch 10"):
        pretrain(short, tmp_path / "run", ["max_epochs=1"])
    finished(context, short, tmp_path / "run", overrides=["max_epochs=50"])
    assert metrics_of(tmp_path / "run") == metrics_of(whole.out)
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(whole.out))


def test_an_error_while_reading_ends_all_ranks_with_one_line(context, short, tmp_path):
    job = Job(context, short, tmp_path / "run", 2, ["max_epochs=1"])
    assert job.wait() == [2, 2]
    assert job.error.startswith(
        "domain 'prose': its text was exhausted in batch 10, by max_epochs: 1; resume"
    )
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
        ("max_epochs=1.5", "max_epochs: 1.5: a stream counts only whole passes"),
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


def test_the_inputs_of_a_run_are_its_streams_and_what_is_held_out(steered):
    streams, held_out = streamed_datasets(steered.out / "held_out", WEIGHTS)
    assert streams["profile"]["domains"] == {n: {"weight": w} for n, w in WEIGHTS.items()}
    assert set(held_out["profile"]["domains"]) == {"code", "prose", "help"}
    assert held_out["profile"]["domains"]["code"]["tokens"] > HELD_OUT


def test_a_run_does_not_go_on_with_another_source(config, tmp_path, text_files):
    pretrain(config, tmp_path / "run", ["training.steps=2"])
    other = f"stream.domains.code.path={text_files['help']}"
    with pytest.raises(MixoptError, match=r"started with stream\.domains\.code\.path"):
        pretrain(config, tmp_path / "run", ["training.steps=2", other])
