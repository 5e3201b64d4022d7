"""The steps of a run, each a function: what the command line calls, and what a script may.

Each reads what the step before it left, does nothing where its own output is already there,
and returns the run. `run` is all of them in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.errors import ConfigError, CorpusError
from mixopt.run_directory import EXPERTS_OF, STEPS, TRIAL_FOLDERS, Run, open_run, working_in
from mixopt.system import Say, duration, progress, silent
from mixopt.tracking import Tracker, open_tracker

if TYPE_CHECKING:
    from mixopt.config import Config
    from mixopt.sweeps import Job
    from mixopt.trials import Trial, TrialResult, Trials

Source = str | Path


def run(
    config: Source | Config,
    out: Source,
    *,
    overrides: Sequence[str] = (),
    redo: str | None = None,
    retry_failed: bool = False,
    say: Say = silent,
) -> Run:
    """Do all steps in order; what is done already is not done again.

    Args:
        config: A YAML file, or a configuration that is read already.
        out: The run directory.
        overrides: `a.b=value` each, over the file.
        redo: Delete the outputs of this step and of those after it first.
        retry_failed: Train trials again that failed or diverged before.
        say: Called with a line about what happens.

    Raises:
        MixoptError: Something that was given cannot be right; one line says what mends it.
    """
    asked = _read(config, overrides)
    with working_in(Path(out)):
        opened = _open(asked, config, out, redo)
        if retry_failed:
            _forget_failed(opened)
        with open_tracker(opened, say) as tracker:
            for step in STEPS:
                _do(opened, step, tracker, say)
    return opened


def prepare(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), say: Say = silent
) -> Run:
    """Read the documents, and write token shards and the tokenizer.

    Shards that are there already are verified by their hashes, and made again where they differ;
    the steps after this one are kept, since the same documents give the same shards.
    """
    asked = _read(config, overrides)
    with working_in(Path(out)):
        opened = _open(asked, config, out)
        if opened.is_done("prepare"):
            _discard_altered_shards(opened, say)
        return _done(opened, "prepare", say)


def design(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), say: Say = silent
) -> Run:
    """Choose the mixtures to try."""
    return _single("design", config, out, overrides, say)


def sweep(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), say: Say = silent
) -> Run:
    """Train a proxy on each mixture of the design."""
    return _single("sweep", config, out, overrides, say)


def fit(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), say: Say = silent
) -> Run:
    """Fit the regressors, and choose one by cross-validation."""
    return _single("fit", config, out, overrides, say)


def propose(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), say: Say = silent
) -> Run:
    """Search for the mixture with the best predicted objective."""
    return _single("propose", config, out, overrides, say)


def validate(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), say: Say = silent
) -> Run:
    """Train the proposal against its baselines, several seeds each."""
    return _single("validate", config, out, overrides, say)


def report(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), say: Say = silent
) -> Run:
    """Write the page that shows the run."""
    return _single("report", config, out, overrides, say)


def _read(config: Source | Config, overrides: Sequence[str]) -> Config:
    from mixopt.config import load_config

    return load_config(config, overrides) if isinstance(config, (str, Path)) else config


def _open(asked: Config, config: Source | Config, out: Source, redo: str | None = None) -> Run:
    source = str(config) if isinstance(config, (str, Path)) else ""
    return open_run(asked, out, source=source, redo=redo)


def _single(
    step: str, config: Source | Config, out: Source, overrides: Sequence[str], say: Say
) -> Run:
    asked = _read(config, overrides)
    with working_in(Path(out)):
        return _done(_open(asked, config, out), step, say)


def _discard_altered_shards(run: Run, say: Say) -> None:
    from mixopt.corpus import Corpus

    try:
        Corpus.open(run.path / "corpus")
    except CorpusError as error:
        say(f"prepare: {error}")
        run.discard("prepare", only=True)


def _done(run: Run, step: str, say: Say) -> Run:
    with open_tracker(run, say) as tracker:
        _do(run, step, tracker, say)
    return run


def _do(run: Run, step: str, tracker: Tracker, say: Say) -> None:
    """Do one step unless it is done."""
    if run.is_done(step):
        return
    order = list(STEPS)
    if step != order[0]:
        run.require(order[order.index(step) - 1])
    run.begin(step)
    start = time.monotonic()
    _ACTIONS[step](run, tracker, say)
    seconds = time.monotonic() - start
    run.end(step, seconds)
    say(f"{step}: done in {duration(seconds)}")


def _forget_failed(run: Run) -> None:
    """Delete the results of trials that did not finish, and what was made from them."""
    from mixopt.system import read_json
    from mixopt.trials import TrialFolder, trial_paths

    for step, folder in reversed(TRIAL_FOLDERS.items()):
        path = run.path / folder
        failed = [
            file.stem
            for file in trial_paths(path)
            if read_json(file)["result"]["status"] != "finished"
        ]
        for trial in failed:
            TrialFolder(path).forget(trial)
        if failed:
            run.discard(step, keep=(folder,))


def _prepare(run: Run, _: Tracker, say: Say) -> None:
    from mixopt.corpus import prepare_corpus

    prepare_corpus(
        run.config.corpus,
        run.config.evaluation,
        run.path / "corpus",
        fingerprint=run.fingerprint("prepare"),
        seed=run.config.seed,
        min_tokens=2,
        progress=lambda line: say(f"prepare: {line}"),
    )


def _design(run: Run, _: Tracker, say: Say) -> None:
    from mixopt.designs import make_design
    from mixopt.trials import write_design

    trials = make_design(run.config.design, run.corpus.natural, run.constraints, run.config.seed)
    mixtures, folds = len({trial.mixture for trial in trials}), run.config.fit.folds
    if mixtures < folds:
        field = "the first of design.rounds" if run.config.design.rounds else "design.trials"
        raise ConfigError(
            f"fit.folds: {folds} folds need as many different mixtures, and the design has"
            f" {mixtures}; raise {field}, or lower fit.folds"
        )
    write_design(trials, run.path / "design.parquet")
    roles = [trial.role for trial in trials]
    counts = ", ".join(f"{roles.count(role)} {role}" for role in dict.fromkeys(roles))
    later = sum((run.config.design.rounds or [])[1:])
    chosen = f", and {later} more to be chosen as trials finish" if later else ""
    say(f"design: {len(trials)} trials ({counts}){chosen}")


def _sweep(run: Run, tracker: Tracker, say: Say) -> None:
    from mixopt.pipeline.rounds import run_rounds
    from mixopt.sweeps import run_trials
    from mixopt.tracking import tracked
    from mixopt.trials import Trials

    job = _job(run, run.config.proxy.tokens)

    def train(trials: Sequence[Trial], planned: int) -> list[TrialResult]:
        return run_trials(
            trials,
            job,
            run.path / "trials",
            workers=run.config.sweep.workers,
            title="sweep",
            planned=planned,
        )

    with tracked(run, "sweep", tracker):
        trials, results = run_rounds(run, train, say)
        table = Trials.from_results(
            trials, results, proxy=run.config.proxy.name, targets=run.evaluation_names
        )
        table.write(run.path / "trials.parquet")
        _record_experts(run, "sweep", results, say)
    _say_unfinished(results, say, "sweep")


def _fit(run: Run, _: Tracker, say: Say) -> None:
    from mixopt.fitting import fit_trials

    config, pilots = run.config.fit, _pilots(run)
    with progress("fit", len(config.regressors) * config.folds) as update:
        chosen = fit_trials(
            run.trials,
            config,
            run.objective,
            run.config.seed,
            repetition=run.repetition,
            update=update,
        )
    chosen = chosen if pilots is None else chosen.with_pilots(pilots)
    chosen.save(run.path / "fit")
    say(f"fit: {chosen.summary()}")


def _pilots(run: Run) -> Trials | None:
    """Read the runs at the target size, where the experiment has some."""
    from mixopt.fitting import aligned
    from mixopt.trials import TableOptions

    config = run.config.fit.pilots
    if config is None:
        return None
    files = (config.mixtures, config.losses, config.trials)
    paths = [None if file is None else Path(file) for file in files]
    pilots = TableOptions(unit=run.config.objective.unit).read_pilots(*paths)
    return None if pilots is None else aligned(pilots, run.trials.finished, run.objective)


def _propose(run: Run, _: Tracker, say: Say) -> None:
    from mixopt.proposals import propose_mixture

    with progress("propose", run.config.propose.bootstrap) as update:
        proposal = propose_mixture(
            run.fit,
            run.objective,
            run.constraints,
            run.corpus.natural,
            run.trials,
            run.config.propose,
            inventory=run.corpus.inventory,
            seed=run.config.seed,
            collapsed=run.collapsed,
            update=update,
        )
    proposal.to_file(run.path / "proposal.yaml")
    for warning in proposal.warnings:
        say(f"propose: warning: {warning}")


def _validate(run: Run, tracker: Tracker, say: Say) -> None:
    from mixopt.proposals import plan_validation
    from mixopt.sweeps import run_trials
    from mixopt.tracking import tracked
    from mixopt.trials import Trials

    config = run.config.validation
    planned = plan_validation(
        run.proposal.mixture,
        run.corpus.natural,
        run.trials,
        run.objective,
        config,
        run.config.seed,
    )
    tokens = config.tokens or 2 * run.config.proxy.tokens
    with tracked(run, "validate", tracker):
        results = run_trials(
            planned,
            _job(run, tokens),
            run.path / "validation",
            workers=run.config.sweep.workers,
            title="validate",
        )
        table = Trials.from_results(
            planned, results, proxy=run.config.proxy.name, targets=run.evaluation_names
        )
        table.write(run.path / "validation.parquet")
        _record_experts(run, "validate", results, say)
    _say_unfinished(results, say, "validate")


def _report(run: Run, tracker: Tracker, say: Say) -> None:
    from mixopt.reporting import write_report
    from mixopt.tracking import tracked

    with tracked(run, "report", tracker):
        write_report(run)


def _job(run: Run, tokens: int) -> Job:
    from mixopt.corpus import Corpus
    from mixopt.sweeps import Job
    from mixopt.trials import Training, simulated_target

    # The workers check the sizes of the shards; their hashes are checked here, once.
    corpus = Corpus.open(run.path / "corpus")
    proxy = run.config.proxy
    target = simulated_target(proxy.simulate_epochs, tokens, run.config.propose.target_tokens)
    training = Training(
        tokens, proxy.eval_every, proxy.eval_tokens, proxy.device, target_tokens=target
    )
    return Job(proxy.name, dict(proxy.options), corpus.path, training)


def _record_experts(run: Run, step: str, results: Sequence[TrialResult], say: Say) -> None:
    """Write what the experts of the trials were given, where they have experts."""
    from mixopt.trials import write_experts

    found = write_experts(results, run.path / EXPERTS_OF[step])
    if found is not None and found.collapsed:
        first = ", ".join(found.collapsed[:5])
        more = f" and {len(found.collapsed) - 5} more" if len(found.collapsed) > 5 else ""
        count = f"{len(found.collapsed)} of {len(found.by_trial())}"
        how = f"mixopt experts {run.path}" if step == "sweep" else run.path / EXPERTS_OF[step]
        say(f"{step}: experts collapsed in {count} trials ({first}{more}): {how} says how")


def _say_unfinished(results: Sequence[TrialResult], say: Say, step: str) -> None:
    unfinished = [result for result in results if result.status != "finished"]
    for result in unfinished:
        say(f"{step}: trial {result.trial} {result.status}: {result.reason}")
    if unfinished:
        count = f"{len(unfinished)} of {len(results)}"
        say(f"{step}: {count} did not finish; mixopt run --retry-failed trains them again")


_ACTIONS: dict[str, Callable[[Run, Tracker, Say], None]] = {
    "prepare": _prepare,
    "design": _design,
    "sweep": _sweep,
    "fit": _fit,
    "propose": _propose,
    "validate": _validate,
    "report": _report,
}
