"""check_proxy passes a proxy that keeps its promises, and names the one that another breaks."""

from dataclasses import replace

import pytest
from mixopt_proxies.ngram import NgramProxy

from mixopt.sweeps import Progress
from mixopt.testing import check_proxy


class Quick(NgramProxy):
    """The real thing, at an order that is quick."""

    def __init__(self):
        super().__init__(order=2)


def changing(change):
    class Changing(Quick):
        def train(self, trials, *arguments):
            return [change(item, len(trials)) for item in super().train(trials, *arguments)]

    return Changing


def with_losses(result, **units):
    return replace(result, losses=replace(result.losses, **units))


def without_a_target(result, _):
    nats = {k: v for k, v in result.losses.nats_per_token.items() if k != "other_code"}
    return with_losses(result, nats_per_token=nats)


def without_bytes(result, _):
    return with_losses(result, bits_per_byte=result.losses.nats_per_token)


def without_tasks(result, _):
    return with_losses(result, tasks={})


def scored_in_a_group(result, count):
    return with_losses(result, tasks=dict.fromkeys(result.losses.tasks, count))


def diverged(result, _):
    return replace(result, status="diverged", reason="loss 1e9", losses=None)


class Reordered(Quick):
    def train(self, *arguments):
        return super().train(*arguments)[::-1]


class Blind(Quick):
    """Trains a whole group on one mixture from one seed."""

    def train(self, trials, *arguments):
        model = trials[min(1, len(trials) - 1)]
        same = [replace(t, mixture=model.mixture, seed=model.seed) for t in trials]
        return super().train(same, *arguments)


class Backwards(Quick):
    def train(self, trials, corpus, training, report):
        report(Progress(1, len(trials) * training.tokens))
        return super().train(trials, corpus, training, report)


class GroupsOfNone(Quick):
    def group_size(self, corpus, training):
        return 0


class Emptying(Quick):
    def train(self, trials, *arguments):
        results = super().train(trials, *arguments)
        trials.clear()
        return results


class WritesToTheCorpus(Quick):
    def train(self, trials, corpus, training, report):
        (corpus.path / "cache.txt").write_text("mine")
        return super().train(trials, corpus, training, report)


class Silent(Quick):
    def train(self, trials, corpus, training, report):
        return super().train(trials, corpus, training, lambda _: None)


def reporting(change):
    class Reporting(Quick):
        def train(self, trials, corpus, training, report):
            total = len(trials) * training.tokens
            results = super().train(trials, corpus, training, lambda _: None)
            for done, of in change(total):
                report(Progress(done, of))
            return results

    return Reporting


class Drifting(Quick):
    """Adds something to each call's losses."""

    calls = 0

    def train(self, *arguments):
        self.calls += 1
        return [shifted(result, 1e-6 * self.calls) for result in super().train(*arguments)]


class SeedsAreOne(Quick):
    def train(self, trials, *arguments):
        return super().train([replace(trial, seed=5) for trial in trials], *arguments)


class PartsDiffer(Quick):
    """Claims to train in parts, and trains the whole each time a little differently."""

    resumes = True

    def train(self, trials, corpus, training, report):
        results = super().train(trials, corpus, training, report)
        return [shifted(result, 1e-6 * training.part[0]) for result in results]


def shifted(result, amount):
    nats = {name: loss + amount for name, loss in result.losses.nats_per_token.items()}
    return with_losses(result, nats_per_token=nats)


def without_parameters(result, _):
    return replace(result, parameters=0)


def below_zero(result, _):
    nats = {name: -loss for name, loss in result.losses.nats_per_token.items()}
    return with_losses(result, nats_per_token=nats)


def with_another_task(result, _):
    return with_losses(result, tasks=result.losses.tasks | {"task/other/accuracy": 0.5})


def with_an_infinite_task(result, _):
    return with_losses(result, tasks=dict.fromkeys(result.losses.tasks, float("inf")))


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (GroupsOfNone, "group_size is a whole number >= 1. Broken: it is 0"),
        (Emptying, "the list of trials is not changed"),
        (WritesToTheCorpus, "the corpus is not changed"),
        (Silent, "progress is reported"),
        (reporting(lambda total: [(0, 7), (total, total)]), "the total of the progress stays"),
        (reporting(lambda total: [(total - 1, total)]), "progress reaches its total"),
        (reporting(lambda total: [(1, 1)]), "the total is the training tokens of all trials"),
        (Drifting, "training the same trials twice gives the same losses"),
        (SeedsAreOne, "another seed gives other losses"),
        (PartsDiffer, "a trial in two parts has the losses of the whole"),
        (changing(without_parameters), "a result has its tokens, parameters and seconds"),
        (changing(below_zero), "nats_per_token is finite and above 0"),
        (changing(with_another_task), "a proxy that scores tasks scores exactly these"),
        (changing(with_an_infinite_task), "task metrics are finite"),
        (
            changing(scored_in_a_group),
            "do not depend on its group. Broken: .*'task/next_line/bits_per_byte'",
        ),
        (Reordered, "one result for each trial, in order"),
        (
            changing(diverged),
            "a plain trial finishes, with losses. Broken: trial 'most' is diverged: loss 1e9",
        ),
        (
            changing(without_a_target),
            r"exactly the evaluation domains. Broken: wrong: \['other_code'\]",
        ),
        (changing(without_bytes), "bits per byte = nats per token x tokens / bytes / ln 2"),
        (Blind, "another mixture gives other losses"),
        (Backwards, "progress never goes back"),
    ],
)
def test_a_proxy_that_breaks_a_promise_is_told_which(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_proxy(broken)


@pytest.mark.parametrize("kept", [Quick, changing(without_tasks)])
def test_a_proxy_that_keeps_its_promises_passes_with_tasks_or_without(kept):
    check_proxy(kept)
