"""Trainers' configurations that somebody wrote by hand, read as mixtures."""

from __future__ import annotations

import pytest

from mixopt import MixoptError, MixtureError
from mixopt.integrations import EXPORT_TOOLS, import_mixture

PATHS = {"web": "/data/web_text_document", "code": "/data/code_text_document"}

BY_HAND = [
    ("megatron", "30 /data/web_text_document 70 /data/code_text_document\n"),
    ("megatron", '["30", "/data/web_text_document", "70", "/data/code_text_document"]'),
    ("megatron", '{"train": "30 /data/web_text_document 70 /data/code_text_document"}'),
    (
        "megatron",
        "torchrun --nproc-per-node 8 pretrain_gpt.py --seq-length 4096 \\\n"
        "    --data-path 30 /data/web_text_document 70 '/data/code_text_document' \\\n"
        "    --split 99,1,0  # --data-path 1 x\n",
    ),
    (
        "megatron",
        "DATA_ARGS=(\n  --train-data-path 0.3 /data/web_text_document 0.7\n"
        '  "/data/code_text_document"\n  --vocab-file v.json\n)\n',
    ),
    (
        "megatron-bridge",
        "dataset:\n  data_path: [30, /data/web_text_document, 70, /data/code_text_document]\n",
    ),
    (
        "megatron-bridge",
        "dataset:\n  data_path: 30 /data/web_text_document 70 /data/code_text_document\n",
    ),
    (
        "megatron-bridge",
        "blend: [[/data/web_text_document, /data/code_text_document], [30, 70]]\ntrain: {}\n",
    ),
    (
        "nemo",
        "dataset:\n  _target_: nemo_automodel.components.datasets.llm.megatron_dataset"
        ".MegatronPretraining\n  paths:\n    train: ['30', /data/web_text_document, '70',"
        " /data/code_text_document]\n    validation: [/data/v]\n",
    ),
    (
        "nemo",
        "model:\n  data:\n    data_prefix: [.3, /data/web_text_document, .7,"
        " /data/code_text_document]\n",
    ),
    (
        "olmo-core",
        "source_list:\n  sources:\n  - {source_name: web, target_ratio: 0.3, paths: ['a*.npy']}\n"
        "  - {source_name: code, target_ratio: 0.7, paths: [b.npy], max_repetition_ratio: 2.0}\n",
    ),
    (
        "levanter",
        "data:\n  configs:\n    web: {train_urls: [a]}\n    code: {id: org/code}\n"
        "  train_weights:\n    web: 3\n    code: 7\n  tokenizer: gpt2\nmodel: {type: llama}\n",
    ),
    ("levanter", "data:\n  train_weights:\n  - [0, {web: 0.3, code: 0.7}]\n"),
    (
        "nanotron",
        "data_stages:\n- name: one\n  start_training_step: 1\n  data:\n    dataset:\n"
        "      dataset_folder: [/data/web_text_document, /data/code_text_document]\n"
        "      dataset_weights: [3, 7]\n",
    ),
    (
        "torchtitan",
        "sources = [\n    HFDataSource(dataset='c4', dataset_path='/data/web_text_document',"
        " weight=3),\n    text_datasets.HFDataSource(dataset='code', weight=7.0),\n]\n",
    ),
    (
        "torchtitan",
        "mix = DatasetMixConfig(datasets=(\n    WeightedDataset(dataset=web, weight=0.3),\n"
        "    WeightedDataset(dataset=code, weight=0.7),\n))\n",
    ),
    (
        "transformers",
        "web = load_dataset('/data/web_text_document', split='train').map(pack)\n"
        "code = load_dataset('json', data_files={'train': '/data/code_text_document'})\n"
        "p = [0.3, 0.7]\nds = datasets.interleave_datasets([web, code], probabilities=p)\n",
    ),
]


@pytest.mark.parametrize(("tool", "text"), BY_HAND)
def test_a_configuration_written_by_hand_is_read(tool, text):
    found = import_mixture(text, tool, paths=PATHS)
    assert dict(found) == pytest.approx({"web": 0.3, "code": 0.7})


def test_a_path_that_nobody_names_is_called_by_its_last_part():
    text = "1 /data/web_text_document 3 s3://bucket/v1.5/code.jsonl.zst"
    assert dict(import_mixture(text, "megatron")) == {"web_text_document": 0.25, "code": 0.75}


def test_paths_of_one_domain_are_added_up():
    paths = {"web": ["/a/0", "/b/0"], "code": "/c/0"}
    found = import_mixture("1 /a/0 2 /c/0 1 /b/0", "megatron", paths=paths)
    assert dict(found) == {"web": 0.5, "code": 0.5}


@pytest.mark.parametrize("known", ["paths", "inventory", "sample_tokens"])
def test_a_known_domain_that_a_fragment_does_not_have_gets_0(known):
    domains = {"none": "n", "web": "w"} if known == "paths" else {"none": 10, "web": 20}
    text = f"1 {'w' if known == 'paths' else 'web'}"
    found = import_mixture(text, "megatron", **{known: domains})
    assert list(found.items()) == [("none", 0.0), ("web", 1.0)]


def test_a_variable_has_what_it_was_assigned_last():
    text = "p = [0.9, 0.1]\np = [0.25, 0.75]\nd = interleave_datasets([a, b], probabilities=p)\n"
    assert dict(import_mixture(text, "transformers")) == {"a": 0.25, "b": 0.75}


def test_a_list_that_is_made_of_itself_is_followed_back():
    text = (
        "ds: list = [data['a'], load_b()]\nds = [d.map(f) for d in ds]\n"
        "mix = interleave_datasets(ds, probabilities=[0.25, 0.75])\nds = []\n"
    )
    assert dict(import_mixture(text, "transformers")) == {"a": 0.25, "load_b": 0.75}


def test_two_paths_with_one_last_part_are_not_guessed():
    with pytest.raises(MixtureError) as raised:
        import_mixture("1 /a/train 1 /b/train", "megatron")
    assert str(raised.value) == (
        "megatron: '/a/train' and '/b/train' would both be domain 'train'; give their domains "
        "with --paths FILE (in Python paths=)"
    )


def test_datasets_written_by_hand_are_read_by_their_variables():
    text = "mixed = interleave_datasets([web, code], [0.5, 0.5], 42)\n"
    found = import_mixture(text, "datasets", sample_tokens={"web": 300, "code": 100})
    assert dict(found) == pytest.approx({"web": 0.75, "code": 0.25})


def test_llamafactory_probabilities_may_be_a_list():
    text = "dataset: [web, code]\nmix_strategy: interleave_under\ninterleave_probs: [0.5, 0.5]\n"
    found = import_mixture(text, "llamafactory", sample_tokens={"web": 300, "code": 100})
    assert dict(found) == pytest.approx({"web": 0.75, "code": 0.25})


def test_swift_without_a_number_takes_all_rows():
    text = "dataset: [web, 'code#25']\nmodel: m\n"
    # 1000 / 10 rows of web, 25 of code: 1000 and 500 tokens.
    known = {"inventory": {"web": 1000}, "sample_tokens": {"web": 10, "code": 20}}
    assert dict(import_mixture(text, "swift", **known)) == pytest.approx(
        {"web": 2 / 3, "code": 1 / 3}
    )


@pytest.mark.parametrize(
    ("entry", "tokens"),
    [
        ("{path: web}", 1000),
        ("{path: web, split: train}", 1000),
        ("{path: web, split: 'train[:30]'}", 300),
        ("{path: web, split: 'train[20:30]'}", 100),
        ("{path: web, split: 'train[:25%]'}", 250),
        ("{path: web, split: 'train[10%:25%]'}", 150),
        ("{path: web, shards: 4, shards_idx: 0}", 250),
    ],
)
def test_axolotl_passes_slices_and_shards_are_read(entry, tokens):
    text = f"base_model: m\ndatasets:\n- {entry}\n- {{path: code}}\n- {{path: code}}\n"
    known = {"inventory": {"web": 1000, "code": 500}, "sample_tokens": 10}
    found = import_mixture(text, "axolotl", **known)
    assert dict(found) == pytest.approx(
        {"web": tokens / (tokens + 1000), "code": 1000 / (tokens + 1000)}
    )


def test_megatron_bridge_sft_without_weights_is_one_pass_each():
    text = (
        "dataset:\n  source:\n  - {dataset_name: squad}\n  - path_or_dataset: json\n"
        "    load_kwargs: {data_files: {train: /d/code.jsonl}}\n"
    )
    known = {"inventory": {"squad": 300, "code": 100}}
    assert dict(import_mixture(text, "megatron-bridge-sft", **known)) == {
        "squad": 0.75,
        "code": 0.25,
    }


def test_several_paths_of_a_domain_are_seen_as_often_as_their_mean():
    text = "dataset:\n  source:\n  - {path_or_dataset: a}\n  - {path_or_dataset: b}\n"
    text += "  - {path_or_dataset: c}\n  source_weights: [1.0, 2.0, 1.5]\n"
    known = {"inventory": {"web": 100, "code": 100}, "paths": {"web": ["a", "b"], "code": "c"}}
    found = import_mixture(text, "megatron-bridge-sft", **known)
    assert dict(found) == {"web": 0.5, "code": 0.5}


WRONG = [
    (
        "megatron",
        "web",
        "megatron: 1 elements are not a blend; expected a weight before every path",
    ),
    (
        "megatron",
        "1 web x code",
        "megatron: 'x' is not a weight; expected a weight before every path",
    ),
    ("megatron", "--split 1", "megatron: contains no mixture; expected --data-path with weights"),
    ("megatron", '{"valid": []}', "megatron: contains no mixture; expected 'train' with weights"),
    ("megatron", '{"train": ', "megatron: cannot be read: "),
    ("megatron", "1 'web", "megatron: cannot be read: No closing quotation"),
    ("megatron", "-1 web 2 code", "megatron: 'web': weight -1.0 is not a number >= 0"),
    ("megatron", "nan web 2 code", "megatron: 'web': weight nan is not a number >= 0"),
    ("megatron", "0 web 0 code", "megatron: all weights are 0; a mixture needs one above 0"),
    ("megatron-bridge", "a: 1", "megatron-bridge: contains no mixture; expected dataset.blend"),
    ("megatron-bridge", "blend: [[a], [1, 2]]", "megatron-bridge: 2 weights for 1 paths"),
    ("megatron-bridge-sft", "a: 1", "megatron-bridge-sft: contains no mixture; expected dataset."),
    (
        "megatron-bridge-sft",
        "source: [{dataset_name: a}]\nsource_weights: [1, 2]",
        "megatron-bridge-sft: 2 weights for 1 sources",
    ),
    ("nemo", "dataset: {paths: /d}", "nemo: contains no mixture; expected dataset.paths"),
    ("olmo-core", "a: [", "olmo-core:1: not valid YAML"),
    ("olmo-core", "[1]", "olmo-core: expected YAML with fields, got list"),
    ("olmo-core", "a: 1", "olmo-core: contains no mixture; expected 'sources'"),
    ("olmo-core", "sources: [{source_name: a}]", "olmo-core: {'source_name': 'a'} has no target_"),
    ("levanter", "data: {}", "levanter: contains no mixture; expected data.train_weights"),
    ("levanter", "train_weights: {a: x}", "levanter: 'a': weight 'x' is not a number >= 0"),
    (
        "levanter",
        "data: {train_weights: [[0, {a: 1}], [9, {a: 1}]]}",
        "levanter: data.train_weights has 2 stages; one mixture is read, so keep the stage",
    ),
    ("nanotron", "data_stages: [{}, {}]", "nanotron: data_stages has 2 stages; one mixture is"),
    ("nanotron", "dataset_folder: [a]", "nanotron: contains no mixture; expected dataset_folder"),
    (
        "nanotron",
        "{dataset_folder: [a], dataset_weights: [1, 2]}",
        "nanotron: 2 dataset_weights for 1 folders",
    ),
    ("torchtitan", "x = (", "torchtitan:1: cannot be read as Python: "),
    ("torchtitan", "x = 1", "torchtitan: contains no mixture; expected HFDataSource"),
    (
        "torchtitan",
        "\nHFDataSource(dataset='a', weight=w())",
        "torchtitan:2: weight cannot be read as a number",
    ),
    ("torchtitan", "HFDataSource(weight=1)", "torchtitan:1: the domain of a weight cannot be read"),
    ("transformers", "x = 1", "transformers: expected one interleave_datasets(..., probabilities="),
    (
        "datasets",
        "interleave_datasets([a, b], probabilities=[1])",
        "datasets: probabilities must be a list of numbers, one for each of 2 datasets",
    ),
    (
        "datasets",
        "d = [x for x in d]\ninterleave_datasets(d, probabilities=[1])",
        "datasets: probabilities must be a list of numbers, one for each of 0 datasets",
    ),
    (
        "datasets",
        "\ninterleave_datasets([a + b], probabilities=[1])",
        "datasets:2: the name of a dataset cannot be read; write it out",
    ),
    ("axolotl", "a: 1", "axolotl: contains no mixture; expected datasets with path and split"),
    ("axolotl", "datasets: [{}]", "axolotl: None is neither a path nor a list of paths"),
    ("axolotl", "datasets: [{path: a, split: 'x y'}]", "axolotl: split 'x y' cannot be"),
    (
        "axolotl",
        "datasets: [{path: a, split: 'train[5:]'}]",
        "axolotl: split 'train[5:]': its number of rows is not stated",
    ),
    ("axolotl", "datasets: [{path: a, shards: x}]", "axolotl: shards: 'x' is not a whole number"),
    ("llamafactory", "dataset: a", "llamafactory: contains no mixture; expected dataset with"),
    (
        "llamafactory",
        "dataset: a\ninterleave_probs: '1,2'",
        "llamafactory: 2 interleave_probs for 1 names",
    ),
    (
        "llamafactory",
        "dataset: a\ninterleave_probs: x",
        "llamafactory: interleave_probs: 'x' is not a number",
    ),
    ("swift", "a: 1", "swift: contains no mixture; expected dataset: [path#count, ...]"),
    ("swift", "dataset: ['a#x']", "swift: 'a#x': 'x' is not a number of rows"),
]


@pytest.mark.parametrize(("tool", "text", "message"), WRONG)
def test_what_is_no_mixture_is_refused_with_the_reason(tool, text, message):
    with pytest.raises(MixtureError) as raised:
        import_mixture(text, tool, sample_tokens=10)
    assert str(raised.value).startswith(message)


NONSENSE = [
    "",
    "\0",
    "[" * 5000,
    "{" * 5000,
    "f(" * 300,
    "- - -",
    "a: *x",
    "null",
    "1 a 2",
    '{"train": [[1], {}]}',
    "dataset: 1",
    "datasets: [1, [2]]",
    "sources: 3",
    "data: {train_weights: [1]}",
]


@pytest.mark.parametrize("tool", EXPORT_TOOLS)
@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_one_error_of_ours(tool, text):
    with pytest.raises(MixoptError):
        import_mixture(text, tool, sample_tokens=10)


def test_python_is_parsed_and_never_run(tmp_path):
    mark = tmp_path / "ran"
    text = f"open({str(mark)!r}, 'w')\nHFDataSource(dataset='a', weight=1)\n"
    assert dict(import_mixture(text, "torchtitan")) == {"a": 1.0}
    assert not mark.exists()
