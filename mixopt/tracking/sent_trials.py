"""A trial as it goes to MLflow: its file, checked, and the parameters and metrics of its run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.system import inside
from mixopt.tracking.keys import key_of, name_tags
from mixopt.tracking.record import digest
from mixopt.trials import Trial, TrialResult, read_entry


@dataclass(frozen=True)
class SentTrial:
    """A trial that has ended.

    Attributes:
        name: What its file is called.
        mark: The hash of its file; a trial that was trained again is another one.
        trial: What was trained.
        result: What came of it.
        ended: When its file was written, in milliseconds.
    """

    name: str
    mark: str
    trial: Trial
    result: TrialResult
    ended: int

    @property
    def started(self) -> int:
        """When its training began, in milliseconds."""
        return self.ended - int(self.result.seconds * 1000)

    @property
    def status(self) -> str:
        """MLflow's word for how it ended."""
        return "FINISHED" if self.result.status == "finished" else "FAILED"

    def tags(self, key: str, parent: str) -> dict[str, str]:
        """Return the tags of its run.

        Args:
            key: The run directory's.
            parent: MLflow's id of the parent run.
        """
        losses = self.result.losses
        named = (losses.nats_per_token or losses.bits_per_byte) | losses.tasks if losses else ()
        tags = {
            "mixopt.key": key,
            "mixopt.trial": self.trial.name,
            "mixopt.content": self.mark,
            "mixopt.status": self.result.status,
            "mlflow.parentRunId": parent,
            **name_tags([*self.trial.mixture, *named]),
        }
        if self.result.reason:
            tags["mixopt.reason"] = self.result.reason[:5000]
        return tags

    def params(self) -> dict[str, str]:
        """Return the parameters of its run, by MLflow's keys."""
        trial = self.trial
        weights = {key_of(f"weight/{name}"): repr(share) for name, share in trial.mixture.items()}
        return {
            "seed": str(trial.seed),
            "role": trial.role,
            "round": str(trial.round),
            "mixture": trial.mixture.fingerprint,
            **weights,
        }

    def metrics(self) -> Iterator[tuple[str, float, int]]:
        """Yield MLflow's key, the value and the step of each of its metrics."""
        result = self.result
        points = {losses.tokens: losses for losses in result.curve}
        if result.losses is not None:
            points[result.losses.tokens] = result.losses
        for step, losses in sorted(points.items()):
            for kind, values in (("loss", losses.nats_per_token), ("bpb", losses.bits_per_byte)):
                for name, value in values.items():
                    if math.isfinite(value):
                        yield key_of(f"{kind}/{name}"), value, step
            for name, value in losses.tasks.items():
                if math.isfinite(value):
                    yield key_of(name), value, step
        for name, value in self._totals().items():
            yield key_of(name), float(value), result.tokens

    def _totals(self) -> dict[str, Any]:
        result = self.result
        size = {"trial/tokens": result.tokens, "trial/parameters": result.parameters}
        totals: dict[str, Any] = size
        if result.seconds > 0:
            speed = result.tokens / result.seconds
            totals |= {"trial/seconds": result.seconds, "trial/tokens_per_second": speed}
        if result.experts is not None:
            from mixopt.routing import trial_scalars

            totals |= trial_scalars(result.experts, len(totals) + self._losses())
        return totals

    def _losses(self) -> int:
        """Return how many names its losses have."""
        known = self.result.losses
        if known is None:
            return 0
        return len(known.nats_per_token) + len(known.bits_per_byte) + len(known.tasks)


def read_sent_trial(directory: Path, file: Path) -> SentTrial:
    """Read the file of a trial.

    Raises:
        RunError: It is outside the run directory, or damaged.
    """
    inside(directory, file.relative_to(directory))
    try:
        mark, ended = digest(file.read_bytes()), int(file.stat().st_mtime * 1000)
    except OSError as error:
        raise RunError(f"{file}: cannot be read: {error.strerror or error}") from error
    trial, result = read_entry(file)
    return SentTrial(file.stem, mark, trial, result, ended)
