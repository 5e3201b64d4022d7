"""Work in a folder for a while, perhaps as on another host.

python folder_owner.py FOLDER SECONDS [HOST [SHIFT [SIGNAL...]]]: prints `in`, or the error. HOST
pretends that the process is there; SHIFT is how far its clock is off, in seconds; signals are
ignored.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path


def marker(pid, host, start=1):
    """The lock of an owner, as filelock writes it."""
    fields = {"pid": pid, "host": host, "mode": "lease", "token": "ab", "duration": 30.0}
    lines = [f"{name}={value}" for name, value in {**fields, "start": start}.items()]
    return "\n".join(["filelock/2", *lines, ""])


def main(folder, seconds, host="", shift="0", *ignored):
    for name in ignored:
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    touch = os.utime
    if host:
        socket.gethostname = lambda: host
        os.utime = lambda path, times=None, **more: touch(
            path, times=(time.time() + float(shift),) * 2, **more
        )
    from mixopt.errors import RunError
    from mixopt.system import lock, only_one

    lock.BEAT, lock.STALE = 0.2, 3.0
    try:
        with only_one(Path(folder)):
            sys.stdout.write("in\n")
            sys.stdout.flush()
            time.sleep(float(seconds))
    except RunError as error:
        sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
