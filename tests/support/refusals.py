"""An error that somebody reads is one line with what is wrong."""

import pytest

from mixopt.errors import MixoptError


def refuses(error, message, call, *args, **options):
    """Check that a call raises this error in one line that the pattern is in; return the line."""
    with pytest.raises(error, match=message) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal(call, *args, **options):
    """Return the line in which a call is refused, or "" where it does its work."""
    try:
        call(*args, **options)
    except MixoptError as error:
        line = str(error)
    else:
        return ""
    assert "\n" not in line
    return line
