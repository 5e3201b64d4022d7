"""The command that says what the experts of a run do."""

from __future__ import annotations

from mixopt.cli.options import AsJson, Directory, Trusted, app, print_json, say, show


@app.command("experts")
def experts_command(directory: Directory, trust: Trusted = False, as_json: AsJson = False) -> None:
    """Say which experts serve which domain, and what is wrong with them; draw the figures."""
    from mixopt.reporting import draw_experts, experts

    found = experts(directory, trust=trust)
    files = draw_experts(found)
    if as_json:
        print_json({**found.as_dict(), "figures": [str(file) for file in files]})
        return
    show(found)
    say(f"experts: figures: {', '.join(str(file) for file in files)}")
