"""Observations are checked before they change anything.

Shapes: D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online import HeldOut, Need, Observation, Setting
from mixopt.system import Array


def check(
    observation: Observation, name: str, setting: Setting, needs: frozenset[Need], step: int
) -> None:
    """Check an observation against the run and against what an estimator needs.

    Args:
        observation: What was told.
        name: The estimator's, for the message.
        setting: The run.
        needs: What must be there.
        step: That of the observation before.

    Raises:
        EstimatorError: A step that goes back, a shape that does not fit, a number that is not
            finite or a count below 0, or something needed that is missing.
    """
    where = f"{name}: step {observation.step}"
    if observation.step < step:
        raise EstimatorError(f"{where}: it comes after step {step}")
    count_D = observation.loss_count_D
    for what, array in (("tokens", observation.tokens_D), ("loss counts", count_D)):
        _check(f"{where}: {what}", array, setting.domains, least=0.0)
    _check_counted(f"{where}: loss sums", observation.loss_sum_D, count_D, setting.domains)
    for what, need, given_D in (
        ("excess loss sums", "excess_loss", observation.excess_sum_D),
        ("alignment", "alignment", observation.alignment_D),
    ):
        if given_D is not None:
            _check_counted(f"{where}: {what}", given_D, count_D, setting.domains)
        elif need in needs:
            raise EstimatorError(f"{where}: {what}: needed and missing")
    if observation.held_out is not None:
        _check_held_out(where, observation.held_out, setting.evaluations)


def _check_held_out(where: str, held_out: HeldOut, evaluations: Sequence[str]) -> None:
    _check(f"{where}: held-out losses", held_out.losses_M, evaluations)
    _check(f"{where}: errors of held-out losses", held_out.errors_M, evaluations, least=0.0)


def _check_counted(what: str, array_D: Array, count_D: Array, names: Sequence[str]) -> None:
    """Check what says nothing of a domain that was not counted."""
    _check_shape(what, array_D, names)
    _check(what, np.where(np.asarray(count_D) > 0, array_D, 0.0), names)


def _check(what: str, array: Array, names: Sequence[str], least: float = -np.inf) -> None:
    _check_shape(what, array, names)
    good = np.isfinite(array) & (array >= least)
    if not good.all():
        place = int(np.argmin(good))
        raise EstimatorError(f"{what}: {array[place]} for {names[place]!r}")


def _check_shape(what: str, array: Array, names: Sequence[str]) -> None:
    if np.shape(array) != (len(names),):
        raise EstimatorError(
            f"{what}: shape {np.shape(array)}; one value each of {', '.join(names)}"
        )
