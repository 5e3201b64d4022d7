"""The part of an order that a task serves, and its local corpus and device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixopt.corpus import corpus_hash
from mixopt.errors import CorpusError, RunError
from mixopt.sweeps.devices import WorkerDevice, worker_devices
from mixopt.sweeps.on_folder.work_folder import WorkOrder
from mixopt.system import host_name


@dataclass(frozen=True)
class WorkShare:
    """Which of several tasks one is: `number` of `count`, from 0."""

    number: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str) -> WorkShare:
        """Read `K/N`.

        Raises:
            RunError: It is of another form, or K is not below N.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and len(text) < 16):
            raise RunError(f"--task {text}: expected K/N, such as 0/4, the first of four tasks")
        share = cls(int(number), int(count))
        if share.number >= share.count:
            raise RunError(
                f"--task {text}: K counts from 0, so the last of {share.count} tasks is "
                f"{max(0, share.count - 1)}/{share.count}"
            )
        return share

    def __str__(self) -> str:
        """Return it in the form of the option."""
        return f"{self.number}/{self.count}"

    def first(self, names: Sequence[str]) -> list[str]:
        """Return trials with those of this share first."""
        mine = names[self.number :: self.count]
        later = [
            name
            for place in range(self.number + 1, self.number + self.count)
            for name in names[place % self.count :: self.count]
        ]
        return [*mine, *later]


def check_corpus(order: WorkOrder) -> None:
    """Check that this host sees the corpus of an order.

    Raises:
        CorpusError: It is not there, or it is another one.
    """
    path, wanted = order.job.corpus, order.job.corpus_hash
    if not path.is_dir():
        raise CorpusError(
            f"{path}: is not visible on {host_name()}; give --out a folder that all nodes share"
        )
    if wanted and corpus_hash(path) != wanted:
        raise CorpusError(
            f"{path}: differs on {host_name()} from the corpus that the sweep started with; if it "
            "was prepared again, interrupt the sweep and run it again"
        )


def device_of(order: WorkOrder, share: WorkShare) -> WorkerDevice:
    """Return what a task computes on: of several devices of a host, the one in its turn."""
    devices = worker_devices(order.job.training.device, None, order.gpus)
    return devices[share.number % len(devices)]


def plain_name(kind: str) -> str:
    """Return the name of a kind of device as one of a folder."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in kind)[:100] or "cpu"
