"""The steps of a run: what each does, and how they run in order, resume and are redone."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
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
    full_run,
    with_start_hash,
)
from mixopt.pipeline.experiment_cost import largest_weights, shortage_lines
from mixopt.pipeline.from_fit import fit_of, proposal_of, with_parts
from mixopt.pipeline.sweep import (
    job_of,
    keep_experts,
    say_unfinished,
    sweep,
    train_trials,
    worse_round,
    worse_text,
)
from mixopt.proposals import (
    PROPOSAL,
    Decision,
    Proposal,
    Validation,
    ValidationPlan,
    baseline_mixture,
    fresh_seeds,
    listed,
    looks,
    named,
    proposal_name,
    with_validated,
)
from mixopt.reporting import write_report
from mixopt.run_directory import (
    DESIGN,
    FIT,
    LATER_PROPOSALS,
    PREPARE,
    PROPOSE,
    RECOMMENDATION,
    REPORT,
    STEPS,
    SWEEP,
    VALIDATE,
    Run,
    Step,
    is_sent,
    open_run,
    step_named,
    steps_before,
    steps_from,
    working_in,
)
from mixopt.sweeps import TrialFolder, make_executor, read_entry
from mixopt.system import Say, check_links, check_trusted, duration, hidden_progress, silent
from mixopt.tracking import Tracker, tracked
from mixopt.trials import Trial, TrialResult, Trials, carried_to, make_design, write_design

Source = str | Path
Train = Callable[[Sequence[Trial]], list[TrialResult]]
SAME = 0.005  # total variation below which two proposals count as the same


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
    say, last = say or silent, step_named(until)
    if redo is not None and step_named(redo) not in (*steps_before(last), last):
        raise RunError(f"--from {redo} comes after --until {until}, and would delete it alone")
    planned = _planned(config, Path(out), overrides, trust=trust)
    lines = _checked(planned, last)
    with working_in(Path(out)):
        if redo is not None and any(step.acts for step in steps_from(step_named(redo))):
            planned.ask_trust("run")
        opened = open_run(planned.config, out, source=planned.source, redo=redo, trust=trust)
        tracking, sends = opened.config.tracking, is_sent(opened)
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
            for step in (*steps_before(last), last):
                _do(opened, step, tracker, say)
    return opened


def sweep_script(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), trust: bool = False
) -> str:
    """Return the batch script that a sweep would submit; submits nothing."""
    planned = _planned(config, Path(out), overrides, trust=trust)
    planned.ask_trust(SWEEP.name)
    sweep, folder = planned.config.sweep, SWEEP.trial_folder(planned.path)
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
    training = [step for step in (*steps_before(last), last) if step.trains] or [last]
    recorded = planned.log.records.get(training[-1].name)
    fingerprint = planned.log.fingerprint(training[-1].name)
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
    for step in reversed([step for step in STEPS if step.trains]):
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
    trials, contents = earlier_trials(where), run.corpus.contents
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
    if worse := worse_round(run, chosen):
        say(f"fit: {worse}")


def _propose(run: Run, say: Say) -> None:
    proposal = proposal_of(run, run.fit)
    proposal.to_file(run.path / "proposal.yaml")
    for warning in proposal.warnings:
        say(f"propose: warning: {warning}")


def validate(run: Run, say: Say) -> None:
    """Train the proposal and its baselines with several seeds; write the recommendation."""
    job = job_of(run, VALIDATE)

    def train(trials: Sequence[Trial]) -> list[TrialResult]:
        _forget_earlier(run, trials, say)
        return train_trials(run, VALIDATE, job, trials, say)

    validated = validate_proposals(run, train, say)
    validated.table(run).write(run.path / f"{VALIDATE.trials}.parquet")
    keep_experts(run, VALIDATE, validated.results, say)
    say_unfinished(run, VALIDATE, validated.results, say)
    for name, proposal in validated.proposals.items():
        if name != PROPOSAL:
            proposal.to_file(run.path / LATER_PROPOSALS / f"{name}.yaml")
    validation = validated.validation(run)
    full, tokens = full_run(run.config, run.inventory), run.config.validation_tokens
    decision = Decision(validation, validated.proposals, run.fit, run.constraints, full, tokens)
    recommendation = with_parts(decision.recommend(), run)
    recommendation.to_file(run.path / RECOMMENDATION)
    say(f"validate: {recommendation.headline}")
    if noise := validation.noise_note(recommendation.chosen):
        say(f"validate: {noise}")


@dataclass(frozen=True, eq=False)
class Validated:
    """The plan, results and proposals of a validation."""

    plan: ValidationPlan
    results: list[TrialResult]
    proposals: Mapping[str, Proposal]

    def validation(self, run: Run) -> Validation:
        """Return the comparisons of these runs."""
        return Validation.of(self.table(run), run.objective, run.config.validation)

    def table(self, run: Run) -> Trials:
        """Return one row for each mixture and seed, repeated for each name of a mixture."""
        results = self.plan.named_results(self.results)
        proxy, targets = run.config.proxy.name, run.config.losses
        return Trials.from_results(self.plan.named_trials, results, proxy=proxy, targets=targets)


def validate_proposals(run: Run, train: Train, say: Say) -> Validated:
    """Train proposals and baselines until a proposal wins or `validation.rounds` are over."""
    config, objective = run.config.validation, run.objective
    full = full_run(run.config, run.inventory)
    baselines = {
        name: baseline_mixture(name, weights, full, run.trials, objective)
        for name, weights in config.baselines.items()
    }
    for name, mixture in baselines.items():
        same = next(twin for twin, baseline in baselines.items() if baseline == mixture)
        if same != name:
            say(f"validate: {named(name)} is the same mixture as {named(same)}; trained once")
        for line in run.constraints.violations(mixture):
            say(f"validate: {named(name)} breaks a limit of this run: {line}")
    seeds = fresh_seeds(run.trials, config.most_seeds, run.config.seed)
    validated = Validated(ValidationPlan(baselines, seeds), [], {})
    proposal: Proposal | None = run.proposal
    for number in range(1, config.rounds + 1):
        if proposal is None:
            break
        name = proposal_name(number)
        validated = _validate_one(run, validated, name, proposal, train, say)
        validation = validated.validation(run)
        verdicts = {gain.verdict for gain in validation.differences_of(name).values()}
        if verdicts <= {"better", "same mixture"} or number == config.rounds:
            break
        proposal = _next_proposal(run, validation, number, say)
    return validated


def _validate_one(
    run: Run, validated: Validated, name: str, proposal: Proposal, train: Train, say: Say
) -> Validated:
    config, undecided = run.config.validation, list(run.config.validation.baselines)
    proposals = {**validated.proposals, name: proposal}
    mixtures = {**validated.plan.mixtures, name: proposal.mixture}
    for count in looks(config.seeds, config.most_seeds):
        plan = validated.plan.add({key: mixtures[key] for key in (name, *undecided)}, count)
        validated = Validated(plan, train(plan.trials), proposals)
        gains = validated.validation(run).differences_of(name)
        undecided = [other for other, gain in gains.items() if gain.verdict == "not significant"]
        if any(gain.verdict == "worse" for gain in gains.values()) or not undecided:
            break
        if count < config.most_seeds:
            words = f"the difference from {listed(undecided, 'or')} is not significant"
            say(f"validate: {named(name)}: {words} with {count} seeds; adding seeds")
    return validated


def _next_proposal(run: Run, validation: Validation, number: int, say: Say) -> Proposal | None:
    """Propose again, with the validated runs among the trials; None if nothing new results."""
    trials = with_validated(run.trials, validation, run.fit)
    say(f"validate: {named(proposal_name(number))} is not better; its runs are added to the trials")
    fit = fit_of(run, trials)
    if worse := worse_text(run.fit, fit, "these runs"):
        say(f"validate: {worse}")
    proposal = proposal_of(run, fit)
    for name in validation.mixtures:
        if validation.mixture(name).total_variation(proposal.mixture) < SAME:
            say(f"validate: the new fit proposes {named(name)} again")
            return None
    return proposal


def _forget_earlier(run: Run, planned: Sequence[Trial], say: Say) -> None:
    """Delete results of earlier mixtures under the same name, after proposal.yaml was edited."""
    mixtures = {trial.name: trial.mixture for trial in planned}
    for file in VALIDATE.trial_files(run.path):
        trial = read_entry(file)[0]
        if mixtures.get(trial.name, trial.mixture).fingerprint != trial.mixture.fingerprint:
            say(f"validate: {trial.name} belongs to an earlier proposal, and is deleted")
            TrialFolder(file.parent).forget(trial.name)


ACTIONS: Mapping[Step, Callable[[Run, Say], object]] = {
    PREPARE: _prepare,
    DESIGN: _design,
    SWEEP: sweep,
    FIT: _fit,
    PROPOSE: _propose,
    VALIDATE: validate,
    REPORT: lambda run, _: write_report(run),
}
