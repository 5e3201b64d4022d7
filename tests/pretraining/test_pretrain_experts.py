"""Pretraining records a model's experts, and nothing else changes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pretrain_runs import (
    BATCH,
    LENGTH,
    STEPS,
    Job,
    assert_same_weights,
    finished,
    lines_of,
    metrics_of,
    weights_of,
    write_config,
)
from refusals import refuses

from mixopt import pretrain
from mixopt.errors import RoutingError
from mixopt.routing import ExpertRecord

TOP_K = 2
MODEL = {"name": "experts_job:TinyExperts"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory) -> Path:
    experts = {"every": 6}
    parts = {"corpus": str(corpus.path), "model": MODEL, "experts": experts}
    return write_config(tmp_path_factory.mktemp("config"), **parts)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    pretrain(config, out)
    return out


def record(out):
    return ExpertRecord(out / "experts")


def total(out):
    windows = [window.assignments for window in record(out).windows()]
    return sum(windows[1:], windows[0])


def assert_same_record(run, other):
    """Each number of each window is the same."""
    found, expected = (
        [(window.start, window.end, window.assignments.to_json()) for window in some]
        for some in (record(run).windows(), record(other).windows())
    )
    assert found == expected
    assert metrics_of(run) == metrics_of(other)


def test_each_token_is_counted_once_in_its_window_domain_and_layer(whole):
    windows = record(whole).windows()
    assert [(w.start, w.end) for w in windows] == [(0, 6), (6, 12), (12, 18), (18, 24)]
    assert not (whole / "figures").exists()  # for the record in MLflow, which is off
    for window in windows:
        for layer in window.assignments.layers:
            assert layer.tokens_D.sum() == 6 * BATCH * LENGTH
            assert layer.counts_DE.sum() == 6 * BATCH * LENGTH * TOP_K
    found = total(whole)
    assert [layer.layer for layer in found.layers] == [1, 2]
    drawn = dict(zip(found.domains, found.tokens_D.tolist(), strict=True))
    share = drawn["code"] / (STEPS * BATCH * LENGTH)
    assert share == pytest.approx(0.7, abs=2 / (STEPS * BATCH))


def test_what_is_trained_is_the_same_without_counting(whole, config, tmp_path):
    pretrain(config, tmp_path / "run", ["experts.enabled=false"])
    assert not (tmp_path / "run/experts").exists()
    trained = [line for line in metrics_of(whole) if "moe/max_vio/max" not in line]
    assert metrics_of(tmp_path / "run") == trained
    assert lines_of(tmp_path / "run/mixture_log.jsonl") == lines_of(whole / "mixture_log.jsonl")
    assert_same_weights(weights_of(whole), weights_of(tmp_path / "run"))


def test_what_was_recorded_after_the_last_checkpoint_is_dropped(whole, config, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints/step-00000024")
    for kept in (out / "experts/counts").glob("*24.parquet"):
        kept.write_bytes(b"of a run that went another way")
    with (out / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 23, "moe/ma')
    pretrain(config, out)
    assert_same_record(whole, out)


@pytest.mark.nightly
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_are_one_and_go_on_as_one(parallel, whole, context, config, tmp_path):
    out = tmp_path / "run"
    both = [f"parallel={parallel}"]
    job = Job(context, config, out, 2, both)
    job.until_true((out / "experts/counts/part-00000012.parquet").exists)
    job.kill()
    finished(context, config, out, overrides=["parallel=ddp"])
    for layer, other in zip(total(whole).layers, total(out).layers, strict=True):
        assert np.array_equal(layer.tokens_D, other.tokens_D)
        # Gradients add up in another order, and a choice between two like experts may turn.
        assert np.abs(layer.counts_HDE - other.counts_HDE).sum() < 0.01 * layer.counts_HDE.sum()


def test_a_model_without_routers_is_left_alone_unless_it_must_have_some(config, tmp_path):
    dense = ["model={name: 'experts_job:TinyExperts', options: {layers: 0}}", "training.steps=2"]
    pretrain(config, tmp_path / "run", dense)
    assert not (tmp_path / "run/experts").exists()
    with pytest.raises(RoutingError, match="^experts.enabled: true: TinyExperts: no router"):
        pretrain(config, tmp_path / "other", [*dense, "experts.enabled=true"])


def test_an_unknown_router_needs_a_named_adapter(config, tmp_path):
    overrides = ["model={name: 'experts_job:OwnRouters'}", "training.steps=2"]
    message = (
        r"^experts.enabled: auto: OwnRouters: 'layers.1.router' \(OwnRouter\) is a router or"
        r" has experts, .* name it in YAML as experts: {adapters: .*; experts.enabled: false trains"
        " without counting$"
    )
    refuses(RoutingError, message, pretrain, config, tmp_path / "refused", overrides)
    assert not (tmp_path / "refused/metrics.jsonl").exists()
    pretrain(config, tmp_path / "off", [*overrides, "experts.enabled=false"])
    assert not (tmp_path / "off/experts").exists()
    out = tmp_path / "adapted"
    pretrain(config, out, [*overrides, "experts.adapters=['experts_job:OWN_ADAPTERS']"])
    assert list(ExpertRecord(out / "experts").windows()[0].assignments.sizes) == ["1", "2"]


def test_a_checkpoint_of_other_experts_is_refused(whole, config, tmp_path, monkeypatch):
    import experts_job

    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints/step-00000024")
    monkeypatch.setattr(experts_job, "LAYERS", 3)
    refuses(RoutingError, "is of other experts: layer 3 has no router; here", pretrain, config, out)
