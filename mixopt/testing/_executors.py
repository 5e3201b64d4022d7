"""The promises of an executor (mixopt.sweeps.contract), checked by letting one train groups.

The proxy is ours, trains at once and does to its worker what a trial's name says, so that what an
executor makes of a death is seen; the corpus is a small one of real text.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError
from mixopt.sweeps import Executor, GroupOutcome, Place
from mixopt.testing._executor_proxy import REASON, checked_result
from mixopt.testing._executor_runs import SIZE, Bench, Heard, promise, trials_named
from mixopt.trials import Progress, Trial, TrialResult

_FAULTS = {"raises": None, "memory": "memory", "killed": "died", "exits": "died"}
_ODD = "no_such_option"


def check_executor(
    factory: Callable[..., Executor],
    *,
    options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    seconds: float = 120.0,
) -> None:
    """Check that an executor keeps its promises, by training some thirty trials of no length.

    Args:
        factory: Makes the executor: its class.
        options: What it is made with.
        folder: An empty folder that all its places see; a temporary one when None.
        seconds: Longest wait for an outcome: for a place to be free, and a process to start.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    with ExitStack() as stack:
        if folder is None:
            made = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
        bench = Bench(factory, options or {}, folder.resolve(), seconds)
        _check_options(bench)
        _check_a_sweep(bench)
        _check_nothing_to_do(bench)
        _check_another_corpus(bench)
        _check_leaving(bench)


def _check_options(bench: Bench) -> None:
    parameters = inspect.signature(bench.factory).parameters.values()
    many = [one for one in parameters if one.kind is inspect.Parameter.VAR_KEYWORD]
    if any("Unpack" in str(one.annotation) for one in many):
        return  # named fields, which make_executor checks
    try:
        bench.make("options", None, **{_ODD: 1})
    except (TypeError, MixoptError):
        return
    promise(False, "an option that it does not have is refused", f"{_ODD}=1 was taken")


def _check_a_sweep(bench: Bench) -> None:
    """Train groups, some of them added while others train; then such that end in other ways."""
    plain = trials_named("steady_0", *(f"plain_{number}" for number in range(1, 9)))
    groups: dict[int, Sequence[Trial]] = {0: plain[:2], 1: plain[2:5]}
    # One at a time: an executor may form groups of its own, and what ends one ends all of it.
    alone = [*([trial] for trial in trials_named(*(f"{name}_0" for name in _FAULTS))), plain[8:]]
    more = [plain[5:7], plain[7:8]]

    def after(heard: Heard, outcome: GroupOutcome) -> None:
        _check_outcome(heard, outcome)
        added = [_untried(heard, outcome), *([more.pop(0)] if more else [])]
        if len(heard.outcomes) == len(heard.groups) and not any(added) and alone:
            added = [alone.pop(0)]
        for group in added:
            if group:
                heard.groups[max(heard.groups) + 1] = group

    executor = bench.make("sweep")
    with executor as entered:
        _check_sizes(entered)
        heard = bench.run(entered, groups, after)
    _check_all_answered(heard)
    left = [trial.name for group in (*more, *alone) for trial in group]
    promise(not left, "each group is answered, added ones too", f"it ended before {left}")
    for outcome in heard.outcomes:
        _check_reports(heard, outcome)
    _check_results(bench, heard, plain)


def _untried(heard: Heard, outcome: GroupOutcome) -> Sequence[Trial]:
    """Return the members that a place took no more of, which are handed out again."""
    if outcome.reason is not None:
        return []
    found = {result.trial for result in outcome.results}
    return [trial for trial in heard.groups[outcome.group] if trial.name not in found]


def _check_sizes(executor: Executor) -> None:
    workers, size = executor.workers, executor.group_size()
    whole = isinstance(workers, int) and workers >= 1
    promise(whole, "workers is a whole number >= 1", f"it is {workers!r}")
    whole = isinstance(size, int) and size >= 1
    promise(whole, "group_size is a whole number >= 1", f"it is {size!r}")
    as_measured = f"{size}, and the proxy says {SIZE}"
    promise(size <= SIZE, "group_size is not above what the proxy says", as_measured)


def _check_outcome(heard: Heard, outcome: GroupOutcome) -> None:
    """Check what can be checked of any one outcome."""
    known = outcome.group in heard.groups
    promise(known, "an outcome is of a group that was given", f"group {outcome.group!r}")
    names = [trial.name for trial in heard.groups[outcome.group]]
    found = [result.trial for result in outcome.results]
    in_order = found == [name for name in names if name in found]
    promise(in_order, "results are of the group's trials, in its order", f"{found} of {names}")
    where = f"{outcome.place} after {outcome.seconds} s"
    fine = bool(outcome.place.node) and outcome.seconds >= 0
    promise(fine, "an outcome says where it was and how long it took", where)
    trained = len(names) if outcome.trained is None else outcome.trained
    right = max(1, len(found)) <= trained <= len(names)
    promise(right, "trained counts those that trained together", f"{outcome.trained} of {names}")
    kind = names[0].partition("_")[0]
    if kind in _FAULTS:
        _check_fault(outcome, kind)
        return
    why = f"{names}: {outcome.reason} ({outcome.fault})"
    promise(outcome.reason is None, "trials that nothing happens to have results", why)
    promise(bool(found), "a place takes one trial at least", f"none of {names}, and no reason")


def _check_fault(outcome: GroupOutcome, kind: str) -> None:
    """Check what is made of a trial that does something to its worker."""
    promise(not outcome.results, f"a trial that ends so ({kind}) has no result", "it has one")
    reason = outcome.reason or ""
    promise(bool(reason), f"a trial that ends so ({kind}) has a reason", "there is none")
    if kind == "raises":
        promise(REASON in reason, "the reason is what the proxy raised", f"it is {reason!r}")
    if kind == "killed":  # which may have been for memory
        fine = outcome.fault in {"died", "memory"}
    else:
        fine = outcome.fault == _FAULTS[kind]
    wanted = "no fault" if _FAULTS[kind] is None else f"the fault {_FAULTS[kind]!r}"
    promise(fine, f"a trial that ends so ({kind}) has {wanted}", f"{outcome.fault!r}: {reason}")


def _check_all_answered(heard: Heard) -> None:
    answered = sorted(outcome.group for outcome in heard.outcomes)
    wanted = sorted(heard.groups)
    missing = sorted(set(wanted) - set(answered))
    promise(not missing, "each group is answered, added ones too", f"groups {missing} are not")
    promise(answered == wanted, "a group is answered once", f"{answered}")


def _check_reports(heard: Heard, outcome: GroupOutcome) -> None:
    said = heard.reports.get(outcome.group, [])
    if heard.groups[outcome.group][0].name.startswith("steady"):
        promise(bool(said), "progress is reported of a group that takes seconds", "it never was")
    for progress, place in said:
        typed = isinstance(progress, Progress) and isinstance(place, Place)
        promise(typed, "a report is a Progress and a Place", f"{progress!r}, {place!r}")
        promise(bool(place.node), "a report says on which node", f"{place}")
        sane = 0 <= progress.done <= max(progress.total, progress.done)
        promise(sane, "progress is within its total", f"{progress}")
    odd = sorted(set(heard.reports) - set(heard.groups))
    promise(not odd, "progress is of groups that were given", f"groups {odd}")


def _check_results(bench: Bench, heard: Heard, plain: Sequence[Trial]) -> None:
    """Check that each plain trial has the result that training it here gives, once."""
    corpus, training = bench.corpus(), bench.job().training
    found = [result for outcome in heard.outcomes for result in outcome.results]
    names = sorted(result.trial for result in found)
    wanted = sorted(trial.name for trial in plain)
    promise(names == wanted, "each trial has one result, its group's others too", f"{names}")
    by_name = {result.trial: result for result in found}
    for trial in plain:
        direct, got = checked_result(trial, corpus, training), by_name[trial.name]
        same = _told(direct) == _told(got)
        detail = f"{trial.name}: {_told(got)}, not {_told(direct)}"
        promise(same, "results are those of training directly", detail)


def _told(result: TrialResult) -> TrialResult:
    """Return what of a result does not depend on where it was trained."""
    return replace(result, seconds=0.0)


def _check_nothing_to_do(bench: Bench) -> None:
    with bench.make("nothing") as executor:
        heard = bench.run(executor, {})
    found = f"{len(heard.outcomes)} outcomes"
    promise(not heard.outcomes, "without groups it ends at once", found)


def _check_another_corpus(bench: Bench) -> None:
    """Check that workers refuse a corpus that is not the one that the owner has."""
    job = bench.job(corpus_hash="0" * 64)
    try:
        with bench.make("another_corpus", job) as executor:
            executor.group_size()
            heard = bench.run(executor, {0: trials_named("plain_0")})
    except MixoptError:
        return
    refused = not any(outcome.results for outcome in heard.outcomes)
    promise(refused, "a corpus of another hash is refused", "trials were trained on it")


def _check_leaving(bench: Bench) -> None:
    """Check that leaving ends what trains, unless work continues without its owner."""
    slow, quick = trials_named("slow_0", "plain_1")
    executor = bench.make("leaving")
    with executor as entered:
        bench.run(entered, {0: [quick], 1: [slow]}, most=1)
    if hasattr(executor, "going_on"):
        return
    left = bench.still_running()
    promise(not left, "leaving ends its workers", f"processes {left} are still there")
