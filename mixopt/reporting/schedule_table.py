"""What a schedule draws, as tables for a terminal: stages, and domains by stage."""

from __future__ import annotations

from mixopt.reporting.text_table import table_text
from mixopt.sampling import ScheduleForecast
from mixopt.system import count_text, share_text, short_count

MOST_COLUMNS = 6  # stages whose shares are shown side by side; of more the first and the last


def schedule_text(forecast: ScheduleForecast) -> str:
    """Return the tables of `mixopt simulate SCHEDULE`."""
    schedule = forecast.schedule
    title = (
        f"{short_count(schedule.tokens)} tokens in {schedule.steps:,} steps of {schedule.batch:,}"
    )
    rounded = schedule.tokens - schedule.asked_tokens
    lines = [table_text(title, _STAGE_COLUMNS, _stages(forecast))]
    if rounded:
        lines.append(
            f"requested: {schedule.asked_tokens:,} tokens; in whole batches:"
            f" {schedule.tokens:,} ({rounded:+,})\n"
        )
    columns, rows = _domains(forecast)
    lines.append(table_text("Share of the tokens by stage", columns, rows))
    return "\n".join(lines).rstrip("\n")


_STAGE_COLUMNS = ("stage", "first step", "steps", "tokens")


def _stages(forecast: ScheduleForecast) -> list[list[str]]:
    return [
        [
            stage.name,
            count_text(stage.start),
            count_text(stage.steps),
            short_count(stage.tokens),
        ]
        for stage in forecast.stages
    ]


def _domains(forecast: ScheduleForecast) -> tuple[list[str], list[list[str]]]:
    stages = list(forecast.stages)
    shown = stages if len(stages) <= MOST_COLUMNS else [stages[0], stages[-1]]
    columns = ["domain", *(stage.name for stage in shown), "tokens", "epochs", "runs out"]
    shares = [stage.shares for stage in shown]
    rows = [
        [
            name,
            *(share_text(share[name]) for share in shares),
            short_count(tokens),
            f"{stages[-1].epochs[name]:.3f}",
            _runs_out(forecast, name),
        ]
        for name, tokens in forecast.drawn.items()
    ]
    return columns, rows


def _runs_out(forecast: ScheduleForecast, name: str) -> str:
    out = forecast.runs_out.get(name)
    if out is None:
        return "-"
    stage = forecast.stages[out.stage].name
    return f"at {short_count(out.tokens)}, step {out.step:,} of {stage}"
