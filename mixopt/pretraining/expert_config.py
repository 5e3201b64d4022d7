"""`experts` of a pretraining run: balancing of a model's experts, and counting."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from mixopt.config import Positive, Section
from mixopt.errors import RoutingError
from mixopt.routing import Thresholds


def _are_thresholds(values: dict[str, float]) -> dict[str, float]:
    try:
        Thresholds().with_values(values, "thresholds")
    except RoutingError as error:
        raise ValueError(str(error).removeprefix("thresholds: ")) from error
    return values


def _are_numbers(values: Any) -> Any:
    """Refuse truths, which would be read as 0 and 1."""
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, bool):
            raise ValueError(f"{name}: {value} is not a number")
    return values


def _word(value: Any) -> Any:
    """Read `off`, which YAML takes for false, as the word that it is."""
    return "off" if value is False else value


Balancing = Annotated[Literal["auto", "bias", "auxiliary", "off"], BeforeValidator(_word)]
_Thresholds = Annotated[
    dict[str, float], AfterValidator(_are_thresholds), BeforeValidator(_are_numbers)
]
Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class ExpertsConfig(Section):
    """What a mixture-of-experts model is balanced by, and counts of what it gives to which expert.

    Counts change no result.
    """

    enabled: Literal["auto"] | bool = Field(
        "auto",
        description="auto: where the model has routers; true: an error where it has none; false",
    )
    every: Positive | None = Field(
        None, description="steps of a window of counts on disk; a twentieth of the run if omitted"
    )
    thresholds: _Thresholds | None = Field(
        None,
        description="thresholds of diagnoses, such as {busiest: 3, dead: 0.1}; "
        "docs/experts/diagnoses.md has the names",
    )
    ranks: Positive | None = Field(
        None,
        description="ranks of expert parallelism whose worst load is told; up to 8 that divide the "
        "experts if omitted",
    )
    balance: Balancing | None = Field(
        None,
        description="how the load of experts is balanced: bias (DeepSeek-V3's rule), auxiliary "
        "(a loss that the model returns), off; auto, as the model's family does, if "
        "omitted",
    )
    bias_rate: Rate | None = Field(
        None,
        description="how much a step moves each bias; if omitted, at most 0.02, in proportion to "
        "how uneven the load is",
    )
    adapters: list[str] | None = Field(
        None,
        description="how to read routers that mixopt does not know: package.module:Name of a "
        "RouterAdapter of yours, or of a list of some",
    )
