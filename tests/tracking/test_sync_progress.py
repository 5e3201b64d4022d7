"""What `mixopt sync` says while it sends."""

import json
import sys

import pytest

from mixopt.tracking import sending
from mixopt.tracking.journal import JOURNAL

pytest.importorskip("mlflow")
COUNTS = {"points": 1200, "trials": 3}
ANSWERS = [
    {"alive": True, "sent": COUNTS},
    {"sent": COUNTS, "left": {}, "done": True},
]
SENDER = "import sys; sys.stdin.read(); print({0!r}); print({1!r})"


def test_what_is_sent_is_said_as_it_goes(tmp_path, monkeypatch):
    opened = {"op": "open", "uri": None, "experiment": "toy"}
    (tmp_path / JOURNAL).write_text(json.dumps(opened) + "\n")
    script = SENDER.format(*map(json.dumps, ANSWERS))
    monkeypatch.setattr(sending, "sender_command", lambda path: [sys.executable, "-c", script])
    monkeypatch.setattr(sending, "_SAID_EVERY", -1.0)
    said: list[str] = []
    found = sending.sync(tmp_path, say=said.append)
    assert said == ["sync: sent 1,200 points of metrics, 3 trials so far"]
    assert (dict(found.sent), found.trouble) == (COUNTS, None)
