"""States with one value changed."""

import json


def replaced(content, place, value):
    """Return a state with one value replaced; removed, where that is `...`."""
    content = json.loads(json.dumps(content))
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return content
