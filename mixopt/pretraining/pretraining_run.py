"""Pretrain a model, or resume a run: the library behind `mixopt pretrain`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError, OtherRankError
from mixopt.online import MIXTURE_LOG, make_estimator, on_first
from mixopt.pretraining.checkpoints import CHECKPOINTS, Checkpoints, last_checkpoint, read_state
from mixopt.pretraining.config import PretrainConfig, load_pretraining
from mixopt.pretraining.directory import (
    METRICS,
    check_directory,
    prepare_text,
    record_config,
    run_fingerprint,
)
from mixopt.pretraining.interruption import Interruption
from mixopt.pretraining.loop import Loop
from mixopt.pretraining.model_start import with_origin, with_vocabulary
from mixopt.pretraining.ranks import Ranks, joined
from mixopt.reporting import table_text
from mixopt.run_directory import working_in
from mixopt.system import Say, git_commit, is_worker, loss_text, silent
from mixopt.tracking import Tracker, code_tags


@dataclass(frozen=True)
class PretrainResult:
    """State of a run at its last checkpoint.

    Attributes:
        path: The run directory.
        step: Completed steps.
        steps: Steps of the whole run.
        tokens: Tokens trained on.
        skipped: Steps that were skipped because a loss or gradient was not finite.
        weights: The mixture of the next batch.
        losses: Last held-out losses, nats per token.
        checkpoint: The folder of the last checkpoint.
        interrupted: Whether Ctrl-C stopped it before its end.
    """

    path: Path
    step: int
    steps: int
    tokens: int
    skipped: int
    weights: Mapping[str, float]
    losses: Mapping[str, float]
    checkpoint: Path
    interrupted: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        values = asdict(self)
        del values["path"]
        del values["interrupted"]
        values["checkpoint"] = str(self.checkpoint)
        values["finished"] = self.is_finished
        return {"directory": str(self.path)} | values

    def __str__(self) -> str:
        """Return the result as a table for the terminal."""
        skipped = f", {self.skipped} of them skipped" if self.skipped else ""
        rows: list[tuple[str, str, str]] = []
        for name in dict.fromkeys([*self.weights, *self.losses]):
            weight = f"{self.weights[name]:.2%}" if name in self.weights else ""
            rows.append((name, weight, loss_text(self.losses.get(name))))
        title = f"{self.step:,} of {self.steps:,} steps{skipped}, {self.tokens:,} tokens"
        return table_text(title, ("domain", "weight", "held-out loss (nats per token)"), rows)


def pretrain(
    config: str | Path | PretrainConfig,
    out: str | Path,
    overrides: Sequence[str] = (),
    *,
    say: Say = silent,
) -> PretrainResult:
    """Pretrain a model; the same call resumes from the last checkpoint.

    Under torchrun every process calls it. Results depend on the configuration only: a run that was
    killed at any time and resumed has the same batches and the same mixture log as an undisturbed
    run.

    Args:
        config: A YAML file, or a loaded configuration.
        out: The run directory, shared by all ranks.
        overrides: Strings `a.b=value` that override fields of the file.
        say: Called on rank 0 with each line of progress.

    Returns:
        The state of the run; unfinished after SIGTERM or Ctrl-C.

    Raises:
        MixoptError: Invalid input, or training diverged; the message says how to fix it. Ranks
            other than 0 raise OtherRankError, which is not reported.
    """
    path = Path(out)
    interruption = Interruption()
    loaded = _read(config, overrides)
    with joined(loaded.device) as ranks, ExitStack() as exits:
        on_first(lambda: exits.enter_context(working_in(path)))
        resolved = on_first(lambda: _prepare(loaded, path, say))
        with Checkpoints(path / CHECKPOINTS, ranks, resolved.checkpoint) as checkpoints:
            last = on_first(checkpoints.newest_whole)
            if last is None or last[1].step < resolved.training.steps:
                loop = Loop(resolved, path, ranks, checkpoints)
                if last is None:
                    loop.begin()
                else:
                    checkpoint, state = last
                    loop.resume(checkpoint, state)
                signals = interruption.listening(lambda: ranks.rank > 0 or is_worker(path))
                with _tracked(resolved, loop, path, ranks, say), signals:
                    loop.run(interruption)
        return on_first(lambda: _result(resolved, path, interruption))


def _read(config: str | Path | PretrainConfig, overrides: Sequence[str]) -> PretrainConfig:
    if isinstance(config, PretrainConfig):
        return config
    try:
        return load_pretraining(config, overrides)
    except MixoptError as error:
        if int(os.environ.get("LOCAL_RANK", "0")):
            raise OtherRankError(str(error)) from error
        raise


def _prepare(config: PretrainConfig, out: Path, say: Say) -> PretrainConfig:
    """Find the start checkpoint, prepare the text, and record the configuration."""
    if config.estimator is not None:  # raise its errors before minutes of reading text
        make_estimator(config.estimator.name, config.estimator.options)
    resolved, origin = with_origin(config, out)
    check_directory(resolved, out)
    record_config(resolved, out)  # marks the directory as a run that can be restarted
    prepare_text(resolved, out, say)
    resolved = with_vocabulary(resolved, out, origin, say)
    record_config(resolved, out)
    return resolved


def _result(config: PretrainConfig, out: Path, interruption: Interruption) -> PretrainResult:
    last = last_checkpoint(out / CHECKPOINTS)
    assert last is not None, "a run ends with a checkpoint"
    state = read_state(last)
    steps = config.training.steps
    return PretrainResult(
        path=out,
        step=state.step,
        steps=steps,
        tokens=config.tokens_before(state.step),
        skipped=state.meter["skipped"],
        weights=state.weights,
        losses=state.losses,
        checkpoint=last,
        interrupted=interruption.by_hand and state.step < steps,
    )


@contextmanager
def _tracked(
    config: PretrainConfig, loop: Loop, out: Path, ranks: Ranks, warn: Say
) -> Iterator[None]:
    """Track the run in MLflow during the block, on rank 0."""
    if ranks.rank:
        yield
        return
    with Tracker(config.tracking, config.name, out, warn) as tracker:
        tracker.start(
            "pretrain",
            _params(config, ranks),
            code_tags(run_fingerprint(config), git_commit()),
            name=f"{out.resolve().name}/pretrain",
        )
        tracker.add("pretrain", lines=METRICS, files=[out / "config.yaml"])
        yield
        has_counts = loop.experts is not None and loop.experts.record.last_step
        if tracker.enabled and has_counts:
            _add_expert_figures(tracker, out, warn)
        tracker.add("pretrain", files=[out / MIXTURE_LOG])
        if loop.is_finished:
            tracker.end("pretrain")


def _add_expert_figures(tracker: Tracker, out: Path, warn: Say) -> None:
    from mixopt.reporting import draw_experts, experts

    try:
        tracker.add("pretrain", files=draw_experts(experts(out)))
    except MixoptError as error:
        warn(f"experts are not drawn: {error}")


def _params(config: PretrainConfig, ranks: Ranks) -> dict[str, Any]:
    """Return the parameters of the run in MLflow."""
    params: dict[str, Any] = {
        "seed": config.seed,
        "ranks": ranks.count,
        "parallel": config.parallel,
        "model": config.model.name,
    }
    params |= {f"model/{name}": value for name, value in config.model.options.items()}
    if config.model.origin is not None:
        params["model/from"] = config.model.origin.checkpoint
        params["model/sha256"] = config.model.origin.sha256
    training = config.training.model_dump(mode="json")
    params |= {f"training/{name}": value for name, value in training.items()}
    if config.estimator is not None:
        params["estimator"] = config.estimator.name
    return params
