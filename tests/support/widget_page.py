"""A widget in a page without a notebook: its script runs in a browser, its Python side is real.

What a notebook has between them is here a function that the page calls, with what it changed, and
that answers with all that Python then has.
"""

from __future__ import annotations

from typing import Any

SYNCED = ("_data", "weights")
CONNECT = """async ([script, values]) => {
  const state = { ...values }, heard = {};
  let changed = {};
  window.take = (found) => {
    const same = (name) => JSON.stringify(found[name]) === JSON.stringify(state[name]);
    const news = Object.keys(found).filter((name) => !same(name));
    Object.assign(state, found);
    for (const name of news) for (const action of heard[`change:${name}`] ?? []) action();
  };
  const model = {
    get: (name) => state[name],
    set: (name, value) => { state[name] = changed[name] = value; },
    save_changes: async () => {
      const sent = changed;
      changed = {};
      window.take(await window.toPython(sent));
    },
    on: (event, action) => (heard[event] ??= new Set()).add(action),
    off: (event, action) => heard[event]?.delete(action),
  };
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const { default: widget } = await import(address);
  window.forget = await widget.render({ model, el: document.getElementById("cell") });
}"""


def show_widget(page: Any, widget: Any) -> None:
    """Show a widget in the element `cell` of a page, connected to Python."""
    page.expose_function("toPython", lambda sent: _taken(widget, sent))
    page.evaluate(CONNECT, [widget._esm, synced(widget)])


def synced(widget: Any) -> dict[str, Any]:
    """Return what both sides have."""
    return {name: getattr(widget, name) for name in SYNCED}


def _taken(widget: Any, sent: dict[str, Any]) -> dict[str, Any]:
    for name, value in sent.items():
        setattr(widget, name, value)
    return synced(widget)
