"""Files that mixopt reads, by family: real ones that it has just written, and what reads them."""

from __future__ import annotations

import contextlib
import io
import json
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
CHECKS = Path(__file__).resolve().parents[2] / "experiments"

EXPERIMENT = """\
name: fuzz
corpus:
  domains:
    code: {{data_files: {folder}/code.jsonl}}
    prose: {{data_files: {folder}/prose.jsonl}}
evaluation:
  help: {{data_files: {folder}/help.jsonl}}
design: {{trials: 6, replicates: 2, max_usage: null}}
constraints: {{bounds: {{code: [0.1, 0.9]}}}}
proxy: {{name: ngram, tokens: 4000, eval_tokens: 2048}}
sweep: {{workers: 2}}
fit: {{regressors: [linear], folds: 3}}
objective: {{target: help}}
propose: {{samples: 200, average: 4, bootstrap: 2}}
validate: {{seeds: 3}}
tracking: {{enabled: false}}
"""


@dataclass(frozen=True)
class Family:
    """Files of one kind.

    Attributes:
        files: Patterns of those that are changed, in the folder.
        look: Reads them.
        manifest: The file that has their hashes; None where there is none.
        writes: Whether it changes other files, too.
    """

    files: tuple[str, ...]
    look: Callable[[Path], object]
    manifest: str | None = None
    writes: bool = False


def write_files(folder: Path) -> None:
    """Write one of each file, by a whole run of the quickest proxy."""
    from mixopt import pipeline
    from mixopt.online import Driver, DriverOptions

    for name, module in (("code", "argparse"), ("prose", "typing"), ("help", "ast")):
        text = (LIBRARY / f"{module}.py").read_text(encoding="utf-8")
        pieces = [text[at : at + 500] for at in range(0, 20_000, 500)]
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": p}) + "\n" for p in pieces)
        )
    config = folder / "experiment.yaml"
    config.write_text(EXPERIMENT.format(folder=folder))
    (folder / "pretraining.yaml").write_text((CHECKS / "pretrain_tiny.yaml").read_text())
    pipeline.run(config, folder / "run", say=lambda _: None)
    _write_documents(folder, pieces)
    _write_tables(folder)
    order, driver = _sampler(), None
    (folder / "sampler.json").write_text(json.dumps(order.state_dict()))
    driver = Driver(_estimator(), order, DriverOptions(steps=40, tokens_per_sample=16))
    driver.start()
    (folder / "driver.json").write_text(json.dumps(driver.state_dict()))
    _write_pretraining(folder)


def _write_documents(folder: Path, texts: list[str]) -> None:
    import zstandard

    documents = folder / "documents"
    documents.mkdir()
    table = pl.DataFrame({"text": texts})
    table.write_parquet(documents / "a.parquet")
    table.write_csv(documents / "a.csv")
    table.write_ipc_stream(documents / "a.arrow")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (documents / "a.jsonl").write_text(lines)
    (documents / "b.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))


def _write_tables(folder: Path) -> None:
    table = pl.read_parquet(folder / "run" / "trials.parquet")
    for kind, prefix in (("mixtures", "weight/"), ("losses", "loss/")):
        chosen = table.select("trial", pl.col(f"^{prefix}.*$"))
        chosen.rename(lambda n, p=prefix: n.removeprefix(p)).write_csv(folder / f"{kind}.csv")


def _write_pretraining(folder: Path) -> None:
    config = folder / "pretrain.yaml"
    model = "{name: decoder, options: {layers: 1, width: 16, heads: 2, ff: 16}}"
    config.write_text(
        f"prepared_corpus: {folder}/run/corpus\nmodel: {model}\n"
        "training: {steps: 4, batch: 4, micro_batch: 4, sequence_length: 16, lr: 1e-3}\n"
        "mixture: {weights: {code: 0.5, prose: 0.5}}\ncheckpoint: {every: 2}\n"
        "held_out: {every: 4, tokens: 128}\ntracking: {enabled: false}\ndevice: cpu\n"
    )
    _pretrain(folder)


def _pretrain(folder: Path) -> None:
    from mixopt.pretraining import pretrain

    pretrain(folder / "pretrain.yaml", folder / "pretrained", say=lambda _: None)


def _sampler() -> Any:
    from mixopt import MixtureSampler

    return MixtureSampler({"a": 1000, "b": 700}, [0.7, 0.3], batch_size=8, max_epochs=2)


def _estimator() -> Any:
    from mixopt.system import build_plugin

    return build_plugin("estimator", "odm", {"warmup_steps": 2})


def _state(path: Path) -> Any:
    """Return a state as a trainer hands it on, which may have NaN where JSON has none."""
    from mixopt.errors import RunError

    try:
        return json.loads(path.read_bytes())
    except ValueError as reason:
        raise RunError(str(path)) from reason


def _load_sampler(folder: Path) -> None:
    order = _sampler()
    order.load_state_dict(_state(folder / "sampler.json"))
    order.counts(100)
    order.locate(0, 64)


def _load_driver(folder: Path) -> None:
    from mixopt.online import Driver, DriverOptions

    driver = Driver(_estimator(), _sampler(), DriverOptions(steps=40, tokens_per_sample=16))
    driver.load_state_dict(_state(folder / "driver.json"))
    driver.start()


def _read_documents(folder: Path, suffix: str) -> None:
    from mixopt.config import SourceConfig
    from mixopt.corpus import BadDocuments, DocumentStream

    for path in (folder / "documents").glob(f"*{suffix}"):
        source = SourceConfig(data_files=str(path))
        list(DocumentStream("a", source, BadDocuments("error"), frozenset()))


def _say(*arguments: str) -> None:
    """Run a command without the guard of the command line."""
    from mixopt.cli import app, run_command_line

    assert callable(run_command_line)  # which has loaded all commands
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        app(list(arguments), standalone_mode=False)


def _status(folder: Path) -> None:
    _say("status", str(folder / "run"))
    _say("verify", str(folder / "run"))


def _of_package(name: str, reads: str, *place: str) -> Callable[[Path], object]:
    """Return what reads one file by a function of `mixopt.<name>`."""

    def look(folder: Path) -> object:
        from importlib import import_module

        found: Any = import_module(f"mixopt.{name}")
        for part in reads.split("."):
            found = getattr(found, part)
        return found(folder.joinpath(*place))

    return look


def _trials(folder: Path) -> None:
    from mixopt.trials import Trials

    repr(Trials.read(folder / "run" / "trials.parquet"))


def _csv(folder: Path) -> None:
    from mixopt.trials import Trials

    Trials.from_csv(folder / "mixtures.csv", folder / "losses.csv")


def _fit(folder: Path) -> None:
    from mixopt import load_fit

    fit = load_fit(folder / "run")
    repr(fit)
    fit.predict([[0.3, 0.7]])


def _proposal(folder: Path) -> None:
    from mixopt import Mixture, Proposal

    path = folder / "run" / "proposal.yaml"
    for read in (Mixture.from_file, Proposal.from_file):
        with contextlib.suppress(_ours()):
            repr(read(path))
    _say("status", str(folder / "run"))


def _ours() -> type[Exception]:
    from mixopt.errors import MixoptError

    return MixoptError


def _experiment(folder: Path) -> None:
    from mixopt.config import load_config

    load_config(folder / "experiment.yaml")


def _pretraining_config(folder: Path) -> None:
    from mixopt.pretraining import load_pretraining

    load_pretraining(folder / "pretraining.yaml")


def _shards(folder: Path) -> None:
    from mixopt import Corpus

    corpus = Corpus.open(folder / "run" / "corpus")
    for domain in corpus.domains:
        domain.train.read(0, 10)


FAMILIES = {
    "config": Family(("experiment.yaml",), _experiment),
    "pretraining config": Family(("pretraining.yaml",), _pretraining_config),
    "tables in CSV": Family(("mixtures.csv", "losses.csv"), _csv),
    "documents in JSONL": Family(("documents/a.jsonl",), lambda f: _read_documents(f, ".jsonl")),
    "documents in CSV": Family(("documents/a.csv",), lambda f: _read_documents(f, ".csv")),
    "documents in Parquet": Family(
        ("documents/a.parquet",), lambda f: _read_documents(f, ".parquet")
    ),
    "documents in Arrow": Family(("documents/a.arrow",), lambda f: _read_documents(f, ".arrow")),
    "documents in zst": Family(("documents/b.jsonl.zst",), lambda f: _read_documents(f, ".zst")),
    "shards": Family(("run/corpus/index.json", "run/corpus/*/*/index.json"), _shards),
    "manifest": Family(("run/steps.json", "run/config.yaml"), _status),
    "trials": Family(("run/trials.parquet",), _trials),
    "design": Family(
        ("run/design.parquet",), _of_package("trials", "read_design", "run", "design.parquet")
    ),
    "results of trials": Family(("run/trials/*.json",), _status, "run/steps.json"),
    "fit": Family(
        ("run/fit/*.json", "run/fit/*.parquet", "run/fit/regressor/*"), _fit, "run/fit/fit.json"
    ),
    "proposal": Family(("run/proposal.yaml",), _proposal),
    "sampler": Family(("sampler.json",), _load_sampler),
    "driver": Family(("driver.json",), _load_driver),
    "pretraining": Family(
        ("pretrained/checkpoints/*/state.json", "pretrained/config.yaml"), _pretrain, writes=True
    ),
}
