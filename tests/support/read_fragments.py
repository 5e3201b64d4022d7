"""Read a written fragment back as shares of the tokens, without the exporters' code.

A new tool gets a branch in `_amounts`, which yields each name in the fragment with its amount, in
the tool's unit; tests/integrations/test_exports.py then holds the tool against its mixtures.
"""

import ast
import json
import re

import yaml

from mixopt.integrations import EXPORT_TOOLS


def read_shares(text, tool, *, inventory=None, sample_tokens=None, paths=None):
    """Return each domain's share of the tokens; weights of 0 from the header's list."""
    by_path = {}
    for domain, places in (paths or {}).items():
        for k, path in enumerate([places] if isinstance(places, str) else places):
            by_path[path] = by_path[f"{domain}.{k}"] = domain
    tokens, pieces = {}, {}
    for name, amount in _amounts(tool, text, inventory or {}, sample_tokens, by_path):
        domain = by_path.get(name, name)
        sample = sample_tokens[domain] if isinstance(sample_tokens, dict) else sample_tokens
        unit = EXPORT_TOOLS[tool].unit.name
        each = {"epochs": (inventory or {}).get(domain), "share of sequences": 1}.get(unit, sample)
        tokens[domain] = tokens.get(domain, 0.0) + amount * each
        pieces[domain] = pieces.get(domain, 0) + 1
    total = sum(tokens.values())
    zeros = re.search(r"weight 0, left out: (\[.*\])", _comment(text))
    shares = {name: value / total for name, value in tokens.items()}
    return {**shares, **dict.fromkeys(json.loads(zeros[1]) if zeros else [], 0.0)}


def _comment(text):
    return "\n".join(json.loads(text)["comment"]) if text.startswith("{") else text


def _amounts(tool, text, inventory, sample_tokens, by_path):  # noqa: PLR0911, PLR0912
    if tool == "megatron":
        return _pairs(json.loads(text)["train"])
    if tool in {"torchtitan", "transformers", "datasets", "verl"}:
        return _python(tool, ast.parse(text))
    content = yaml.safe_load(text)
    if tool == "megatron-bridge":
        return zip(*content["dataset"]["blend"], strict=True)
    if tool == "nemo":
        return _pairs(content["dataset"]["paths"])
    if tool == "megatron-bridge-sft":
        names = [_source(item) for item in content["dataset"]["source"]]
        return zip(names, content["dataset"]["source_weights"], strict=True)
    if tool == "olmo-core":
        return [(source["source_name"], source["target_ratio"]) for source in content["sources"]]
    if tool == "levanter":
        return content["data"]["train_weights"].items()
    if tool == "nanotron":
        dataset = content["data_stages"][0]["data"]["dataset"]
        return zip(dataset["dataset_folder"], dataset["dataset_weights"], strict=True)
    if tool == "llamafactory":
        names = content["dataset"].split(",")
        return zip(names, map(float, content["interleave_probs"].split(",")), strict=True)
    if tool == "swift":
        parts = [item.rpartition("#") for item in content["dataset"]]
        return [(name, float(count)) for name, _, count in parts]
    if tool == "trl":
        sources = content["datasets"]
        names = [source.get("data_files", [source["path"]])[0] for source in sources]
        return [(name, entry["fraction"]) for name, entry in zip(names, sources, strict=True)]
    if tool == "open-instruct":
        return _pairs(content["dataset_mixer_list"][::-1])[::-1]
    if tool == "energon":
        blend = content["splits"]["train"]["blend"]
        return [(item["path"], item["weight"]) for item in blend]
    assert tool == "axolotl"
    return [
        (item["path"], _rows(item, inventory, sample_tokens, by_path))
        for item in content["datasets"]
    ]


def _pairs(blend):
    return [(path, float(w)) for w, path in zip(blend[::2], blend[1::2], strict=True)]


def _source(entry):
    files = entry.get("load_kwargs", {}).get("data_files", {}).get("train")
    return (
        entry["path_or_dataset"] if files is None else files if isinstance(files, str) else files[0]
    )


def _rows(entry, inventory, sample_tokens, by_path):
    if (part := re.fullmatch(r"train\[:(\d+)\]", entry["split"])) is not None:
        return float(part[1])
    domain = by_path.get(entry["path"], entry["path"])
    sample = sample_tokens[domain] if isinstance(sample_tokens, dict) else sample_tokens
    pieces = max(1, list(by_path.values()).count(domain) // 2)
    return float(round(inventory[domain] / sample / pieces))


def _python(tool, tree):
    if tool == "torchtitan":
        (sources,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
        return [(path, weight) for _, path, weight in ast.literal_eval(sources)]
    if tool == "verl":
        (rows,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
        return list(ast.literal_eval(rows).items())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    named = [(ast.unparse(call.func), call) for call in calls]
    loads = [call for name, call in named if name == "load_dataset"]
    files = [_keywords(call).get("data_files", [call.args[0].value])[0] for call in loads]
    (mix,) = [_keywords(call) for name, call in named if name == "interleave_datasets"]
    return zip(files, mix["probabilities"], strict=True)


def _keywords(call):
    return {
        word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg != "datasets"
    }
