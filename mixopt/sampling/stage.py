"""Stage: a part of a schedule with one mixture or a linear ramp; its checks, and their error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixopt.errors import MixtureError, SamplerError
from mixopt.mixture import Mixture
from mixopt.system import FieldPlace, PlainDict, dotted, shown_value

STAGE_FIELDS = ("name", "tokens", "steps", "mixture", "to")
MAX_TOKENS = 10**18  # of a stage, of a run, or in a domain's inventory


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        mixture: Share of the tokens of each domain, at its beginning.
        tokens: Length in tokens; or `steps`.
        steps: Length in global batches.
        to: The mixture at the end of a linear ramp; None: constant.
        name: A name for tables and messages.
    """

    mixture: Mixture
    tokens: int | None = None
    steps: int | None = None
    to: Mixture | None = None
    name: str | None = None

    def to_json(self) -> PlainDict:
        """Return the stage as plain values, without fields that are None."""
        content: PlainDict = {}
        for name in STAGE_FIELDS:
            value = getattr(self, name)
            if isinstance(value, Mixture):
                value = dict(value)
            if value is not None:
                content[name] = value
        return content


class ScheduleFieldError(SamplerError):
    """An error in a schedule, with its field."""

    def __init__(self, place: FieldPlace, message: str) -> None:
        super().__init__(f"schedule: {dotted(place)}: {message}")
        self.place = place
        self.message = message

    def of_file(self, where: str, lines: Mapping[FieldPlace, int]) -> SamplerError:
        """Return the error with file and line: that of the field, or of the nearest around it."""
        for length in range(len(self.place), 0, -1):
            around = self.place[:length]
            if around in lines:
                where = f"{where}:{lines[around]}"
                break
        if self.place:
            where = f"{where}: {dotted(self.place)}"
        return SamplerError(f"{where}: {self.message}")


def drawn_tokens(stage: Stage, domain: str, tokens: int) -> float:
    """Return how many of a stage's `tokens` are of a domain."""
    end = stage.to or stage.mixture
    return tokens * (stage.mixture[domain] + end[domain]) / 2


def check_stage(place: FieldPlace, stage: Stage, domains: tuple[str, ...]) -> None:
    """Raise ScheduleFieldError unless a stage has one length and mixtures of these domains."""
    if (stage.tokens is None) == (stage.steps is None):
        fault = "has no length"
        if stage.steps is not None:
            fault = "tokens and steps are both given"
        raise ScheduleFieldError((*place, "tokens"), f"{fault}; give one of tokens, steps")
    unit = "tokens" if stage.steps is None else "steps"
    check_whole((*place, unit), getattr(stage, unit), MAX_TOKENS)
    if not isinstance(stage.name, str | None):
        raise ScheduleFieldError((*place, "name"), f"{shown_value(stage.name)} is not text")
    _check_domains((*place, "mixture"), stage.mixture, domains)
    if stage.to is not None:
        _check_domains((*place, "to"), stage.to, domains)


def _check_domains(place: FieldPlace, mixture: Mixture, domains: tuple[str, ...]) -> None:
    try:
        mixture.over(domains)
    except MixtureError as error:
        raise ScheduleFieldError(place, str(error)) from None


def check_whole(place: FieldPlace, value: Any, maximum: int, minimum: int = 1) -> None:
    """Raise ScheduleFieldError unless a value is a whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        message = f"{shown_value(value)} is not a whole number from {minimum} to {maximum:,}"
        raise ScheduleFieldError(place, message)
