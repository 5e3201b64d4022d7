"""`model: {from: PATH}`: valid start checkpoints on any number of ranks, and refused ones."""

import json
import re
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from made_models import logits_of, made_model
from mixopt_proxies.continued import ContinuedProxy
from pretrain_runs import (
    CONFIG,
    DECODER,
    assert_same_weights,
    finished,
    metrics_of,
    weights_of,
    write_config,
)
from refusals import refuses

from mixopt import pretrain
from mixopt.corpus import FastTokenizer
from mixopt.errors import ConfigError, MixoptError, PluginError, RunError
from mixopt.pretraining import VocabularyConfig, export_model, open_origin
from mixopt.pretraining.directory import record_config
from mixopt.pretraining.models import _DESCRIPTIVE, causal_models, folder_model, hugging_face_config
from mixopt.system import file_record, write_sealed
from mixopt.testing import tiny_corpus

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")

STANDSTILL = {**CONFIG["training"], "steps": 1, "lr": 1e-30}


@pytest.fixture(scope="module")
def folder(context, tmp_path_factory):
    """A corpus; a run of it; folders of transformers."""
    folder = tmp_path_factory.mktemp("from")
    corpus = tiny_corpus(folder / "corpus")
    training = {**CONFIG["training"], "steps": 6}
    config = write_config(folder, corpus=str(corpus.path), model=DECODER, training=training)
    finished(context, config, folder / "alone")
    export_model(folder / "alone", folder / "exported", trust=True)
    made_model("llama", {}).save_pretrained(folder / "llama")
    made_model("llama", {}).save_pretrained(folder / "shards", max_shard_size="20KB")
    return folder


@pytest.fixture(scope="module")
def other_corpus(tmp_path_factory) -> Path:
    """A corpus whose tokenizer has as many ids, of which some mean something else."""
    path = tiny_corpus(tmp_path_factory.mktemp("other") / "corpus").path
    FastTokenizer.train(["of bytes, in another order"], 257).save(path)
    record = asdict(file_record(path / "tokenizer.json"))
    known = {"tokenizer": "bpe:257", "files": {"tokenizer.json": record}}
    write_sealed(path / "index.json", json.loads((path / "index.json").read_text()) | known)
    return path


def config_from(folder: Path, where: Path, start: object, **parts) -> Path:
    model = {"from": str(start), **parts.pop("model", {})}
    where.mkdir(exist_ok=True)
    parts = {"corpus": str(folder / "corpus"), "training": STANDSTILL, **parts}
    return write_config(where, model=model, **parts)


def losses_of(out: Path) -> dict[str, float]:
    return [line["held_out_loss"] for line in metrics_of(out) if "held_out_loss" in line][-1]


def started(folder: Path, where: Path, start: object, **parts) -> tuple[dict[str, float], str]:
    """Start a run with a learning rate of 0; return its held-out losses, and what it said."""
    said: list[str] = []
    pretrain(config_from(folder, where, start, **parts), where / "run", say=said.append)
    return losses_of(where / "run"), "\n".join(said)


@pytest.mark.parametrize(
    ("start", "options", "step", "steps"),
    [
        ("alone", {}, "step 6, ", 7),
        ("alone/checkpoints/step-00000006", {"optimizer": False}, "step 6, ", 1),
        ("exported", {}, "", 1),
    ],
)
def test_a_run_starts_with_the_losses_and_optimizer_of_a_checkpoint(
    folder, tmp_path, start, options, step, steps
):
    found, said = started(folder, tmp_path, folder / start, model=options)
    assert found == pytest.approx(losses_of(folder / "alone"), abs=1e-5)
    taken = open_origin(tmp_path / "run").optimizer_tensors()
    assert {float(value) for name, value in taken.items() if name.endswith(".step")} == {steps}
    state = "with its" if steps == 7 else "without an"
    assert re.search(rf"\({step}weights \w{{8}}\), {state} optimizer's state; steps count f", said)


@pytest.mark.nightly
@pytest.mark.parametrize(("start", "parallel"), [("alone", "fsdp"), ("exported", "ddp")])
def test_a_checkpoint_of_one_rank_is_read_by_two(context, folder, tmp_path, start, parallel):
    config = config_from(folder, tmp_path, folder / start, parallel=parallel)
    finished(context, config, tmp_path / "run", 2)
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(folder / "alone"), abs=1e-5)
    taken = open_origin(tmp_path / "run").optimizer_tensors()
    steps = {float(value) for name, value in taken.items() if name.endswith(".step")}
    assert steps == {7 if start == "alone" else 1}


def test_a_run_records_its_start_and_can_be_a_start_itself(folder, tmp_path):
    started(folder, tmp_path, folder / "llama")
    model = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]
    assert (model["from"], model["name"]) == (str(folder / "llama"), "llama")
    assert model["origin"]["sha256"] == open_origin(folder / "llama").sha256
    second = open_origin(tmp_path / "run")
    assert second.vocabulary.sha256 == model["vocabulary"]["sha256"]
    tokens = torch.arange(60).view(2, 30)
    found, expected = second.module().eval(), made_model("llama", {})
    torch.testing.assert_close(logits_of(found, tokens), logits_of(expected, tokens))
    unknown = second.run.model.model_copy(update={"vocabulary": None})
    record_config(second.run.model_copy(update={"model": unknown}), tmp_path / "run")
    with pytest.raises(RunError, match=r"config.yaml: model.vocabulary: is not recorded; resume"):
        open_origin(tmp_path / "run")


def test_a_name_on_the_hub_is_found_in_its_cache(folder, tmp_path, monkeypatch):
    place = tmp_path / "models--some--model"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folder / "llama", place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("some/model", f"some/model@{commit}"):
        found = open_origin(name)
        assert (found.checkpoint, found.model.name) == (f"some/model@{commit}", "llama")
        assert found.sha256 == open_origin(folder / "llama").sha256
    message = "^'some/other': no such folder, and the hub has no such model: .*; give a"
    refuses(RunError, message, open_origin, "some/other")


@pytest.mark.parametrize("name", ["qwen3_moe", pytest.param("", marks=pytest.mark.nightly)])
def test_no_field_of_a_family_is_lost_whatever_its_value(name, tmp_path):
    kinds, names = causal_models()
    for item in [name] if name else sorted(set(names) - {"gemma4_assistant", "moshi"}):
        for field, default in kinds[item]().to_dict().items():
            if (
                field in _DESCRIPTIVE
                or field == "vocab_size"
                or type(default) not in {int, float, bool}
            ):
                continue
            with suppress(Exception):  # a value that the family cannot have
                config = kinds[item](**{field: (not default) if default is True else default * 2})
                config.save_pretrained(tmp_path)
                reloaded = hugging_face_config(folder_model(tmp_path))
                kept = {n: v for n, v in config.to_dict().items() if n not in _DESCRIPTIVE}
                lost = {n for n, v in kept.items() if reloaded.to_dict().get(n) != v}
                if lost:
                    pytest.fail(f"{item}.{field}: lost {lost}")


def test_a_run_resumes_without_its_start_checkpoint_but_not_with_another_tokenizer(
    folder, other_corpus, tmp_path
):
    shutil.copytree(folder / "llama", tmp_path / "base")
    training = {**CONFIG["training"], "steps": 2}
    saved = {"every": 1}
    config = config_from(folder, tmp_path, tmp_path / "base", training=training, checkpoint=saved)
    out = tmp_path / "run"
    pretrain(config, out)
    expected = weights_of(out)
    shutil.rmtree(out / "checkpoints" / "step-00000002")
    with pytest.raises(ConfigError, match="run was begun with another tokenizer: .* 'bpe:257'"):
        pretrain(config, out, [f"corpus={other_corpus}"])
    shutil.rmtree(tmp_path / "base")
    pretrain(config, out)
    assert_same_weights(weights_of(out), expected)


def test_a_corpus_of_other_tokens_is_refused(folder, other_corpus, tmp_path):
    config = config_from(folder, tmp_path, folder / "exported")
    message = (
        r"its tokenizer '.*' \(257 ids, vocabulary \w{8}\) is not the corpus's, 'bpe:257' \(257"
    )
    refuses(ConfigError, message, pretrain, config, tmp_path / "run", [f"corpus={other_corpus}"])


def test_where_there_is_no_tokenizer_the_sizes_are_compared_and_a_line_says_so(folder, tmp_path):
    _, said = started(folder, tmp_path, folder / "llama")
    assert "llama: its tokenizer could not be compared with the corpus's, since the model" in said
    known = open_origin(folder / "alone").compared(VocabularyConfig(tokenizer="t", ids=257))
    assert "the corpus comes without a tokenizer; it has 257 ids, and the corpus" in known
    made_model("llama", {}, 200).save_pretrained(tmp_path / "few")
    message = r"few: has 200 ids, and the corpus's tokenizer 'bytes' has 257"
    refuses(ConfigError, message, started, folder, tmp_path / "b", tmp_path / "few")


def damage(path: Path, what: str | dict) -> None:
    """Damage the folder of a model; fields are those of its configuration that change."""
    shard, config = max(path.glob("*.safetensors")), path / "config.json"
    match what:
        case dict():
            config.write_text(json.dumps(json.loads(config.read_text()) | what))
        case "truncated":
            shard.write_bytes(shard.read_bytes()[:-7])
        case "adapted":
            (path / "adapter_config.json").write_text("{}")
        case "without configuration":
            config.unlink()
        case "shard elsewhere":
            index = path / "model.safetensors.index.json"
            shard.rename(path.parent / "shard.safetensors")
            index.write_text(index.read_text().replace(shard.name, "../shard.safetensors"))
        case "pickled":
            for file in path.glob("*.safetensors*"):
                file.unlink()
            (path / "pytorch_model.bin").write_bytes(b"\x80\x04.")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"model_type": "lama"}, "config.json: model_type: 'lama' is not a known "),
        ({"num_hidden_layers": 3}, "model.layers.2.* is missing in the weights"),
        (
            {"intermediate_size": 56},
            r"weight has shape \(.*\) in the weights, and \(.*\) in the model",
        ),
        ({"quantization_config": {"bits": 4}}, "quantization_config: training needs"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is true, and the weights have"),
        ("truncated", r"is truncated or damaged: .*; fetch"),
        (
            "shard elsewhere",
            r"weight_map: '../shard.safetensors' is not one of the safetensors beside it; fetch",
        ),
        ("pickled", r"model: has no safetensors; a pickle can run code when it is read"),
        ("adapted", r"adapter_config.json: an adapter is only a part of a model; merge it"),
        ("without configuration", r"config.json: not found: a folder of transformers has"),
    ],
)
def test_a_folder_that_is_not_what_it_says_is_refused(folder, tmp_path, what, message):
    shutil.copytree(folder / "shards", tmp_path / "model")
    damage(tmp_path / "model", what)
    line = refuses(RunError, message, lambda: open_origin(tmp_path / "model").module())
    assert str(tmp_path / "model") in line


def test_a_damaged_newest_checkpoint_is_refused_and_the_one_before_it_is_named(folder, tmp_path):
    shutil.copytree(folder / "alone", tmp_path / "run")
    before, newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    damage(newest, "truncated")
    message = rf"{newest}.*the one before it is {before}$"
    for start in (newest, tmp_path / "run"):
        refuses(RunError, message, open_origin, start)
        refuses(RunError, message, ContinuedProxy(start=str(start)).start_hash)
    assert open_origin(before).step == 5


def test_what_is_no_model_is_refused(folder, tmp_path):
    for start, message in {
        tmp_path / "none": "no such folder; expected a folder of transformers",
        tmp_path: "has no model; expected a folder of transformers",
    }.items():
        refuses(RunError, message, open_origin, start)
    shutil.copytree(folder / "alone", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    refuses(RunError, "run': the run has no checkpoints yet", open_origin, tmp_path / "run")


@pytest.mark.parametrize(
    ("start", "override", "message"),
    [
        ("alone", "model.name=llama", "model.name: 'llama', and .* is of 'decoder': leave it out"),
        ("llama", "model.optimizer=true", "model.optimizer: true, and .* has no optimizer's state"),
        (
            "llama",
            "training.sequence_length=64",
            "training.sequence_length: 64, and .* has max_position_embeddings 32: lower it",
        ),
    ],
)
def test_what_the_start_is_not_or_lacks_is_refused(folder, tmp_path, start, override, message):
    config = config_from(folder, tmp_path, folder / start)
    refuses(MixoptError, message, pretrain, config, tmp_path / "run", [override])


def test_code_beside_the_weights_is_not_imported(folder, tmp_path):
    shutil.copytree(folder / "llama", tmp_path / "model")
    (tmp_path / "model" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    mapped = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    damage(tmp_path / "model", {"auto_map": mapped, "attn_implementation": "evil/kernels"})
    open_origin(tmp_path / "model").module()
    assert not (tmp_path / "ran").exists()


def test_a_plugin_model_is_imported_only_if_the_configuration_names_it(folder, tmp_path):
    config = write_config(
        tmp_path, corpus=str(folder / "corpus"), training=STANDSTILL, held_out={"tokens": 64}
    )
    pretrain(config, tmp_path / "base")
    message = r"names the model 'pretrain_job:Recording', which is code; .* --trust, .* model.name"
    refuses(PluginError, message, open_origin, tmp_path / "base")
    refuses(PluginError, message, started, folder, tmp_path / "a", tmp_path / "base")
    started(folder, tmp_path / "b", tmp_path / "base", model={"name": "pretrain_job:Recording"})
