"""The script that a sweep would submit to a scheduler, for `--dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.errors import ConfigError
from mixopt.run_directory import DESIGN, SWEEP
from mixopt.system import silent

if TYPE_CHECKING:
    from mixopt.run_directory import Run


def submission_text(run: Run) -> str:
    """Return the script that the sweep of a run would submit; nothing is written.

    Raises:
        ConfigError: The executor submits nothing, or refuses an option.
        PluginError: The executor is not there, or an option is code that is not trusted.
    """
    from mixopt.pipeline.step_actions import means_of
    from mixopt.sweeps import Job, make_executor
    from mixopt.trials import Training

    asked, proxy = means_of(run), run.config.proxy
    site = asked.site(SWEEP.trial_folder(run.path), SWEEP.name, silent)
    job = Job(proxy.name, {}, run.path / "corpus", Training(proxy.tokens, device=proxy.device))
    executor = make_executor(asked.executor, asked.options, job, site)
    script = getattr(executor, "script", None)
    if script is None:
        raise ConfigError(
            f"sweep.executor: {asked.executor!r} submits no script; --dry-run works with slurm"
        )
    return str(script(_trials(run)))


def _trials(run: Run) -> int:
    """Count the trials that are trained next."""
    from mixopt.pipeline.rounds import noted_trials
    from mixopt.trials import TrialFolder

    if not run.is_done(DESIGN.name):
        return run.config.design.first_trials
    trials = noted_trials(run)
    folder = SWEEP.trial_folder(run.path)
    if not folder.is_dir():
        return len(trials)
    finished = TrialFolder(folder, run.trial_fingerprint(SWEEP.name)).results(trials)
    return max(1, len(trials) - len(finished))
