"""Fields of `proxy:` for the user's own trainer; they are allowed only with `name: command`.

They are absent unless they are given, so that configurations without them keep their fingerprints.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from mixopt.config.durations import Duration
from mixopt.config.section import Section
from mixopt.errors import did_you_mean

COMMAND = "command"


class CommandFields(Section):
    """What is run for each trial, and where its losses are."""

    run: str | list[str] | None = Field(
        None,
        description="command that trains one trial, split into words and run without a shell; "
        "{mixture} {trial} {seed} {tokens} {out} {gpus} {corpus} are filled in",
    )
    result: str | None = Field(
        None,
        description="what it writes below {out}, or a glob: JSON, JSONL, CSV, event files of "
        "TensorBoard, a W&B or MLflow run",
    )
    losses: str | dict[str, str] | None = Field(
        None,
        description="names of the losses in the result: a pattern such as eval/{domain}/loss, or "
        "a name or glob for each evaluation domain; each domain's own name if "
        "omitted",
    )
    unit: Literal["nats_per_token", "bits_per_byte"] | None = Field(
        None, description="of the losses in the result; nats_per_token if omitted"
    )
    mixture_format: str | None = Field(
        None, description="trainer whose format {mixture} is written in, as mixopt export does"
    )
    paths: dict[str, str | list[str]] | None = Field(
        None, description="the trainer's own data by domain, for mixture_format"
    )
    folder: str | None = Field(
        None, description="where the command runs; the trial's own folder, {out}, if omitted"
    )
    timeout: Duration | None = Field(
        None, description="time limit of a trial, in seconds or as 2h; no limit if omitted"
    )
    retries: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="how many times a failed command is retried; 0 if omitted"
    )

    @property
    def command_fields(self) -> dict[str, Any]:
        """Those that are given, by name."""
        given = {name: getattr(self, name) for name in CommandFields.model_fields}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def command_text(self) -> str | None:
        """The command as one text, for whoever is asked to trust it; None where there is none."""
        return shlex.join(self.run) if isinstance(self.run, list) else self.run


def command_faults(
    name: str, fields: CommandFields, options: Iterable[str], evaluation: Iterable[str]
) -> Iterable[tuple[tuple[str, ...], str]]:
    """Find what cannot be right of these fields: where, and what.

    Args:
        name: The proxy's.
        fields: The section.
        options: Names of `proxy.options`.
        evaluation: Names of the evaluation domains.
    """
    given = fields.command_fields
    if name != COMMAND:
        for field in given:
            yield (
                ("proxy", field),
                f"is for a trainer of your own: give name: {COMMAND}, or leave it out",
            )
        return
    for field in ("run", "result"):
        if field not in given:
            yield ("proxy", field), f"is missing: name: {COMMAND} needs 'run' and 'result'"
    for option in options:
        yield ("proxy", "options", option), f"stands directly under 'proxy' with name: {COMMAND}"
    losses, known = given.get("losses"), list(evaluation)
    for domain in losses if isinstance(losses, dict) else ():
        if domain not in known:
            yield (
                ("proxy", "losses", domain),
                f"unknown evaluation domain {domain!r}{did_you_mean(domain, known)}",
            )
