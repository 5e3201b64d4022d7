"""A mixture with the parts of mixed domains in their place: for trainers without our corpus.

A proposal and a recommendation keep what their mixed domains are made of (`provenance.parts`), so
that the file alone is enough; of a run, the index of the corpus says it while it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mixopt.errors import MixtureError, RunError
from mixopt.mixture import Mixture
from mixopt.proposals import Proposal, Recommendation
from mixopt.run_directory import RECOMMENDATION, Run
from mixopt.system import checked_as, read_yaml

Parts = Mapping[str, Mapping[str, float]]
PARTS = "parts"
Answer = TypeVar("Answer", Proposal, Recommendation)


def parts_of(run: Run) -> dict[str, dict[str, float]]:
    """Return the shares of the parts of each mixed domain of a run, as they were prepared.

    Raises:
        RunError: The corpus is not there, and neither answer of the run says them.
    """
    mixed, corpus = run.config.corpus.mixed, run.path / "corpus"
    if not mixed:
        return {}
    if corpus.exists():
        return {name: made["shares"] for name, made in run.corpus.provenance["mixed"].items()}
    for file in (run.path / RECOMMENDATION, run.path / "proposal.yaml"):
        parts = parts_in(file) if file.exists() else {}
        if mixed.keys() <= parts.keys():
            return parts
    raise RunError(
        f"{corpus}: missing, so the shares of the parts of {', '.join(mixed)} are unknown; restore"
        " it, or prepare it again with mixopt run"
    )


def with_parts(found: Answer, run: Run) -> Answer:
    """Return a proposal or recommendation that says what its mixed domains are made of."""
    parts = parts_of(run)
    return replace(found, provenance={**found.provenance, PARTS: parts}) if parts else found


def parts_in(file: Path) -> dict[str, dict[str, float]]:
    """Return what the mixed domains of the file of an answer are made of.

    Raises:
        MixtureError: The file says it in another form.
    """
    content = read_yaml(file, error=MixtureError)
    about = content.get("provenance") if isinstance(content, dict) else None
    parts = about.get(PARTS, {}) if isinstance(about, dict) else {}
    where = f"{file}: provenance.{PARTS}"
    found: dict[str, dict[str, float]] = checked_as(
        dict[str, dict[str, float]], parts, where, MixtureError
    )
    return found


def spread_out(mixture: Mixture, parts: Parts) -> Mixture:
    """Return a mixture in which each mixed domain is replaced by its parts, share by share."""
    weights: dict[str, float] = {}
    for name, weight in mixture.items():
        weights |= {part: weight * share for part, share in parts.get(name, {name: 1.0}).items()}
    return Mixture(weights)


def spread_sizes(run: Run, sizes: Mapping[str, Any], parts: Parts) -> dict[str, Any]:
    """Return tokens by domain with those of parts in the place of mixed domains.

    Args:
        run: Its configuration may state the tokens of parts; its corpus has those that were read.
        sizes: Tokens by domain.
        parts: Of its mixed domains.
    """
    found: dict[str, Any] = {}
    for name, size in sizes.items():
        if name not in parts:
            found[name] = size
            continue
        whole = run.corpus.provenance["mixed"][name]["whole"]
        sources = run.config.corpus.mixed[name].domains
        found |= {part: sources[part].tokens or whole[part]["tokens"] for part in parts[name]}
    return found


def spread_samples(run: Run, parts: Parts) -> dict[str, float]:
    """Return mean tokens of a document with those of parts in the place of mixed domains."""
    found = {name: mean for name, mean in run.corpus.sample_tokens.items() if name not in parts}
    for name in parts:
        whole = run.corpus.provenance["mixed"][name]["whole"]
        found |= {
            part: one["tokens"] / one["documents"]
            for part, one in whole.items()
            if one["documents"]
        }
    return found
