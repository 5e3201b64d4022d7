"""What the trials of a run begin with: its hash, the prefix that is trained first, its losses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import ConfigError, RunError
from mixopt.online import read_history
from mixopt.run_directory import SWEEP
from mixopt.system import Say, checked_as, read_yaml

if TYPE_CHECKING:
    from mixopt.config import Config
    from mixopt.run_directory import Run
    from mixopt.sweeps import Job

PREFIX = "prefix"  # folder of a run directory
_RECIPE = "recipe:"  # how the hash begins of what has yet to be trained


def with_start_hash(config: Config) -> Config:
    """Return an experiment with the hash of what its trials begin with."""
    proxy = config.proxy
    if proxy.start is None:
        return config
    begun = _made(proxy.name, proxy.all_options | {"start_hash": None})
    update = {"start_hash": str(begun.start_hash())}
    return config.model_copy(update={"proxy": proxy.model_copy(update=update)})


def check_start(config: Config, proxy: Any) -> None:
    """Check that what trials begin with can be opened, and has the tokens of the corpus."""
    _beginning(proxy, config.proxy.name).start_hash()
    check = getattr(proxy, "check_tokenizer", None)
    if callable(check):
        check(config.corpus.tokenizer)


def start_options(run: Run) -> dict[str, Any]:
    """Return what the proxy of a run is made with, where a prefix is there that prefix."""
    from mixopt.config import is_recipe
    from mixopt.run_directory import StartRecord

    proxy = run.config.proxy
    if proxy.start is None or not is_recipe(proxy.start):
        return proxy.all_options
    record = StartRecord.read(run.path)
    given = {"start": str(prefix_folder(run).absolute())}
    return proxy.all_options | given | {"start_hash": record.weights if record else None}


def prefix_folder(run: Run) -> Path:
    """Return where the prefix of a run is trained; another recipe has another folder."""
    return run.path / PREFIX / (run.config.proxy.start_hash or "").partition(":")[2]


def prefix_progress(run: Run) -> dict[str, int] | None:
    """Return how far the prefix of a run has come, `step` of `steps`; None where it has none."""
    folder = prefix_folder(run)
    begun = (folder / "config.yaml").exists()
    if not (run.config.proxy.start_hash or "").startswith(_RECIPE) or not begun:
        return None
    config = checked_as(dict[str, Any], read_yaml(folder / "config.yaml"), str(folder))
    steps = checked_as(int, config.get("training", {}).get("steps"), f"{folder}: training.steps")
    metrics = folder / "metrics.jsonl"
    step = read_history(folder).last if metrics.exists() and metrics.stat().st_size else 0
    return {"step": min(step, steps), "steps": steps}


def make_start(run: Run, say: Say) -> None:
    """Train what trials begin with, if that is asked for, and measure what it loses."""
    from mixopt.config import is_recipe

    proxy = run.config.proxy
    if proxy.start is None:
        return
    if is_recipe(proxy.start):
        begun = _made(proxy.name, proxy.all_options)
        begun.make_start(prefix_folder(run), lambda line: say(f"sweep: {line}"))


def record_start(run: Run, job: Job, say: Say) -> None:
    """Write what the checkpoint loses that trials begin with, unless that is written already."""
    from mixopt.run_directory import StartRecord, measure_start

    if run.config.proxy.start is None:
        return
    weights = str(_made(job.proxy, job.options).start_hash())
    found, tokens = StartRecord.read(run.path), job.training.eval_tokens
    if found is not None:
        _check_same(run, found.weights, weights)
        return
    losses = measure_start(job.proxy, job.options, job.corpus, job.training)
    StartRecord.of(weights, tokens, losses).write(run.path)
    say(f"sweep: trials begin with {run.config.proxy.start} (weights {weights[:12]})")


def _check_same(run: Run, before: str, now: str) -> None:
    if before != now:
        raise RunError(
            f"{run.path}: the weights that trials begin with have changed since the sweep began:"
            f" they hash to {now[:12]}, and {before[:12]} before; restore them, or redo it with:"
            f" {run.command('run', '--from', SWEEP.name)}"
        )


def _made(name: str, options: dict[str, Any]) -> Any:
    from mixopt.trials import make_proxy

    return _beginning(make_proxy(name, options), name)


def _beginning(proxy: Any, name: str) -> Any:
    """Return a proxy whose trials begin with a checkpoint."""
    if not callable(getattr(proxy, "start_hash", None)):
        raise ConfigError(
            f"proxy.from: trials of proxy {name!r} begin with no checkpoint; leave it out, or give"
            " name: continued"
        )
    return proxy
