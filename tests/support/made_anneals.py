"""Runs of microanneals in seconds: the made experiment, whose losses come from a law.

The base is three domains, the sources are three others: one of code, one of maths, of which the
target `exam` is made, and one of books.
"""

import yaml
from made_run import made_config, made_importable

from mixopt.pipeline import AnnealAsked, anneal

SOURCES = ("code_news", "maths_news", "books_news")


def made_experiment(folder, **changes):
    """Write an experiment of six domains; return its file."""
    limits = {"constraints": {}, "validate": {"seeds": 3, "rounds": 1, "max_seeds": 3}}
    fit = {"fit": {"regressors": ["power"], "folds": 3}}
    path = folder / "made.yaml"
    path.write_text(yaml.safe_dump(made_config(folder, 6) | limits | fit | changes))
    return path


def made_anneals(folder, asked=None, *, out=None, changes=None, **options):
    """Run microanneals of the made experiment of a folder, in `folder / "run"` or elsewhere."""
    path = made_experiment(folder, **(changes or {}))
    with made_importable():
        return anneal(path, out or folder / "run", asked or AnnealAsked(SOURCES), **options)
