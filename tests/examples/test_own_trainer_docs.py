"""The page on trainers of one's own: its commands run, and its configurations are ones."""

import json
import shlex
import subprocess
import sys

import pytest
import yaml
from doc_pages import blocks_of
from mixopt_proxies.command import CommandProxy
from places import PROJECT

from mixopt.config import load_config
from mixopt.mixture import Mixture
from mixopt.sweeps import Training
from mixopt.trials import Trial

REST = """\
corpus: {domains: {web: {tokens: 1e12}, code: {tokens: 4e11}}}
evaluation: {exams: {}}
objective: {target: exams, unit: nats_per_token}
"""


@pytest.mark.nightly
def test_the_commands_of_the_page_run(tmp_path):
    blocks = blocks_of("own_trainer", "sh")
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    run = [words for words in commands if words[:2] != ["mixopt", "run"]]
    assert len(run) == 3
    (tmp_path / "examples").symlink_to(PROJECT / "examples")
    for words in run:
        subprocess.run(words, cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "runs" / "data" / "code" / "val.bin").exists()
    others = [words[2] for words in commands if words not in run]
    assert [(PROJECT / name).exists() for name in others] == [True, True]


@pytest.mark.parametrize("block", blocks_of("own_trainer", "yaml"))
def test_the_configurations_of_the_page_are_ones(block, tmp_path):
    content = {**yaml.safe_load(REST), **yaml.safe_load(block)}
    content.setdefault("proxy", {"name": "command", "run": "train", "result": "m.json"})
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    config = load_config(tmp_path / "own.yaml")
    CommandProxy(**config.proxy.all_options)


NAMES = {
    "megatron": ["lm loss validation-{domain}", "lm loss validation-{domain} vs samples"],
    "torchtitan": ["validation_metrics/loss"],
    "levanter": ["eval/{domain}/loss", "eval/loss", "train/loss"],
}


@pytest.mark.parametrize("tool", NAMES)
def test_results_under_a_trainers_names_are_read_as_the_page_says(tool, corpus, tmp_path):
    blocks = blocks_of("own_trainer", "yaml")
    block = next(block for block in blocks if f"mixture_format: {tool}\n" in block)
    options = yaml.safe_load(block)["proxy"]
    names = dict(zip(("web", "code", "exams"), corpus.evaluation_names, strict=True))
    losses = options["losses"]
    if isinstance(losses, dict):
        losses = {names[name]: value for name, value in losses.items()}
    values = {
        tag.replace("{domain}", name): 2.0 + number
        for number, name in enumerate(corpus.evaluation_names)
        for tag in NAMES[tool]
    }
    assert options["result"] == "metrics.json"
    text = json.dumps(values).replace("{", "{{").replace("}", "}}")
    write = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"]
    write += ["metrics.json", text]
    paths = {name: f"/data/{name}.npy" for name in corpus.domain_names}
    proxy = CommandProxy(write, options["result"], losses, mixture_format=tool, paths=paths)
    trial = Trial("t0001", Mixture({"code": 0.5, "manual": 0.5}), seed=5)
    training = Training(1_000, files=str(tmp_path / "files"))
    (result,) = proxy.train([trial], corpus, training, lambda _: None)
    assert result.status == "finished", result.reason
    found = list(result.losses.nats_per_token.values())
    assert found == ([4.0] * 3 if tool == "torchtitan" else [2.0, 3.0, 4.0])
    fragment = next((tmp_path / "files").glob(f"t0001/attempt-1/mixture_{tool}.*"))
    assert fragment.suffix == {"megatron": ".json", "torchtitan": ".py"}.get(tool, ".yaml")
