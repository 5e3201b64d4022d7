"""The what-if: predict any mixture of a run or a fit in the page, with the limits it breaks.

Page and notebook use the same data and scripts (assets/what_if.js and law*.js). A fit is exported
as plain numbers, from which `makeLaw` in assets/law.js predicts as Python does, to 1e-6. A fit
without such a law is emulated (emulator.py), and the page shows the largest errors. The objective
is the maximum of a few weighted sums of the law's columns: the losses, then further columns for an
objective with pilots. Arrays are base64 of little-endian numbers, equal ones once.

    {"arrays": [{"type": "f8", "data": "..."}, ...], "data": {..., {"$array": 0}, ...}}

Shapes: N trials, D domains, M losses, G guarded losses.
"""

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from mixopt.constraints import Radius
from mixopt.difference import shown_factor, unit_text
from mixopt.errors import PluginError
from mixopt.fitting import Fit, predict_with_std, supports
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import PROPOSAL, ProposalRequest, named
from mixopt.reporting.answer import capital
from mixopt.reporting.emulator import HELD_OUT, MAX_ERROR, Emulator, Errors, Sliders
from mixopt.reporting.page import Section, asset, json_text, part
from mixopt.reporting.terminal import own_baselines
from mixopt.run_directory import Run, request_of
from mixopt.system import IntArray, share_text

# Laws that assets/law.js implements.
KINDS = ("gaussian_process", "skills", "epochs", "phases", "mean", "corrected")
MARK = "$array"
TYPES = {"f8": "<f8", "f4": "<f4", "i4": "<i4", "u1": "|u1"}
MAX_BYTES = 2_500_000  # of data; larger pages are slow to open and to send
SCRIPTS = (
    "law.js",
    "law_gaussian.js",
    "law_curves.js",
    "law_pilots.js",
    "law_emulated.js",
    "what_if.js",
)
START = """
renderWhatIf(document.getElementById("what-if-view"),
  readWhatIf(document.getElementById("what-if-data").textContent));
"""


def what_if_section(run: Run) -> Section:
    """Return the section of the page, or the reason why there is none."""
    try:
        packed = packed_json(what_if_data(request_of(run, run.fit), starts_of(run)))
        if len(packed) > MAX_BYTES:
            raise PluginError(
                f"the what-if is left out: the fitted law takes {len(packed) / 1e6:.1f} MB, more"
                f" than the {MAX_BYTES / 1e6:.1f} MB that a page may carry; regressor skills has a"
                " small one"
            )
    except PluginError as error:
        return Section("what-if", "What if", part("paragraph", capital(f"{error}.")))
    body = Markup(
        '<div id="what-if-view"><noscript><p>Sliders need JavaScript.</p></noscript></div>\n'
        f'<script type="application/json" id="what-if-data">{packed}</script>\n'
    )
    script = f'(() => {{\n"use strict";\n{view_script()}{START}}})();\n'
    return Section("what-if", "What if", body, asset("what_if.css"), script)


def view_script() -> str:
    """Return JavaScript with `readWhatIf(text)`, `makeLaw(data)` and `renderWhatIf(root, data)`."""
    return "\n".join(asset(name) for name in SCRIPTS)


def starts_of(run: Run) -> dict[str, Mixture]:
    """Return the mixtures to start from, the default first."""
    starts: list[tuple[str, Mixture]] = []
    proposals: tuple[str, ...] = (PROPOSAL,)
    if run.is_done("validate"):
        starts.append(("Recommended", run.recommendation.mixture))
        proposals = run.validation.proposals
    name = named(PROPOSAL, proposals).removeprefix("the ").capitalize()
    starts += [(name, run.proposal.mixture), ("Natural", run.natural), *own_baselines(run).items()]
    chosen: dict[str, Mixture] = {}
    for name, mixture in starts:
        if mixture not in chosen.values():
            chosen[name] = mixture
    return chosen


def what_if_data(question: ProposalRequest, starts: Mapping[str, Mixture]) -> dict[str, Any]:
    """Return plain values and arrays, for `packed_json` and `renderWhatIf`."""
    fit = question.fit
    domains = fit.domains
    natural = question.natural.over(domains)
    mixtures = [mixture.over(domains) for mixture in starts.values()]
    weights_SD = np.stack([mixture.array for mixture in mixtures])
    sliders = Sliders(weights_SD, natural.array, _phase_of_domains(question))
    model, note = page_law(fit, sliders)
    return {
        "domains": list(domains),
        "targets": list(fit.targets),
        "phases": sliders.phases_D,
        "natural": natural.array,
        "starts": list(zip(starts, weights_SD, strict=True)),
        "slider_top": sliders.top,
        "note": note,
        "values": [fit.baseline(mixture, fit.objective)[0] for mixture in (natural, mixtures[0])],
        **law_data(fit, model=model),
        "constraints": _constraints(question),
        "trials": {"names": fit.trials.table["trial"].to_list(), "weights": fit.data.weights_ND},
    }


def _phase_of_domains(question: ProposalRequest) -> IntArray:
    """Return the phase of each domain; weights of a phase add up to its share of the tokens."""
    phases = 1 if question.phases is None else len(question.phases)
    domains = len(question.fit.domains)
    return np.arange(domains) * phases // domains


def _constraints(question: ProposalRequest) -> dict[str, Any]:
    limits = question.constraints
    domains = question.fit.domains
    places = [limits.domains.index(name) for name in domains]
    inventory = question.inventory or {}
    # Phases share the text of a domain, so caps on epochs are limits on groups of cells.
    texts = list(domains)
    if question.phases is not None:
        texts = [name.partition("/")[2] for name in domains]
    alone = [limit for limit in limits.linear if limit.target_tokens and len(limit.domains) == 1]
    epochs = {limit.domains[0]: limit.setting for limit in alone}
    return {
        "low": limits.lower_D[places],
        "high": limits.upper_D[places],
        "groups": [
            {
                "name": group,
                "members": [domains.index(name) for name in members],
                "low": low,
                "high": high,
            }
            for group, (members, low, high) in limits.groups.items()
        ],
        "inventory": np.array([float(inventory.get(name, 1)) for name in texts]),
        # Without an inventory there are no epochs, whatever the length.
        "target_tokens": question.search.target_tokens if inventory else None,
        "max_epochs": [epochs.get(name) for name in domains],
        "radius": _radius(question),
        "unchecked": _unchecked(question),
        "guardrails": _guardrails(question),
    }


def _radius(question: ProposalRequest) -> dict[str, Any] | None:
    """Return the radius around a mixture, or None."""
    for limit in question.constraints.convex:
        if isinstance(limit, Radius):
            return {
                "kind": limit.kind,
                "size": limit.upper,
                "reference": limit.name,
                "weights": limit.reference.over(question.fit.domains).array,
            }
    return None


def _unchecked(question: ProposalRequest) -> list[str]:
    """Describe the convex limits that the page cannot evaluate: those of plug-ins."""
    return [
        f"{limit.describe()} ({limit.source})"
        for limit in question.constraints.convex
        if not isinstance(limit, Radius)
    ]


def _guardrails(question: ProposalRequest) -> dict[str, Any] | None:
    """Return the guarded losses, their reference, and by how much they may be worse."""
    limits = question.constraints.guardrails
    fit = question.fit
    if limits is None:
        return None
    reference = question.compared[limits.mixture].array
    guards = limits.on(fit.objective, reference)
    return {
        "reference": guards.reference,
        "weights": guards.reference_D,
        "fixed": [None if np.isnan(fixed) else fixed for fixed in guards.fixed_G.tolist()],
        "floors": guards.floors_G.tolist(),
        "targets": list(guards.columns),
        "margins": guards.margins_G,
    }


def page_law(fit: Fit, sliders: Sliders) -> tuple[dict[str, Any], str | None]:
    """Return the law that the page predicts with, and a note on its errors if it is emulated.

    Raises:
        PluginError: The fit has no exact law, and an emulator of it is off by too much.
    """
    exact = exact_law(fit)
    if exact is not None:
        return exact, None
    emulator = Emulator.of(partial(predict_with_std, fit.regressor), sliders)
    error = emulator.errors[1].losses
    if error > MAX_ERROR:
        raise PluginError(
            f"the what-if is left out: no page computes the law of regressor {fit.name!r}, and"
            f" emulated losses are off by up to {error:.0%} of their spread after one slider has"
            f" moved (at most {MAX_ERROR:.0%}); use auto or one of its members"
        )
    return emulator.plain_law(), emulator_note(emulator.errors, sliders.top)


def exact_law(fit: Fit) -> dict[str, Any] | None:
    """Return the fit's law if the page's scripts implement all its kinds."""
    if not supports(fit.regressor, "plain_law"):
        return None
    law = fit.regressor.plain_law()
    return law if set(_kinds(law)) <= set(KINDS) else None


def emulator_note(errors: Mapping[int, Errors], top: float) -> str:
    """Return the sentence beside the sliders on the largest errors of an emulator."""
    parts = []
    for moves, (losses, stds) in errors.items():
        sliders = "one slider has" if moves == 1 else f"{moves} sliders have"
        parts.append(
            f"after {sliders} moved, losses {share_text(losses)} of their spread and standard"
            f" deviations {share_text(stds)}"
        )
    held_out = len(errors) * HELD_OUT
    return (
        f"Predictions here are interpolated from the fit's. Largest errors at {held_out:,} other"
        f" mixtures with shares up to {top:.0%}: {'; '.join(parts)}."
    )


def law_data(
    fit: Fit, objective: Objective | None = None, model: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the entries `law` and `objective` of a page's data; by default of the exact law."""
    objective = objective or fit.objective
    model = model or exact_law(fit)
    calibrations = fit.calibrations
    value = fit.objective_calibration(objective)
    agrees = None  # column of the loss that equals the objective (`Fit.predict`)
    if objective.kind == "target":
        agrees = objective.columns[0]
    value_sign = -1.0 if objective.is_higher else 1.0
    return {
        "law": {
            "model": model,
            "intervals": {
                "factors": np.array([calibration.factor for calibration in calibrations]),
                "floors": np.array([calibration.floor for calibration in calibrations]),
                "locals": [calibration.local for calibration in calibrations],
                "value": asdict(value),
                "tried": fit.tried_best(objective),
                "reach": {
                    "weights": fit.data.weights_ND,
                    "reach": fit.reach.reach,
                    "radius": fit.reach.radius,
                },
                "agrees": agrees,
                # For shares of right answers; 0 for other losses.
                "item_variances": fit.item_variances,
                "items": [fit.objective.items.get(name, 0) for name in fit.targets],
            },
        },
        "objective": {
            "description": objective.describe(),
            "unit": unit_text(objective.value_unit),
            # From minimised to shown values.
            "factor": value_sign * shown_factor(objective.value_unit),
            "signs": objective.signs,
            "shares": [fit.targets.index(name) for name in fit.objective.items],
            "pieces": objective.pieces().tolist(),
            "offsets": objective.offsets_P.tolist(),
        },
    }


def packed_json(data: Mapping[str, Any]) -> str:
    """Return data as JSON that is safe inside `<script type="application/json">`."""
    arrays: dict[tuple[str, bytes], int] = {}
    plain = _plain(data, arrays)
    packed = [
        {"type": kind, "data": base64.b64encode(content).decode()} for kind, content in arrays
    ]
    return str(json_text({"arrays": packed, "data": plain}))


def _kinds(model: Any) -> Iterator[str]:
    """Yield the kinds of a law and of its members."""
    if isinstance(model, dict):
        if "kind" in model:
            yield model["kind"]
        model = list(model.values())
    if isinstance(model, list):
        for part in model:
            yield from _kinds(part)


def _plain(value: Any, arrays: dict[tuple[str, bytes], int]) -> Any:
    if isinstance(value, np.ndarray):
        return {MARK: arrays.setdefault(_packed(value), len(arrays))}
    if isinstance(value, Mapping):
        if MARK in value:
            raise ValueError(f"a key {MARK!r} would be read as an array")
        return {str(key): _plain(item, arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, arrays) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number is {value}")
    return value


def _packed(array: np.ndarray[Any, Any]) -> tuple[str, bytes]:
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    if kind not in TYPES:
        if array.dtype.kind not in "iub":
            raise ValueError(f"an array of {array.dtype}")
        kind = "i4"
        array = array.astype(np.int32)
    if kind[0] == "f" and not np.isfinite(array).all():
        raise ValueError("an array holds a number that is not finite")
    return kind, np.ascontiguousarray(array, dtype=TYPES[kind]).tobytes()
