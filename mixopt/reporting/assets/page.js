// The decision page: tables that sort and unfold, groups, and buttons that copy the weights.
// Without this script the page shows everything, and nothing can be pressed.
(() => {
  "use strict";
  const SHOWN = 10; // rows of a long table at first
  const LONG = 12; // rows from which a table is long; hiding one or two saves nothing
  const SHOWN_SMALL = 5; // rows of the mixture on a narrow screen at first
  document.documentElement.classList.add("js");

  const UNITS = { k: 1e3, M: 1e6, B: 1e9, T: 1e12, kB: 1e3, MB: 1e6, GB: 1e9 };

  /** The first number of a cell's text, with its unit; null where it does not begin with one. */
  function number(text) {
    const found = text.replace(/\u2212/g, "-").replace(/,(?=\d{3})/g, "")
      .match(/^[<~]?\s*([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s?([kMG]?B|[kMT])?/);
    return found ? Number(found[1]) * (UNITS[found[2]] || 1) - (text[0] === "<" ? 1e-12 : 0) : null;
  }

  /** Order two texts: numbers by value, then words by alphabet; what is empty comes last. */
  function compare(one, other, sign) {
    if (!one || !other) return Number(!one) - Number(!other);
    const a = number(one), b = number(other);
    if (a !== null && b !== null) return sign * (a - b);
    if (a !== null || b !== null) return a === null ? 1 : -1;
    return sign * one.localeCompare(other, "en", { numeric: true });
  }

  /** Sort the rows by a column: numbers fall first, words rise first, and the other way next. */
  function sort(table, head) {
    const body = table.tBodies[0], rows = [...body.rows], column = head.cellIndex;
    const texts = new Map(rows.map((row) => [row, row.cells[column].innerText.trim()]));
    const words = [...texts.values()].every((text) => !text || number(text) === null);
    const before = head.getAttribute("aria-sort");
    const rising = before ? before === "descending" : words;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    rows.sort((a, b) => compare(texts.get(a), texts.get(b), rising ? 1 : -1));
    body.append(...rows);
  }

  /** Make the headings of a table buttons. */
  function makeSortable(table) {
    for (const head of table.tHead.rows[0].cells) {
      if (!head.textContent.trim()) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, head));
    }
  }

  /** Show the first rows of a long table, and a button for the others. */
  function shorten(table) {
    const rows = table.tBodies[0].rows.length, isMixture = Boolean(table.closest(".mix"));
    if (rows <= LONG && !(isMixture && rows > SHOWN_SMALL + 1)) return;
    table.classList.add("short");
    table.classList.toggle("small-only", rows <= LONG);
    const button = document.createElement("button");
    button.type = "button";
    button.className = rows <= LONG ? "more small-only" : "more";
    const label = () => {
      const isShort = table.classList.contains("short");
      button.textContent = isShort ? `Show all ${rows}` : "Show fewer";
      button.setAttribute("aria-expanded", String(!isShort));
    };
    button.addEventListener("click", () => { table.classList.toggle("short"); label(); });
    label();
    const tools = isMixture && document.querySelector(".mix .tools");
    if (tools) tools.prepend(button);
    else table.after(button);
  }

  /** Open the section that the address names. */
  const unfold = () => document.getElementById(location.hash.slice(1))?.querySelector("details")?.setAttribute("open", "");
  addEventListener("hashchange", unfold);
  unfold();

  for (const table of document.querySelectorAll("table.sortable")) {
    makeSortable(table);
    shorten(table);
  }

  for (const head of document.querySelectorAll(".group")) {
    const members = head.closest("tbody").querySelectorAll(".member");
    const button = document.createElement("button");
    button.type = "button";
    button.append(...[...head.childNodes].filter((node) => node.nodeName !== "SMALL"));
    head.prepend(button);
    const set = (open) => {
      button.setAttribute("aria-expanded", String(open));
      for (const row of members) row.hidden = !open;
    };
    button.addEventListener("click", () => set(button.getAttribute("aria-expanded") !== "true"));
    set(false);
  }

  /** One button puts the table of groups in the place of that of domains, and back. */
  const grouped = document.getElementById("by-groups");
  if (grouped) {
    const domains = document.getElementById("by-domains");
    const [switcher, more] = [...document.querySelectorAll(".mix .tools button")].reverse();
    const set = (isGrouped) => {
      switcher.setAttribute("aria-pressed", String(isGrouped));
      grouped.hidden = !isGrouped;
      domains.hidden = isGrouped;
      if (more) more.hidden = isGrouped;
    };
    switcher.addEventListener("click", () => set(grouped.hidden));
    switcher.hidden = false;
    set(false);
  }

  /** On a narrow screen the first formats are shown, and a button for the others. */
  const chips = document.querySelector(".chips"), rest = document.createElement("button");
  if (!chips) return; // a page without weights to copy
  const setFew = (isFew) => {
    rest.textContent = isFew ? `All ${chips.children.length - 1} formats` : "Fewer formats";
    rest.setAttribute("aria-expanded", String(!isFew));
    chips.classList.toggle("few", isFew);
  };
  rest.type = "button";
  rest.addEventListener("click", () => setFew(!chips.classList.contains("few")));
  chips.append(Object.assign(document.createElement("li"), { className: "rest" }));
  chips.lastChild.append(rest);
  setFew(true);

  const fragments = JSON.parse(document.getElementById("fragments").textContent);
  const said = document.getElementById("copied"), shown = document.getElementById("copied-text");

  /** Copy by a selected field, where the clipboard's own interface is refused. */
  function copySelected(text) {
    const field = document.createElement("textarea");
    field.value = text;
    field.setAttribute("readonly", "");
    field.style.cssText = "position:fixed;top:0;left:0;opacity:0";
    document.body.append(field);
    const before = document.activeElement;
    field.select();
    let done = false;
    try { done = document.execCommand("copy"); } catch { done = false; }
    field.remove();
    if (before) before.focus();
    return done;
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copySelected(text);
    }
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const name = button.textContent, fragment = fragments[button.dataset.copy];
      document.querySelector(".chips .done")?.classList.remove("done");
      if (fragment.why) {
        shown.hidden = true;
        said.textContent = `Not for this run. ${fragment.why}`;
        return;
      }
      const done = await copy(fragment.text);
      shown.textContent = fragment.text;
      shown.hidden = false;
      if (done) button.classList.add("done");
      else getSelection().selectAllChildren(shown);
      said.textContent = done ? `Copied for ${name}.` : `Press Ctrl+C to copy for ${name}.`;
    });
  }
  for (const part of document.querySelectorAll(".copy")) part.hidden = false;
})();
