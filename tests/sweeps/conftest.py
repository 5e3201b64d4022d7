"""A small corpus, and a designed run for the tests that have it trained elsewhere."""

from work_fixtures import *  # noqa: F403 (fixtures)
