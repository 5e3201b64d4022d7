"""Options for reading tables of mixtures and losses: paths and meanings of columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mixopt.errors import ConfigError
from mixopt.trials.cells import CellTable
from mixopt.trials.columns import Unit
from mixopt.trials.table import Trials


@dataclass(frozen=True)
class TableOptions:
    """Options for tables of mixtures and losses (mixopt.trials.published_tables.read_csv_trials).

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
        """Read trials from two tables, or from one that mixopt wrote."""
        if trials is not None:
            others = (mixtures, losses, self.key, self.ignore or None)
            if any(other is not None for other in others) or self.drop_incomplete:
                raise ConfigError(
                    f"{command}: --trials cannot be combined with --mixtures, --losses and "
                    "their options"
                )
            return Trials.read(trials)
        if mixtures is None or losses is None:
            out = ", --losses and --out" if command == "fit" else " and --losses"
            raise ConfigError(f"{command}: --mixtures{out} must be given together")
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
        """Read the runs at the target size like the trials; None if none are given."""
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
