"""Commands of other programs, such as Slurm's, that do what a test says."""

import os


def fake_commands(folder, monkeypatch, **scripts):
    """Put shell scripts first on the path, by the names of commands."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
