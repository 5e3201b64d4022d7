"""What the command line says of an exception that nobody meant to raise.

A machine without room for what was asked (memory, disk, open files) is said in a line. Anything
else is a defect of mixopt's: its traceback goes to a file that only the user may read, since it may
hold what the configuration holds, and outside the run directory, since that may be anybody's.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback

OUR_DEFECT = 70  # EX_SOFTWARE of sysexits.h
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENOMEM, errno.EMFILE}
_UNUSABLE = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES}
_UNUSABLE |= {errno.EPERM}
_NO_ROOM |= {errno.ENFILE}


def no_room_line(error: BaseException) -> str | None:
    """Return the line for a machine without room or a path that cannot be; else None."""
    if isinstance(error, MemoryError):
        reason = _one_line(str(error))
        return f"out of memory{': ' + reason if reason else ''}; the same command resumes"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        place = f"{_one_line(str(error.filename))}: " if error.filename is not None else ""
        return f"{place}{error.strerror}; the same command resumes"
    if isinstance(error, UnicodeEncodeError):
        what = error.object[error.start : error.end].encode("unicode_escape").decode()
        return f"{what}: the encoding {error.encoding} of this terminal or system has no such text"
    if isinstance(error, OSError) and error.errno in _UNUSABLE and error.filename is not None:
        return f"{_one_line(str(error.filename))}: {error.strerror}"
    return None


def defect_line(error: BaseException) -> str:
    """Write an error's traceback to a log of the user's own; return the line that says where."""
    what = (
        f"{type(error).__name__}: {_one_line(str(error))}" if str(error) else type(error).__name__
    )
    return f"a defect of mixopt: {what[:300]}; please report it with {_log(error)}"


def _log(error: BaseException) -> str:
    """Return the log's path, or why there is none."""
    try:
        handle, path = tempfile.mkstemp(prefix="mixopt-", suffix=".log")  # mode 0600
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{' '.join(sys.argv[:2])}\n")
            traceback.print_exception(error, file=stream)
    except OSError as reason:
        return f"its traceback, which cannot be written: {reason.strerror}"
    return path


def _one_line(text: str) -> str:
    kept = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(kept.split())[:300]
