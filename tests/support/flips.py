"""A file in which a single bit has changed."""

from random import Random


def flips(path, step=0, count=0, seed=0):
    """Change one bit of a file after the other, every `step`-th or `count` drawn ones.

    Yields:
        The bit that has changed now; all others are as they were, at the end that too.
    """
    whole = path.read_bytes()
    bits = range(8 * len(whole))
    for bit in bits[::step] if step else Random(repr(seed)).sample(bits, count):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        yield bit
    path.write_bytes(whole)
