"""Whole run directories in seconds: real steps, and a proxy whose losses come from a law.

Domains are named after families (`web_news`, `code_python`, ...), which are groups of the
configuration. A domain helps its own held-out text most, its family's some, others' a little; of
the targets each is like two families. A trial's seed makes its noise.
"""

import json
import zlib
from dataclasses import replace

import numpy as np
import yaml

import mixopt
from mixopt.mixture import Mixture, Phases
from mixopt.sweeps import Progress
from mixopt.trials import Losses, TrialResult

FAMILIES = ("web", "code", "papers", "books", "forums", "maths")
TOPICS = ("news", "python", "biology", "novels", "advice", "proofs", "shops", "tables", "history")
TARGETS = {"exam": ("code", "maths"), "reading": ("books", "papers")}
NOISE = 0.002
STEPS = 4  # held-out losses while a trial trains


def domain_names(count):
    """Return so many domains, spread over the families."""
    topics = [f"{TOPICS[place % 9]}{place // 9 or ''}" for place in range(-(-count // 6))]
    return [f"{family}_{topic}" for topic in topics for family in FAMILIES][:count]


class LawProxy:
    """A proxy that trains nothing: losses are those of the law, with noise."""

    def group_size(self, corpus, training):
        return 64

    def train(self, trials, corpus, training, report):
        report(Progress(1, 1))
        names = [domain.name for domain in corpus.evaluation]
        return [_result(trial, names, training) for trial in trials]


class PhasedProxy(LawProxy):
    """The law of trials in phases: a token of the last phase counts three times."""

    def train(self, trials, corpus, training, report):
        phases = Phases(training.phases)
        counted = []
        for trial in trials:
            *before, last = phases.split(trial.mixture).items()
            shares = {name: 3 * phases[last[0]] * share for name, share in last[1].items()}
            for phase, mixture in before:
                shares = {n: v + phases[phase] * mixture[n] for n, v in shares.items()}
            whole = Mixture({n: v / sum(shares.values()) for n, v in shares.items()})
            counted.append(replace(trial, mixture=whole))
        return super().train(counted, corpus, training, report)


def make_run(folder, domains=10, trials=0, **changes):
    """Make a run of all steps in `folder / "run"`, with some sections of its configuration."""
    source = folder / "made.yaml"
    source.write_text(yaml.safe_dump(made_config(folder, domains, trials) | changes))
    return mixopt.run(source, folder / "run", say=lambda _: None)


def made_config(folder, domains=10, trials=0):
    """Write the documents of an experiment, of three trials a domain where 0; return it."""
    names = domain_names(domains)
    files = {}
    for name in (*names, *TARGETS):
        path = folder / f"{name}.jsonl"
        lines = [json.dumps({"text": f"{name} has line {line}. " * 9}) for line in range(12)]
        path.write_text("\n".join(lines) + "\n")
        files[name] = {"data_files": str(path)}
    sizes = {name: {"tokens": int(10 ** (9 + 2 * _unit(f"size {name}")))} for name in names}
    families = {name: [item for item in names if item.startswith(f"{name}_")] for name in FAMILIES}
    groups = {name: {"domains": own, "bounds": [0, 0.6]} for name, own in families.items() if own}
    design = {"trials": trials or 3 * domains, "rounds": "off", "replicates": 4, "max_usage": None}
    tokens = {"tokens": 4_000_000, "eval_every": 1_000_000, "eval_tokens": 1000}
    bounds = {name: [0.1 / domains, min(0.4, 6 / domains)] for name in names}
    return {
        "name": f"made-{domains}",
        "corpus": {"tokenizer": "bytes", "domains": {n: files[n] | sizes[n] for n in names}},
        "evaluation": {name: files[name] for name in TARGETS},
        "design": design,
        "proxy": {"name": "made_run:LawProxy", **tokens},
        "sweep": {"workers": 1},
        "fit": {"regressors": ["skills"], "folds": 4},
        "objective": {"mean": {"exam": 2, "reading": 1}},
        "propose": {"bootstrap": 4, "samples": 2000, "target_tokens": 25_000_000_000},
        "constraints": {"max_epochs": 4, "bounds": bounds, "groups": groups},
        "validate": {"seeds": 4, "rounds": 1},
        "tracking": {"enabled": False},
    }


def _help(domain, loss):
    """Return how much a domain helps a loss."""
    family, chance = domain.partition("_")[0], _unit(f"{domain} {loss}")
    if domain == loss:
        return 2.0
    if family == loss.partition("_")[0] or family in TARGETS.get(loss, ()):
        return 0.3 + 0.9 * chance
    return 0.15 * chance


def _unit(text):
    return zlib.crc32(text.encode()) / 2**32


def _result(trial, names, training):
    rng = np.random.default_rng([trial.seed, int(trial.mixture.fingerprint[:8], 16)])
    used_D, noisy = np.array(list(trial.mixture.values())) ** 0.7, {}
    for name in names:
        help_D = np.array([_help(domain, name) for domain in trial.mixture])
        loss = 0.6 + 0.9 * _unit(f"level {name}") + 0.5 * float(np.exp(-3 * help_D @ used_D))
        noisy[name] = loss + NOISE * rng.standard_normal()
    tokens, pace = training.tokens, training.eval_every
    at = [pace * step for step in range(1, STEPS) if pace and pace * step < tokens] + [tokens]
    curve = [
        Losses(now, item, item)
        for now in at
        for item in [{name: loss + 0.1 * (tokens / now - 1) for name, loss in noisy.items()}]
    ]
    return TrialResult(trial.name, "finished", tokens, 1_000_000, 0.1, curve[-1], tuple(curve))
