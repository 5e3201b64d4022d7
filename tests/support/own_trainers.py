"""Trainers of a user's kind for the command proxy: small scripts, run as real processes."""

import sys
import textwrap

from mixopt_proxies.command import CommandProxy

from mixopt.mixture import Mixture
from mixopt.sweeps import Training
from mixopt.trials import Trial

TRIAL = Trial("t0001", Mixture({"code": 0.75, "manual": 0.25}), seed=5)
GOOD = {"code": 2.0, "manual": 3.0, "other_code": 2.5}
WRITE_GOOD = f"json.dump({GOOD!r}, open('metrics.json', 'w'))"


def script(folder, code):
    """Write a script and return the command that runs it."""
    path = folder / "own_train.py"
    head = "import json, os, sys, time, subprocess, signal\n"
    path.write_text(head + textwrap.dedent(code), encoding="utf-8")
    return [sys.executable, str(path)]


def trained(corpus, files, run, *, tokens=1_000, **options):
    proxy = CommandProxy(run, **{"result": "metrics.json"} | options)
    (result,) = proxy.train([TRIAL], corpus, Training(tokens, files=str(files)), lambda _: None)
    return result


def attempts(files):
    return sorted(path.name for path in (files / TRIAL.name).glob("attempt-*"))
