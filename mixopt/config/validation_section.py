"""The section `validate:`: baselines, seeds and length of validation runs.

    validate:
      baselines: [natural, uniform, unimax, best_trial, temperature: 0.7, {ours: hand.yaml}]

A file of weights is read when the section is, so that a recorded configuration needs no other file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from mixopt.config.section import FILES, Positive, Section
from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import read_yaml

Known = Literal["natural", "uniform", "unimax", "best_trial", "control"]
USUAL: tuple[Known, ...] = ("natural", "uniform", "unimax", "best_trial")
CONTROL: Known = "control"  # of microanneals (mixopt.trials.first_round)
KNOWN: tuple[Known, ...] = (*USUAL, CONTROL)
TEMPERATURE, OWN = "temperature", "proposal"
SUM_TOLERANCE = 1e-6  # as of mixopt.mixture


class BaselineConfig(Section):
    """One baseline: a known one, the natural mixture at a temperature, or weights of your own."""

    name: str = Field(description="its name in tables")
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="natural shares to the power of 1 / temperature, scaled to add up to 1"
    )
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(
        None, description="a mixture of your own"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> BaselineConfig:
        plain = self.temperature is None and self.weights is None
        if plain and self.name not in KNOWN:
            near = did_you_mean(self.name, KNOWN)
            raise ValueError(
                f"unknown baseline {self.name!r}{near}; known: {', '.join(KNOWN)},"
                " {temperature: T}, or {NAME: FILE} for a mixture of your own"
            )
        if self.weights is not None and self.name in KNOWN:
            raise ValueError(f"{self.name!r} is already a baseline: choose another name")
        total = sum((self.weights or {"": 1.0}).values())
        if abs(total - 1) > SUM_TOLERANCE:
            raise ValueError(f"{self.name!r}: weights add up to {total:.6g}, not to 1")
        if self.name.startswith(OWN):
            raise ValueError(f"{self.name!r}: names of proposals begin with '{OWN}': rename it")
        return self


def _baseline(given: Any, info: ValidationInfo) -> Any:
    """Return the fields of a baseline as people write it: a name, or a mapping of one entry."""
    if isinstance(given, str):
        return {"name": given}
    if not isinstance(given, Mapping) or len(given) != 1 or "name" in given:
        return given
    ((name, value),) = given.items()
    if name == TEMPERATURE:
        shown = f"{value:g}" if isinstance(value, (int, float)) else str(value)
        return {"name": f"{TEMPERATURE}_{shown}", "temperature": value}
    if isinstance(value, str):
        return {"name": name, "weights": read_weights(value, info)}
    return {"name": name, "weights": value} if isinstance(value, Mapping) else given


def read_weights(path: str, info: ValidationInfo) -> Any:
    """Return what a file of weights has by domain, as it is.

    Raises:
        ValueError: It cannot be read, or files may not be.
    """
    if info.context is not None and not info.context.get(FILES, True):
        raise ValueError(f"{path!r} is a file; a recorded configuration has the weights themselves")
    try:
        content = read_yaml(Path(path), error=ConfigError)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    weights = content.get("weights", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: expected 'weights:' with a number for each domain")
    return weights


Baseline = Annotated[BaselineConfig, BeforeValidator(_baseline)]


def _usual_baselines() -> list[BaselineConfig]:
    return [BaselineConfig(name=name) for name in USUAL]


class ValidateConfig(Section):
    """Training proposals against baselines, until a difference is significant or seeds run out."""

    seeds: Annotated[int, Field(ge=3)] = Field(3, description="of each mixture, initially")
    max_seeds: Annotated[int, Field(ge=3)] | None = Field(
        None,
        description="maximum seeds; seeds are added while an interval includes 0; twice `seeds` "
        "if omitted",
    )
    rounds: Positive = Field(
        2,
        description="maximum proposals; if one is not better, its runs are added to the trials "
        "and another is made",
    )
    tokens: Positive | None = Field(
        None, description="tokens of one run; twice the trials' if omitted"
    )
    baselines: list[Baseline] = Field(default_factory=_usual_baselines)

    @property
    def most_seeds(self) -> int:
        """Maximum number of seeds of each mixture."""
        return 2 * self.seeds if self.max_seeds is None else self.max_seeds

    @model_validator(mode="after")
    def _consistent(self) -> ValidateConfig:
        if self.most_seeds < self.seeds:
            raise ValueError(f"max_seeds {self.max_seeds} is below seeds {self.seeds}")
        names = [baseline.name for baseline in self.baselines]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"baselines: {name!r} is given twice")
        return self
