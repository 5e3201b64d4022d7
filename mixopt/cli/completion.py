"""What a shell offers where a run directory is asked for."""

from __future__ import annotations

from pathlib import Path

RUNS = "runs"  # where run directories are by default
MOST = 200  # that are offered


def complete_directory(incomplete: str) -> list[str]:
    """Return the run directories under `runs/` and the paths that begin with what is typed."""
    folder = Path(incomplete).parent if incomplete else Path(RUNS)
    if incomplete.endswith("/"):
        folder = Path(incomplete)
    places = [folder] if folder == Path(RUNS) else [Path(RUNS), folder]
    found = dict.fromkeys(path for place in places for path in _offered(place))
    return [text for text in found if text.startswith(incomplete)][:MOST]


def _offered(folder: Path) -> list[str]:
    """Return the runs of a folder, else its folders and YAML files."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    runs = [str(path) for path in entries if (path / "config.yaml").is_file()]
    others = [f"{path}/" for path in entries if path.is_dir() and str(path) not in runs]
    files = [str(path) for path in entries if path.suffix in {".yaml", ".yml"}]
    return [text for text in (*runs, *files, *others) if not Path(text).name.startswith(".")]
