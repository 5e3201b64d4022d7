"""What all trials of a sweep begin with: which weights, and what they lose before any step.

A proxy whose trials begin with a checkpoint has `base_losses(corpus, training)`, which evaluates
that checkpoint on what trials are evaluated on. It is asked once, in a process of its own, and the
answer is `start.json` of the run.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from mixopt.corpus import Corpus
from mixopt.errors import ConfigError, RunError
from mixopt.system import check_seal, checked_as, in_processes, read_json, write_sealed
from mixopt.trials.proxy import Losses, Training, make_proxy

START_FILE = "start.json"
_FORMAT = "mixopt-start/1"
_MEND = "measure it again: mixopt run CONFIG --from sweep, or restore it from a copy"


class StartRecord(BaseModel):
    """What trials begin with.

    Attributes:
        weights: Hash of the weights.
        eval_tokens: Held-out tokens of each evaluation domain, at most.
        nats_per_token: By evaluation domain, before any step.
        bits_per_byte: By evaluation domain.
        tasks: What tasks measure, by their columns.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = _FORMAT
    weights: Annotated[str, Field(pattern="^[a-z0-9:]{1,80}$")]
    eval_tokens: Annotated[int, Field(ge=1, le=1 << 53, strict=True)]
    nats_per_token: dict[str, FiniteFloat]
    bits_per_byte: dict[str, FiniteFloat]
    tasks: dict[str, FiniteFloat]

    @classmethod
    def of(cls, weights: str, eval_tokens: int, losses: Losses) -> StartRecord:
        """Return the record of measured losses."""
        values = asdict(losses)
        del values["tokens"]
        fields = {"weights": weights, "eval_tokens": eval_tokens, **values}
        found: StartRecord = checked_as(cls, fields, "losses of what trials begin with")
        return found

    @classmethod
    def read(cls, folder: Path) -> StartRecord | None:
        """Read the record of a run directory; None where there is none."""
        file = folder / START_FILE
        if not file.exists():
            return None
        content = checked_as(dict[str, Any], read_json(file), str(file))
        if content.get("format") != _FORMAT:
            raise RunError(
                f"{file}: format {content.get('format')!r}, expected {_FORMAT!r}; {_MEND}"
            )
        check_seal(content, str(file), mend=_MEND)
        values = {name: value for name, value in content.items() if name != "sha256"}
        found: StartRecord = checked_as(cls, values, str(file))
        return found

    def write(self, folder: Path) -> None:
        """Write the record into a run directory."""
        write_sealed(folder / START_FILE, self.model_dump())

    def losses(self, unit: str) -> dict[str, float]:
        """Return all losses by the names of their columns, those of text in a unit."""
        text = self.bits_per_byte if unit == "bits_per_byte" else self.nats_per_token
        return {**text, **self.tasks}


def measure_start(name: str, options: dict[str, Any], corpus: Path, training: Training) -> Losses:
    """Return what the checkpoint of a proxy loses, asked of the proxy in another process."""
    job = (name, options, corpus, training)
    (losses,) = in_processes(
        _measured, [job], 1, died=lambda _: RunError("losses of what trials begin with: it died")
    )
    return losses


def _measured(job: tuple[str, dict[str, Any], Path, Training]) -> Losses:
    """Ask a proxy for the losses of what its trials begin with."""
    name, options, corpus, training = job
    proxy: Any = make_proxy(name, options)
    ask = getattr(proxy, "base_losses", None)
    if ask is None:
        raise ConfigError(f"proxy {name!r}: its trials begin with random weights, no checkpoint")
    found: Losses = ask(Corpus.open(corpus, verify=False), training)
    return found
