"""A store of tracking in memory, and lines of a journal, for tests that need no MLflow."""

from mixopt.run_directory.step_records import StepRecord, read_steps, write_steps
from mixopt.system import folder_records
from mixopt.tracking.journal import JOURNAL
from mixopt.tracking.lines import LineFile

TAGS = {"mixopt.fingerprint": "0123"}


class MemoryStore:
    """Keeps what it is given, as MLflow's store would; refuses all while it is down."""

    def __init__(self):
        self.calls, self.is_down, self.deleted = [], False, set()

    def _note(self, *call):
        if self.is_down:
            raise OSError("down")
        self.calls.append(call)

    def has(self, run):
        self._note("has", run)
        return run not in self.deleted

    def parent(self, key, step, wanted):
        self._note("parent", step, wanted.mark)
        return f"{step}-{wanted.mark}-{sum(call[0] == 'parent' for call in self.calls)}"

    def trials(self, key, parent, several):
        for one in several:
            self._note("trial", parent, one.name)
            yield one, f"{parent}/{one.name}"

    def points(self, run, points):
        self._note("points", run, [(p.key, p.step) for p in points])

    def artifact(self, run, file, folder):
        self._note("artifact", run, file.name, folder)

    def tags(self, run, tags):
        self._note("tags", run, dict(tags))

    def status(self, run, status, ended):
        self._note("status", run, status, ended)

    def take(self):
        """Return the calls since the last time."""
        calls, self.calls = self.calls, []
        return calls


def listed(path, *names):
    """Have the manifest of a run list files, as they are now."""
    records = read_steps(path)
    known = records["sweep"].files if "sweep" in records else {}
    files = {**known, **folder_records(path, names)}
    write_steps(path, {**records, "sweep": StepRecord(fingerprint="0", seconds=1.0, files=files)})


def say(path, op, step="sweep", time=1.5, **more):
    if op == "files":
        listed(path, *more["files"])
    journal = LineFile(path / JOURNAL)
    journal.append({"op": op, "step": step, "time": time, **more})
    journal.close()


def start(path, tags=TAGS, folder=None, **more):
    fields = {"name": "sweep", "params": {}, "environment": {}, "datasets": []}
    say(path, "start", folder=folder, tags=tags, **fields, **more)
