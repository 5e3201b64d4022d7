"""Records of a sweep's trials beside their losses: experts, and the start checkpoint.

`experts.parquet`: each trial has a row for each layer, where `domain` is null, and one for each
domain in each layer. Load is that of training on the trial's mixture; comparisons of domains use
equal amounts of held-out text. Experts have arbitrary numbers in every trial, so that only measures
invariant to renumbering are compared.

`start.json`: hash and losses of the checkpoint that all trials start from.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import Field

from mixopt.corpus import Corpus
from mixopt.errors import ConfigError, RunError
from mixopt.routing import ExpertCounts, Summary
from mixopt.run_directory.steps import START_FILE, SWEEP
from mixopt.sweeps import Training, make_proxy
from mixopt.system import FileShape, checked_as, in_processes, read_sealed, read_table, write_sealed
from mixopt.trials import Losses, TrialResult

SCHEMA: dict[str, Any] = {
    "trial": pl.String,
    "layer": pl.Int64,
    "router": pl.String,  # "" where each layer has one
    "domain": pl.String,
    "share": pl.Float64,
    "load_entropy": pl.Float64,
    "max_violation": pl.Float64,
    "dead": pl.Int64,
    "starved": pl.Int64,
    "specialisation": pl.Float64,
    "own": pl.Float64,
    "distance": pl.Float64,
    "has_collapsed": pl.Boolean,
    "diagnoses": pl.List(pl.String),
}
_LAYER = ("layer", "router")
_DOMAIN = ("domain", "layer", "router")


@dataclass(frozen=True, eq=False)
class TrialExperts:
    """The table of experts of a sweep or a validation.

    Attributes:
        table: The rows, in the columns of `SCHEMA`.
    """

    table: pl.DataFrame

    @classmethod
    def of(cls, results: Iterable[TrialResult]) -> Self | None:
        """Return the table of trials with experts; None if no trial has any."""
        rows: list[dict[str, Any]] = []
        for result in results:
            if result.experts is not None:
                rows += _rows(result.trial, result.experts)
        return cls(pl.DataFrame(rows, schema=SCHEMA)) if rows else None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a table; None if there is none."""
        if not path.exists():
            return None
        try:
            return cls(read_table(path).select(list(SCHEMA)).cast(pl.Schema(SCHEMA)))
        except pl.exceptions.PolarsError as error:
            raise RunError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The trials with collapsed experts in any layer, in their order."""
        marked = self.table.filter(pl.col("has_collapsed"))
        return tuple(marked["trial"].unique(maintain_order=True))

    def by_trial(self) -> pl.DataFrame:
        """Return a row for each trial: means over layers, the worst load, the first collapse."""
        layers = self.table.filter(pl.col("domain").is_null())
        has_collapsed = pl.col("has_collapsed")
        diagnoses = pl.col("diagnoses")
        return layers.group_by("trial", maintain_order=True).agg(
            pl.col("load_entropy").min(),
            pl.col("max_violation").max(),
            pl.col("dead").sum(),
            pl.col("specialisation").mean(),
            has_collapsed.any(),
            diagnoses.explode().drop_nulls().len().alias("diagnoses"),
            diagnoses.filter(has_collapsed).explode().first().alias("collapse"),
        )


def collapsed_trials(directory: Path) -> tuple[str, ...] | None:
    """Return a sweep's trials with collapsed experts; None if trials have no experts."""
    experts = TrialExperts.read(SWEEP.experts_file(directory))
    return None if experts is None else experts.collapsed


def _rows(trial: str, counts: ExpertCounts) -> list[dict[str, Any]]:
    """Return the rows of a trial: each layer, then each domain in it."""
    trained = Summary.of(counts.train)
    held_out = Summary.of(counts.held_out)
    layers = trained.layers.select(*_LAYER, "load_entropy", "max_violation", "dead").join(
        held_out.layers.select(*_LAYER, "specialisation"), _LAYER, "left", maintain_order="left"
    )
    domains = trained.domains.select(*_DOMAIN, "share", "max_violation", "starved").join(
        held_out.domains.select(*_DOMAIN, "own", "distance"), _DOMAIN, "left", maintain_order="left"
    )
    rows = layers.to_dicts()
    for row in rows:
        place = (row["layer"], row["router"])
        diagnoses = [
            diagnosis
            for diagnosis in trained.diagnoses
            if (diagnosis.layer, diagnosis.router) == place
        ]
        row["has_collapsed"] = any(diagnosis.kind == "collapse" for diagnosis in diagnoses)
        row["diagnoses"] = [str(diagnosis) for diagnosis in diagnoses]
    rows += domains.to_dicts()
    return [{"trial": trial, **row} for row in rows]


class StartRecord(FileShape):
    """The start checkpoint of trials: hash of weights, losses by evaluation domain and task."""

    format: Literal["mixopt-start/1"] = "mixopt-start/1"
    weights: Annotated[str, Field(pattern="^[a-z0-9:]{1,80}$")]
    eval_tokens: Annotated[int, Field(ge=1, le=1 << 53, strict=True)]
    nats_per_token: dict[str, float]
    bits_per_byte: dict[str, float]
    tasks: dict[str, float]

    @classmethod
    def of(cls, weights: str, eval_tokens: int, losses: Losses) -> Self:
        """Return a record of measured losses."""
        values = {"weights": weights, "eval_tokens": eval_tokens, **asdict(losses)}
        del values["tokens"]
        return checked_as(cls, values, "losses of what trials begin with")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the record of a run directory; None if there is none."""
        file = folder / START_FILE
        hint = "measure it again: mixopt run CONFIG --from sweep, or restore it from a copy"
        if not file.exists():
            return None
        record: Self = read_sealed(file, cls, hint=hint)
        return record

    def write(self, folder: Path) -> None:
        """Write the record to a run directory."""
        write_sealed(folder / START_FILE, self.model_dump())

    def losses(self, unit: str) -> dict[str, float]:
        """Return all losses by column, with losses on text in a unit."""
        text = self.bits_per_byte if unit == "bits_per_byte" else self.nats_per_token
        return {**text, **self.tasks}


def measure_start(name: str, options: dict[str, Any], corpus: Path, training: Training) -> Losses:
    """Return the losses of a proxy's start checkpoint, measured in another process."""
    job = (name, options, corpus, training)
    (losses,) = in_processes(
        _measured, [job], 1, died=lambda _: RunError("losses of what trials begin with: it died")
    )
    return losses


def _measured(job: tuple[str, dict[str, Any], Path, Training]) -> Losses:
    """Call a proxy's `base_losses(corpus, training)`."""
    name, options, corpus, training = job
    proxy: Any = make_proxy(name, options)
    if not hasattr(proxy, "base_losses"):
        raise ConfigError(f"proxy {name!r}: its trials begin with random weights, no checkpoint")
    losses: Losses = proxy.base_losses(Corpus.open(corpus, verify=False), training)
    return losses
