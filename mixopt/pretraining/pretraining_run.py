"""Pretrain a model, or resume a run: the library behind `mixopt pretrain`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
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
from mixopt.pretraining.loop import Loop
from mixopt.pretraining.model_start import with_origin, with_vocabulary
from mixopt.pretraining.parallel import Interruption, Ranks, joined
from mixopt.run_directory import working_in
from mixopt.system import Say, git_commit, is_worker, silent
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
        values = {"directory": str(self.path), **asdict(self), "checkpoint": str(self.checkpoint)}
        del values["path"], values["interrupted"]
        return {**values, "finished": self.is_finished}


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
    path, interruption = Path(out), Interruption()
    loaded = _read(config, overrides)
    with joined(loaded.device) as ranks, ExitStack() as exits:
        on_first(lambda: exits.enter_context(working_in(path)))
        resolved = on_first(lambda: _prepare(loaded, path, say))
        section = resolved.checkpoint
        with Checkpoints(
            path / CHECKPOINTS, ranks, keep=section.keep, keep_every=section.keep_every
        ) as checkpoints:
            last = on_first(checkpoints.newest_whole)
            if last is None or last[1].step < resolved.training.steps:
                loop = Loop(resolved, path, ranks, checkpoints)
                loop.begin() if last is None else loop.resume(*last)
                signals = interruption.listening(lambda: not ranks.is_first or is_worker(path))
                with _tracked(resolved, loop, path, ranks, say), signals:
                    loop.run(interruption)
        result = on_first(lambda: _result(resolved, path))
        return replace(result, interrupted=interruption.by_hand and not result.is_finished)


def result_lines(result: PretrainResult) -> list[str]:
    """Return the result as a table for the terminal."""
    names = [*result.weights, *(name for name in result.losses if name not in result.weights)]
    width = max(len("domain"), *(len(name) for name in names))
    lines = [f"{'domain':<{width}}   weight   held-out loss (nats per token)"]
    for name in names:
        weight = f"{result.weights[name]:8.2%}" if name in result.weights else f"{'-':>8}"
        loss = f"{result.losses[name]:.4f}" if name in result.losses else "-"
        lines.append(f"{name:<{width}} {weight}   {loss}")
    skipped = f", {result.skipped} of them skipped" if result.skipped else ""
    lines.append(f"{result.step:,} of {result.steps:,} steps{skipped}, {result.tokens:,} tokens")
    return lines


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


def _result(config: PretrainConfig, out: Path) -> PretrainResult:
    last = last_checkpoint(out / CHECKPOINTS)
    assert last is not None, "a run ends with a checkpoint"
    state = read_state(last)
    return PretrainResult(
        path=out,
        step=state.step,
        steps=config.training.steps,
        tokens=config.tokens_before(state.step),
        skipped=state.meter["skipped"],
        weights=state.weights,
        losses=state.losses,
        checkpoint=last,
    )


@contextmanager
def _tracked(
    config: PretrainConfig, loop: Loop, out: Path, ranks: Ranks, warn: Say
) -> Iterator[None]:
    """Track the run in MLflow during the block, on rank 0."""
    if not (config.tracking.enabled and ranks.is_first):
        yield
        return
    with Tracker(config.tracking, config.name, out, warn) as tracker:
        tracker.start(
            "pretrain",
            _params(config, ranks),
            code_tags(run_fingerprint(config), git_commit()),
            name=f"{out.resolve().name}/pretrain",
        )
        tracker.add("pretrain", lines=METRICS)
        tracker.files("pretrain", [out / "config.yaml"])
        yield
        if loop.experts is not None and loop.experts.record.last_step:
            from mixopt.reporting import draw_experts, experts as experts_of

            try:
                tracker.files("pretrain", draw_experts(experts_of(out)))
            except MixoptError as error:
                warn(f"experts are not drawn: {error}")
        tracker.files("pretrain", [out / MIXTURE_LOG])
        if loop.is_finished:
            tracker.end("pretrain")


def _params(config: PretrainConfig, ranks: Ranks) -> dict[str, Any]:
    origin = config.model.origin
    return {
        "seed": config.seed,
        "ranks": ranks.count,
        "parallel": config.parallel,
        "model": config.model.name,
        **{f"model/{name}": value for name, value in config.model.options.items()},
        **({"model/from": origin.checkpoint, "model/sha256": origin.sha256} if origin else {}),
        **{f"training/{n}": v for n, v in config.training.model_dump(mode="json").items()},
        **({"estimator": config.estimator.name} if config.estimator else {}),
    }
