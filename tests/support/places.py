"""Where tests find the project, the scripts that they start, and the data that may be there."""

from pathlib import Path

SUPPORT = Path(__file__).parent
PROJECT = SUPPORT.parents[1]
DATA = PROJECT.parent / "shared" / "data"  # not part of the project; tests of it skip without
