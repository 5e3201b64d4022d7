"""`mixopt export-model`: transformers loads what was written, and it is the model of the run."""

import inspect
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from command_line import mixopt
from made_models import Formless, Misshapen, exported, logits_of, made_model
from places import DATA
from pretrain_runs import CONFIG, DECODER, write_config
from refusals import refuses

from mixopt.corpus import CORPUS_FORMAT, FastTokenizer, TokenWriter, open_tokenizer
from mixopt.errors import PluginError, RunError
from mixopt.pretraining import export_model, pretrain
from mixopt.system import write_sealed

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")

MOE = {"size": "moe-tiny"}
FORMS = {
    "tied": ("decoder", {"size": "tiny"}, "llama"),
    "untied experts": ("decoder", {**MOE, "tied": False, "top_k": 3}, "mixtral"),
    "gpt2": ("gpt2", {}, "gpt2"),
}
ODD = "naïve Straße, 数学 \U0001f469‍\U0001f52c é \t\r\n  \x00\x7f <|endoftext|> \ufeffend"


@pytest.mark.parametrize("form", FORMS)
def test_the_logits_are_those_of_the_run(tmp_path, form):
    name, options, architecture = FORMS[form]
    model = made_model(name, options)
    export = exported(model, tmp_path / "out")
    assert export["architecture"] == architecture
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokens_BT = torch.tensor([*inspect.getsource(inspect).encode()[:256]]).view(8, 32)
    found, expected = logits_of(loaded, tokens_BT), logits_of(model, tokens_BT)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_the_ids_of_the_tokenizer_are_those_of_the_corpus(tmp_path, kind):
    files = sorted((DATA / "corpus").glob("*/validation.parquet"))  # real text, where it is there
    found = [text for file in files for text in pl.read_parquet(file, n_rows=2)["text"]]
    texts = [ODD, *(text[:4000] for text in found)]
    tokenizer = open_tokenizer("bytes") if kind == "bytes" else FastTokenizer.train(texts, 400)
    model = made_model("decoder", {"size": "tiny"}, tokenizer.vocab_size)
    exported(model, tmp_path / "out", tokenizer)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded.eos_token_id == tokenizer.end_of_document
    for text in texts:
        expected = tokenizer.encode([text])[:-1].tolist()
        assert loaded(text, split_special_tokens=True).input_ids == expected
        assert loaded.decode(expected) == text
    assert loaded(ODD).input_ids.count(tokenizer.end_of_document) == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose text is a short document, again and again."""
    folder = tmp_path_factory.mktemp("run")
    for split in ("train", "validation"):
        with TokenWriter(folder / "abc" / split, dtype="uint16", tokenizer="bytes") as writer:
            for _ in range(200):
                tokens = np.array([*b"abcd", 256], np.uint16)
                writer.write(tokens, documents=1, bytes=4)
    index = {"format": CORPUS_FORMAT, "domains": ["abc"], "targets": [], "tasks": []}
    index |= {"vocab_size": 257, "tokenizer": "bytes", "fingerprint": "abc", "provenance": {}}
    write_sealed(folder / "index.json", {**index, "files": {}})
    parts = {"model": DECODER, "training": {**CONFIG["training"], "steps": 40, "lr": 0.03}}
    parts |= {"mixture": {"anchor": "natural"}, "checkpoint": {"every": 20}}
    pretrain(write_config(folder, corpus=str(folder), **parts), folder / "run")
    return folder / "run"


def test_the_command_writes_a_model_that_generates_a_document_and_ends(run, tmp_path):
    ended = mixopt(
        "export", run, "--to", "transformers-model", "--out", tmp_path / "m", "--trust", "--json"
    )
    assert ended.code == 0, ended.error
    found = json.loads(ended.out)
    assert (found["architecture"], found["largest_logit_difference"] < 1e-5) == ("llama", True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    written = model.generate(**tokenizer("a", return_tensors="pt"), max_new_tokens=20)
    assert tokenizer.decode(written[0]) == "abcd<|endoftext|>"


def test_a_run_stands_for_its_newest_checkpoint_and_a_checkpoint_for_itself(run, tmp_path):
    newest = export_model(run, tmp_path / "new", trust=True)
    older = export_model(run / "checkpoints" / "step-00000020", tmp_path / "old", trust=True)
    names = [Path(export["checkpoint"]).name for export in (newest, older)]
    assert names == ["step-00000040", "step-00000020"]


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="out: exists already; give a folder that does not"):
        export_model(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (Formless, PluginError, "Formless: has no form in transformers"),
        (Misshapen, RunError, r"as llama its logits differ by .*, more than rounding \(1e-05\); n"),
    ],
)
def test_a_plug_in_without_a_form_or_with_another_is_not_written(kind, error, message, tmp_path):
    model = kind(257, 32, **DECODER["options"]).eval()
    refuses(error, message, exported, model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
