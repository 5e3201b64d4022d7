"""Data exchanged between the owner of a sweep and a Ray cluster, as plain values."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mixopt.corpus import corpus_hash
from mixopt.errors import RunError
from mixopt.sweeps.contract import GroupOutcome, Job, Place, Site
from mixopt.system import __version__, read_text, write_text
from mixopt.trials import Training, result_from_json, result_to_json

KEPT = 86_400.0  # seconds without work and without an owner after which the desk ends
MARK = ".ray_mark"  # in the folder of trials: a node that reads it sees the folder


def sweep_setup(
    job: Job, site: Site, cpus: float, memory: int | None, cache: str | None
) -> dict[str, Any]:
    """Return all that the cluster is told of a sweep.

    Raises:
        CorpusError: There is no corpus.
        RunError: The folder cannot be written.
    """
    job = job if job.corpus_hash else replace(job, corpus_hash=corpus_hash(job.corpus))
    told = {**asdict(job), "corpus": str(job.corpus.absolute())}
    told = json.loads(json.dumps(told))
    folder, mark = str(site.folder.absolute()), _mark(site.folder)
    return {
        "name": desk_name(site.folder),
        "title": site.title,
        "identity": _identity(told),
        "version": __version__,
        "job": told,
        "folder": folder,
        "mark": mark,
        "workers": site.workers,
        "patience": site.patience,
        "cpus": cpus,
        "gpus": 0.0 if job.training.device == "cpu" else site.gpus,
        "memory": memory,
        "cache": cache,
        "kept": KEPT,
    }


def desk_name(folder: Path) -> str:
    """Return what the desk of a folder of trials is called on its cluster; the mark is there."""
    text = f"{folder.absolute()}\0{_mark(folder)}"
    return f"mixopt-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def job_on_node(setup: Mapping[str, Any], found: Mapping[str, Any], gpus: float) -> Job:
    """Return the job as a node sees it.

    Args:
        setup: Of the sweep.
        found: Where the node has the corpus and puts files (mixopt.sweeps.on_ray.ray_store).
        gpus: GPUs of a worker; one without computes on the CPU.
    """
    told = {**setup["job"], "corpus": Path(found["corpus"])}
    training = {**told["training"], "files": found["files"]}
    training["device"] = "cuda" if gpus else "cpu"
    return Job(**{**told, "training": Training(**training)})


def outcome_to_json(outcome: GroupOutcome) -> dict[str, Any]:
    """Return what became of a group as plain values."""
    results = [result_to_json(result) for result in outcome.results]
    return {**asdict(replace(outcome, results=())), "results": results}


def outcome_from_json(content: Mapping[str, Any], group: int) -> GroupOutcome:
    """Return what became of a group; a result that cannot be used is a reason."""
    told = {key: content[key] for key in ("reason", "fault", "seconds", "trained")}
    place = Place(**content["place"])
    try:
        results = [result_from_json(entry) for entry in content["results"]]
    except RunError as error:
        told |= {"reason": f"the worker's answer cannot be used: {error}", "fault": None}
        results = []
    return GroupOutcome(group, results, place=place, **told)


def _identity(job: Mapping[str, Any]) -> str:
    """Return what two owners have in common if one may take the results of the other."""
    content = json.dumps([__version__, job], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _mark(folder: Path) -> str:
    """Return the folder's mark, which stays with it."""
    path = folder / MARK
    if path.exists():
        return read_text(path)
    mark = secrets.token_hex(16)
    write_text(path, mark)
    return mark
