"""A mixture as each trainer has it: units by hand, round trips, and what cannot be carried."""

import runpy
import sys
import types

import pytest
import yaml
from hypothesis import given, settings, strategies as st
from read_fragments import read_shares

from mixopt import ConfigError, Mixture
from mixopt.integrations import EXPORT_TOOLS, export_mixture
from mixopt.system import name_fault
from mixopt.testing import check_exporter

COUNTED = ["axolotl", "swift", "open-instruct", "verl"]
# One tool of each unit and form; check_exporter asks all of them.
SHAPES = ["olmo-core", "megatron-bridge-sft", "swift", "datasets"]

# web 60%, code 30%, books 10% of 1,000 tokens; books has 25 tokens, so that it is seen four times.
MIXTURE = Mixture({"web": 0.6, "code": 0.3, "books": 0.1})
KNOWN = {
    "inventory": {"web": 1200, "code": 400, "books": 25},
    "sample_tokens": {"web": 10, "code": 20, "books": 5},
}
ALL = {**KNOWN, "tokens": 1000}

ODD = ["a b", "it's", 'say "hi"', "x # y", "dm: maths", "yes", "1.5", "null", "- x", "ü→語", "{a}"]


def read_back(text, tool, **known):
    return Mixture(read_shares(text, tool, **known), tolerance=1e-6)


def content(tool, mixture=MIXTURE, **known):
    return yaml.safe_load(export_mixture(mixture, tool, **(known or ALL)))


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="/\\"), min_size=1, max_size=12)
NAMES = (st.sampled_from(ODD) | TEXTS).filter(lambda name: name_fault(name) is None)
# Of each domain: its weight before they add up to 1, its size and the tokens of a sample.
DOMAINS = st.tuples(
    st.just(0.0) | st.floats(1e-4, 1.0), st.integers(10**8, 10**11), st.floats(1, 4000)
)


@st.composite
def cases(draw):
    """A mixture with weights of 0 and odd names, sizes and lengths of samples."""
    drawn = draw(st.dictionaries(NAMES, DOMAINS, min_size=1, max_size=8))
    total = sum(weight for weight, _, _ in drawn.values())
    even = 1 / len(drawn)
    mixture = Mixture({name: entry[0] / total if total else even for name, entry in drawn.items()})
    known = {
        "inventory": {name: size for name, (_, size, _) in drawn.items()},
        "sample_tokens": {name: sample for name, (*_, sample) in drawn.items()},
    }
    return mixture, known


@pytest.mark.parametrize("tool", SHAPES)
@given(case=cases())
@settings(max_examples=20, deadline=None)
def test_a_mixture_comes_back_or_what_cannot_be_carried_is_named(tool, case):
    mixture, known = case
    tokens = 10**9
    try:
        text = export_mixture(mixture, tool, tokens=tokens, **known)
    except ConfigError as error:
        said = str(error)
        odd = [n for n in mixture if n != n.strip() or any(c in n for c in (",", ":", "${", "-"))]
        assert any(repr(name) in said for name in odd)
        return
    found = read_back(text, tool, **known)
    assert set(found) == set(mixture)
    slack = 1e-12
    if tool in COUNTED:  # whole samples: half a one of each domain
        slack += sum(known["sample_tokens"][name] for name in mixture if mixture[name]) / tokens
    for name in mixture:
        assert abs(found[name] - mixture[name]) <= slack
        assert (found[name] == 0) == (mixture[name] == 0)


@pytest.mark.parametrize("tool", EXPORT_TOOLS)
def test_each_tool_keeps_its_promises_and_paths_with_odd_characters_are_read_back(tool):
    check_exporter(EXPORT_TOOLS[tool])
    paths = {
        "web": ["/data/a b/web #1.jsonl", "/data/it's/web.2.jsonl"],
        "code": '/data/"q"/code{x}.jsonl',
        "books": "hf: books.jsonl" if tool != "swift" else "books.jsonl",
    }
    text = export_mixture(MIXTURE, tool, paths=paths, **ALL)
    found = read_back(text, tool, paths=paths, **KNOWN)
    assert set(found) == set(MIXTURE)
    assert found.total_variation(MIXTURE) <= (0.02 if tool in COUNTED else 1e-12)


@pytest.mark.parametrize("tool", ["megatron", "swift", "llamafactory"])
def test_amounts_of_a_domain_are_divided_among_its_paths(tool):
    paths = {"web": ["/d/w0.jsonl.gz", "/d/w1"], "code": "/d/c.jsonl", "books": "/d/b.parquet"}
    text = export_mixture(MIXTURE, tool, paths=paths, **ALL)
    assert "divided evenly among its paths" in text
    names = [*paths["web"], paths["code"], paths["books"]]
    known = {"inventory": dict(zip(names, (600, 600, 400, 25), strict=True))}
    known["sample_tokens"] = dict(zip(names, (10, 10, 20, 5), strict=True))
    if tool == "llamafactory":
        known = {"sample_tokens": {"web.0": 10, "web.1": 10, "code": 20, "books": 5}}
    shares = list(read_shares(text, tool, **known).values())
    assert shares == pytest.approx([0.3, 0.3, 0.3, 0.1])


def test_rows_epochs_and_chances_are_those_counted_by_hand_and_rows_are_whole():
    # .6/10 : .3/20 : .1/5 = .06 : .015 : .02
    chances = [dataset["fraction"] for dataset in content("trl")["datasets"]]
    assert chances == pytest.approx([0.06 / 0.095, 0.015 / 0.095, 0.02 / 0.095])
    # 600 tokens / 10, 300 / 20, 100 / 5; with a point it would be read as a part
    assert content("open-instruct")["dataset_mixer_list"][1::2] == ["60", "15", "20"]
    # 600 / 1200, 300 / 400, 100 / 25
    epochs = content("megatron-bridge-sft")["dataset"]["source_weights"]
    assert epochs == pytest.approx([0.5, 0.75, 4.0])
    # web: 60 of its 120 rows; code: 15 of 20; books: 20 rows are 4 times its 5.
    listed = [(dataset["path"], dataset["split"]) for dataset in content("axolotl")["datasets"]]
    assert listed == [("web", "train[:60]"), ("code", "train[:15]")] + [("books", "train")] * 4
    # A source may be repeated as often as it is seen, and 1% more.
    found = {s["source_name"]: s for s in content("olmo-core")["sources"]}
    assert found["web"]["target_ratio"] == 0.6
    assert [s["max_repetition_ratio"] for s in found.values()] == [1.0, 1.0, 4.04]
    assert "max_repetition_ratio" not in content("olmo-core", tokens=1000)["sources"][0]
    known = {"tokens": 610, "sample_tokens": 10, "paths": {"web": ["a", "b", "c"]}}
    assert content("swift", Mixture({"web": 1.0}), **known)["dataset"] == ["a#21", "b#20", "c#20"]
    mixture = Mixture({"web": 0.9999, "code": 0.0001})
    assert content("swift", mixture, tokens=1000, sample_tokens=10)["dataset"][1] == "code#1"


def test_verl_takes_the_rows_of_each_file_and_repeats_a_short_one(tmp_path, monkeypatch):
    import datasets

    class RLHFDataset:
        def __init__(self, files):
            self.data_files, self.original_data_files = list(files), list(files)
            self._read_files_and_tokenize()

        def _read_files_and_tokenize(self):
            self.dataframe = "whole"

        def maybe_filter_out_long_prompts(self, dataframe):
            return dataframe

    paths = {}
    for name, rows in (("web", 90), ("code", 4), ("books", 20)):
        paths[name] = str(tmp_path / f"{name}.parquet")
        prompts = {"prompt": [f"{name}{n}" for n in range(rows)]}
        datasets.Dataset.from_dict(prompts).to_parquet(paths[name])
    for name in ("verl", "verl.utils", "verl.utils.dataset", "verl.utils.dataset.rl_dataset"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["verl.utils.dataset.rl_dataset"].RLHFDataset = RLHFDataset
    names = {}
    exec(export_mixture(MIXTURE, "verl", paths=paths, **ALL), names)
    drawn = names["MixtureDataset"](list(paths.values())).dataframe["prompt"]
    counts = [sum(item.startswith(name) for item in drawn) for name in paths]
    assert counts == [60, 15, 20]
    assert len({item for item in drawn if item.startswith("web")}) == 60
    assert names["MixtureDataset"]([str(tmp_path / "held_out.parquet")]).dataframe == "whole"


class Loader:
    """A loader, source or processor of torchtitan: its Config keeps what it is given."""

    Config = types.SimpleNamespace


def titan_loader(tmp_path, monkeypatch, modules):
    """Return what an exported file makes where torchtitan's modules have these names."""
    for name in ("torchtitan", "torchtitan.components", "torchtitan.hf_datasets", *modules):
        module = types.ModuleType(name)
        vars(module).update(modules.get(name) or {})
        monkeypatch.setitem(sys.modules, name, None if modules.get(name, {}) is None else module)
    paths = {"web": "/data/web.jsonl", "code": "org/code"}
    path = tmp_path / "mixture.py"
    path.write_text(export_mixture(Mixture({"web": 0.75, "code": 0.25}), "torchtitan", paths=paths))
    return runpy.run_path(str(path))["dataloader"]


def test_torchtitan_s_main_branch_mixes_packed_datasets_by_weight(tmp_path, monkeypatch):
    keeping = ("ConcatThenSplitPackingConfig", "DatasetMixConfig", "SingleDatasetConfig")
    classes = dict.fromkeys((*keeping, "WeightedDataset"), types.SimpleNamespace)
    classes |= {"GrainDataLoader": Loader, "HuggingFaceStreamingSource": Loader}
    modules = {"torchtitan.components.data": classes}
    modules["torchtitan.hf_datasets.text_datasets"] = {"TextProcessor": Loader}
    web, code = titan_loader(tmp_path, monkeypatch, modules).dataset.datasets
    assert (web.weight, code.weight) == (0.75, 0.25)
    source, other = web.dataset.dataset.source, code.dataset.dataset.source
    assert (source.path, source.load_dataset_kwargs) == ("json", {"data_files": "/data/web.jsonl"})
    assert (other.path, other.load_dataset_kwargs) == ("org/code", {})
    (is_there,) = web.dataset.dataset.post_filters
    assert (is_there(None), is_there({})) == (False, True)


def test_torchtitan_s_release_0_3_interleaves_sources_by_weight(tmp_path, monkeypatch):
    text = {"DATASETS": (known := {}), "HFDataSource": types.SimpleNamespace}
    text |= {"InterleavedHuggingFaceTextDataLoader": Loader}
    modules = {
        "torchtitan.components.data": None,  # not in this release
        "torchtitan.hf_datasets": {"DatasetConfig": types.SimpleNamespace},
        "torchtitan.hf_datasets.text_datasets": text,
    }
    web, code = titan_loader(tmp_path, monkeypatch, modules).sources
    assert (web.dataset, web.dataset_path, web.weight) == ("json", "/data/web.jsonl", 0.75)
    assert (code.dataset, code.dataset_path, code.infinite) == ("hub", "org/code", True)
    assert known["hub"].sample_processor({"text": "x"}) == "x"


def test_a_domain_with_a_share_needs_a_size():
    inventory = {"web": 1200, "books": 25}
    with pytest.raises(ConfigError, match="domain 'code'"):
        export_mixture(MIXTURE, "megatron-bridge-sft", tokens=1000, inventory=inventory)
    without = Mixture({"web": 0.5, "code": 0.0, "books": 0.5})
    text = export_mixture(without, "megatron-bridge-sft", tokens=1000, inventory=inventory)
    assert dict(read_back(text, "megatron-bridge-sft", inventory=inventory)) == dict(without)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"tokens": float("nan")}, "tokens: nan is not a number above 0"),
        ({"sample_tokens": True}, "sample_tokens: True is not a number above 0"),
        ({"paths": {"wbe": "x"}}, "paths: unknown domain 'wbe'; did you mean 'web'?"),
        ({"paths": {"web": [1]}}, "paths: web: [1] is neither a path nor a list of paths"),
        ({"paths": {"web": ["a", "a"]}}, "paths: web: a path is given twice; list each once"),
        (
            {"paths": {"web": ["a", "code"]}},
            "megatron: domains 'web' and 'code' have the same path 'code'",
        ),
    ],
)
def test_numbers_and_paths_that_cannot_be_are_refused(known, message):
    with pytest.raises(ConfigError) as raised:
        export_mixture(MIXTURE, "megatron", **known)
    assert str(raised.value) == message


BRIDGES = ("megatron-bridge", "nemo")


@pytest.mark.parametrize(
    ("name", "said", "tools"),
    [
        ("a,b", "names are separated by commas", {"llamafactory"}),
        ("a ", "strips the spaces around 'a '", {"megatron", *BRIDGES, "swift"}),
        ("dm: maths", "as a hub or a subset", {"swift"}),
        ("-a", "as an option", {"swift"}),
        ("${HOME}", "as a variable", {*BRIDGES, "megatron-bridge-sft", "llamafactory"}),
    ],
)
def test_a_name_that_a_format_cannot_carry_is_refused(name, said, tools):
    known = {"tokens": 1000, "inventory": {name: 100, "b": 100}, "sample_tokens": 10}
    refused = {}
    for tool in EXPORT_TOOLS:
        try:
            export_mixture(Mixture({name: 0.5, "b": 0.5}), tool, **known)
        except ConfigError as error:
            refused[tool] = str(error)
    whole = {tool for tool, text in refused.items() if said in text and repr(name) in text}
    assert whole == tools
    assert all(refused[tool].startswith(f"{tool}: ") for tool in whole)


def test_files_are_loaded_by_their_builder_and_a_folder_or_a_cache_by_its_name():
    paths = {"web": ["/w0.jsonl.gz", "/w1.jsonl"], "code": "/c.parquet", "books": "/books"}
    source = content("megatron-bridge-sft", paths=paths, **ALL)["dataset"]["source"]
    files = [{"data_files": {"train": item}} for item in (paths["web"], paths["code"])]
    assert source == [
        {"path_or_dataset": "json", "split": "train", "load_kwargs": files[0]},
        {"path_or_dataset": "parquet", "split": "train", "load_kwargs": files[1]},
        {"path_or_dataset": "/books", "split": "train"},
    ]
    components = content("levanter", paths=paths)["data"]["components"]
    urls = [{"type": "url", "train_urls": item} for item in (paths["web"], [paths["code"]])]
    cached = {"cache_dir": "/books"}
    assert components == {"web": {"source": urls[0]}, "code": {"source": urls[1]}, "books": cached}
    with pytest.raises(ConfigError, match="domain 'web': 'a' is read as a token cache, and a"):
        content("levanter", paths={"web": ["a", "b"]})


def test_swift_reads_a_hub_and_a_subset_where_a_path_has_them():
    paths = {"web": "hf::org/web:en/de", "code": "org/code:py", "books": "b"}
    found = content("swift", paths=paths, **ALL)["dataset"]
    assert found == ["hf::org/web:en/de#60", "org/code:py#15", "b#20"]
    with pytest.raises(ConfigError, match="'/d/a::b' of domain 'web' as a hub or a subset"):
        content("swift", paths={"web": "/d/a::b"}, **ALL)


def test_a_domain_is_listed_a_thousand_times_at_most():
    known = {"sample_tokens": 10, "inventory": {"web": 10}}
    web = Mixture({"web": 1.0})
    assert len(content("axolotl", web, tokens=10_000, **known)["datasets"]) == 1000
    with pytest.raises(ConfigError, match=r"'web' .* 1001 times, .* Are 10 tokens right"):
        content("axolotl", web, tokens=10_010, **known)


def test_paths_of_unknown_format_or_with_equal_names_are_refused():
    known = {"sample_tokens": 1, "paths": {"web": ["a", "b"]}}
    message = "domain 'web': the format of 'a' is unknown; give one folder"
    with pytest.raises(ConfigError, match=message):
        export_mixture(MIXTURE, "datasets", **known)
    with pytest.raises(ConfigError, match=r"'web' and 'code' have the same path 'c\.txt'"):
        content("levanter", paths={"web": ["a.txt", "c.txt"], "code": "c.txt"})
    with pytest.raises(ConfigError, match=r"would both be named 'web\.1'; rename one"):
        export_mixture(Mixture({"web": 0.5, "web.1": 0.5}), "llamafactory", **known)
