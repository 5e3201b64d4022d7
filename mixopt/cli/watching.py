"""Show a status that redraws each second, until the run ends or somebody has seen enough."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

EVERY_SECONDS = 1.0
QUIT = "qQ\x03"  # keys that end it
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ALTERNATE, NORMAL = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def watch(draw: Callable[[], tuple[list[str], bool]]) -> None:
    """Redraw until a drawing says that it is the last, or a key ends it.

    On a terminal the screen is another one, and the last drawing stays on the usual screen. Piped,
    a drawing is printed where it differs from the one before.

    Args:
        draw: Returns the lines to show, and whether there is more to come.
    """
    if sys.stdout.isatty():
        _on_screen(draw)
    else:
        _piped(draw)


def _piped(draw: Callable[[], tuple[list[str], bool]]) -> None:
    before: list[str] = []
    while True:
        lines, more = draw()
        if lines != before:
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
            before = lines
        if not more:
            return
        time.sleep(EVERY_SECONDS)


def _on_screen(draw: Callable[[], tuple[list[str], bool]]) -> None:
    lines: list[str] = []
    with _other_screen(), _keys(), suppress(KeyboardInterrupt):
        while True:
            lines, more = draw()
            sys.stdout.write(_screen([*lines, "", "q: quit"], os.get_terminal_size().lines))
            sys.stdout.flush()
            if not more or _is_ended():
                break
    sys.stdout.write("\n".join(lines) + "\n")


def _screen(lines: list[str], height: int) -> str:
    shown = lines if len(lines) <= height else [*lines[: height - 1], "..."]
    return HOME + "\n".join(f"{line}{CLEAR_LINE}" for line in shown) + CLEAR_BELOW


def _is_ended() -> bool:
    """Wait for a second, or less where a key is pressed that ends it."""
    until = time.monotonic() + EVERY_SECONDS
    while (left := until - time.monotonic()) > 0:
        if not sys.stdin.isatty():
            time.sleep(left)
        elif select.select([sys.stdin], [], [], left)[0]:
            key = os.read(sys.stdin.fileno(), 1).decode(errors="replace")
            if not key or key in QUIT:
                return True
    return False


@contextmanager
def _other_screen() -> Iterator[None]:
    sys.stdout.write(ALTERNATE)
    try:
        yield
    finally:
        sys.stdout.write(NORMAL)
        sys.stdout.flush()


@contextmanager
def _keys() -> Iterator[None]:
    """Hand on keys as they are pressed, where keys can be pressed."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin.fileno())
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
