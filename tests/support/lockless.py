"""Work in a folder for a while, as on a file system without locks, or on another host.

python lockless.py FOLDER SECONDS [HOST [SHIFT]]: prints `in`, or the error. HOST pretends that the
process is there; SHIFT is how far its clock is off, in seconds.
"""

import errno
import fcntl
import socket
import sys
import time
from pathlib import Path


def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


def main(folder: str, seconds: str, host: str = "", shift: str = "0") -> None:
    fcntl.flock = no_locks
    clock = time.time
    if host:
        socket.gethostname = lambda: host
        time.time = lambda: clock() + float(shift)
    from mixopt.errors import RunError
    from mixopt.system import lease, only_one

    lease.BEAT = 0.2
    try:
        with only_one(Path(folder)):
            sys.stdout.write("in\n")
            sys.stdout.flush()
            time.sleep(float(seconds))
    except RunError as error:
        sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
