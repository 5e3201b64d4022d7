"""The steps of a run, each a function, for the command line and for scripts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mixopt.errors import ConfigError, CorpusError
from mixopt.pipeline.check_text import short_lines
from mixopt.pipeline.pre_check import check_experiment
from mixopt.pipeline.step_actions import ACTIONS, means_of
from mixopt.pipeline.trial_start import with_start_hash
from mixopt.run_directory import (
    ACTING,
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
    steps_before,
    steps_from,
    working_in,
)
from mixopt.system import Say, check_links, check_trusted, duration, silent
from mixopt.tracking import Tracker, open_tracker, tracked

if TYPE_CHECKING:
    from mixopt.config import Config


Source = str | Path


def run(
    config: Source | Config,
    out: Source,
    *,
    overrides: Sequence[str] = (),
    redo: str | None = None,
    retry_failed: bool = False,
    until: str = REPORT.name,
    trust: bool = False,
    say: Say = silent,
) -> Run:
    """Run all steps in order; finished steps are skipped.

    Args:
        config: A YAML file, or a configuration that is read already.
        out: The run directory.
        overrides: `a.b=value` each, over the file.
        redo: Delete the outputs of this step and of those after it first.
        retry_failed: Train trials again that failed or diverged before.
        until: The last step to run.
        trust: Where `config` is the record in the run directory itself: read, run and train what it
            names, follow links that lead out, and send to the server that it names.
        say: Called with a line about what happens.

    Raises:
        MixoptError: Something that was given cannot be right; one line says how to fix it.
    """
    asked = _Request.of(config, out, overrides, trust=trust)
    planned = _checked_before(asked, until)
    with working_in(Path(out)):
        opened = asked.open(redo, say)
        for line in planned:
            say(f"check: {line}")
        if retry_failed:
            opened.ask_trust("run")
            _forget_failed(opened)
        with open_tracker(opened, say) as tracker:
            last = step_named(until)
            for step in (*steps_before(last), last):
                _do(opened, step, tracker, say)
    return opened


def prepare(
    config: Source | Config,
    out: Source,
    *,
    overrides: Sequence[str] = (),
    trust: bool = False,
    say: Say = silent,
) -> Run:
    """Read the documents, and write token shards and the tokenizer.

    Shards that are there already are verified by their hashes, and made again where they differ;
    the steps after this one are kept, since the same documents give the same shards.
    """
    asked = _Request.of(config, out, overrides, trust=trust)
    with working_in(Path(out)):
        opened = asked.open(None, say)
        opened.ask_trust(PREPARE.name)
        if opened.is_done(PREPARE.name):
            _discard_altered_shards(opened, say)
        return _done(opened, PREPARE, say)


class StepFunction(Protocol):
    """Do one step of a run whose earlier steps are done; nothing where it is done too."""

    def __call__(
        self,
        config: Source | Config,
        out: Source,
        *,
        overrides: Sequence[str] = (),
        trust: bool = False,
        say: Say = silent,
    ) -> Run:
        """Return the run; arguments and errors are those of `mixopt.pipeline.run`."""
        ...


def _only(step: Step, what: str) -> StepFunction:
    """Return the function of a step that has no more to it than the step."""

    def one(
        config: Source | Config,
        out: Source,
        *,
        overrides: Sequence[str] = (),
        trust: bool = False,
        say: Say = silent,
    ) -> Run:
        asked = _Request.of(config, out, overrides, trust=trust)
        with working_in(asked.out):
            return _done(asked.open(None, say), step, say)

    one.__name__ = one.__qualname__ = step.name
    one.__doc__ = f"{what}\n\nArguments and errors are those of `mixopt.pipeline.run`."
    return one


design = _only(DESIGN, "Choose the mixtures to try.")
sweep = _only(SWEEP, "Train a proxy on each mixture of the design.")
fit = _only(FIT, "Fit the regressors, and choose one by cross-validation.")
propose = _only(PROPOSE, "Search for the mixture with the best predicted objective.")
validate = _only(VALIDATE, "Train the proposal against its baselines, several seeds each.")
report = _only(REPORT, "Write the HTML report of the run.")


def sweep_script(
    config: Source | Config, out: Source, *, overrides: Sequence[str] = (), trust: bool = False
) -> str:
    """Return the script that `sweep` would submit to a scheduler, without submitting it."""
    asked = _Request.of(config, out, overrides, trust=trust)
    run = Run(asked.out, asked.config, asked.source, asked.trust)
    run.ask_trust(SWEEP.name)
    means = means_of(run)
    executor = means.made(SWEEP.trial_folder(run.path), run.config.proxy.device)
    script = getattr(executor, "script", None)
    if script is None:
        raise ConfigError(
            f"sweep.executor: {means.executor!r} submits no script; --dry-run works with slurm"
        )
    return str(script(executor.slots))


@dataclass(frozen=True)
class _Request:
    """The configuration of a step, its run directory, and whether that is trusted."""

    config: Config
    source: str
    out: Path
    trust: bool

    @classmethod
    def of(
        cls, config: Source | Config, out: Source, overrides: Sequence[str], *, trust: bool
    ) -> _Request:
        """Read a configuration."""
        from mixopt.config import load_config, plugins_named, with_stated_sizes

        out = Path(out)
        source = str(config) if isinstance(config, (str, Path)) else ""
        recorded = bool(source) and Path(source).resolve() == (out / "config.yaml").resolve()
        foreign = recorded and not trust
        if foreign:
            check_links(out)
        if isinstance(config, (str, Path)):
            config = load_config(config, overrides, trust=not foreign)
        config = with_stated_sizes(config)
        if foreign:
            for _, kind, name in plugins_named(config):
                check_trusted(kind, name, source, trust=False)
            return cls(config, source, out, trust)
        return cls(with_start_hash(config), source, out, trust)

    def open(self, redo: str | None, say: Say) -> Run:
        """Open or make the run directory."""
        if redo is not None and any(step.name in ACTING for step in steps_from(step_named(redo))):
            Run(self.out, self.config, self.source, self.trust).ask_trust("run")
        run = open_run(self.config, self.out, source=self.source, redo=redo, trust=self.trust)
        if self.config.tracking.enabled and not is_sent(run):
            say(
                "tracking: nothing is sent, because only the run directory names the server"
                f" {self.config.tracking.uri}; add --trust to send"
            )
        return run


def _checked_before(asked: _Request, until: str) -> list[str]:
    """Check the configuration, unless everything is trained already."""
    run = Run(asked.out, asked.config, asked.source, asked.trust)
    recorded = run.log.records.get(VALIDATE.name)
    if recorded is not None and recorded.fingerprint == run.log.fingerprint(VALIDATE.name):
        return []
    run.ask_trust("run")
    found = check_experiment(asked.config, out=asked.out, source=asked.source)
    found.refuse()
    if VALIDATE in steps_before(step_named(until)) or until == VALIDATE.name:
        return short_lines(found, asked.out)
    return short_lines(found.without_validation, asked.out)


def _discard_altered_shards(run: Run, say: Say) -> None:
    from mixopt.corpus import Corpus

    try:
        Corpus.open(run.path / "corpus")
    except CorpusError as error:
        say(f"prepare: {error}")
        run.log.discard(PREPARE.name, only=True)


def _done(run: Run, step: Step, say: Say) -> Run:
    with open_tracker(run, say) as tracker:
        _do(run, step, tracker, say)
    return run


def _do(run: Run, step: Step, tracker: Tracker, say: Say) -> None:
    """Run one step unless it is done."""
    if run.is_done(step.name):
        return
    if step.name in ACTING:
        run.ask_trust(step.name)
    fault = run.log.fault(step.name)
    if fault is not None:
        say(f"{step.name}: {fault}; running it again")
    for before in steps_before(step)[-1:]:
        run.log.require(before.name)
    run.log.check_before(step.name)
    run.log.begin(step.name)
    start = time.monotonic()
    with tracked(run, step, tracker):
        ACTIONS[step](run, say)
        # Before the block ends: what is sent then must be in the manifest.
        seconds = time.monotonic() - start
        run.log.end(step.name, seconds)
    say(f"{step.name}: done in {duration(seconds)}")


def _forget_failed(run: Run) -> None:
    """Delete the results of trials that did not finish, and what was made from them."""
    from mixopt.sweeps import TrialFolder, read_entry

    for step in reversed([step for step in STEPS if step.trains]):
        folder = step.trial_folder(run.path)
        failed = [
            file.stem
            for file in step.trial_files(run.path)
            if read_entry(file)[1].status != "finished"
        ]
        for trial in failed:
            TrialFolder(folder).forget(trial)
        if failed:
            run.log.discard(step.name, keep=(folder.name,))
