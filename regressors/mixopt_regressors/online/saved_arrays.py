"""State as JSON, with domains and evaluation domains identified by name.

The suffix of a name says its axes: `log_weights_D` has a value for each training domain,
`matrix_MD` a row for each evaluation domain. What has no such suffix is kept as it is.

Shapes: D domains, M evaluation domains; other letters are axes without names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.system import Array, StateFields

Names = Mapping[str, Sequence[str]]  # of the domains, under D, and of the evaluation domains, M
_SUFFIX = re.compile(r"_([A-Z]+)$")


def pack(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them: arrays as lists, NaN as null."""
    return {name: _listed(value) if _axes(name) else value for name, value in values.items()}


def unpack(
    packed: Mapping[str, Any], before: Names, here: Names, at_start: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of a state, their named axes in the order that is here."""
    values = {name: _unpacked(name, packed, before, here, at_start[name]) for name in at_start}
    _check_lengths(values, at_start)
    return values


def _axes(name: str) -> str:
    found = _SUFFIX.search(name)
    return found[1] if found else ""


def _listed(value: Array | None) -> Any:
    if value is None:
        return None
    return np.where(np.isnan(value), None, value.astype(object)).tolist()  # type: ignore[call-overload]


def _unpacked(
    name: str, packed: Mapping[str, Any], before: Names, here: Names, at_start: Any
) -> Any:
    if name not in packed:
        raise EstimatorError(f"state: it has no {name!r}")
    value, axes = packed[name], _axes(name)
    if not axes:
        return _plain(name, value, at_start)
    if isinstance(value, (list, tuple)) and not value:  # an empty list has lost its other axes
        if np.size(at_start):
            raise EstimatorError(
                f"state: {name!r} has no values, but it has some at the start of a run"
            )
        return np.array(at_start, np.float64)
    return _mapped(_array(name, value, before, np.shape(at_start)), axes, before, here, at_start)


def _plain(name: str, value: Any, at_start: Any) -> Any:
    """Return what is not an array, of the kind that it is of at the start of a run."""
    fields = StateFields({name: value}, "state", EstimatorError)
    if isinstance(at_start, (bool, np.bool_)):
        return fields.flag(name)
    if isinstance(at_start, (int, np.integer)):
        return fields.whole(name)
    if isinstance(at_start, (float, np.floating)):
        return fields.number(name)
    return fields.text(name) if isinstance(at_start, str) else fields.texts(name)


def _array(name: str, value: Any, before: Names, start: tuple[int, ...]) -> Array:
    """Return an array whose axes are as long as their names are many, or as at the start."""
    try:
        array = np.array(value, np.float64)  # null becomes NaN
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EstimatorError(f"state: {name!r} is not an array of numbers") from error
    wanted = tuple(
        len(before[letter]) if letter in before else length or -1
        for letter, length in zip(_axes(name), start, strict=True)
    )
    fits = array.ndim == len(wanted) and all(
        size in {-1, length} for size, length in zip(wanted, array.shape, strict=True)
    )
    if not fits:
        raise EstimatorError(f"state: {name!r} has shape {array.shape}, not that of its domains")
    if np.isinf(array).any():
        raise EstimatorError(f"state: {name!r} has a number that is not finite")
    return array


def _check_lengths(values: Mapping[str, Any], at_start: Mapping[str, Any]) -> None:
    """Check that axes of one letter that grow have grown alike, as mixtures and their losses do."""
    lengths: dict[str, tuple[str, int]] = {}
    for name, value in values.items():
        axes = zip(_axes(name), np.shape(at_start[name]), np.shape(value), strict=False)
        for letter, length in ((one, now) for one, begun, now in axes if begun == 0):
            first, known = lengths.setdefault(letter, (name, length))
            if known != length:
                raise EstimatorError(
                    f"state: {name!r} has {length} along {letter}, and {first!r} has {known}"
                )


def _mapped(array: Array, axes: str, before: Names, here: Names, at_start: Any) -> Array:
    new = np.zeros((1,) * array.ndim, bool)
    for axis, letter in enumerate(axes):
        if letter in here:
            places = {name: place for place, name in enumerate(before[letter])}
            found = np.array([places.get(name, -1) for name in here[letter]])
            array = np.take(array, found, axis=axis)
            new = new | np.expand_dims(found < 0, tuple(set(range(array.ndim)) - {axis}))
    start = at_start if np.shape(at_start) == array.shape else np.nan
    mapped: Array = np.where(new, start, array)
    return mapped
