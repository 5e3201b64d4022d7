"""A sweep of three trials as our tracker writes it, and as it must be read again."""

from mixopt.mixture import Mixture
from mixopt.tracking.journal import JOURNAL
from mixopt.tracking.lines import LineFile
from mixopt.tracking.process import Sender
from mixopt.trials import Losses, Trial, TrialFolder, TrialResult, Trials

DOMAINS = ("c++", "web", "books")
SHARES = [(0.1, 0.2, 0.7), (1 / 3, 1 / 3, 1 - 2 / 3), (0.625, 0.3749, 0.0001)]


def trial(number):
    return Trial(f"t{number}", Mixture(dict(zip(DOMAINS, SHARES[number], strict=True))), number + 7)


def result(number, **changes):
    nats = {"web": 2.0 + number / 7, "c++": 1 / 3}
    tasks = {"task/arc:easy/accuracy": number / 3, "task/c++/bits_per_byte": 1.5 + number / 9}
    losses = Losses(1000, nats, {name: value / 3 for name, value in nats.items()}, tasks)
    fields = {"status": "finished", "tokens": 1000, "parameters": 42, "seconds": 0.5}
    return TrialResult(f"t{number}", **{**fields, "losses": losses, **changes})


DIVERGED = result(2, status="diverged", losses=None, reason="loss is nan at step 3")
RESULTS = [result(0), result(1), DIVERGED]
TRIALS = [trial(number) for number in range(3)]


def by_name(trials):
    """Rows in the order of their names, columns too: MLflow keeps no order of its own."""
    table = trials.table.sort("trial")
    return table.select(sorted(table.columns)).to_dicts()


def record(path, uri=None, experiment="toy"):
    """Let our tracker write a sweep of three trials; return what they are as trials."""
    for one, ended in zip(TRIALS, RESULTS, strict=True):
        TrialFolder(path / "trials").write(0, [one], [ended])
    journal = LineFile(path / JOURNAL)
    fields = {"name": "sweep", "params": {"proxy": "decoder"}, "tags": {"mixopt.fingerprint": "0"}}
    fields |= {"folder": "trials", "environment": {}, "datasets": []}
    for op, more in (("start", fields), ("end", {})):
        journal.append({"op": op, "step": "sweep", "time": 1.7e9, **more})
    journal.close()
    assert Sender(path, uri, experiment, lambda answer: None).attempt()
    return Trials.from_results(TRIALS, RESULTS, proxy="decoder")
