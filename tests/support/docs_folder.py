"""The folder that the commands and the code of README.md and docs/ find themselves in.

It has the files that the pages name: the text of README.md's experiment, tables of trials under the
names that the pages give them, and `runs/mine`, the finished run of that experiment.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
import zstandard
from command_line import mixopt
from places import PROJECT

DOMAINS = ("web", "code", "books")
# What is trained is made small; everything else is as README.md prints it.
QUICK: dict[str, Any] = {
    "proxy": {"name": "ngram", "tokens": 20_000, "eval_tokens": 4096},
    "design": {"trials": 8},
    "fit": {"folds": 3, "regressors": ["linear"]},
    "propose": {"bootstrap": 3, "samples": 1000},
    "sweep": {"workers": 2},
    "tracking": {"enabled": False},
}
TABLES = {"train": 40, "test": 20, "pilots": 4}


def write_docs_folder(folder: Path, text_files: dict[str, Path]) -> None:
    """Write everything but the run."""
    write_text(folder, text_files)
    (folder / "experiment.yaml").write_text(yaml.safe_dump(quick_experiment(), sort_keys=False))
    (folder / "hand.yaml").write_text("weights: {web: 0.5, code: 0.3, books: 0.2}\n")
    for seed, (name, rows) in enumerate(TABLES.items()):
        (folder / name).mkdir()
        write_tables(folder / name, DOMAINS, rows, seed)
        for kind in ("mixture", "loss"):
            ending = "es" if kind == "loss" else "s"
            places = ("pile_cc", "github", "arxiv")
            write_tables(folder, places, rows, seed, f"{name}_{{}}.csv", {kind + ending: kind})
    (folder / "sizes").mkdir()
    write_tables(folder / "sizes", DOMAINS, 30, 9, sizes=True)


def finish_run(folder: Path) -> str:
    """Run the experiment, and return what the command printed."""
    ended = mixopt("run", folder / "experiment.yaml", "--out", folder / "runs" / "mine")
    assert ended.code == 0, ended.error
    return ended.out


def quick_experiment() -> dict[str, Any]:
    """Return README.md's experiment with the quick settings."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    printed = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    return printed | {name: printed.get(name, {}) | fields for name, fields in QUICK.items()}


def write_text(folder: Path, text_files: dict[str, Path]) -> None:
    """Write the files that README.md's experiment reads, from pieces of real text."""
    for name in ("web", "code"):
        (folder / "data" / name).mkdir(parents=True)
    web = rows(text_files["prose"], "text").encode()
    (folder / "data/web/0.jsonl.zst").write_bytes(zstandard.compress(web))
    pl.read_ndjson(text_files["code"]).write_parquet(folder / "data/code/0.parquet")
    (folder / "data/books.jsonl").write_text(rows(text_files["prose"], "content"))
    (folder / "data/exams.jsonl").write_text(rows(text_files["help"], "text"))


def rows(path: Path, column: str) -> str:
    """Return the documents of a JSONL file under another column."""
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    return "".join(json.dumps({column: text}) + "\n" for text in texts)


def write_tables(
    folder: Path,
    domains: tuple[str, ...],
    count: int,
    seed: int,
    pattern: str = "{}.csv",
    names: dict[str, str] | None = None,
    sizes: bool = False,
) -> None:
    """Write weights and losses of made trials, each loss falling with its own domain's share."""
    stream = np.random.default_rng(seed)
    weights_ND = stream.dirichlet(np.ones(len(domains)), count).round(4)
    losses_ND = 2 + np.exp(-3 * weights_ND) + 0.005 * stream.normal(size=weights_ND.shape)
    trial = pl.Series("run", [f"run{seed}-{number}" for number in range(count)])
    mixtures = pl.DataFrame(weights_ND, schema=list(domains)).insert_column(0, trial)
    losses = pl.DataFrame(losses_ND, schema=[f"{d}_loss" for d in domains]).insert_column(0, trial)
    if sizes:  # larger models have lower losses
        parameters = np.resize([70e6, 160e6, 410e6], count)
        losses = losses.with_columns(pl.exclude("run") - 0.1 * np.log(parameters / 70e6))
        mixtures = mixtures.with_columns(parameters=parameters, tokens=20 * parameters)
    wanted = names or {"mixtures": "mixtures", "losses": "losses"}
    for name, table in (("mixtures", mixtures), ("losses", losses)):
        if name in wanted:
            table.write_csv(folder / pattern.format(wanted[name]))
