"""Train a design round by round: each later one is chosen by a fit on the trials before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.system import Say, read_json, steady_progress, write_json
from mixopt.trials import GROUPS, ROUNDS, Trial, TrialResult, read_design, write_design

if TYPE_CHECKING:
    from mixopt.config import Config
    from mixopt.objective import Objective
    from mixopt.proposals import Batch
    from mixopt.run_directory import Run
    from mixopt.trials import Trials

_Number = Annotated[int, Field(ge=1, lt=10**9)]


class _RecordPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _ChosenBy(_RecordPart):
    objective: dict[str, Any]
    fit: dict[str, Any]


class _Round(_RecordPart):
    round: _Number
    trials: _Number
    regressor: str
    proposal: dict[str, FiniteFloat]
    predicted: FiniteFloat
    expected_gain: FiniteFloat


class _Stopped(_RecordPart):
    round: _Number
    expected_gain: FiniteFloat
    not_run: _Number


class _Rounds(_RecordPart):
    chosen_by: _ChosenBy | None
    rounds: list[_Round]
    stopped: _Stopped | None


def read_rounds(path: Path) -> dict[str, Any]:
    """Return what the file says, as plain values."""
    found = read_json(path, _Rounds)
    for place, entry in enumerate(found.rounds):
        if entry.round != place + 1:
            raise RunError(
                f"{path}: rounds.{place}.round: should be {place + 1}, got {entry.round}"
            )
    return found.model_dump()


Train = Callable[[Sequence[Trial], int], list[TrialResult]]


def run_rounds(run: Run, train: Train, say: Say) -> tuple[list[Trial], list[TrialResult]]:
    """Train the first round, then choose and train the others; resumes."""
    rounds = run.config.design.planned_rounds
    trials, record = _resumed(run)
    results = train(trials, planned_trials(run))
    for number in range(len(record.rounds) + 1, len(rounds)):
        if record.stopped is not None:
            break
        record.check(run)
        batch = choose_round(run, trials, results, number)
        if _is_enough(run.config, batch):
            record = record.stop(number, batch.gain, sum(rounds[number:]))
            say(_why_stopped(run, batch, record.stopped or {}))
        else:
            new = _named(run, trials, batch, number)
            trials = [*trials, *new]
            write_design(trials, run.path / "design.parquet")
            record = record.add(run, number, batch)
            say(_chosen(run, batch, number))
        record.write(run.path)
        results = train(trials, planned_trials(run))
    return trials, results


def choose_round(
    run: Run, trials: Sequence[Trial], results: Sequence[TrialResult], number: int
) -> Batch:
    """Choose the mixtures of a round by a fit on the trials before it."""
    from mixopt.proposals import choose_batch, draw_candidates, fit_surrogate
    from mixopt.trials import design_constraints

    config, seed = run.config, run.config.seed + number
    table = _table(run, trials, results)
    _check_finished(run, table, results, number)
    steps = len(config.fit.regressors) * config.fit.folds
    with steady_progress(f"choosing round {number + 1}", steps) as update:
        surrogate = fit_surrogate(
            table,
            _objective(run, table),
            config.fit,
            regressor=config.design.acquisition_regressor,
            seed=config.seed,
            repetition=run.repetition,
            update=update,
        )
    allowed = design_constraints(config.design, run.natural, run.constraints).simplex
    candidates_KD = draw_candidates(
        surrogate, allowed, run.natural.array, minimum=config.design.minimum, seed=seed
    )
    return choose_batch(
        surrogate,
        candidates_KD,
        config.design.planned_rounds[number],
        taken_ND=table.weights(),
        seed=seed,
    )


def planned_trials(run: Run) -> int:
    """Count all planned trials, including later rounds."""
    trials, record = _recorded(run)
    later = run.config.design.planned_rounds[len(record.rounds) + 1 :]
    return len(trials) + sum(later) * (record.stopped is None)


def noted_trials(run: Run) -> list[Trial]:
    """Return the trials of the first round, and of the later rounds chosen so far."""
    return _recorded(run)[0]


def not_run(run: Run) -> int:
    """Count the planned trials that are not run because their expected gain is too small."""
    stopped = _read_record(run.path).stopped
    return 0 if stopped is None else int(stopped["not_run"])


@dataclass(frozen=True)
class _Record:
    """What `rounds.json` holds; its shape is in mixopt.pipeline.rounds."""

    chosen_by: dict[str, Any] | None = None
    rounds: tuple[dict[str, Any], ...] = ()
    stopped: dict[str, Any] | None = None

    def add(self, run: Run, number: int, batch: Batch) -> _Record:
        """Return the record with a further round."""
        domains = run.natural.domains
        entry = {
            "round": number,
            "trials": len(batch.weights_BD),
            "regressor": batch.regressor,
            "proposal": dict(zip(domains, batch.proposal_D.tolist(), strict=True)),
            "predicted": batch.predicted,
            "expected_gain": batch.gain,
        }
        return _Record(_chosen_by(run.config), (*self.rounds, entry), None)

    def stop(self, number: int, gain: float, missing: int) -> _Record:
        """Return the record of rounds that end before one."""
        stopped = {"round": number, "expected_gain": gain, "not_run": missing}
        return _Record(self.chosen_by, self.rounds, stopped)

    def check(self, run: Run) -> None:
        """Check that the rounds so far were chosen by what the next one will be."""
        now = _chosen_by(run.config)
        for name, before in (self.chosen_by or now).items():
            if before != now[name]:
                raise RunError(
                    f"{run.path}: the unfinished sweep chose its rounds by another {name}:"
                    f" {_short(before)}, now {_short(now[name])}; finish it with that one, use"
                    f" another --out, or redo it: {run.command('run', '--from', 'sweep')}"
                )

    def write(self, path: Path) -> None:
        """Write the record."""
        content = {
            "chosen_by": self.chosen_by,
            "rounds": list(self.rounds),
            "stopped": self.stopped,
        }
        write_json(path / "trials" / ROUNDS, content)


def _read_record(path: Path) -> _Record:
    file = path / "trials" / ROUNDS
    if not file.exists():
        return _Record()
    try:
        content = read_rounds(file)
        return _Record(content["chosen_by"], tuple(content["rounds"]), content["stopped"])
    except RunError as error:
        raise RunError(
            f"{error}; delete it and {GROUPS} beside it: the rounds are chosen again, and finished"
            " trials are kept"
        ) from error


def _recorded(run: Run) -> tuple[list[Trial], _Record]:
    """Return the trials of the rounds that are noted, and the record."""
    record = _read_record(run.path)
    trials = read_design(run.path / "design.parquet")
    return [trial for trial in trials if trial.round <= len(record.rounds)], record


def _resumed(run: Run) -> tuple[list[Trial], _Record]:
    """Return the recorded trials; drop a round from the design that has to be chosen again."""
    trials, record = _recorded(run)
    if len(trials) < len(read_design(run.path / "design.parquet")):
        write_design(trials, run.path / "design.parquet")
    return trials, record


def _named(run: Run, trials: Sequence[Trial], batch: Batch, number: int) -> list[Trial]:
    """Return the trials of a batch, numbered after those before."""
    from mixopt.trials import trial_seeds

    first = sum(run.config.design.planned_rounds[:number])
    names = [f"t{first + i:04d}" for i in range(len(batch.weights_BD))]
    seeds = trial_seeds([*(trial.name for trial in trials), *names], seed=run.config.seed)
    domains = run.natural.domains
    mixtures = [Mixture.from_array(domains, weights_D) for weights_D in batch.weights_BD]
    return [
        Trial(name, mixture, seeds[name], "chosen", number)
        for name, mixture in zip(names, mixtures, strict=True)
    ]


def _table(run: Run, trials: Sequence[Trial], results: Sequence[TrialResult]) -> Trials:
    from mixopt.trials import Trials

    name, targets = run.config.proxy.name, run.losses
    return run.usable(Trials.from_results(trials, results, proxy=name, targets=targets))


def _check_finished(run: Run, table: Trials, results: Sequence[TrialResult], number: int) -> None:
    """Check that enough trials finished to choose a round by."""
    least = run.config.fit.folds if run.config.design.acquisition_regressor is None else 2
    finished = len(set(table.finished.mixtures))
    if finished >= least:
        return
    failed = next((one for one in results if one.status != "finished"), None)
    why = "" if failed is None else f" (trial {failed.trial} {failed.status}: {failed.reason})"
    raise RunError(
        f"{run.path}: round {number + 1} of {len(run.config.design.planned_rounds)} cannot be"
        f" chosen: trials of {finished} mixtures have finished, and a fit needs {least}{why}; fix"
        f" that and run {run.command('run', '--retry-failed')}, or set design.rounds: off"
    )


def _objective(run: Run, table: Trials) -> Objective:
    """Return the objective, with spreads of the trials so far where it divides by them."""
    from mixopt.objective import Objective
    from mixopt.trials import settled

    return settled(Objective.from_config(run.config.aim, run.losses), table)


def _chosen_by(config: Config) -> dict[str, Any]:
    """Return what decides a choice, beside what the sweep's fingerprint has."""
    named = config.design.acquisition_regressor
    # Pilots come after the sweep: no round is chosen by them.
    fit = config.fit.model_dump(mode="json", exclude={"pilots"}) if named is None else {}
    objective = config.objective.model_dump(mode="json", exclude_defaults=True)
    return {"objective": objective, "fit": fit}


def _is_enough(config: Config, batch: Batch) -> bool:
    least = config.design.stop_gain
    return least is not None and batch.gain < least


def _chosen(run: Run, batch: Batch, number: int) -> str:
    rounds = run.config.design.planned_rounds
    return (
        f"sweep: round {number + 1} of {len(rounds)}: {len(batch.weights_BD)} mixtures chosen by"
        f" {batch.regressor}, expected gain over the current proposal: {batch.gain:.4g}"
    )


def _why_stopped(run: Run, batch: Batch, stopped: dict[str, Any]) -> str:
    return (
        f"sweep: stopped early, {stopped['not_run']} planned trials are not run: the expected gain"
        f" of the next {len(batch.weights_BD)} over the current proposal is {batch.gain:.3g}, below"
        f" design.stop_gain: {run.config.design.stop_gain:g}"
    )


def _short(value: dict[str, Any]) -> str:
    return ", ".join(f"{name} {inner}" for name, inner in value.items()) or "none"
