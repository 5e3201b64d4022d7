"""Validations with losses that a test chooses, for decisions."""

from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Validation
from mixopt.trials import Losses, Trial, TrialResult, Trials

DOMAINS = ("code", "prose")
TARGETS = (*DOMAINS, "help")
MIXTURES = {
    "proposal": Mixture({"code": 0.3, "prose": 0.7}),
    "proposal_2": Mixture({"code": 0.4, "prose": 0.6}),
    "natural": Mixture({"code": 0.8, "prose": 0.2}),
    "uniform": Mixture.uniform(DOMAINS),
    "twin": Mixture({"code": 0.3, "prose": 0.7}),
    "best_trial": Mixture({"code": 0.1, "prose": 0.9}),
    "ours": Mixture({"code": 0.6, "prose": 0.4}),
}
OBJECTIVE = Objective(TARGETS, "target", {"help": 1.0})


def made_validation(values, others=None):
    """Return a validation: by mixture the loss of `help` of each seed, None where it diverged.

    `others` has by mixture how far all other losses are above that of `help`; 0 where it has none.
    """
    trials, results = [], []
    for name, losses in values.items():
        for seed, value in enumerate(losses):
            trial = Trial(f"{name}-s{seed}", MIXTURES[name], seed, role="validation")
            trials.append(trial)
            results.append(result_of(trial.name, value, (others or {}).get(name)))
    table = Trials.from_results(trials, results, proxy="ngram", targets=TARGETS)
    return Validation(table, OBJECTIVE)


def result_of(trial, value, other=None):
    """Return the result of a run, its losses or None, and those of all others than `help`."""
    if value is None:
        return TrialResult(trial, "diverged", 0, 1, 0.0, reason="loss is nan")
    losses = dict.fromkeys(DOMAINS, value if other is None else value + other) | {"help": value}
    return TrialResult(trial, "finished", 10, 1, 0.0, Losses(10, losses, losses))
