"""A schedule from a run or a mixture, with the stages that somebody asks for in a line.

    main:90%,anneal:10%:anneal.yaml              another mixture for the last tenth
    main:rest,anneal:100e9:to:runs/late          gone to linearly; a run has its recommendation

A stage is NAME:LENGTH, NAME:LENGTH:MIXTURE or NAME:LENGTH:to:MIXTURE. A length is in tokens, in
per cent of the whole, or `rest`. A stage without a mixture has the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixopt.config import read_inventory
from mixopt.errors import ConfigError
from mixopt.mixture import Mixture
from mixopt.pipeline.exporting import ExportAsked, known_mixture
from mixopt.sampling import Schedule, Stage
from mixopt.system import __version__

ONE_STAGE = "main:rest"
_FORM = "expected NAME:LENGTH, NAME:LENGTH:MIXTURE or NAME:LENGTH:to:MIXTURE"


def schedule_from(
    source: str | Path,
    *,
    tokens: int | None = None,
    batch: int = 1024,
    sequence_length: int = 4096,
    stages: str = ONE_STAGE,
    max_epochs: float | None = None,
    inventory: Path | None = None,
    trust: bool = False,
) -> Schedule:
    """Return a schedule of a run's recommendation, or of a mixture in a file.

    Args:
        source: YAML of a mixture, a proposal or a recommendation; or a run directory.
        tokens: Length of the whole run; that of the experiment where it is a run.
        batch: Sequences of a step, over all ranks.
        sequence_length: Tokens predicted of a sequence.
        stages: As the module says.
        max_epochs: How often a domain may be seen over all stages; the experiment's for a run.
        inventory: A YAML file of distinct tokens by domain; what a run knows where not given.
        trust: Whether a run directory is trusted.

    Raises:
        ConfigError: Stages that cannot be read, or do not add up to `tokens`.
        SamplerError: A schedule that cannot be, such as one of too many epochs.
    """
    asked = ExportAsked(inventory=inventory, tokens=tokens)
    mixture, known = known_mixture(Path(source), asked, trust)
    whole = known.get("tokens") if tokens is None else tokens
    if whole is None:
        raise ConfigError("schedule: the length of the run is missing; give --tokens, such as 1e12")
    sizes = known.get("inventory")
    if inventory is not None:
        sizes = read_inventory(inventory, mixture.domains)
    return Schedule(
        stages=tuple(_Stages(whole, mixture, trust).read(stages)),
        batch=batch,
        sequence_length=sequence_length,
        max_epochs=known.get("max_epochs") if max_epochs is None else max_epochs,
        inventory=None if sizes is None else {name: sizes[name] for name in mixture.domains},
        provenance={
            "mixopt": __version__,
            "source": Path(source).name,
            "mixture": mixture.fingerprint,
        },
    )


class _Stages:
    """Reads the stages of one schedule."""

    def __init__(self, tokens: int, first: Mixture, trust: bool) -> None:
        self._tokens, self._mixture, self._trust = tokens, first, trust

    def read(self, text: str) -> list[Stage]:
        """Return the stages, whose lengths add up."""
        parts = [part.split(":", 2) for part in text.split(",")]
        lengths = self._lengths([part[1] if len(part) > 1 else "" for part in parts])
        return [self._stage(part, length) for part, length in zip(parts, lengths, strict=True)]

    def _stage(self, part: Sequence[str], tokens: int) -> Stage:
        first, to = self._mixture, None
        if len(part) == 3:
            name = part[2].removeprefix("to:")
            if not name:
                raise ConfigError(f"--stages: {':'.join(part)!r}: {_FORM}")
            given, _ = known_mixture(Path(name), ExportAsked(), self._trust)
            to = given if part[2].startswith("to:") else None
            first = self._mixture if to is not None else given
        self._mixture = first if to is None else to
        return Stage(mixture=first, to=to, tokens=tokens, name=part[0].strip())

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        given = [None if text.strip() == "rest" else self._length(text) for text in texts]
        left = self._tokens - sum(length for length in given if length is not None)
        if given.count(None) > 1:
            raise ConfigError("--stages: 'rest' is given twice; only one stage can take the rest")
        if None in given and left <= 0:
            raise ConfigError(
                f"--stages: the others use all {self._tokens:,} tokens; nothing is left for 'rest'"
            )
        if None not in given and left:
            what = "a gap" if left > 0 else "an overlap"
            raise ConfigError(
                f"--stages: the sum is {self._tokens - left:,} of {self._tokens:,} tokens, {what}"
                f" of {abs(left):,}; set one length to 'rest'"
            )
        return [left if length is None else length for length in given]

    def _length(self, text: str) -> int:
        part = text.strip().removesuffix("%")
        try:
            number = float(part)
        except ValueError:
            raise ConfigError(f"--stages: {text!r} is not a length; {_FORM}") from None
        tokens = self._tokens * number / 100 if text.strip().endswith("%") else number
        if not 1 <= tokens <= 1e18:
            raise ConfigError(f"--stages: {text!r} is less than one token")
        return round(tokens)
