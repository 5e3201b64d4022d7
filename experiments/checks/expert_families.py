"""Measure every family of transformers that has experts, and write the table of the documentation.

    python experiments/checks/expert_families.py [--check]

Builds a tiny model of each family with random weights, runs a padded batch forward and backward,
once more with layers that are computed again, and compares what mixopt counts with what reaches
the experts. The table is docs/experts/families.md; with --check it is compared instead of written.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import warnings
from pathlib import Path

from reached_experts import counted, wrong_counts, wrong_probability
from tiny_experts import MODELS

from mixopt.routing import FAMILIES, REFUSED, RouterFamily

PAGE = Path(__file__).resolve().parents[2] / "docs" / "experts" / "families.md"
BEGIN, END = "<!-- the table: make families -->", "<!-- end of the table -->"
# Fields that say from how many experts is chosen, and what a configuration is called.
_SIZE = re.compile(r"^    (\w*(?:num|n|nb)_(?:\w+_)?experts|\w*expert_num)\s*:", re.MULTILINE)
_NO_SIZE = re.compile(r"shared|zero|activated|selected")
_TYPE = re.compile(r"^    model_type = \"([^\"]+)\"", re.MULTILINE)
# Classes of which a package with experts has one at least, and those that choose.
_EXPERTS = re.compile(r"^class (\w*(?:Experts|ParallelExperts|NaiveMoe|CDMoE))\(", re.MULTILINE)
_ROUTERS = re.compile(r"^class (\w*(?:Router|TopKGating|MoEV1Gate|NaiveMoe|CDMoE))\(", re.MULTILINE)
EXACT = 1e-5  # of probabilities, in float32


def installed_models() -> Path:
    """Return the folder of transformers that has a package for each family."""
    import transformers

    return Path(inspect.getfile(transformers)).parent / "models"


def installed_routers(folder: Path) -> dict[str, list[str]]:
    """Return the classes that choose experts, by the package of transformers that has them.

    A package whose experts have no such class is there with none.

    Args:
        folder: Of packages, as `installed_models` returns it.
    """
    found = {}
    for file in sorted(folder.glob("*/modeling_*.py")):
        source = file.read_text(encoding="utf-8")
        if _EXPERTS.search(source):
            found[file.parent.name] = sorted(set(_ROUTERS.findall(source)))
    return found


def installed_types(folder: Path) -> dict[str, list[str]]:
    """Return the `model_type` of each configuration with a number of experts, by package.

    So packages are found whose classes are called otherwise, or that use the classes of others. A
    configuration that has no type of its own, such as a part of one, stands with those of its file.

    Args:
        folder: Of packages, as `installed_models` returns it.
    """
    found: dict[str, list[str]] = {}
    for file in sorted(folder.glob("*/configuration_*.py")):
        source = file.read_text(encoding="utf-8")
        for part in re.split(r"^(?=class )", source, flags=re.MULTILINE)[1:]:
            if any(not _NO_SIZE.search(size) for size in _SIZE.findall(part)):
                types = _TYPE.findall(part) or _TYPE.findall(source) or [file.parent.name]
                found.setdefault(file.parent.name, []).extend(types)
    return found


def unknown_types(types: dict[str, list[str]], routers: dict[str, list[str]]) -> list[str]:
    """Return types of configurations that are no family's, in packages where nothing is refused.

    Args:
        types: As of `installed_types`.
        routers: As of `installed_routers`.
    """
    return [
        name
        for package, names in types.items()
        if REFUSED.keys().isdisjoint(routers.get(package, []))
        for name in names
        if name not in FAMILIES
    ]


def unknown(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return what is neither known nor refused by name, by package."""
    known = {router.name for family in FAMILIES.values() for router in family.routers}
    named = known | set(REFUSED)
    missing = {}
    for package, routers in found.items():
        apart = [router for router in routers if router not in named]
        if apart or not routers:
            missing[package] = apart
    return missing


def row(family: str) -> list[str]:
    """Measure one family and return its row."""
    known = FAMILIES[family]
    total, reached = counted(family)
    counts, probability = wrong_counts(total, reached), wrong_probability(total, reached)
    again = _again(family)
    exact = counts == 0 and probability < EXACT and again in {"exact", "cannot"}
    state = "partial" if known.limits else "exact" if exact else "WRONG"
    how = {truth.router.scores for truth in reached}
    return [
        f"`{family}`",
        state,
        str(counts),
        f"{probability:.0e}" if probability > EXACT else "0",
        again,
        " and ".join(sorted(how)).replace("sqrt_softplus", "sqrt(softplus)"),
        balance_of(known),
        known.shared or "",
        _form(family) + (f"; {known.limits}" if known.limits else ""),
    ]


def _again(family: str) -> str:
    try:
        return "exact" if wrong_counts(*counted(family, checkpointed=True)) == 0 else "WRONG"
    except ValueError:
        return "cannot"


def balance_of(known: RouterFamily) -> str:
    """Say what balances a family."""
    if known.balance == "auxiliary":
        also = f"; has the bias `{known.bias}`" if known.bias else ""
        return f"loss, `{known.coefficient}`{also}"
    return f"bias, `{known.bias}`" if known.balance == "bias" else "nothing"


def _form(family: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "causal"
    return MODELS[family].partition(":")[2] if family in MODELS else "text model"


def table() -> str:
    """Measure all families and return the table, refused ones last."""
    head = [
        "family (`model_type`)",
        "state",
        "wrong assignments",
        "probabilities differ by",
        "layers computed again",
        "scores",
        "balanced by",
        "shared experts",
        "measured as; limits",
    ]
    rows = [row(family) for family in sorted(FAMILIES)]
    rows += [[f"`{name}`", "refused", *[""] * 6, why] for name, why in sorted(REFUSED.items())]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    warnings.filterwarnings("ignore")
    routers = installed_routers(installed_models())
    missing = unknown(routers), unknown_types(installed_types(installed_models()), routers)
    if any(missing):
        sys.exit(f"families that are neither known nor refused: {missing}")
    measured = table()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    page = f"{before}{BEGIN}\n\n{measured}\n\n{END}{rest.partition(END)[2]}"
    if check and page != PAGE.read_text(encoding="utf-8"):
        sys.exit(f"{PAGE.name} is not what is measured; run make families")
    if not check:
        PAGE.write_text(page, encoding="utf-8")
    print(measured)
    if "WRONG" in measured:
        sys.exit(1)


if __name__ == "__main__":
    main()
