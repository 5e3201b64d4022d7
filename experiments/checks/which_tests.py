"""A plug-in of pytest that writes down which lines each test runs, and how long it takes.

`mutants.py` starts it under coverage. A line that a fixture of a whole file runs belongs to the
file, not to the test that happened to come first; of a fixture of the session, to every test.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

_seconds: dict[str, float] = {}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Name the test whose lines follow."""
    _switch(item.nodeid)
    try:
        return (yield)
    finally:
        _switch("")


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Give the lines of a shared fixture to all who share it."""
    item = request._pyfuncitem.nodeid
    if fixturedef.scope in ("session", "package"):
        _switch("")
    elif fixturedef.scope in ("module", "class"):
        _switch(item.partition("::")[0])
    try:
        return (yield)
    finally:
        _switch(item)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the set-up, the call and the tear-down of each test."""
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    """Write the seconds of each test where MUTANTS_SECONDS says."""
    Path(os.environ["MUTANTS_SECONDS"]).write_text(json.dumps(_seconds), encoding="utf-8")


def _switch(context: str) -> None:
    """Tell coverage who runs the lines from here on."""
    running = coverage.Coverage.current()
    if running is not None:
        running.switch_context(context)
