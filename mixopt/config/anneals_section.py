"""The part `design.anneals`: each candidate source against a matched control.

    design:
      method: anneals
      anneals: {sources: [code, maths], share: 0.5, seeds: 3, base: natural}

A file of the base's weights is read when the section is, so that a recorded configuration needs no
other file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from mixopt.config.section import Positive, Section
from mixopt.config.validation_section import read_weights
from mixopt.errors import did_you_mean

if TYPE_CHECKING:
    from mixopt.config.yaml_sections import Location

SUM_TOLERANCE = 1e-6  # as of mixopt.mixture
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NATURAL: Literal["natural"] = "natural"
PLACE = ("design", "anneals")


def _base(given: Any, info: ValidationInfo) -> Any:
    """Read the weights of a base that is a file."""
    return read_weights(given, info) if isinstance(given, str) and given != NATURAL else given


class AnnealsConfig(Section):
    """Microanneals (mixopt.trials.first_round): which sources, at which share, against what."""

    sources: list[str] = Field(min_length=1, description="domains to compare, one anneal each")
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="share of the tokens that an anneal takes from its source"
    )
    seeds: Positive = Field(3, description="of the control and of every anneal")
    base: Annotated[Literal["natural"] | dict[str, Weight], BeforeValidator(_base)] = Field(
        NATURAL, description="natural: shares of the other domains; or their weights, or a file"
    )

    @model_validator(mode="after")
    def _consistent(self) -> AnnealsConfig:
        for name in self.sources:
            if self.sources.count(name) > 1:
                raise ValueError(f"sources: {name!r} is given twice")
        if isinstance(self.base, dict):
            total = sum(self.base.values())
            if abs(total - 1) > SUM_TOLERANCE:
                raise ValueError(f"base: weights add up to {total:.6g}, not to 1")
            for name in self.sources:
                if self.base.get(name, 0.0) > 0:
                    raise ValueError(
                        f"base: {name!r} is a source and has a weight of {self.base[name]:g} in the"
                        " base; leave it out of one of them"
                    )
        return self


def anneal_faults(anneals: AnnealsConfig, domains: Sequence[str]) -> Iterable[tuple[Location, str]]:
    """Find sources and base domains that are not there, and a base without domains."""
    for name in anneals.sources:
        if name not in domains:
            message = f"unknown domain {name!r}{did_you_mean(name, domains)}"
            yield (*PLACE, "sources"), message
    base = anneals.base
    for name in base if isinstance(base, dict) else ():
        if name not in domains:
            yield (*PLACE, "base"), f"unknown domain {name!r}{did_you_mean(name, domains)}"
    if set(domains) <= set(anneals.sources):
        yield (*PLACE, "sources"), "every domain is a source, so that none is left for the base"
