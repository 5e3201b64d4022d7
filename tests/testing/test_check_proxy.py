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


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
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
