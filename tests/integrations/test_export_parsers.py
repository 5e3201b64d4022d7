"""Exported mixtures, read by the trainers' own parsers, which `make parsers` installs."""

import json
import os
import runpy
import subprocess
import sys
from itertools import islice
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from datasets import load_dataset
from places import PROJECT

from mixopt import Mixture
from mixopt.integrations import EXPORT_TOOLS, export_mixture

PARSERS = PROJECT / ".tools" / "parsers"

SHARES = {"web": 0.5, 'it\'s a "b"': 0.3, "x # y {z}": 0.2}
MIXTURE = Mixture({**SHARES, "none": 0.0})

# Each in a process of its own, below .tools/parsers. No release reads what nanotron and
# megatron-bridge-sft need: their main branches were asked once, by hand.
READS = {
    "megatron": """
        from megatron.core.datasets.blended_megatron_dataset_config import (
            BlendedMegatronDatasetConfig,
        )
        from megatron.core.datasets.utils import get_blend_from_list

        splits = json.load(open(path))
        blends = [get_blend_from_list(splits[name]) for name in ("train", "valid", "test")]
        config = BlendedMegatronDatasetConfig(
            random_seed=1, sequence_length=8, blend_per_split=blends, split=None, tokenizer=None,
            mid_level_dataset_surplus=0.005,
        )
        paths, weights = config.blend_per_split[0]
    """,
    # Its package imports Transformer Engine, which needs CUDA: the module is loaded without it.
    "megatron-bridge": """
        import types, dataclasses
        import megatron.core
        for name in ("", ".training", ".training.utils"):
            name = "megatron.bridge" + name
            sys.modules[name] = package = types.ModuleType(name)
            package.__path__ = [os.path.join(parsers, *name.split("."))]
        from megatron.bridge.training.utils.omegaconf_utils import process_config_with_overrides

        @dataclasses.dataclass
        class Data:
            blend: list = None
            sequence_length: int = 8

        @dataclasses.dataclass
        class Recipe:
            dataset: Data = dataclasses.field(default_factory=Data)

        recipe = Recipe()
        found = process_config_with_overrides(recipe, config_filepath=path) or recipe
        paths, weights = found.dataset.blend
    """,
    "nemo": """
        from nemo_automodel.components.config.loader import load_yaml_config
        from nemo_automodel.components.datasets.llm.megatron.megatron_utils import (
            get_blend_from_list,
        )

        paths, weights = get_blend_from_list(list(load_yaml_config(path).dataset.paths))
    """,
    "olmo-core": """
        from olmo_core.data.source_mixture import SourceMixtureList

        found = SourceMixtureList.from_yaml(path)
        found.validate()
        [source.validate() for source in found.sources]
        paths = [source.paths[0] for source in found.sources]
        assert [source.source_name for source in found.sources] == paths
        weights = [source.target_ratio for source in found.sources]
    """,
    "levanter": """
        from dataclasses import dataclass, field
        import draccus
        from levanter.data.text.datasets import LmDataConfig

        @dataclass
        class Job:
            data: LmDataConfig = field(default_factory=LmDataConfig)

        data = draccus.parse(Job, config_path=path, args=[]).data
        paths, weights = list(data.train_weights), list(data.train_weights.values())
        assert [data.components[name].source.train_urls for name in paths] == [[n] for n in paths]
    """,
    "torchtitan": """
        import runpy
        from torchtitan.hf_datasets.text_datasets import InterleavedHuggingFaceTextDataLoader

        config = runpy.run_path(path)["dataloader"]
        assert isinstance(config, InterleavedHuggingFaceTextDataLoader.Config)
        paths = [source.dataset_path for source in config.sources]
        weights = [source.weight for source in config.sources]
    """,
    "axolotl": """
        import yaml
        from axolotl.utils.schemas.config import AxolotlInputConfig

        given = yaml.safe_load(open(path))
        config = AxolotlInputConfig(
            base_model="m", learning_rate=1e-4, micro_batch_size=1, gradient_accumulation_steps=1,
            num_epochs=1, **given,
        )
        paths = [one.path for one in config.datasets]
        splits = [one.split for one in config.datasets]
        weights = [1000 if split == "train" else int(split[7:-1]) for split in splits]
    """,
    "llamafactory": """
        from llamafactory.hparams.data_args import DataArguments
        from llamafactory.hparams.parser import read_args
        from transformers import HfArgumentParser

        sys.argv = ["llamafactory-cli", path]
        (found,) = HfArgumentParser(DataArguments).parse_dict(read_args())
        assert found.mix_strategy == "interleave_over"
        paths, weights = found.dataset, found.interleave_probs
    """,
    "swift": """
        from swift.cli.main import parse_yaml_args
        from swift.dataset.dataset_syntax import DatasetSyntax

        words = [path]
        parse_yaml_args(words)
        assert words[0] == "--dataset"
        found = [DatasetSyntax.parse(word) for word in words[1:]]
        assert not any(one.subsets or one.use_hf for one in found)
        paths, weights = [one.dataset for one in found], [one.dataset_sample for one in found]
    """,
}
BEFORE = "import json, os, sys\npath, parsers = sys.argv[1:3]\n"
AFTER = '\nprint("FOUND" + json.dumps([list(map(str, paths)), list(map(float, weights))]))\n'


@pytest.mark.nightly
@pytest.mark.parametrize("tool", READS)
def test_a_trainer_s_own_parser_reads_the_mixture(tool, tmp_path):
    folder, path, is_apart = PARSERS / tool, tmp_path / "fragment.yaml", tool == "levanter"
    if not (folder / ".done").exists():
        named = " PARSERS=levanter" if is_apart else ""  # 1.5 GB
        pytest.skip(f"the parser of {tool} is not installed: make parsers{named}")
    # 10,000 rows of one length; each domain has 1,000.
    known = {"tokens": 100_000, "sample_tokens": 10, "inventory": dict.fromkeys(MIXTURE, 10_000)}
    path.write_text(export_mixture(MIXTURE, tool, **known), encoding="utf-8")
    python = folder / "bin" / "python" if is_apart else sys.executable
    settings = {"DISABLE_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    settings["PYTHONPATH"] = "" if is_apart else str(folder)
    options = {"env": os.environ | settings, "cwd": folder, "text": True, "timeout": 300}
    words = [python, "-W", "ignore", "-c", BEFORE + dedent(READS[tool]) + AFTER, path, folder]
    ended = subprocess.run(words, check=False, capture_output=True, **options)
    assert ended.returncode == 0, ended.stderr[-3000:]
    names, weights = json.loads(ended.stdout.rpartition("FOUND")[2])
    found = dict.fromkeys(names, 0.0)
    for name, weight in zip(names, weights, strict=True):
        found[name] += weight / sum(weights)
    expected = dict(MIXTURE) if EXPORT_TOOLS[tool].takes_zero else SHARES
    assert found == pytest.approx(expected, abs=1e-12)


def test_axolotl_s_slices_are_read_by_datasets_as_so_many_rows(tmp_path):
    paths = domains(tmp_path, {"web": 30, "code": 12}, {"web": 10, "code": 10})
    mixture = Mixture({"web": 0.25, "code": 0.75})
    known = {"inventory": {"web": 300, "code": 120}, "sample_tokens": 10, "tokens": 400}
    text = export_mixture(mixture, "axolotl", paths=paths, **known)
    rows = []
    for dataset in yaml.safe_load(text)["datasets"]:  # as axolotl loads a local file
        slice_ = load_dataset("json", data_files=dataset["path"], split=dataset["split"])
        rows.append((Path(dataset["path"]).stem, len(slice_)))
    # web: 100 tokens are 10 of its 30 rows; code: 300 tokens are its 12 rows twice, and 6 of them.
    assert rows == [("web", 10), ("code", 12), ("code", 12), ("code", 6)]


def domains(folder: Path, rows: dict[str, int], lengths: dict[str, int]) -> dict[str, str]:
    """Write files of rows of so many words, each word the domain's name."""
    for name, count in rows.items():
        line = json.dumps({"text": " ".join([name] * lengths[name])}) + "\n"
        (folder / f"{name}.jsonl").write_text(line * count)
    return {name: str(folder / f"{name}.jsonl") for name in rows}


LENGTHS = {"web": 30, "code": 5, "books": 90}
DRAWN = Mixture({"web": 0.5, "code": 0.2, "books": 0.3})


def exported(folder: Path, tool: str, rows: dict[str, int], **known: object) -> dict[str, Any]:
    """Export Python for files of these rows, run it, and return the names that it defines."""
    paths = domains(folder, rows, LENGTHS)
    (folder / "mixture.py").write_text(export_mixture(DRAWN, tool, paths=paths, **known))
    return runpy.run_path(str(folder / "mixture.py"))


def test_datasets_draws_tokens_in_their_shares(tmp_path):
    names = exported(tmp_path, "datasets", dict.fromkeys(LENGTHS, 2000), sample_tokens=LENGTHS)
    drawn = dict.fromkeys(LENGTHS, 0)
    for row in islice(names["train_dataset"], 3000):
        words = row["text"].split()
        drawn[words[0]] += len(words)
    total = sum(drawn.values())
    # 3,000 draws: a standard error of a share is at most 0.011.
    assert {n: k / total for n, k in drawn.items()} == pytest.approx(dict(DRAWN), abs=0.04)


class Words:
    """A tokenizer of words, one token each, the length of its domain's rows."""

    eos_token_id = 0

    def __call__(self, texts):
        return {"input_ids": [[LENGTHS[word] for word in text.split()] for text in texts]}


def test_transformers_draws_packed_sequences_in_their_shares(tmp_path):
    names = exported(tmp_path, "transformers", {"web": 3000, "code": 9000, "books": 1000})
    drawn = dict.fromkeys(LENGTHS.values(), 0)
    for row in islice(names["mixture"](Words(), length=64), 2000):
        assert row.keys() == {"input_ids", "labels"}
        assert len(row["input_ids"]) == 64
        drawn[max(row["input_ids"])] += 1
    shares = {name: drawn[number] / 2000 for name, number in LENGTHS.items()}
    assert shares == pytest.approx(dict(DRAWN), abs=0.04)
