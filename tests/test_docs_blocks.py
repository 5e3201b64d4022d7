"""Every block of code in README.md, CONTRIBUTING.md and docs/ is run, here or by another test.

A block that neither is in the tables below nor passes makes a test fail. `make docs` runs them.
"""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
import zstandard
from command_line import mixopt
from places import PROJECT
from tiny_experts import tiny_experts

from mixopt import load_run
from mixopt.cli.options import app
from mixopt.config import load_config
from mixopt.pretraining import load_pretraining

pytestmark = pytest.mark.nightly

DOMAINS = ("web", "code", "books")
# What is trained is made small; everything else is as README.md prints it.
QUICK = {
    "proxy": {"name": "ngram", "tokens": 20_000, "eval_tokens": 4096},
    "design": {"trials": 8},
    "fit": {"folds": 3, "regressors": ["linear"]},
    "propose": {"bootstrap": 3, "samples": 1000},
    "sweep": {"workers": 2},
    "tracking": {"enabled": False},
}

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
PRETRAININGS = ("docs/pretraining.md", "docs/experts/")

# Blocks that another test runs as they are written, by page.
ELSEWHERE = {
    **dict.fromkeys(("docs/export.md", "docs/schedules.md"), "sh yaml python"),
    **dict.fromkeys(("docs/mlflow.md", "docs/tutorial.md"), "sh yaml python"),
    **dict.fromkeys(("docs/packing.md", "docs/plug_in.md", "docs/streams.md"), "python"),
    "docs/trainers/": "python",
    "docs/slurm.md": "sh",
    "docs/own_trainer.md": "sh yaml",
}
# Pages whose commands need what is not here (a cluster, a store, a checkpoint, other people's
# files): each is parsed by the command line itself, and tests of its subject run it.
PARSED = {
    f"docs/{page}.md"
    for page in (
        *("anneals", "corpora", "experts/counting", "experts/diagnoses", "install"),
        *("midtraining", "pretraining", "ray", "tasks", "tokens"),
    )
}
# What a page's code is given, where its reader has it already.
GIVEN = {"docs/experts/counting.md": "model_with_experts"}
# Endless loops end after some batches; a store is one in memory.
SMALLER = {"README.md": ("batch_size=256", "batch_size=256, batches=3")}
OTHER_PACKAGES = {"tensorboard"}  # of trainers that do not come with mixopt
OTHER_PROGRAMS = {"git", "ray", "srun", "squeue", "lm_eval", "docker", "bash", "uv", "torchrun"}


def pages():
    """Each page that has blocks which no other test runs, with those."""
    paths = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").rglob("*.md")]
    for path in sorted(paths):
        name = path.relative_to(PROJECT).as_posix()
        away = {
            k for page, kinds in ELSEWHERE.items() for k in kinds.split() if name.startswith(page)
        }
        found = [(kind, text) for _, kind, text in FENCE.findall(path.read_text(encoding="utf-8"))]
        if here := [item for item in found if item[0] in {"yaml", "python", "sh"} - away]:
            yield pytest.param(name, here, id=name)


def write_text(folder, text_files):
    """Write the files that README.md's experiment reads, from pieces of real text."""
    for name in ("web", "code"):
        (folder / "data" / name).mkdir(parents=True)
    prose = pl.read_ndjson(text_files["prose"])
    web = prose.write_ndjson().encode()
    (folder / "data/web/0.jsonl.zst").write_bytes(zstandard.compress(web))
    pl.read_ndjson(text_files["code"]).write_parquet(folder / "data/code/0.parquet")
    prose.rename({"text": "content"}).write_ndjson(folder / "data/books.jsonl")
    shutil.copy(text_files["help"], folder / "data/exams.jsonl")


def write_tables(mixtures_file, losses_file, domains, count, sizes=False):
    """Write weights and losses of made trials, each loss falling with its own domain's share."""
    mixtures_file.parent.mkdir(exist_ok=True)
    stream = np.random.default_rng(count)
    weights_ND = stream.dirichlet(np.ones(len(domains)), count).round(4)
    losses_ND = 2 + np.exp(-3 * weights_ND) + 0.005 * stream.normal(size=weights_ND.shape)
    trial = pl.Series("run", [f"run{count}-{number}" for number in range(count)])
    mixtures = pl.DataFrame(weights_ND, schema=list(domains)).insert_column(0, trial)
    losses = pl.DataFrame(losses_ND, schema=[f"{d}_loss" for d in domains]).insert_column(0, trial)
    if sizes:  # larger models have lower losses
        parameters = np.resize([70e6, 160e6, 410e6], count)
        losses = losses.with_columns(pl.exclude("run") - 0.1 * np.log(parameters / 70e6))
        mixtures = mixtures.with_columns(parameters=parameters, tokens=20 * parameters)
    mixtures.write_csv(mixtures_file)
    losses.write_csv(losses_file)


@pytest.fixture(scope="module")
def folder(text_files, tmp_path_factory) -> Path:
    """A folder with the files that the pages name, and `runs/mine`, README.md's finished run."""
    path = tmp_path_factory.mktemp("docs")
    write_text(path, text_files)
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    printed = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)[0])
    quick = printed | {name: printed.get(name, {}) | fields for name, fields in QUICK.items()}
    (path / "experiment.yaml").write_text(yaml.safe_dump(quick, sort_keys=False))
    (path / "hand.yaml").write_text("weights: {web: 0.5, code: 0.3, books: 0.2}\n")
    for name, rows in {"train": 40, "test": 20, "pilots": 4, "sizes": 30}.items():
        files = path / name / "mixtures.csv", path / name / "losses.csv"
        write_tables(*files, DOMAINS, rows, sizes=name == "sizes")
    for name, rows in {"train": 40, "test": 20}.items():
        files = path / f"{name}_mixture.csv", path / f"{name}_loss.csv"
        write_tables(*files, ("pile_cc", "github", "arxiv"), rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        ended = mixopt("run", "experiment.yaml", "--out", "runs/mine")
    assert ended.code == 0, ended.error
    return path


def test_the_experiment_of_the_readme_ends_with_a_recommendation_within_its_epochs(folder):
    done = load_run(folder / "runs" / "mine")
    assert done.config.propose.target_tokens == 25_000_000_000
    assert sum(done.corpus.inventory.values()) < 1_000_000
    assert done.inventory == {"web": 1_200 * 10**9, "code": 200 * 10**9, "books": 25 * 10**9}
    assert max(done.proposal.epochs.values()) <= 4
    assert (done.path / "recommendation.yaml").exists()
    assert (done.path / "report.html").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("page", "blocks"), list(pages()))
def test_the_blocks_of_a_page_work(page, blocks, folder, monkeypatch):
    monkeypatch.chdir(folder)
    run = {"yaml": load_block, "python": run_program, "sh": run_commands}
    for language, text in blocks:
        run[language](page, text)


def load_block(page, text):
    """Read a configuration by its loader, with what it needs besides."""
    content = yaml.safe_load(text)
    of_a_job = page.startswith(PRETRAININGS)
    full = pretraining_with(content) if of_a_job else experiment_with(content)
    Path("block.yaml").write_text(yaml.safe_dump(full, sort_keys=False))
    (load_pretraining if of_a_job else load_config)("block.yaml")


def run_program(page, text):
    names = {"__name__": "example"}
    if page in GIVEN:
        names |= globals()[GIVEN[page]]()
    code = compile(text.replace(*SMALLER.get(page, ("", ""))), page, "exec")
    try:
        exec(code, names)
    except ModuleNotFoundError as absent:
        if absent.name not in OTHER_PACKAGES:
            raise


def run_commands(page, text):
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            works(words, page)


def experiment_with(content):
    """Return an experiment that has a block's sections, and what they need besides."""
    sources = content.get("design", {}).get("anneals", {}).get("sources", ())
    names = dict.fromkeys(["web", "code", "books", *sources])
    targets = ("exams", "law", "codex", "mmlu_law", "mt_mbpp_a")
    full = {
        "corpus": {"domains": {name: {"path": f"{name}.jsonl"} for name in names}},
        "evaluation": {name: {"path": "e.jsonl"} for name in targets},
        "objective": {"target": "web"},
    }
    if "corpus" in content:
        domains = content["corpus"]["domains"]
        full = {"objective": {"mean": dict.fromkeys(domains, 1)}}
        # It lies in a store: tests/corpus/test_stored_corpus.py.
        content["corpus"].pop("inventory", None)
    return full | content


def pretraining_with(content):
    """Return a pretraining that has a block's sections."""
    full = yaml.safe_load((PROJECT / "examples/pretrain_tiny.yaml").read_text(encoding="utf-8"))
    if "estimator" in content:
        full.pop("mixture", None)
        full.pop("schedule", None)
    training = full["training"] | content.get("training", {})
    return full | content | {"training": training}


def model_with_experts():
    """Return a model whose router has a bias, an optimizer, a batch, and its domains."""
    import torch

    model = tiny_experts("deepseek_v3")
    ids = torch.randint(0, 32, (4, 8))
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "batch": {"input_ids": ids, "labels": ids},
        "mask": torch.ones(4, 8, dtype=torch.bool),
        "domain_ids": torch.tensor([0, 1, 0, 1]),
    }


def works(words, page):
    """Run a command of ours, or check what can be checked of another."""
    match words[0]:
        case "mixopt" if page in PARSED:
            parse(words[1:])
        case "mixopt":
            ended = mixopt(*words[1:])
            assert ended.code == 0, f"{words}: {ended.error}"
        case "make":
            makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        case "python":
            script = (PROJECT / words[1]).read_text(encoding="utf-8")
            assert [w for w in words if w.startswith("--") and w not in script] == []
        case "pip":
            extras = {e for word in words for e in re.findall(r"(?:mixopt|\.)\[(\w+)\]", word)}
            project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
            assert extras <= set(project["project"]["optional-dependencies"])
        case program:
            assert program in OTHER_PROGRAMS, f"{page}: {words}: nothing checks this"
    if "mixopt" in words[1:] and words[0] in {"torchrun", "srun"}:
        parse(words[words.index("mixopt") + 1 :])


def parse(words):
    """Parse a command line as mixopt does: unknown commands, options and arguments raise."""
    import typer

    command = typer.main.get_command(app)
    context = command.make_context("mixopt", list(words), resilient_parsing=False)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context = command.make_context(name, list(words), parent=context)
