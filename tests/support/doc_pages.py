"""Pages of docs/, whose blocks a test does as a reader does."""

import re
import shlex
from pathlib import Path

from command_line import mixopt
from places import PROJECT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def page_text(name):
    return (PROJECT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def blocks_of(name, language):
    """Return the blocks of a page in a language, in order."""
    return [text for kind, text in BLOCK.findall(page_text(name)) if kind == language]


def work_through(name):
    """Do a page in this folder: save files under their names, run programs and commands.

    Returns:
        The names that its programs define, which share one namespace.
    """
    names = {"__name__": "example"}
    for language, text in BLOCK.findall(page_text(name)):
        if language == "python":
            exec(compile(text, f"{name}.md", "exec"), names)
        elif language == "yaml":
            Path(re.match(r"# (\w+\.yaml)", text)[1]).write_text(text)
        else:
            assert language == "sh"
            for words in map(shlex.split, text.splitlines()):
                if words[:2] != ["pip", "install"]:
                    ended = mixopt(*words[1:])
                    assert ended.code == 0, f"{words}: {ended.error}"
    return names
