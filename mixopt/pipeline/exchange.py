"""Exchange with other tools: results of tasks in; mixtures and schedules out, for trainers."""

import csv
import io
import itertools
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.config import read_inventory
from mixopt.corpus import Corpus
from mixopt.errors import (
    ConfigError,
    MixtureError,
    SamplerError,
    TrialsError,
    UnvalidatedWarning,
    did_you_mean,
)
from mixopt.integrations import export_mixture, export_schedule
from mixopt.mixture import Mixture, Phases
from mixopt.pipeline.from_fit import parts_in, parts_of, spread_out, spread_samples, spread_sizes
from mixopt.proposals import read_phases
from mixopt.run_directory import load_run
from mixopt.sampling import Schedule, ScheduleForecast, Stage, is_schedule, simulate_schedule
from mixopt.system import StateFields, __version__, read_json, read_yaml, write_text
from mixopt.trials import ITEMS

BATCH = "1024x4096"  # sequences in a global batch x tokens in a sequence
PHASES = "phases"
SHARES = ("acc", "acc_norm", "exact_match", "em", "pass@1")  # lm-eval's shares of right answers


def export(
    source: str | Path,
    to: str,
    *,
    tokens: int | None = None,
    inventory: Path | None = None,
    paths: Path | None = None,
    sample_tokens: str | None = None,
    trust: bool = False,
) -> dict[str, str]:
    """Write a mixture or a schedule in a trainer's format and unit.

    Args:
        source: A file with a mixture or a schedule, or a run directory: its recommendation (before
            validation, its proposal) with the sizes of its domains.
        to: The trainer, one of `mixopt.integrations.exporter_names()`.
        tokens: Length of the full run in tokens; a schedule has its own.
        inventory: YAML of tokens by domain.
        paths: YAML of paths by domain.
        sample_tokens: Mean tokens of a sample: one number, or a YAML file by domain.
        trust: Whether a run directory is trusted.

    Returns:
        The text under the key "". A schedule for a trainer without stages gives one text for each
        stage, under its name.

    Raises:
        ConfigError: An unknown trainer, or sizes that its unit needs are unknown.

    Examples:
        >>> text = mixopt.export("runs/mine", to="megatron")[""]
        >>> "prose" in text
        True
    """
    source = Path(source)
    if source.is_file() and is_schedule(source):
        if tokens is not None:
            raise ConfigError("export: --tokens is for mixtures; a schedule has its own length")
        schedule = Schedule.from_file(source)
        options = _export_options(schedule.domains, paths, sample_tokens)
        if inventory is not None:
            options["inventory"] = read_inventory(inventory, schedule.domains)
        return export_schedule(schedule, to, **options)
    mixture, facts = _mixture_and_facts(source, tokens, inventory, trust=trust)
    options = _export_options(mixture.domains, paths, sample_tokens)
    if PHASES in facts:
        planned = schedule_of(source, tokens=tokens, inventory=inventory, trust=trust)
        return export_schedule(planned, to, **options)
    facts.pop("max_epochs", None)
    return {"": export_mixture(mixture, to, **facts | options)}


def schedule_of(
    source: str | Path,
    *,
    tokens: int | None = None,
    batch: str = BATCH,
    mixture: Mixture | None = None,
    inventory: Path | None = None,
    trust: bool = False,
) -> Schedule:
    """Return a schedule for a run's recommendation, or for a mixture in a file.

    It has one stage, or a stage for each phase.

    Args:
        source: As in `export`.
        tokens: Length of the run in tokens; None: the run's `propose.target_tokens`.
        batch: Sequences in a global batch x tokens in a sequence, such as 1024x4096.
        mixture: Replaces the recommendation.
        inventory: YAML of tokens by domain.
        trust: Whether a run directory is trusted.

    Raises:
        ConfigError: The length is unknown.
        SamplerError: A domain exceeds `max_epochs`.
    """
    run_mixture, facts = _mixture_and_facts(
        Path(source), tokens, inventory, mixture=mixture, trust=trust
    )
    total = facts.get("tokens")
    if total is None:
        raise ConfigError("schedule: the length of the run is missing; give --tokens, such as 1e12")
    sequences, length = _batch(batch)
    stages = [Stage(mixture=run_mixture, tokens=total, name="main")]
    if PHASES in facts:
        stages = _by_phase(total, *facts[PHASES])
    provenance = {
        "mixopt": __version__,
        "source": Path(source).name,
        "mixture": run_mixture.fingerprint,
    }
    if facts["note"]:
        provenance["note"] = facts["note"]
    sizes = facts.get("inventory")
    if sizes is not None:
        sizes = {name: sizes[name] for name in run_mixture.domains}
    return Schedule(
        stages=tuple(stages),
        batch=sequences,
        sequence_length=length,
        max_epochs=facts.get("max_epochs"),
        inventory=sizes,
        provenance=provenance,
    )


def import_results(files: Sequence[str | Path], out: str | Path) -> tuple[int, int]:
    """Write results of lm-eval (`results*.json`) or OLMES (`metrics.json`) as a table of losses.

    Args:
        files: One file for each run; runs are named by the first folder in which the paths differ.
        out: The CSV: a column `trial`, `task/<task>/<metric>` for each metric, and
            `items/task/<task>/<metric>`, the number of questions, if lm-eval reports it. If every
            run has its answers by question (`--log_samples`), it is the number of independent
            questions with the same noise as runs that answer the same questions.

    Returns:
        The number of runs, and the number of metrics.

    Raises:
        TrialsError: A file of another format, two files of one run, or a run without a metric.
    """
    paths = [Path(file) for file in files]
    rows: dict[str, dict[str, Any]] = {}
    for name, path in zip(_run_names(paths), paths, strict=True):
        if name in rows:
            raise TrialsError(f"import: two files are of the run {name!r}; give one file a run")
        rows[name] = _metrics(path)
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows.values())))
    item_columns = [column for column in columns if column.startswith(ITEMS)]
    for column in item_columns:
        items = _paired_items(paths, column.removeprefix(ITEMS))
        if items is not None:
            for row in rows.values():
                row[column] = items
    for name, row in rows.items():
        for column in columns:
            if column not in row:
                raise TrialsError(f"import: the run {name!r} has no {column}, which others have")
    with io.StringIO(newline="") as text:
        writer = csv.DictWriter(text, ["trial", *columns], lineterminator="\n")
        writer.writeheader()
        for name, row in rows.items():
            writer.writerow({"trial": name, **row})
        write_text(Path(out), text.getvalue())
    return len(rows), len(columns) - len(item_columns)


def _run_names(paths: Sequence[Path]) -> list[str]:
    places = [path.absolute() for path in paths]
    if len(places) == 1:
        return [places[0].parent.name]
    common = os.path.commonpath(places)
    names = []
    for place in places:
        parts = place.relative_to(common).parts
        names.append(parts[0] if parts else place.name)
    return [name.removesuffix(".json") for name in names]


def _metrics(path: Path) -> dict[str, Any]:
    """Return the metrics of a run by column, then the numbers of questions."""
    content = {} if path.suffix == ".jsonl" else read_json(path, error=TrialsError)
    try:
        return _columns(_results_by_task(content), content.get("n-samples") or {})
    except (KeyError, TypeError, AttributeError):
        raise TrialsError(
            f"{path}: is neither a results file of lm-eval nor a metrics.json of OLMES; tables are"
            " .csv or .parquet, and tokens need --tokenizer NAME"
        ) from None


def _results_by_task(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if isinstance(content.get("tasks"), list):
        named = [task for task in content["tasks"] if "task_name" in task]
        return {task["task_name"]: task["metrics"] for task in named}
    results: dict[str, dict[str, Any]] = content["results"]
    return results


def _columns(results: dict[str, dict[str, Any]], samples: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, float] = {}
    items: dict[str, float] = {}
    for task, metrics in results.items():
        count = samples.get(task, {}).get("effective")
        for name, value in metrics.items():
            if not isinstance(value, (int, float)) or "stderr" in name:
                continue
            column = _column(task, name)
            values[column] = float(value)
            if isinstance(count, (int, float)) and name.split(",")[0] in SHARES:
                items[f"{ITEMS}{column}"] = count
    return values | items


def _column(task: str, metric: str) -> str:
    return f"task/{task}/{metric.removesuffix(',none')}"


def _paired_items(paths: Sequence[Path], share: str) -> int | None:
    """Return the number of independent questions with the noise of runs on the same questions.

    The noise of a run on the same questions is the mean of q (1 - q), where q is the share of runs
    that answer a question right; on independent questions it is p (1 - p), where p is the mean.
    None without answers by question, or if all runs answer alike.
    """
    _, task, name = share.rsplit("/", 2)
    metric, _, chosen = name.partition(",")
    answers: list[dict[str, float]] = []
    for path in paths:
        file = path.parent / f"samples_{task}{path.stem.removeprefix('results')}.jsonl"
        by_question = _answers(file, metric, chosen or "none") if file.is_file() else None
        if not by_question:
            return None
        answers.append(by_question)
    if len(answers) < 2 or any(run.keys() != answers[0].keys() for run in answers):
        return None
    questions = list(answers[0])
    right_RI = np.array([[run[question] for question in questions] for run in answers])
    paired_variance = right_RI.var(axis=0, ddof=1).mean()
    if not paired_variance:
        return None
    p_R = right_RI.mean(axis=1)
    independent_variance = (p_R * (1.0 - p_R)).mean()
    items: int = round(len(questions) * independent_variance / paired_variance)
    return max(len(questions), items)


def _answers(file: Path, metric: str, chosen: str) -> dict[str, float] | None:
    """Return the metric of each question for one filter; None if a row has no number."""
    answers: dict[str, float] = {}
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                answer = json.loads(line)
                if answer.get("filter", chosen) != chosen:
                    continue
                value = answer.get(metric)
                if not isinstance(value, (int, float)):
                    return None
                answers[str(answer["doc_id"])] = float(value)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        fault = " ".join(f"{type(error).__name__}: {error}".split())
        raise TrialsError(
            f"{file}: cannot be read: {fault}; move it away to count questions alone"
        ) from error
    return answers


def draws(
    source: str | Path,
    *,
    tokens: int | None = None,
    batch: str = BATCH,
    mixture: Mixture | None = None,
    inventory: Path | None = None,
    trust: bool = False,
) -> ScheduleForecast:
    """Count what a job draws of each domain by running the sampler's order of samples.

    `source` is a schedule, which has its own length and batch, or as in `schedule_of`.

    Raises:
        SamplerError: The sizes of the domains are unknown.
    """
    source = Path(source)
    if source.is_file() and is_schedule(source):
        schedule = Schedule.from_file(source)
        facts = _facts(source.parent, trust=trust)
        sizes = schedule.inventory or facts.get("inventory")
    else:
        schedule = schedule_of(
            source, tokens=tokens, batch=batch, mixture=mixture, inventory=inventory, trust=trust
        )
        sizes = schedule.inventory
    if inventory is not None:
        sizes = read_inventory(inventory, schedule.domains)
    if sizes is None:
        raise SamplerError(
            "sizes of the domains are not known: give --inventory FILE or, of a schedule,"
            " inventory:"
        )
    return simulate_schedule(schedule, sizes)


def _mixture_and_facts(
    source: Path,
    tokens: int | None,
    inventory: Path | None,
    *,
    mixture: Mixture | None = None,
    trust: bool,
) -> tuple[Mixture, dict[str, Any]]:
    """Return the mixture of a file or a run; length, sizes and limits, as given or of the run."""
    note = ""
    phases = None
    if source.is_dir():
        folder = source
        run = load_run(source, trust=trust)
        parts = parts_of(run)
        if mixture is None:
            note = run.outcome.note
            mixture = run.outcome.result.mixture
            phases = run.outcome.result.phases
    else:
        folder = source.parent
        parts = parts_in(source)
        if mixture is None:
            mixture = Mixture.from_file(source)
            content = read_yaml(source)
            if isinstance(content, dict):
                phases = read_phases(StateFields(content, str(source), MixtureError))
    facts = {**_facts(folder, trust=trust), "note": note}
    if note:
        warnings.warn(f"{source}: {note}", UnvalidatedWarning, stacklevel=3)
    if phases is None:
        mixture = spread_out(mixture, parts)
    elif parts:
        raise ConfigError(f"{source}: phases of mixed domains have no form of other tools")
    else:
        facts[PHASES] = (phases, phases.split(mixture))
        mixture = phases.whole(mixture)
    if tokens is not None:
        facts["tokens"] = tokens
    if inventory is not None:
        facts["inventory"] = read_inventory(inventory, mixture.domains)
    return mixture, facts


def _facts(folder: Path, *, trust: bool) -> dict[str, Any]:
    """Return length, limits and sizes of domains of a run or a prepared corpus.

    A domain without a stated size has the size of its prepared sample.
    """
    has_corpus = (folder / "corpus" / "index.json").exists()
    if not (folder / "config.yaml").exists():
        if not has_corpus:
            return {}
        return {"inventory": Corpus.open(folder / "corpus", verify=False).inventory}
    run = load_run(folder, trust=trust)
    parts = parts_of(run)
    facts: dict[str, Any] = {
        "tokens": run.config.propose.target_tokens,
        "max_epochs": run.config.constraints.default_max_epochs,
        "inventory": spread_sizes(run, parts),
    }
    if has_corpus:
        facts["sample_tokens"] = spread_samples(run, parts)
    return facts


def _export_options(
    domains: Sequence[str], paths: Path | None, sample_tokens: str | None
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if paths is not None:
        options["paths"] = _by_domain(paths, domains, "a path, or a list of paths,")
    if sample_tokens is not None:
        try:
            options["sample_tokens"] = float(sample_tokens)
        except ValueError:
            expected = "the mean tokens of a sample"
            options["sample_tokens"] = _by_domain(Path(sample_tokens), domains, expected)
    return options


def _by_domain(file: Path, domains: Sequence[str], expected: str) -> Mapping[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{file}: expected {expected} for each domain, one line each")
    for name in content:
        if name not in domains:
            raise ConfigError(f"{file}: unknown domain {name!r}{did_you_mean(str(name), domains)}")
    return {str(name): value for name, value in content.items()}


def _batch(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise ConfigError(
            f"--batch {text}: expected sequences of a batch x tokens of a sequence, such as {BATCH}"
        )
    return int(match[1]), int(match[2])


def _by_phase(tokens: int, lengths: Phases, mixtures: Mapping[str, Mixture]) -> list[Stage]:
    """Return a stage for each phase; their rounded tokens add up to `tokens`."""
    stages: list[Stage] = []
    start = 0
    end_shares = itertools.accumulate(lengths.values())
    for (name, mixture), end_share in zip(mixtures.items(), end_shares, strict=True):
        end = round(end_share * tokens)
        stages.append(Stage(mixture=mixture, tokens=end - start, name=name))
        start = end
    return stages
