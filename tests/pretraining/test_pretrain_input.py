"""What `mixopt pretrain` cannot use is one line that says what to do, before training."""

import json
import math
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from pretrain_runs import CONFIG, DECODER, write_config
from refusals import refuses

from mixopt import MixtureDataset, load_run, pretrain
from mixopt.corpus import publish_corpus
from mixopt.errors import ConfigError, MixoptError, SamplerError
from mixopt.pretraining import PretrainConfig, load_pretraining
from mixopt.pretraining.loop import PlannedMixture, _loader


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory):
    parts = {"model": DECODER, "training": {**CONFIG["training"], "steps": 4, "batch": 4}}
    parts |= {"mixture": {"anchor": "natural"}, "checkpoint": {"every": 2}}
    return write_config(tmp_path_factory.mktemp("config"), corpus=str(corpus.path), **parts)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("estimator={name: robsut}", "unknown estimator 'robsut'; did you mean 'robust'?"),
        (
            "estimator={name: robust, objective: {exam: 1}}",
            "objective: 'exam' is not an evaluation domain",
        ),
        (
            "estimator={name: robust, bounds: {coed: [0.1, 0.2]}}",
            "bounds: 'coed' is not a domain of the sampler; did you mean 'code'?",
        ),
        ("max_epochs=0.001", "max_epochs is 0.001. Lower its share to"),
        ("mixture={weights: {code: 0.5}}", "mixture.weights: weights add up to 0.5, not 1"),
        ("model={name: mixtrel}", "not a causal language model; did you mean 'mixtral'?"),
        ("model={name: gemma3}", "'gemma3' reads more than text; give its text model, gemma3_text"),
        ("model={name: mllama}", "'mllama' reads more than text; give a model of text"),
        ("model={name: mixtral, options: {hiden: 3}}", "model.options.hiden: "),
        ("model={name: decoder, options: {width: 31}}", "model.options.heads: 2 must be a divisor"),
        ("training.sequence_length=64064", "tokens, and one row takes 64,065; lower training.seq"),
    ],
)
def test_what_cannot_be_used_is_one_line(config, tmp_path, override, message):
    with pytest.raises(MixoptError) as caught:
        pretrain(config, tmp_path / "run", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("micro", "message"),
    [
        ("null", "among 4 ranks; use a multiple of 4$"),
        (2, "among 4 ranks in passes of 2 .*; use a multiple of 8$"),
    ],
)
def test_an_indivisible_batch_is_refused_with_one_that_divides(config, corpus, micro, message):
    loaded = load_pretraining(config, ["training.batch=10", f"training.micro_batch={micro}"])
    planned = [PlannedMixture(0, corpus.natural, "start: natural")]
    message = f"^training.batch: 10 sequences cannot be divided evenly {message}"
    refuses(SamplerError, message, _loader, corpus, loaded, planned, 4)


def test_an_address_with_a_secret_is_refused_from_python_too(config):
    content = yaml.safe_load(config.read_text()) | {"corpus": "s3://a:b1234@texts/corpus"}
    with pytest.raises(ValueError, match="has a secret"):
        PretrainConfig(**content)


def test_a_mixture_at_its_cap_may_be_rounded_up_to_whole_batches(config, corpus, tmp_path):
    (code,) = [domain.train for domain in corpus.domains if domain.name == "code"]
    rows = MixtureDataset({"code": code}, length=33).sizes["code"]

    def at_its_cap(wanted):
        """The run of 4 batches of 4 is one of `wanted` sequences, half of them code."""
        cap = [f"max_epochs={wanted / 2 / rows!r}", "mixture={weights: {code: 0.5, manual: 0.5}}"]
        return pretrain(config, tmp_path / str(wanted), cap)

    assert at_its_cap(13).is_finished
    epochs = f"{math.ceil(8000 / rows) / 1000:g}"
    message = (
        f"domain 'code': 8 of 16 sequences are {epochs} epochs of its {rows:,}, and max_epochs"
        f" is {4.5 / rows:g}. Lower its share to 0.25, or allow max_epochs: {epochs}"
    )
    refuses(MixoptError, f"^{re.escape(message)}$", at_its_cap, 9)


def test_a_run_does_not_go_on_with_another_learning_rate_or_an_edited_record(config, tmp_path):
    out = tmp_path / "run"
    pretrain(config, out, ["checkpoint.keep=1"])
    refuses(MixoptError, r"run: is a pretraining, .* metrics.jsonl has", load_run, out)
    record = (out / "config.yaml").read_text()
    message = r"started with training\.lr 0\.003, and here it is 0\.0001; use another --out$"
    refuses(MixoptError, message, pretrain, config, out, ["training.lr=1e-4"])
    assert (out / "config.yaml").read_text() == record
    (out / "config.yaml").write_text(record + "name: other\n")
    refuses(MixoptError, r"config\.yaml: has changed since it was written", pretrain, config, out)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000004"]


def interrupted(line: str) -> None:
    raise KeyboardInterrupt(line)


def test_text_is_prepared_once_even_if_preparation_was_interrupted(config, tmp_path):
    texts = {"code": tmp_path / "code.jsonl", "manual": tmp_path / "manual.jsonl"}
    for name, file in texts.items():
        lines = [json.dumps({"text": f"{name} {k} " * 30}) for k in range(200)]
        file.write_text("\n".join(lines))
    sources = {name: {"path": str(file)} for name, file in texts.items()}
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(yaml.safe_dump({"corpus": {"domains": sources, "tokenizer": "bytes"}}))
    overrides = [f"corpus={experiment}"]
    with pytest.raises(KeyboardInterrupt, match="^prepare: "):
        pretrain(config, tmp_path / "run", [*overrides, "training.lr=1e-4"], say=interrupted)
    whole = pretrain(config, tmp_path / "run", overrides)
    assert set(whole.weights) == {"code", "manual"}
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    for file in (experiment, *texts.values()):
        file.unlink()
    assert pretrain(config, tmp_path / "run", overrides).losses == whole.losses


@pytest.mark.parametrize(
    ("part", "source", "message"),
    [
        ("../../x", {"path": "a.jsonl"}, "'../../x' cannot be the name of a folder: a name does"),
        ("part", {"path": "s3://a:b1234@texts/a"}, "domains.part.path: .* has a secret"),
    ],
)
def test_a_part_of_a_mixed_domain_is_checked_as_a_domain(config, tmp_path, part, source, message):
    domains = {"code": {"path": "a.jsonl"}, "replay": {"mixed": {"domains": {part: source}}}}
    (tmp_path / "text.yaml").write_text(yaml.safe_dump({"corpus": {"domains": domains}}))
    with pytest.raises(ConfigError, match=rf"text\.yaml:\d+: .*{message}") as caught:
        pretrain(config, tmp_path / "run", [f"corpus={tmp_path / 'text.yaml'}"])
    assert "b1234" not in str(caught.value)


def test_without_a_package_that_training_needs_the_command_says_what_to_install(config, tmp_path):
    code = "import sys; sys.modules['torch'] = None; from mixopt.__main__ import main; main()"
    line = [sys.executable, "-c", code, "pretrain", str(config), "--out", str(tmp_path / "run")]
    ended = subprocess.run(line, check=False, capture_output=True, text=True)
    message = "mixopt: pretraining needs torch: pip install 'mixopt[all]'\n"
    assert (ended.returncode, ended.stderr) == (2, message)
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_a_prepared_corpus_is_taken_from_a_store(s3, config, corpus, tmp_path):
    s3.put("other", b"")
    publish_corpus(corpus.path, "s3://texts/corpus")
    shown = pretrain(config, tmp_path / "here")
    taken = pretrain(config, tmp_path / "run", ["corpus=s3://texts/corpus"])
    assert taken.losses == shown.losses
    with pytest.raises(ConfigError, match="has a secret"):
        pretrain(config, tmp_path / "no", ["corpus=s3://a:b1234@texts/corpus"])
