"""What a command line says of tables: where trials are, and how their columns are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from mixopt.config import RiskConfig
from mixopt.errors import ConfigError, did_you_mean
from mixopt.objective import Direction, Scale
from mixopt.trials.cell_table import CellTable
from mixopt.trials.columns import Unit
from mixopt.trials.table import Trials


@dataclass(frozen=True)
class TableOptions:
    """How tables of mixtures and losses are read (mixopt.trials.published_tables.read_csv_trials).

    Attributes:
        key: The column to join by; found when None.
        tolerance: How far from 1 weights may add up.
        ignore: Columns that are neither weights nor losses.
        drop_incomplete: Leave out rows without all numbers.
        unit: Unit of the losses; nats per token when None.
    """

    key: str | None = None
    tolerance: float = 0.01
    ignore: tuple[str, ...] = ()
    drop_incomplete: bool = False
    unit: Unit | None = None

    def read(
        self, command: str, mixtures: Path | None, losses: Path | None, trials: Path | None
    ) -> Trials:
        """Read trials from two tables, or from one that mixopt wrote.

        Raises:
            ConfigError: Both ways are given, or half of one, or an option of the other way.
            TrialsError: A table cannot be used.
        """
        if trials is not None:
            others = (mixtures, losses, self.key, self.ignore or None)
            if any(other is not None for other in others) or self.drop_incomplete:
                raise ConfigError(
                    f"{command}: --trials goes without --mixtures, --losses and their options"
                )
            return Trials.read(trials)
        if mixtures is None or losses is None:
            out = ", --losses and --out" if command == "fit" else " and --losses"
            raise ConfigError(f"{command}: --mixtures{out} go together")
        return Trials.from_csv(
            mixtures,
            losses,
            tolerance=self.tolerance,
            key=self.key,
            unit=self.unit or "nats_per_token",
            ignore=self.ignore,
            drop_incomplete=self.drop_incomplete,
        )

    def read_pilots(
        self, mixtures: Path | None, losses: Path | None, trials: Path | None
    ) -> Trials | None:
        """Read the runs at the target size, as the trials are read; None where none are given.

        Columns to ignore may be absent.

        Raises:
            ConfigError: Both ways are given, or half of one.
            TrialsError: A table cannot be used.
        """
        if mixtures is losses is trials is None:
            return None
        if (mixtures is None) != (losses is None) or (mixtures is None) == (trials is None):
            raise ConfigError(
                "pilots: give --pilot-mixtures and --pilot-losses, or --pilot-trials alone"
            )
        if mixtures is None or losses is None:
            return TableOptions().read("fit", None, None, trials)
        there = {name for path in (mixtures, losses) for name in CellTable.read(path).header}
        kept = tuple(name for name in self.ignore if name in there)
        return replace(self, ignore=kept).read("fit", mixtures, losses, None)


def directions(options: Sequence[str]) -> dict[str, Direction]:
    """Read `accuracy=higher` each.

    Raises:
        ConfigError: One is of another form.
    """
    found: dict[str, Direction] = {}
    for option in options:
        name, _, which = option.rpartition("=")
        if not name or which not in get_args(Direction):
            raise ConfigError(
                f"--direction {option}: expected TARGET=higher or TARGET=lower, such as"
                " accuracy=higher"
            )
        found[name] = cast(Direction, which)
    return found


def token_count(tokens: float | None) -> int | None:
    """Check the length of a run.

    Raises:
        ConfigError: It is no number of tokens.
    """
    if tokens is not None and not 1 <= tokens < 1e18:
        raise ConfigError(f"--tokens {tokens:g}: must be at least 1, and less than 1e18")
    return None if tokens is None else int(tokens)


def risk_of(option: str | None) -> RiskConfig | None:
    """Read `std=1` or `quantile=0.9`.

    Raises:
        ConfigError: It is of another form, or a number that cannot be.
    """
    if option is None:
        return None
    name, _, number = option.partition("=")
    try:
        return RiskConfig.model_validate({name: float(number)})
    except ValueError:
        raise ConfigError(
            f"--risk {option}: expected std=K with K above 0, or quantile=Q with Q between 0.5"
            " and 1"
        ) from None


def scale_name(name: str) -> Scale:
    """Check the name of a scale."""
    return cast(Scale, _one_of("--scale", name, get_args(Scale)))


def unit_name(name: str | None) -> Unit | None:
    """Check the name of a unit."""
    return None if name is None else cast(Unit, _one_of("--unit", name, get_args(Unit)))


def _one_of(option: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise ConfigError(f"{option} {name}: unknown{did_you_mean(name, known)}")
    return name
