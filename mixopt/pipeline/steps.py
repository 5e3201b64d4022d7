"""The steps of a run: what each does, and how they run in order, resume and are redone."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from mixopt.config import Config, load_config, plugins_named
from mixopt.corpus import Corpus, prepare_corpus
from mixopt.errors import ConfigError, CorpusError, RunError, TrialsError
from mixopt.fitting import readiness
from mixopt.pipeline.experiment_check import (
    check,
    check_folds,
    check_token_unit,
    earlier_trials,
    with_start_hash,
)
from mixopt.pipeline.experiment_cost import largest_weights, shortage_lines
from mixopt.pipeline.from_fit import fit_of, proposal_of
from mixopt.pipeline.sweep import sweep, worse_round
from mixopt.pipeline.validation_rounds import validate
from mixopt.reporting import write_report
from mixopt.run_directory import (
    DESIGN,
    FIT,
    PREPARE,
    PROPOSE,
    REPORT,
    STEPS,
    SWEEP,
    VALIDATE,
    Run,
    Step,
    is_sent,
    open_run,
    step_named,
    steps_from,
    steps_until,
    working_in,
)
from mixopt.sweeps import TrialFolder, make_executor, read_entry
from mixopt.system import Say, check_links, check_trusted, duration, hidden_progress, silent
from mixopt.tracking import Tracker, tracked
from mixopt.trials import carried_to, make_design, write_design

Source = str | Path


def run(
    config: Source | Config,
    out: Source,
    *,
    overrides: Sequence[str] = (),
    until: str = REPORT.name,
    redo: str | None = None,
    retry_failed: bool = False,
    trust: bool = False,
    say: Say | None = None,
    progress: bool | None = None,
) -> Run:
    """Run the steps in order: prepare, design, sweep, fit, propose, validate, report.

    Finished steps are skipped, so that the same call resumes. With `until="prepare"`, existing
    shards are verified by their hashes, and written again if they differ; later steps are kept,
    because the same documents give the same shards.

    Args:
        config: A YAML file, or a loaded configuration.
        out: The run directory.
        overrides: Strings `a.b=value` that override fields of the file.
        until: The last step to run.
        redo: First delete the outputs of this step and of all later steps.
        retry_failed: Train trials again that failed or diverged.
        trust: If `config` is the record in the run directory itself: read, import, run and train
            what it names, follow links out of the directory, and send to its tracking server.
        say: Called with each line of progress.
        progress: Show progress bars on standard error; None: only if `say` is None.

    Raises:
        MixoptError: An invalid argument, configuration or input; the message says how to fix it.
    """
    hide = say is not None if progress is None else not progress
    say = say or silent
    last = step_named(until)
    if redo is not None and step_named(redo) not in steps_until(last):
        raise RunError(f"--from {redo} comes after --until {until}, and would delete it alone")
    planned = _planned(config, Path(out), overrides, trust=trust)
    lines = _checked(planned, last)
    with working_in(Path(out)):
        if redo is not None and any(step.acts for step in steps_from(step_named(redo))):
            planned.ask_trust("run")
        opened = open_run(planned.config, out, source=planned.source, redo=redo, trust=trust)
        tracking = opened.config.tracking
        sends = is_sent(opened)
        if tracking.enabled and not sends:
            say(
                "tracking: nothing is sent, because only the run directory names the server"
                f" {tracking.uri}; add --trust to send"
            )
        for line in lines:
            say(f"check: {line}")
        if retry_failed:
            opened.ask_trust("run")
            _forget_failed(opened)
        if last is PREPARE and opened.is_done(PREPARE.name):
            _discard_altered_shards(opened, say)
        with (
            Tracker(tracking, opened.config.name, opened.path, say, sends=sends) as tracker,
            hidden_progress() if hide else nullcontext(),
        ):
            for step in steps_until(last):
                _do(opened, step, tracker, say)
    return opened


def sweep_script(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), trust: bool = False
) -> str:
    """Return the batch script that a sweep would submit; submits nothing."""
    planned = _planned(config, Path(out), overrides, trust=trust)
    planned.ask_trust(SWEEP.name)
    sweep = planned.config.sweep
    folder = SWEEP.trial_folder(planned.path)
    executor = make_executor(sweep, folder, planned.config.proxy.device)
    if not hasattr(executor, "script"):
        raise ConfigError(
            f"sweep.executor: {sweep.executor!r} submits no script; --dry-run works with slurm"
        )
    return str(executor.script(executor.slots))


def _planned(config: Source | Config, out: Path, overrides: Sequence[str], *, trust: bool) -> Run:
    source = str(config) if isinstance(config, (str, Path)) else ""
    recorded = bool(source) and Path(source).resolve() == (out / "config.yaml").resolve()
    is_foreign = recorded and not trust
    if is_foreign:
        check_links(out)
    if isinstance(config, (str, Path)):
        config = load_config(config, overrides, trust=not is_foreign)
    if not is_foreign:
        return Run(out, with_start_hash(config), source, trust)
    for _, kind, name in plugins_named(config):
        check_trusted(kind, name, source, trust=False)
    return Run(out, config, source, trust)


def _checked(planned: Run, last: Step) -> list[str]:
    """Check the configuration, unless its trials are trained already."""
    training = [step for step in steps_until(last) if step.trains]
    name = training[-1].name if training else last.name
    recorded = planned.log.records.get(name)
    fingerprint = planned.log.fingerprint(name)
    if recorded is not None and recorded.fingerprint == fingerprint:
        return []
    planned.ask_trust("run")
    result = check(planned.config, validates=VALIDATE in training)
    result.refuse()
    return result.lines(with_table=False)


def _discard_altered_shards(run: Run, say: Say) -> None:
    try:
        Corpus.open(run.path / "corpus")
    except CorpusError as error:
        say(f"prepare: {error}")
        run.log.discard(PREPARE.name, only=True)


def _forget_failed(run: Run) -> None:
    """Delete the results of trials that did not finish, and all outputs that depend on them."""
    for step in reversed(STEPS):
        files = step.trial_files(run.path)
        failed = [file for file in files if read_entry(file)[1].has_failed]
        for file in failed:
            TrialFolder(file.parent).forget(file.stem)
        if failed:
            run.log.discard(step.name, keep=(failed[0].parent.name,))


def _do(run: Run, step: Step, tracker: Tracker, say: Say) -> None:
    if run.is_done(step.name):
        return
    if step.acts:
        run.ask_trust(step.name)
    fault = run.log.fault(step.name)
    if fault is not None:
        say(f"{step.name}: {fault}; running it again")
    run.log.check_before(step.name)
    run.log.begin(step.name)
    start = time.monotonic()
    with tracked(run, step, tracker):
        ACTIONS[step](run, say)
        # Before the block ends, which sends what the manifest lists.
        seconds = time.monotonic() - start
        run.log.end(step.name, seconds)
    say(f"{step.name}: done in {duration(seconds)}")


def _prepare(run: Run, say: Say) -> None:
    check_token_unit(run.config)
    prepare_corpus(
        run.config.corpus,
        run.config.evaluation,
        run.path / "corpus",
        tasks=run.config.tasks,
        fingerprint=run.log.fingerprint(PREPARE.name),
        seed=run.config.seed,
        min_tokens=2,
        progress=lambda line: say(f"prepare: {line}"),
    )


def _design(run: Run, say: Say) -> None:
    unknown = _carry(run, say)
    trials = make_design(
        run.config.design,
        run.natural,
        run.constraints,
        run.config.seed,
        unknown=unknown,
        say=lambda line: say(f"design: {line}"),
    )
    check_folds(run.config, len({trial.mixture for trial in trials}))
    write_design(trials, run.path / "design.parquet")
    max_weights = largest_weights(run.config, run.natural, run.constraints)
    for short in shortage_lines(run.config, run.corpus.inventory, run.inventory, max_weights):
        say(f"design: warning: {short}")
    roles = Counter(trial.role for trial in trials)
    counts = ", ".join(f"{role}: {number}" for role, number in roles.items())
    later = sum(run.config.design.planned_rounds[1:])
    chosen = f", {later} more to be chosen as trials finish" if later else ""
    say(f"design: {len(trials)} trials ({counts}){chosen}")


def _carry(run: Run, say: Say) -> list[str]:
    """Carry over trials of an earlier version of the corpus; return the domains new to it."""
    if run.config.design.earlier is None:
        return []
    run.ask_trust(DESIGN.name)
    if "auto" not in run.config.fit.regressors:
        say("design: warning: of the usual regressors only auto weighs trials of design.earlier")
    ((where, domains),) = run.config.design.earlier.items()
    trials = earlier_trials(where)
    contents = run.corpus.contents
    carried, unknown = carried_to(trials.finished, contents, domains, where)
    say(f"design: {carried.notes[-1]}")
    if not set(carried.targets) & set(run.config.losses):
        raise TrialsError(f"{where}: trials of another corpus: no loss on this one's domains")
    carried.write(run.path / DESIGN.optional[0])
    return [name for name in contents if name in unknown]


def _fit(run: Run, say: Say) -> None:
    chosen = fit_of(run, run.trials)
    ready = readiness(chosen)
    if run.config.objective.noise != "allow":
        ready.refuse_noise()
    chosen.save(run.path / "fit")
    say(f"fit: {chosen.summary()}")
    for line in ready.lines(str(run.path)):
        say(f"fit: {line}")
    worse = worse_round(run, chosen)
    if worse:
        say(f"fit: {worse}")


def _propose(run: Run, say: Say) -> None:
    proposal = proposal_of(run, run.fit)
    proposal.to_file(run.path / "proposal.yaml")
    for warning in proposal.warnings:
        say(f"propose: warning: {warning}")


ACTIONS: Mapping[Step, Callable[[Run, Say], object]] = {
    PREPARE: _prepare,
    DESIGN: _design,
    SWEEP: sweep,
    FIT: _fit,
    PROPOSE: _propose,
    VALIDATE: validate,
    REPORT: lambda run, _: write_report(run),
}
