"""A designed run for the tests that have it trained by tasks."""

from work_fixtures import designed, local_table, work_run

__all__ = ["designed", "local_table", "work_run"]
