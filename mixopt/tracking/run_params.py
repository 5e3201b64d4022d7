"""The settings of a step as flat parameters, within MLflow's limits.

The first few are what runs are told apart by; the others are all fields of the configuration that
are set, by their names in the YAML file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mixopt.run_directory import SWEEP, Step

if TYPE_CHECKING:
    from mixopt.run_directory import Run

LONGEST = 500  # characters of a value; MLflow's limit is 6000
MOST = 400  # parameters; a configuration of hundreds of domains has more
LEFT_OUT = ("tracking",)  # sections: where the record is sent to is none of the run's settings


def run_params(run: Run, step: Step) -> dict[str, Any]:
    """Return the parameters of the parent run of a step."""
    config = run.config
    params: dict[str, Any] = {
        "seed": config.seed,
        "domains": len(config.corpus.domains),
        "tokenizer": config.corpus.tokenizer,
        "proxy": config.proxy.name,
        "tokens": config.proxy.tokens if step is SWEEP else config.validation_tokens,
        **{f"proxy/{name}": value for name, value in config.proxy.options.items()},
    }
    if step is SWEEP:
        plain = [(name, value) for name, value in config.design if name != "anneals"]
        params |= {f"design/{name}": value for name, value in plain}
    else:
        names = [one.name for one in config.validation.baselines]
        params |= {name: getattr(config.validation, name) for name in ("seeds", "rounds")}
        params |= {"max_seeds": config.validation.most_seeds, "baselines": names}
    content = {name: part for name, part in run.content.items() if name not in LEFT_OUT}
    for name, value in _leaves(content):
        if len(params) >= MOST:
            break
        params.setdefault(name, value)
    return params


def _leaves(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield each field that is set, by its name with dots."""
    for name, value in content.items():
        full = f"{before}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{full}.")
        elif value is not None and value != []:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield full, text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
