"""A bounded cache of files by their hash: its bound, what is removed first, several processes."""

import hashlib
import os
import threading

import pytest

from mixopt.errors import RunError
from mixopt.system import ContentCache


def content(number: int) -> bytes:
    return bytes([number]) * 100


def name(number: int) -> str:
    return hashlib.sha256(content(number)).hexdigest()


def opened(cache, number, fetched=None):
    def fetch(path):
        if fetched is not None:
            fetched.append(number)
        path.write_bytes(content(number))

    descriptor = cache.open(name(number), 100, fetch)
    try:
        return os.pread(descriptor, 200, 0)
    finally:
        os.close(descriptor)


def test_a_file_is_fetched_once(tmp_path):
    cache, fetched = ContentCache(tmp_path / "c", 1000), []
    assert [opened(cache, 1, fetched) for _ in range(3)] == [content(1)] * 3
    assert fetched == [1]
    assert cache.has(name(1))
    assert not cache.has(name(2))


def test_what_was_not_asked_for_longest_makes_room(tmp_path):
    cache, fetched = ContentCache(tmp_path, 300), []
    for number in (1, 2, 3):
        opened(cache, number, fetched)
        os.utime(tmp_path / name(number), (number, number))
    opened(cache, 1)
    opened(cache, 4)
    assert [cache.has(name(n)) for n in (1, 2, 3, 4)] == [True, False, True, True]
    os.utime(tmp_path / name(1), (1, 1))
    cache.touch(name(1))
    os.utime(tmp_path / name(3), (3, 3))
    opened(cache, 5)
    assert [cache.has(name(n)) for n in (1, 3, 4, 5)] == [True, False, True, True]


def test_the_bound_holds_while_several_fetch_at_once(tmp_path):
    cache, held = ContentCache(tmp_path, 500), []

    def fetch_some(first):
        for number in range(first, first + 12):
            opened(cache, number)
            held.append(sum(len(f.name) == 64 for f in list(tmp_path.iterdir())))

    threads = [threading.Thread(target=fetch_some, args=(20 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 48
    assert sum(f.stat().st_size for f in tmp_path.iterdir() if len(f.name) == 64) <= 500
    assert not list(tmp_path.glob("*.tmp"))


def test_a_damaged_copy_is_fetched_again_and_a_failed_one_leaves_nothing(tmp_path):
    cache, fetched = ContentCache(tmp_path, 500), []
    opened(cache, 1, fetched)
    (tmp_path / name(1)).write_bytes(b"half")
    assert opened(cache, 1, fetched) == content(1)
    assert fetched == [1, 1]

    def breaks_off(path):
        path.write_bytes(b"half")
        raise RunError("no more")

    with pytest.raises(RunError, match="no more"):
        cache.open(name(2), 100, breaks_off)
    assert not cache.has(name(2))
    assert not [f for f in tmp_path.iterdir() if f.name.endswith(".tmp")]


def test_a_file_that_is_removed_while_it_is_read_stays_readable(tmp_path):
    cache = ContentCache(tmp_path, 100)
    descriptor = cache.open(name(1), 100, lambda path: path.write_bytes(content(1)) and None)
    opened(cache, 2)
    assert not cache.has(name(1))
    assert os.pread(descriptor, 100, 0) == content(1)
    os.close(descriptor)


def test_no_bound_is_half_of_what_the_disk_has(tmp_path):
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert ContentCache(tmp_path / "none" / "yet").most_bytes == pytest.approx(free / 2, rel=0.05)
