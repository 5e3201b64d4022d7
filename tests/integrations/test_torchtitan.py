"""torchtitan's own trainer on a mixture: the release, and main where a checkout was given."""

import sys
from dataclasses import make_dataclass
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import titan_job
from places import PROJECT
from ranks import finish, start_ranks
from refusals import refuses
from token_writers import write_index, write_shards

from mixopt import Mixture, MixtureDataset, MixtureSampler, SamplerError

pytestmark = pytest.mark.filterwarnings("ignore")
is_there = find_spec("torchtitan") is not None
needs_trainer = pytest.mark.skipif(not is_there, reason="torchtitan is absent: make trainers")

MAIN = PROJECT / ".trainers" / "torchtitan-main"
LENGTH, STEP = 16, 8
WEIGHTS = {"web": 0.5, "code": 0.3, "books": 0.2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for k, (name, rows) in enumerate((("web", 90), ("code", 41), ("books", 17))):
        tokens = np.random.default_rng(k).integers(0, 12, rows * (LENGTH + 1))
        write_shards(folder / name / "train", tokens)
    write_index(folder, WEIGHTS)
    Mixture(WEIGHTS).to_file(folder / "mixture.yaml")
    return folder


def trained(library, corpus, out, steps, *, replicas=1, tensor=1):
    """Run the trainer; return the parts and what each process was fed."""
    sizes = library, corpus, out, steps, replicas, tensor
    ranks = start_ranks(replicas * tensor, titan_job.__file__, "trained", *sizes, group=None)
    return finish(ranks)


def rows_fed(ranks):
    """Rows in the order of the global batches."""
    fed = [[np.reshape(batch["input"], (-1, LENGTH)) for _, batch in rank["fed"]] for rank in ranks]
    return [row.tolist() for parts in zip(*fed, strict=True) for part in parts for row in part]


def expected(corpus, steps):
    """Rows of the global order: its windows are the batches of two rows of the first run."""
    dataset = MixtureDataset.from_corpus(corpus, length=LENGTH + 1)
    order = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=2)
    batches = [
        dataset.read(order.order.rows(batch)[0])["input_ids"] for batch in range(steps * STEP // 2)
    ]
    return [row[:-1].tolist() for batch in batches for row in batch]


# On a CPU, with dense attention in the place of FlexAttention, which has no backward there, and
# without the barrier of its time limits, which asks for a numbered device.
@pytest.mark.nightly
@needs_trainer
def test_the_trainer_resumes_its_own_checkpoint_on_other_ranks(corpus, tmp_path):
    library = MAIN if MAIN.exists() else ""  # make trainers TORCHTITAN=path
    (first,) = trained(library, corpus, tmp_path, 6)
    assert first["part"] == [0, 1]
    second = trained(library, corpus, tmp_path, 9, replicas=2)
    assert [item["part"] for item in second] == [[0, 2], [1, 2]]
    assert [step for step, _ in second[0]["fed"]] == [7, 7, 8, 8, 9, 9]
    assert rows_fed([first]) + rows_fed(second) == expected(corpus, 9)
    check_documents(first["fed"][0][1])


def check_documents(batch):
    """Positions begin anew after an end, and no label crosses it."""
    tokens, positions, labels = (
        np.reshape(batch[name], (-1, LENGTH)) for name in ("input", "positions", "labels")
    )
    after_end = tokens[:, :-1] == 0
    assert after_end.any()
    assert (positions[:, 0] == 0).all()
    assert ((positions[:, 1:] == 0) == after_end).all()
    assert (np.diff(positions)[~after_end] == 1).all()
    assert ((labels == -100) == (tokens == 0)).all()
    assert (labels[:, :-1][~after_end] == tokens[:, 1:][~after_end]).all()


@pytest.mark.nightly
@needs_trainer
def test_tensor_parallel_peers_are_fed_the_same_rows(corpus, tmp_path):
    first, second = trained("", corpus, tmp_path, 3, tensor=2)
    assert first["part"] == second["part"] == [0, 1]
    assert first["fed"] == second["fed"]
    assert rows_fed([first]) == expected(corpus, 3)


@pytest.fixture
def loaders(monkeypatch):
    """Our loader, on torchtitan's base or, where that is absent, on a stand-in of it."""
    ours = "mixopt.integrations.torchtitan"
    if not is_there:
        config = make_dataclass("Config", [], kw_only=True, slots=True)
        base = type("BaseDataLoader", (), {"Config": config})
        parts = {"tyro": {"conf": SimpleNamespace(Suppress=None)}, "torchtitan": {}}
        parts |= {"torchtitan.components": {}, ours: {}}
        parts["torchtitan.components.dataloader"] = {"BaseDataLoader": base}
        for name, names in parts.items():
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
            vars(sys.modules[name]).update(names)
        del sys.modules[ours]
    from mixopt.integrations.torchtitan import MixtureDataLoader

    return MixtureDataLoader


def built(loaders, config, **given):
    return loaders(config, dp_world_size=1, dp_rank=0, tokenizer=None, **given)


RELEASE = {"seq_len": LENGTH, "local_batch_size": 2}


def test_a_batch_has_positions_in_documents_and_its_state_resumes(corpus, loaders):
    path = str(corpus / "mixture.yaml")
    config = loaders.Config(corpus=str(corpus), mixture=path, document_end=0, seed=3)
    loader = built(loaders, config, **RELEASE)
    batches = iter(loader)
    inputs, labels = next(batches)
    check_documents({**inputs, "labels": labels})
    flat = built(loaders, config, max_context_length=LENGTH, num_tokens_per_batch=2 * LENGTH)
    tokens, targets = next(iter(flat))
    assert tokens["input"].tolist() == inputs["input"].flatten().tolist()
    assert tokens["positions"].tolist() == inputs["positions"].flatten().tolist()
    assert targets.tolist() == labels.flatten().tolist()
    resumed = built(loaders, config, **RELEASE)
    resumed.load_state_dict(loader.state_dict())
    assert next(iter(resumed))[0]["input"].tolist() == next(batches)[0]["input"].tolist()
    for item in (loader, flat, resumed):
        item.close()
    refuses(SamplerError, "MixtureDataLoader needs seq_len=; torchtitan's", built, loaders, config)


STAGES = """
batch: 8
sequence_length: 16
stages:
  - steps: 3
    mixture: {web: 0.5, code: 0.3, books: 0.2}
  - steps: 4
    mixture: {web: 0.1, code: 0.1, books: 0.8}
"""


def test_a_schedule_holds_from_optimizer_steps(corpus, tmp_path, loaders):
    path = tmp_path / "schedule.yaml"
    path.write_text(STAGES, encoding="utf-8")
    config = loaders.Config(corpus=str(corpus), mixture=str(path))
    loader = built(loaders, config, **RELEASE)
    # Four batches of two rows are a step: the second stage begins with batch 12.
    dataset = MixtureDataset.from_corpus(corpus, length=LENGTH + 1)
    later = [(12, {"web": 0.1, "code": 0.1, "books": 0.8})]
    order = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=2, schedule=later)
    for batch in range(40):
        assert loader.mixture.sampler.order.rows(batch).tolist() == order.order.rows(batch).tolist()
    with pytest.raises(SamplerError, match=r"schedule\.yaml: batch: 8 .* not a multiple of 3"):
        built(loaders, config, seq_len=LENGTH, local_batch_size=3)
    with pytest.raises(SamplerError, match=r"sequence_length: 16; torchtitan trains on .* 32"):
        built(loaders, config, seq_len=32, local_batch_size=2)


def test_a_configuration_that_cannot_be_built_says_what_is_missing(corpus, loaders):
    make, path = loaders.Config, str(corpus / "mixture.yaml")
    with pytest.raises(SamplerError, match="give exactly one of corpus= and rows="):
        built(loaders, make(mixture=path), **RELEASE)
    refuses(
        SamplerError, "mixture= is missing", built, loaders, make(corpus=str(corpus)), **RELEASE
    )
    config = make(corpus=str(corpus), mixture=path)
    with pytest.raises(SamplerError, match=r"30 is not a multiple .* 16; use 16"):
        built(loaders, config, max_context_length=16, num_tokens_per_batch=30)
    rows = MixtureDataset.from_corpus(corpus, length=LENGTH)
    loader = built(loaders, make(rows=rows, mixture=path), **RELEASE)
    refuses(SamplerError, r"need rows of 17: MixtureDataset\(length=17\)", next, iter(loader))
