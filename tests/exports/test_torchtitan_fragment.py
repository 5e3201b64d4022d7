"""The fragment for torchtitan makes a loader with release 0.3 and with the main branch."""

from __future__ import annotations

import runpy
import sys
from types import ModuleType, SimpleNamespace

import pytest

from mixopt import Mixture
from mixopt.exports import export_mixture

MIXTURE = Mixture({"web": 0.75, "code": 0.25})
PATHS = {"web": "/data/web.jsonl", "code": "org/code"}
MAIN = {  # what each module of the main branch has that a mixture is made of
    "torchtitan.components.data": (
        "ConcatThenSplitPackingConfig",
        "DatasetMixConfig",
        "SingleDatasetConfig",
        "WeightedDataset",
    ),
}


class Loader:
    """A loader, source or processor: its Config keeps what it is given."""

    Config = SimpleNamespace


@pytest.fixture
def run(tmp_path, monkeypatch):
    def runs(modules):
        for name in ("torchtitan", "torchtitan.components", "torchtitan.hf_datasets"):
            modules = {name: {}} | modules
        for name, content in modules.items():
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
        path = tmp_path / "mixture.py"
        path.write_text(export_mixture(MIXTURE, "torchtitan", paths=PATHS))
        return runpy.run_path(str(path))["dataloader"]

    return runs


def test_on_the_main_branch_packed_datasets_are_mixed_by_weight(run):
    made = dict.fromkeys(MAIN["torchtitan.components.data"], SimpleNamespace)
    made |= {"GrainDataLoader": Loader, "HuggingFaceStreamingSource": Loader}
    text = {"TextProcessor": Loader}
    config = run({"torchtitan.components.data": made, "torchtitan.hf_datasets.text_datasets": text})
    web, code = config.dataset.datasets
    assert (web.weight, code.weight) == (0.75, 0.25)
    source = web.dataset.dataset.source
    assert (source.path, source.split) == ("json", "train")
    assert source.load_dataset_kwargs == {"data_files": "/data/web.jsonl"}
    assert code.dataset.dataset.source.path == "org/code"
    assert code.dataset.dataset.source.load_dataset_kwargs == {}
    (is_there,) = web.dataset.dataset.post_filters
    assert (is_there(None), is_there({})) == (False, True)


def test_on_release_0_3_sources_are_interleaved_by_weight(run):
    known = {}
    text = {
        "DATASETS": known,
        "HFDataSource": SimpleNamespace,
        "InterleavedHuggingFaceTextDataLoader": Loader,
    }
    config = run(
        {
            "torchtitan.hf_datasets": {"DatasetConfig": SimpleNamespace},
            "torchtitan.hf_datasets.text_datasets": text,
        }
    )
    web, code = config.sources
    assert (web.dataset, web.dataset_path, web.weight) == ("json", "/data/web.jsonl", 0.75)
    assert (code.dataset, code.dataset_path, code.infinite) == ("hub", "org/code", True)
    assert set(known) == {"json", "hub"}
    assert known["hub"].sample_processor({"text": "x"}) == "x"
