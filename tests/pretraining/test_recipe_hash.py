"""A recipe's hash changes with what is in the files that it names."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from made_models import made_model
from mixopt_proxies.continued import ContinuedProxy
from pretrain_runs import CONFIG

from mixopt.config import CorpusConfig
from mixopt.corpus import prepare_corpus
from mixopt.errors import MixoptError
from mixopt.mixture import Mixture
from mixopt.testing import tiny_corpus

SMALL = {"name": "decoder", "options": {"layers": 1, "width": 32, "heads": 2, "ff": 48}}


def recipe(folder: Path, **parts) -> Path:
    parts = {"model": SMALL, "corpus": str(folder / "corpus"), **parts}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**CONFIG, **parts}))
    return folder / "recipe.yaml"


def hash_of(file: Path) -> str:
    return ContinuedProxy(start=str(file)).start_hash()


def other_corpus(folder: Path) -> None:
    """Prepare domains of the same names and the same fingerprint from other documents."""
    texts = {name: folder / f"{name}.jsonl" for name in ("code", "manual")}
    for name, file in texts.items():
        lines = [json.dumps({"text": f"{name} {k} " * 30}) for k in range(200)]
        file.write_text("\n".join(lines))
    sources = {name: {"path": str(file)} for name, file in texts.items()}
    config = CorpusConfig.model_validate({"domains": sources, "tokenizer": "bytes"})
    prepare_corpus(config, {}, folder / "corpus", fingerprint="tiny")


@pytest.fixture
def folder(tmp_path):
    tiny_corpus(tmp_path / "corpus")
    return tmp_path


def test_other_text_in_the_same_folder_is_another_recipe(folder):
    file = recipe(folder)
    before = hash_of(file)
    shutil.rmtree(folder / "corpus")
    other_corpus(folder)
    assert hash_of(file) != before


def test_the_same_text_made_again_is_the_same_recipe(folder):
    file = recipe(folder)
    before = hash_of(file)
    shutil.copytree(folder / "corpus", folder / "copy")
    shutil.rmtree(folder / "corpus")
    (folder / "copy").rename(folder / "corpus")
    assert hash_of(file) == before


def test_other_weights_to_start_from_are_another_recipe(folder):
    pytest.importorskip("transformers")
    file = recipe(folder, model={"from": str(folder / "base")})
    found = []
    for layers in (1, 2):
        made_model("llama", {"num_hidden_layers": layers, "hidden_size": 32}).save_pretrained(
            folder / "base"
        )
        found.append(hash_of(file))
    assert len(set(found)) == 2


def test_another_mixture_in_the_same_file_is_another_recipe(folder):
    file = recipe(folder, mixture={"file": str(folder / "mixture.yaml")})
    found = []
    for share in (0.25, 0.75):
        Mixture({"code": share, "manual": 1 - share}).to_file(folder / "mixture.yaml")
        found.append(hash_of(file))
    assert len(set(found)) == 2


def test_text_that_is_not_there_is_said_with_the_recipe(folder):
    file = recipe(folder, corpus=str(folder / "nowhere"))
    with pytest.raises(MixoptError, match=r"^proxy.from: .*recipe.yaml: .*nowhere"):
        hash_of(file)
