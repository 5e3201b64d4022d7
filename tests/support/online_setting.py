"""What an online estimator is told of a run, for tests."""

import numpy as np

from mixopt.online import Setting

NAMES = ("web", "code", "books", "wiki", "news", "law", "math")


def run_of(domains=3, evaluations=None, objective_M=None, **changes):
    """Return a run of some domains that starts even, is evaluated on them, and may do anything."""
    names, even_D = NAMES[:domains], np.full(domains, 1 / domains)
    evaluations = names if evaluations is None else evaluations
    even_M = np.full(len(evaluations), 1 / len(evaluations))
    given = {"steps": 600, "tokens_per_step": 1000, "reference_D": even_D, "natural_D": even_D}
    given |= {"lower_D": np.zeros(domains), "upper_D": np.ones(domains)}
    objective_M = even_M if objective_M is None else np.array(objective_M)
    return Setting(names, evaluations=evaluations, objective_M=objective_M, **given | changes)
