"""A run that nothing disturbs; all tests of this folder are nightly."""

from collections import defaultdict
from pathlib import Path

import pytest
from fault_runs import KINDS, Undisturbed, undisturbed as undisturbed_run

HERE = Path(__file__).parent
MANY = 6  # cases of a test


def pytest_collection_modifyitems(config, items):
    """Mark all that is in this folder, and leave it to `make nightly`.

    Of a test with many cases, the quick part (MIXOPT_FAULTS=0) has every second one.
    """
    here = [item for item in items if item.path.is_relative_to(HERE)]
    cases = defaultdict(list)
    for item in here:
        item.add_marker(pytest.mark.nightly)
        cases[item.path, item.originalname].append(item)
    if KINDS:
        return
    left = {entry for many in cases.values() if len(many) > MANY for entry in many[1::2]}
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def whole(tmp_path_factory, short_texts) -> Undisturbed:
    """The run, and the state before each of its steps."""
    return undisturbed_run(tmp_path_factory.mktemp("whole"), short_texts)
