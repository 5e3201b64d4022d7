"""Train groups of trials on an executor, each in a folder of its own (mixopt.sweeps.groups).

The name of a folder is a hash of its trials, job and corpus files, and the attempt: a resumed
sweep finds by it the folders of a killed owner. It reads their results, and follows those that
still train if the executor outlives its owner. A folder is deleted once its results are saved. A
worker without progress is killed after `sweep.patience`.
"""

import glob
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mixopt.corpus import Corpus
from mixopt.errors import CorpusError, ShardError
from mixopt.sweeps.contract import PATIENCE, Ended, Executor, Job, State
from mixopt.sweeps.groups import (
    HANDLE,
    Beat,
    GroupOutcome,
    GroupResult,
    group_to_json,
    has_result,
    log_hint,
    read_beat,
    read_result,
    unfinished_handles,
    write_group,
)
from mixopt.sweeps.retries import Watch
from mixopt.sweeps.trial_files import NAME_LENGTH, WORK
from mixopt.system import file_mark, read_text, visible_files, write_text
from mixopt.trials import Trial

RESULT_POLLS = 10  # polls after a program's end in which its result may still appear
Report = Callable[[Sequence[Beat]], None]  # called with the beats of all running groups


def stop_groups(executor: Executor, handles: Mapping[Path, str]) -> None:
    """Stop the groups of folders and delete the folders without a result.

    A handle is empty if no process of ours trains the folder.
    """
    executor.cancel([handle for handle in handles.values() if handle])
    for folder in handles:
        if not has_result(folder):
            shutil.rmtree(folder, ignore_errors=True)


def corpus_marks(corpus: Path) -> dict[str, tuple[int, int, int]]:
    """Return size, time and inode of each file of a corpus, by name, to notice changes."""
    marks = {}
    for path in visible_files(corpus):
        try:
            size, written, _, inode = file_mark(path.stat())
        except OSError as error:
            raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
        marks[path.relative_to(corpus).as_posix()] = (size, written, inode)
    return marks


@dataclass
class _Attempt:
    """A group in its folder; watched from the moment it is first seen training."""

    trials: Sequence[Trial]
    folder: Path
    handle: str = ""
    watch: Watch | None = None
    beat: Beat = field(default_factory=Beat)
    ended: float | None = None  # when its end was first seen

    def outcome(self, result: GroupResult) -> GroupOutcome:
        """Return how the group ended."""
        return GroupOutcome(
            trials=self.trials,
            results=result.results,
            tuned=result.tuned,
            reason=result.error,
            fault=result.fault,
            beat=self.beat,
        )


class GroupRunner:
    """Trains groups on an executor; as a context manager, stops everything on exit."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        executor: Executor,
        patience: float = PATIENCE,
        report: Report = lambda _: None,
    ) -> None:
        """Record the state of the corpus; starts nothing."""
        self._job = job
        self.executor = executor
        self._patience = patience
        self._report = report
        self._work = folder / WORK
        self._marks = corpus_marks(job.corpus)
        self._running: list[_Attempt] = []

    def __enter__(self) -> Self:
        """Delete the unfinished folders of a killed owner; starts nothing."""
        if not self.executor.outlives_owner:  # workers that still live exit without their folders
            stop_groups(self.executor, dict.fromkeys(self._work.glob("*.*"), ""))
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all groups, those of a previous owner included; results stay."""
        try:
            handles = unfinished_handles(self._work)
            for attempt in self._running:
                handles[attempt.folder] = attempt.handle
            stop_groups(self.executor, handles)
        finally:
            self.executor.close()

    def run(self, groups: Sequence[Sequence[Trial]]) -> Iterator[GroupOutcome]:
        """Train groups as slots become free; the caller may append to `groups` meanwhile."""
        started = 0
        while True:
            count = len(groups) - started
            if not self.executor.queues:
                count = min(count, max(0, self.executor.slots - len(self._running)))
            self._start(groups[started : started + count])
            started += count
            if not self._running:
                return
            for attempt, result in list(self._ended()):
                self._check_corpus()
                self._running.remove(attempt)
                yield attempt.outcome(result)
                shutil.rmtree(attempt.folder, ignore_errors=True)

    def _check_corpus(self) -> None:
        """Raise CorpusError if files of the corpus changed since the sweep began."""
        changed = corpus_marks(self._job.corpus).items() ^ self._marks.items()
        if changed:
            Corpus.open(self._job.corpus)
            raise CorpusError(
                f"{self._job.corpus / min(changed)[0]}: changed while trials trained on it; the"
                " trials that ended since are not kept: run the same command again"
            )

    def _start(self, groups: Sequence[Sequence[Trial]]) -> None:
        """Start groups, or follow the attempt that a previous owner started."""
        new = []
        for trials in groups:
            name = self._folder_name(trials)
            attempt = self._earlier_attempt(name, trials)
            if attempt is None:
                # Names are unique: an abandoned worker may still write to its folder.
                attempt = _Attempt(trials, self._work / f"{name}.{time.time_ns()}")
                write_group(attempt.folder, self._job, trials)
                new.append(attempt)
            self._running.append(attempt)
        handles = self.executor.start([attempt.folder for attempt in new])
        for attempt, handle in zip(new, handles, strict=True):
            attempt.handle = handle
            if self.executor.outlives_owner:
                write_text(attempt.folder / HANDLE, handle)

    def _folder_name(self, trials: Sequence[Trial]) -> str:
        """Return the name of a group's folders, without the number of the attempt."""
        content = [*group_to_json(self._job, trials).values(), self._marks]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        first = trials[0].name[:NAME_LENGTH] if trials else "tune"
        return f"{first}-{digest}"

    def _earlier_attempt(self, name: str, trials: Sequence[Trial]) -> _Attempt | None:
        """Return the attempt of a previous owner if it has results or still trains."""
        for folder in self._work.glob(f"{glob.escape(name)}.*"):
            result = read_result(folder)
            handle = folder / HANDLE
            if result is None:
                if self.executor.outlives_owner and handle.exists():
                    return _Attempt(trials, folder, read_text(handle))
            elif not result.error and all(entry.status != "failed" for entry in result.results):
                return _Attempt(trials, folder)
            # A failed one is trained again: --retry-failed may be the reason.
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _ended(self) -> Iterator[tuple[_Attempt, GroupResult]]:
        """Wait for one poll, and yield the groups that have ended."""
        time.sleep(self.executor.poll)
        waiting = []
        for attempt in self._running:
            # The result before the beat: the last beat precedes the result.
            result = read_result(attempt.folder)
            beat = read_beat(attempt.folder)
            attempt.beat = max(attempt.beat, beat, key=lambda beat: beat.seconds)
            if result is None:
                waiting.append(attempt)
            else:
                yield attempt, result
        self._report([attempt.beat for attempt in self._running if attempt.beat.seconds])
        if not waiting:
            return
        states = self.executor.states([attempt.handle for attempt in waiting])
        for attempt in waiting:
            end = self._end_of(attempt, states[attempt.handle])
            if end is not None:
                result = read_result(attempt.folder)
                yield attempt, result or GroupResult(error=end.reason, fault=end.fault)

    def _end_of(self, attempt: _Attempt, state: State) -> Ended | None:
        """Return how a group ended without a result; None while a result may still appear."""
        if attempt.watch is None and (attempt.beat.seconds or state == "running"):
            attempt.watch = Watch(self._patience)
        if isinstance(state, Ended):
            now = time.monotonic()
            attempt.ended = attempt.ended or now
            if attempt.watch is not None and not attempt.beat.seconds:
                # It was killed before its first beat.
                seconds = attempt.ended - attempt.watch.started
                attempt.beat = attempt.beat.model_copy(update={"seconds": seconds})
            if now - attempt.ended < RESULT_POLLS * self.executor.poll:
                return None
            return Ended(f"{state.reason}; {log_hint(attempt.folder)}", state.fault)
        if attempt.watch is None:
            return None
        reason = attempt.watch.overdue(attempt.beat)
        if reason is None:
            return None
        self.executor.cancel([attempt.handle])
        return Ended(reason)
