"""Train the trials of a run: their start checkpoint, their shared job, and the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mixopt.corpus import corpus_hash
from mixopt.errors import ConfigError
from mixopt.run_directory import SWEEP, VALIDATE, stated_objective, usable_trials
from mixopt.system import Say, first_few, write_table
from mixopt.trials import Training, make_proxy

if TYPE_CHECKING:
    from mixopt.config import Config
    from mixopt.run_directory import Run, Step
    from mixopt.sweeps import Job
    from mixopt.trials import Trial, TrialResult

CURVE_POINTS = 9  # evaluations of a trial before its end: every 10%
MAX_NAMED = 5  # trials named in a line


def sweep(run: Run, say: Say) -> None:
    """Train the proxy on each mixture of the design and of later rounds."""
    from mixopt.pipeline.rounds import run_rounds

    job = job_of(run, SWEEP)
    _record_start(run, job, say)

    def train(trials: Sequence[Trial], planned: int) -> list[TrialResult]:
        return train_trials(run, SWEEP, job, trials, say, planned)

    trials, results = run_rounds(run, train, say)
    _keep_results(run, trials, results, say)
    _say_anneals(run, say)


def train_trials(
    run: Run, step: Step, job: Job, trials: Sequence[Trial], say: Say, planned: int = 0
) -> list[TrialResult]:
    """Train the trials of a step that have no result yet; return the results of all."""
    from mixopt.sweeps import run_trials

    return run_trials(
        trials,
        job,
        step.trial_folder(run.path),
        sweep=run.config.sweep,
        title=step.name,
        planned=planned,
        say=say,
    )


def job_of(run: Run, step: Step) -> Job:
    """Return the job that all trials of a step share."""
    from mixopt.sweeps import Job

    proxy, corpus = run.config.proxy, run.path / "corpus"
    target = run.config.propose.target_tokens if proxy.simulate_epochs else None
    training = Training(
        run.config.validation_tokens if step is VALIDATE else proxy.tokens,
        proxy.eval_every or 0,
        proxy.eval_tokens,
        proxy.device,
        target_tokens=target,
        inventory=None if target is None and proxy.mixture_format is None else run.inventory,
        curve_points=CURVE_POINTS if proxy.eval_every is None else 0,
        phases=run.config.design.phases,
    )
    fingerprint = run.log.trial_fingerprint(step.name)
    options, corpus_digest = proxy.all_options, corpus_hash(corpus)
    return Job(proxy.name, options, corpus, training, corpus_digest, made_by=fingerprint)


def _keep_results(
    run: Run, trials: Sequence[Trial], results: Sequence[TrialResult], say: Say
) -> None:
    from mixopt.trials import Trials

    table = Trials.from_results(
        trials, results, proxy=run.config.proxy.name, targets=run.config.losses
    )
    is_phased = run.config.design.phases is not None
    contents = {} if is_phased else run.corpus.contents
    table = replace(table, contents=contents, is_phased=is_phased)
    table.write(run.path / f"{SWEEP.trials}.parquet")
    keep_experts(run, SWEEP, results, say)
    say_unfinished(run, SWEEP, results, say)


def keep_experts(run: Run, step: Step, results: Sequence[TrialResult], say: Say) -> None:
    """Write the expert assignments of the trials, if the proxy has experts."""
    from mixopt.run_directory import TrialExperts

    experts = TrialExperts.of(results)
    if experts is None:
        return
    file = step.experts_file(run.path)
    write_table(file, experts.table)
    if experts.collapsed:
        names = first_few(experts.collapsed, MAX_NAMED)
        count = f"{len(experts.collapsed)} of {len(experts.by_trial())}"
        how = f"mixopt experts {run.path}" if step is SWEEP else file
        say(f"{step.name}: experts collapsed in {count} trials ({names}); see {how}")


def say_unfinished(run: Run, step: Step, results: Sequence[TrialResult], say: Say) -> None:
    """Report the trials that failed or diverged, and the command that trains them again."""
    unfinished = [result for result in results if result.status != "finished"]
    for result in unfinished:
        say(f"{step.name}: trial {result.trial} {result.status}: {result.reason}")
    if unfinished:
        count = f"{len(unfinished)} of {len(results)}"
        command = run.command("--retry-failed")
        say(f"{step.name}: {count} trials did not finish; to train them again: {command}")


def _say_anneals(run: Run, say: Say) -> None:
    from mixopt.proposals import anneal_effects, anneal_lines
    from mixopt.trials import Trials, settled

    if (anneals := run.config.design.anneals) is None:
        return
    table = usable_trials(run, Trials.read(run.path / f"{SWEEP.trials}.parquet"))
    if (table.table["status"] == "finished").any():
        objective = settled(stated_objective(run), table)
        for line in anneal_lines(anneal_effects(table, objective, anneals)):
            say(f"sweep: {line}")


def with_start_hash(config: Config) -> Config:
    """Return a configuration with the hash of the checkpoint that its trials start from."""
    proxy = config.proxy
    if proxy.start is None:
        return config
    unstarted = make_proxy(proxy.name, proxy.all_options | {"start_hash": None})
    started = _with_start(unstarted, proxy.name)
    options = proxy.options | {"start_hash": str(started.start_hash())}
    return config.model_copy(update={"proxy": proxy.model_copy(update={"options": options})})


def check_start(config: Config, proxy: Any) -> None:
    """Check that the start checkpoint can be opened and uses the corpus's tokenizer."""
    _with_start(proxy, config.proxy.name).start_hash()
    check = getattr(proxy, "check_tokenizer", None)
    if callable(check):
        check(config.corpus.tokenizer)


def _record_start(run: Run, job: Job, say: Say) -> None:
    """Write the losses of the start checkpoint, once.

    Its hash is an option of the proxy, so that other weights make another sweep.
    """
    from mixopt.run_directory import StartRecord, measure_start

    if run.config.proxy.start is None or StartRecord.read(run.path) is not None:
        return
    weights = run.config.proxy.start_hash
    losses = measure_start(job.proxy, job.options, job.corpus, job.training)
    StartRecord.of(weights, job.training.eval_tokens, losses).write(run.path)
    say(f"sweep: trials begin with {run.config.proxy.start} (weights {weights[:12]})")


def _with_start(proxy: Any, name: str) -> Any:
    if not callable(getattr(proxy, "start_hash", None)):
        raise ConfigError(
            f"proxy.from: trials of proxy {name!r} begin with no checkpoint; leave it out, or give"
            " name: continued"
        )
    return proxy
