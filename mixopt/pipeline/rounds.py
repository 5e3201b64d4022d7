"""Train a design round by round: each later one is chosen by a fit on the trials before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.run_directory import repetition_of, usable_trials
from mixopt.sweeps import GROUPS, ROUNDS
from mixopt.system import Say, read_json, steady_progress, write_json
from mixopt.trials import Trial, TrialResult, read_design, write_design

if TYPE_CHECKING:
    from mixopt.config import Config
    from mixopt.objective import Objective
    from mixopt.proposals import Batch
    from mixopt.run_directory import Run
    from mixopt.trials import Trials

_Number = Annotated[int, Field(ge=1, lt=10**9)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _ChosenBy(_Part):
    objective: dict[str, Any]
    fit: dict[str, Any]


class _Round(_Part):
    round: _Number
    trials: _Number
    regressor: str
    proposal: dict[str, FiniteFloat]
    predicted: FiniteFloat
    expected_gain: FiniteFloat


class _Stopped(_Part):
    round: _Number
    expected_gain: FiniteFloat
    not_run: _Number


class _Record(_Part):
    """What `rounds.json` holds."""

    chosen_by: _ChosenBy | None = None
    rounds: list[_Round] = []
    stopped: _Stopped | None = None

    def add(self, run: Run, number: int, batch: Batch) -> _Record:
        """Return the record with a further round."""
        entry = _Round(
            round=number,
            trials=len(batch.weights_BD),
            regressor=batch.regressor,
            proposal=dict(zip(run.natural.domains, batch.proposal_D.tolist(), strict=True)),
            predicted=batch.predicted,
            expected_gain=batch.gain,
        )
        return _Record(chosen_by=_chosen_by(run.config), rounds=[*self.rounds, entry])

    def stop(self, number: int, gain: float, missing: int) -> _Record:
        """Return the record of rounds that end before one."""
        stopped = _Stopped(round=number, expected_gain=gain, not_run=missing)
        return self.model_copy(update={"stopped": stopped})

    def check(self, run: Run) -> None:
        """Check that the rounds so far were chosen by what the next one will be."""
        now = _chosen_by(run.config)
        for name in ("objective", "fit"):
            before, after = getattr(self.chosen_by or now, name), getattr(now, name)
            if before != after:
                raise RunError(
                    f"{run.path}: the unfinished sweep chose its rounds by another {name}:"
                    f" {_short(before)}, now {_short(after)}; finish it with that one, use"
                    f" another --out, or redo it: {run.command('--from', 'sweep')}"
                )

    def write(self, path: Path) -> None:
        """Write the record."""
        write_json(path / "trials" / ROUNDS, self.model_dump())


def _read_record(path: Path) -> _Record:
    file = path / "trials" / ROUNDS
    if not file.exists():
        return _Record()
    again = (
        f"delete it and {GROUPS} beside it: the rounds are chosen again, and finished trials are"
        " kept"
    )
    try:
        found = read_json(file, _Record)
    except RunError as error:
        raise RunError(f"{error}; {again}") from error
    for place, entry in enumerate(found.rounds, start=1):
        if entry.round != place:
            raise RunError(
                f"{file}: rounds.{place - 1}.round: should be {place}, got {entry.round}; {again}"
            )
    return found


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
            say(_why_stopped(run, batch, sum(rounds[number:])))
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
    from mixopt.trials import MIN_WEIGHT, design_constraints

    config, seed = run.config, run.config.seed + number
    table = _table(run, trials, results)
    _check_finished(run, table, results, number)
    steps = len(config.fit.regressors) * config.fit.folds
    with steady_progress(f"choosing round {number + 1}", steps) as update:
        surrogate = fit_surrogate(
            table,
            _objective(run, table),
            config.fit,
            seed=config.seed,
            repetition=repetition_of(run),
            update=update,
        )
    allowed = design_constraints(config.design, run.natural, run.constraints).simplex
    candidates_KD = draw_candidates(
        surrogate, allowed, run.natural.array, minimum=MIN_WEIGHT, seed=seed
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


def not_run(run: Run) -> int:
    """Count the planned trials that are not run because their expected gain is too small."""
    stopped = _read_record(run.path).stopped
    return 0 if stopped is None else stopped.not_run


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

    name, targets = run.config.proxy.name, run.config.losses
    return usable_trials(run, Trials.from_results(trials, results, proxy=name, targets=targets))


def _check_finished(run: Run, table: Trials, results: Sequence[TrialResult], number: int) -> None:
    """Check that enough trials finished to choose a round by."""
    least = run.config.fit.folds
    finished = len(set(table.finished.mixtures))
    if finished >= least:
        return
    failed = next((one for one in results if one.status != "finished"), None)
    why = "" if failed is None else f" (trial {failed.trial} {failed.status}: {failed.reason})"
    raise RunError(
        f"{run.path}: round {number + 1} of {len(run.config.design.planned_rounds)} cannot be"
        f" chosen: trials of {finished} mixtures have finished, and a fit needs {least}{why}; fix"
        f" that and run {run.command('--retry-failed')}, or set design.rounds: off"
    )


def _objective(run: Run, table: Trials) -> Objective:
    """Return the objective, with spreads of the trials so far where it divides by them."""
    from mixopt.objective import Objective
    from mixopt.trials import settled

    return settled(Objective.from_config(run.config.aim, run.config.losses), table)


def _chosen_by(config: Config) -> _ChosenBy:
    """Return what decides a choice, beside what the sweep's fingerprint has."""
    objective = config.objective.model_dump(mode="json", exclude_defaults=True)
    return _ChosenBy(objective=objective, fit=config.fit.model_dump(mode="json"))


def _is_enough(config: Config, batch: Batch) -> bool:
    least = config.design.stop_gain
    return least is not None and batch.gain < least


def _chosen(run: Run, batch: Batch, number: int) -> str:
    rounds = run.config.design.planned_rounds
    return (
        f"sweep: round {number + 1} of {len(rounds)}: {len(batch.weights_BD)} mixtures chosen by"
        f" {batch.regressor}, expected gain over the current proposal: {batch.gain:.4g}"
    )


def _why_stopped(run: Run, batch: Batch, missing: int) -> str:
    return (
        f"sweep: stopped early, {missing} planned trials are not run: the expected gain"
        f" of the next {len(batch.weights_BD)} over the current proposal is {batch.gain:.3g}, below"
        f" design.stop_gain: {run.config.design.stop_gain:g}"
    )


def _short(value: dict[str, Any]) -> str:
    return ", ".join(f"{name} {inner}" for name, inner in value.items()) or "none"
