"""The process that reads an experiment from MLflow: `python -m mixopt.tracking.read_process`.

The first line of its standard input is `{uri, experiment}` as JSON. It answers with a JSON line
for each run, then `done`; or with an `error`, or with the names of the experiments available where
there is none of the name. It writes nothing to the store.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from mixopt.system import ServerUri, without_secrets
from mixopt.tracking.sender_settings import take_settings

PAGE = 1000


def main() -> None:
    """Answer on standard output, where MLflow prints nothing."""
    answers, settings = sys.stdout, take_settings()
    sys.stdout = sys.stderr
    login = ServerUri(settings.uri or "").login()
    try:
        for message in _messages(login.uri, settings.experiment):
            answers.write(json.dumps(message) + "\n")
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        said = without_secrets(f"{type(error).__name__}: {lines[0]}", login.secrets)
        answers.write(json.dumps({"error": said[:200]}) + "\n")
    answers.flush()


def _messages(uri: str, experiment: str) -> Iterator[dict[str, Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        yield {"experiments": [one.name for one in client.search_experiments()]}
        return
    page = None
    while page is None or page.token:
        token = page.token if page else None
        page = client.search_runs([found.experiment_id], max_results=PAGE, page_token=token)
        for run in page:
            yield {"run": _run(run)}
    yield {"done": True}


def _run(run: Any) -> dict[str, Any]:
    return {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "started": run.info.start_time or 0,
        "params": dict(run.data.params),
        "metrics": dict(run.data.metrics),
        "tags": dict(run.data.tags),
    }


if __name__ == "__main__":
    main()
