"""Replay published swarms with `Trials.backtest`; write docs/evidence.md and results_evidence.md.

    OMP_NUM_THREADS=1 python experiments/published/evidence.py --data ../shared/data

Each answer is kept in runs/evidence, so that a second call only writes the page. The folder holds

    regmix/      {train_1m,test_60m,test_1B}_{mixture,loss}.csv of github.com/sail-sg/regmix
    olmix/       dclm_{ratios,metrics}.csv, a swarm of AI2's Olmix
    mixinglaws/  mixinglaws_{5mix,redpajama}_final.csv, last losses of github.com/yegcjs/mixinglaws
    slimpajama/  data/dmsl_llm_slimpajama.csv of meiqwq/Explaining-Data-Mixing-Scaling-Laws
    admire/      admire_ift_runs/admire_ift_runs.csv of github.com/xo28/ADMIRE-BayesOpt

What is not there is left out of the page. The 7B runs of ADMIRE are kept for judging.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from published_data import dclm, long_table, mixing_laws, regmix

from mixopt.objective import Direction
from mixopt.trials import Trials

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
RESULTS = Path(__file__).parent / "results_evidence.md"
HEAD = (
    "`OMP_NUM_THREADS=1 python experiments/published/evidence.py --data FOLDER`: means over four"
    " splits, a quarter of\nthe mixtures held out in each; bold is the best of a row."
)
SHOWN = {
    "auto": "auto", "ridge": "ridge", "lightgbm": "RegMix", "olmix": "Olmix",
    "own_share": "own share", "nearest": "nearest", "mean": "at random",
}  # fmt: skip


def slimpajama_table(folder: Path) -> tuple[pl.DataFrame, list[str], list[str]]:
    """Return all checkpoints by their tokens, and the columns of weights and of losses."""
    table = pl.read_csv(folder / "dmsl_llm_slimpajama.csv").sort("n_tokens")
    weights = [name for name in table.columns if name.startswith("weight_")]
    return table, weights, [name for name in table.columns if name.endswith("_loss")]


def slimpajama(folder: Path) -> Trials:
    """Return the last checkpoints of 61 mixtures at six sizes."""
    table, weights, losses = slimpajama_table(folder)
    last = table.group_by([*weights, "model_size"], maintain_order=True).last()
    return long_table(last.sort("model_size", *weights), "weight_", losses, "model_size")


def all_sizes(folder: Path) -> Trials:
    """Return the 26 mixtures of five domains at four sizes of Data Mixing Laws."""
    table = pl.read_csv(folder / "mixinglaws_5mix_final.csv").drop("w_sum_raw")
    millions = pl.col("size").str.strip_suffix("M").cast(pl.Int64)
    losses = [name for name in table.columns if name.startswith("loss_")]
    return long_table(table.with_columns(millions), "w_", losses, "size")


def fine_tuning(folder: Path, model: str) -> Trials:
    """Return the fine-tuning runs of one model, with 17 metrics of which higher is better."""
    table = pl.read_csv(folder / "admire_ift_runs.csv").filter(pl.col("model") == model)
    metrics = [n for n in table.columns if n.startswith("metric_") and "::" in n]
    return long_table(table, "ratio_", metrics)


def redpajama(folder: Path) -> Trials:
    """Return the mixtures of RedPajama's domains of Data Mixing Laws."""
    return mixing_laws(folder / "mixinglaws_redpajama_final.csv", "70M")


Swarm = tuple[str, str, Callable[[Path], Trials], bool]
SWARMS: tuple[Swarm, ...] = (
    ("RegMix 1M", "regmix", lambda f: regmix(f, "train_1m"), False),
    ("RegMix 60M", "regmix", lambda f: regmix(f, "test_60m"), False),
    ("RegMix 1B", "regmix", lambda f: regmix(f, "test_1B"), False),
    ("Olmix DCLM 30M", "olmix", dclm, False),
    ("SlimPajama 122M to 2.7B", "slimpajama", slimpajama, False),
    ("Mixing Laws 70M to 410M", "mixinglaws", all_sizes, False),
    ("RedPajama 70M", "mixinglaws", redpajama, False),
    ("fine-tuning 0.5B", "admire", lambda f: fine_tuning(f, "Qwen2.5-0.5B"), True),
    ("fine-tuning 3B", "admire", lambda f: fine_tuning(f, "Qwen2.5-3B"), True),
)


def main() -> None:
    """Replay the remaining swarms, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--answers", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.answers.mkdir(parents=True, exist_ok=True)
    answers = {}
    for name, folder, read, is_higher in SWARMS:
        path = given.answers / f"{name.replace(' ', '_')}.json"
        if not path.exists() and (given.data / folder).exists():
            _replay(read(given.data / folder), is_higher, path)
        if path.exists():
            answers[name] = json.loads(path.read_text())
    before, _, after = given.page.read_text().partition("<!-- table -->")
    rest = after.partition("<!-- end of table -->")[2]
    table = f"<!-- table -->\n\n{_short(answers)}\n\n<!-- end of table -->"
    given.page.write_text(before + table + rest)
    parts = (_table(answers, *one) for one in (("objective_spearman", 3), ("regret", 4)))
    text = "\n\n".join((f"# Backtests of published runs\n\n{HEAD}", *parts, _summary(answers)))
    given.results.write_text(text + "\n")


def _replay(trials: Trials, is_higher: bool, path: Path) -> None:
    start = time.process_time()
    higher: dict[str, Direction] = dict.fromkeys(trials.targets, "higher")
    replay = trials.backtest(direction=higher if is_higher else None)
    content = {**replay.to_json(), "domains": len(trials.domains)}
    path.write_text(json.dumps(content | {"cpu_seconds": time.process_time() - start}))
    print(path.stem, *replay.notes, sep="\n  ", flush=True)


def _short(answers: Mapping[str, Any]) -> str:
    """Return a row for each swarm: `auto` and the best other, with few and with most trials."""
    columns = ("swarm: runs, domains, losses", "trials", "auto", "best other", "intervals")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, answer in answers.items():
        counts = _shown(answer)
        cells: dict[str, list[str]] = {column: [] for column in columns[1:]}
        for count in counts:
            scores = {row["predictor"]: row for row in answer["rows"] if row["trials"] == count}
            ours = scores.pop("auto")
            best = max(scores.values(), key=lambda row: float(row["objective_spearman"]))
            cells["trials"].append(str(count))
            cells["auto"].append(_pair(ours))
            cells["best other"].append(f"{SHOWN[best['predictor']]} {_pair(best)}")
            cells["intervals"].append(f"{ours['coverage']:.2f}")
        size = f"{name}: {answer['runs']}, {answer['domains']}, {len(answer['losses']) - 1}"
        lines.append(f"| {' | '.join([size, *map('; '.join, cells.values())])} |")
    return "\n".join(lines)


def _pair(row: Mapping[str, Any]) -> str:
    return f"{row['objective_spearman']:.3f} ({row['regret']:.4f})"


def _shown(answer: Mapping[str, Any]) -> list[int]:
    """Return two numbers of trials: a quarter of the most, and the most."""
    counts = list(dict.fromkeys(row["trials"] for row in answer["rows"]))
    return list(dict.fromkeys((counts[-min(3, len(counts))], counts[-1])))


def _table(answers: Mapping[str, Any], column: str, digits: int) -> str:
    heads = {
        "objective_spearman": "rank correlation of the objective",
        "regret": "regret of the pick",
    }
    lines = [
        f"| {heads[column]} | trials | {' | '.join(SHOWN.values())} |",
        "|---|---|" + "---|" * len(SHOWN),
    ]
    for name, answer in answers.items():
        for count in _shown(answer):
            scores = {row["predictor"]: row for row in answer["rows"] if row["trials"] == count}
            values = {key: scores[key][column] for key in SHOWN if key in scores}
            best = (max if column == "objective_spearman" else min)(values.values())
            cells = [_cell(values.get(key), best, digits) for key in SHOWN]
            lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | None, best: float, digits: int) -> str:
    if value is None:
        return "-"
    text = f"{value:.{digits}f}"
    return f"**{text}**" if text == f"{best:.{digits}f}" else text


def _summary(answers: Mapping[str, Any]) -> str:
    columns = (
        *("swarm", "runs, mixtures, domains, losses", "enough trials"),
        *("90% intervals hold, half width", "losses ready, weak, noise", "CPU s"),
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, answer in answers.items():
        last = [row for row in answer["rows"] if row["predictor"] == "auto"][-1]
        losses = answer["losses"][1:]
        states = [sum(one["state"] == s for one in losses) for s in ("ready", "weak", "noise")]
        size = f"{answer['runs']}, {answer['mixtures']}, {answer['domains']}, {len(losses)}"
        cells = (
            *(name, size, str(answer["enough"] or "cannot tell")),
            f"{last['coverage']:.3f}, {last['width']:.2f} sd",
            *(", ".join(map(str, states)), f"{answer['cpu_seconds']:.0f}"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
