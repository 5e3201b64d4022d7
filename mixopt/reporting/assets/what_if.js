// The what-if: a mixture set by hand, and the losses and limits predicted for it.
//
// `renderWhatIf(root, data, options)` builds it inside an element. A change of the mixture is drawn
// once a frame; intervals follow once the mixture rests, and need factors that are made in idle time
// first. `options.onChange(weights)` hears of each mixture at rest. The handle has `weights`,
// `setWeights(weights)` and `destroy()`. Text of a run only ever becomes text, never markup.
//
// A mixture is a Float64Array of D weights that add up to 1. D domains, M targets, G guardrails.

const TOLERANCE = 1e-6; // by which a limit may be missed, as in Python
const SAME = 1e-3; // total variation within which two mixtures count as one
const MAX_ROWS = 12; // rows that are shown before "Show all"
const RESTING = 120; // milliseconds without a move after which intervals are computed
let whatIfCount = 0;

function renderWhatIf(root, data, options = {}) {
  const model = whatIfModel(data, `wi-${++whatIfCount}`);
  const state = { weights: model.base.slice(), locked: new Uint8Array(model.domains.length), anchor: null, ready: false };
  const summary = summaryBar(model), status = element("p", { class: "wi-live", role: "status", "aria-live": "polite" });

  let asked = false;
  function schedule() {
    if (!asked) requestAnimationFrame(() => { asked = false; draw(false); });
    asked = true;
    rest();
  }
  const rest = debounced(RESTING, () => {
    draw(true);
    setText(status, spoken(model, state.now));
    if (options.onChange) options.onChange(state.weights.slice());
  });
  function draw(atRest) {
    const began = performance.now();
    state.now = predicted(model, state, atRest && state.ready);
    for (const part of [summary, domains, targets]) part.update(state.now);
    root.dataset.value = state.now.value;
    if (state.now.halves) root.dataset.half = state.now.valueHalf;
    root.dataset.frame = (performance.now() - began).toFixed(3);
  }
  // Moves of a drag are measured from where it began.
  function move(d, share, isDrag) {
    state.anchor = isDrag ? (state.anchor ?? state.weights) : null;
    const fixed = state.locked.map((isLocked, e) => isLocked || data.phases[e] !== data.phases[d]);
    state.weights = moveShare(state.anchor ?? state.weights, d, share, fixed, model.natural);
    schedule();
  }
  function start(weights) {
    Object.assign(state, { anchor: null, weights: Float64Array.from(weights) });
    domains.sort();
    schedule();
  }
  const ended = () => { state.anchor = null; schedule(); };
  const domains = domainList(model, state, move, ended), targets = targetList(model);
  root.classList.add("what-if");
  const note = data.note ? [element("p", { class: "wi-soft wi-note" }, data.note)] : [];
  root.replaceChildren(toolBar(model, state, start), summary.node, ...note,
    element("div", { class: "wi-columns" }, domains.node, targets.node), status);
  draw(false);
  const idle = window.requestIdleCallback || ((work) => setTimeout(() => work({ timeRemaining: () => 8 }), 1));
  idle(function work(deadline) {
    do {
      if (model.law.prepare()) continue;
      state.ready = true;
      return draw(!asked);
    } while (deadline.timeRemaining() > 2);
    idle(work);
  });
  return {
    get weights() { return state.weights.slice(); },
    setWeights: start,
    destroy() { root.replaceChildren(); },
  };
}

/** Everything that does not depend on the mixture. */
function whatIfModel(data, id) {
  const { domains, targets, natural, trials } = data;
  const law = makeLaw(data);
  const [baseName, base] = data.starts[0];
  return {
    id, data, law, domains, targets, natural, base, baseName: baseName.toLowerCase(),
    signs: data.objective.signs,
    shares: new Set(data.objective.shares),
    limits: readLimits(data, law),
    trials: trials.names.map((name, n) => [name, trials.weights.subarray(n * domains.length, (n + 1) * domains.length)]),
    naturalLosses: law.predict(natural), baseLosses: law.predict(base),
    bases: [[natural, data.values[0]], [base, data.values[1]]],
    ...objectiveTexts(data.objective.factor),
  };
}

/** Everything that is predicted of the mixture now. */
function predicted(model, { weights }, withHalves) {
  const { law, limits, trials } = model;
  const losses = law.predict(weights);
  const broken = limits.map((limit) => ({ limit, value: limit.value(weights, losses) }))
    .filter(({ limit, value }) => limit.side * (value - limit.limit) > TOLERANCE);
  let nearest = { distance: Infinity };
  for (const [name, row] of trials) {
    const distance = totalVariation(weights, row);
    if (distance < nearest.distance) nearest = { name, distance };
  }
  const { reach } = model.data.law.intervals;
  const halves = withHalves ? law.halves(weights) : null;
  const value = law.value(weights);
  const gains = model.bases.map(([base, of]) => (totalVariation(weights, base) < SAME ? 0 : of - value));
  return { weights, losses, broken, nearest, value, gains, halves,
    valueHalf: withHalves ? law.valueHalf(weights) : 0, isFar: nearest.distance > reach.reach };
}

/**
 * Give a domain a share; the others make room in proportion, and locked ones stay. Where all others
 * have nothing they take the proportions of the natural mixture.
 */
function moveShare(weights, d, share, locked, natural) {
  const others = Array.from(weights.keys()).filter((e) => e !== d && !locked[e]);
  if (locked[d] || !others.length) return weights;
  const sum = (mixture) => others.reduce((total, e) => total + mixture[e], 0);
  const free = weights[d] + sum(weights);
  const next = weights.slice();
  next[d] = Math.min(Math.max(share, 0), free);
  const [before, usual] = [sum(weights), sum(natural)];
  for (const e of others) {
    const part = before > 0 ? weights[e] / before : usual > 0 ? natural[e] / usual : 1 / others.length;
    next[e] = (free - next[d]) * part;
  }
  return next;
}

/** All limits; `side` is 1 for at most and -1 for at least, `write` how its numbers are written. */
function readLimits(data, law) {
  const { radius, guardrails, groups } = data.constraints;
  const found = data.domains.flatMap((_, d) => domainLimits(data, d));
  for (const { name, members, low, high } of groups) {
    const value = (w) => members.reduce((sum, d) => sum + w[d], 0);
    const shared = { name: `group ${name}`, what: "share", write: percent, value, source: `constraints.groups.${name}` };
    if (low > 0) found.push({ ...shared, side: -1, limit: low });
    if (high < 1) found.push({ ...shared, side: 1, limit: high });
  }
  if (radius) {
    const [what, distance] = radius.kind === "kl" ? ["KL divergence", divergence] : ["total variation", totalVariation];
    found.push({ name: `distance from ${radius.reference}`, what, side: 1, limit: radius.size, write: decimals(4),
      source: "constraints.radius", value: (w) => distance(w, radius.weights) });
  }
  if (guardrails) {
    const reference = law.predict(guardrails.weights);
    guardrails.targets.forEach((target, g) => {
      const compared = guardrails.fixed[g] ?? reference[target];
      const other = guardrails.floors[g] ? "the floor" : guardrails.reference.replace("_", " ");
      found.push({ name: data.targets[target], side: -1, what: `gain over ${other}`, limit: -guardrails.margins[g],
        write: changeText, source: guardrails.floors[g] ? "constraints.floors" : "constraints.guardrails",
        value: (w, losses) => compared - losses[target] });
    });
  }
  return found;
}

/** Passes over a domain in the full run; null where the run's length is not known. */
function epochsOf({ inventory, target_tokens: tokens }, d, share) {
  return tokens && inventory[d] > 0 ? (share * tokens) / inventory[d] : null;
}

function domainLimits(data, d) {
  const { low, high, inventory, target_tokens: tokens, max_epochs: most } = data.constraints;
  const share = { name: data.domains[d], what: "share", write: percent, domain: d, source: "constraints.bounds", value: (w) => w[d] };
  const found = low[d] > 0 ? [{ ...share, side: -1, limit: low[d] }] : [];
  const cap = most[d] && tokens ? (most[d] * inventory[d]) / tokens : Infinity;
  if (cap < 1 && cap <= high[d] + 1e-12) {
    const value = (w) => epochsOf(data.constraints, d, w[d]) ?? (w[d] > 0 ? Infinity : 0);
    found.push({ ...share, what: "epochs", side: 1, limit: most[d], write: decimals(2), source: "constraints.max_epochs", value });
  } else if (high[d] < 1) {
    found.push({ ...share, side: 1, limit: high[d] });
  }
  return found;
}

/** KL divergence in nats; infinite where a mixture has what the reference lacks. */
function divergence(weights, reference) {
  return weights.reduce((sum, share, d) => (share > 0 ? sum + share * Math.log(share / reference[d]) : sum), 0);
}

/** `web: 5.31 epochs, at most 4.00 (constraints.max_epochs)`. */
function limitText({ limit, value }) {
  return `${limit.name}: ${limit.what} ${limit.write(value)}, ${limit.side > 0 ? "at most" : "at least"} ${limit.write(limit.limit)} (${limit.source})`;
}

function summaryBar(model) {
  const { unit, description } = model.data.objective;
  const [value, half, natural, base] = ["wi-big", "wi-half", "wi-change", "wi-change"].map((kind) => element("span", { class: kind }));
  const [limits, nearest] = [element("div", { class: "wi-limits" }), element("p", { class: "wi-nearest wi-soft" })];
  const node = element("div", { class: "wi-summary", role: "group", "aria-label": "This mixture" },
    element("div", { class: "wi-answer" },
      element("span", { class: "wi-soft" }, `Predicted: ${description}, ${unit}`),
      element("span", { class: "wi-line" }, value, half),
      element("span", { class: "wi-line wi-soft" }, "gain over natural ", natural, ` over ${model.baseName} `, base)),
    element("div", { class: "wi-beside" }, nearest, limits, ...model.data.constraints.unchecked.map(uncheckedNote)));
  return { node, update(now) {
    setText(value, model.valueText(now.value));
    setText(half, `\u00b1 ${now.halves ? model.sizeText(now.valueHalf) : "\u2026"} (90%)`);
    writeGain(natural, now.gains[0], model.sizeText);
    writeGain(base, now.gains[1], model.sizeText);
    setText(nearest, (now.isFar ? `\u26a0 ${farText(model, now)} ` : "") + nearestText(now));
    nearest.classList.toggle("wi-far", now.isFar);
    const lines = now.broken.map(limitText), count = model.limits.length;
    if (limits.dataset.lines === lines.join("\n")) return;
    limits.dataset.lines = lines.join("\n");
    if (lines.length) {
      const title = lines.length === 1 ? "1 limit is broken" : `${lines.length} limits are broken`;
      limits.replaceChildren(element("strong", {}, `\u2717 ${title}`), element("ul", {}, ...lines.map((line) => element("li", {}, line))));
    } else {
      limits.replaceChildren(element("span", { class: "wi-soft" }, count ? `No limit is broken (${count}).` : "No limits are set."));
    }
  } };
}

const uncheckedNote = (limit) => element("p", { class: "wi-soft" }, `Not checked on this page: ${limit}.`);
const nearestText = ({ nearest }) => (nearest.name ? `Nearest trial: ${nearest.name}, total variation ${decimals(3)(nearest.distance)}.` : "");

function farText(model, now) {
  return `Extrapolation: farther from all trials than any trial is from its nearest neighbour (${decimals(2)(model.data.law.intervals.reach.reach)}).`;
}

/** The result in a sentence, for screen readers. */
function spoken(model, now) {
  const half = now.halves ? ` plus or minus ${model.sizeText(now.valueHalf)}` : "";
  const broken = now.broken.map(limitText).join("; ");
  return `Objective ${model.valueText(now.value)}${half}, gain over natural ${changeText(now.gains[0], model.sizeText)}. `
    + `${now.isFar ? farText(model, now) : ""} ${broken ? `Broken: ${broken}.` : "No limit is broken."}`;
}

/** Buttons: where to start from, and a copy of the weights as YAML. */
function toolBar(model, state, start) {
  const copied = element("span", { class: "wi-soft", role: "status" });
  const button = (text, onclick) => element("button", { type: "button", onclick }, text);
  const text = () => model.domains.map((name, d) => `${JSON.stringify(name)}: ${Number(state.weights[d].toPrecision(9))}`).join("\n");
  const copy = () => navigator.clipboard.writeText(text()).then(
    () => setText(copied, "Weights copied."), () => setText(copied, "The browser refused to copy."));
  return element("div", { class: "wi-tools" }, element("span", { class: "wi-soft" }, "Start from"),
    ...model.data.starts.map(([name, weights]) => button(name, () => start(weights))),
    element("span", { class: "wi-copies" }, button("Copy weights", copy), copied));
}

function domainList(model, state, move, ended) {
  const rows = model.domains.map((_, d) => domainRow(model, state, d, move, ended, model.data.slider_top));
  const list = foldedList("Domains", ["share", "", "natural", model.data.constraints.target_tokens ? "epochs" : "", "lock"], "wi-domain");
  const sort = () => list.show(byChange(state.weights, model.natural).map((d) => rows[d]));
  sort();
  return { node: list.node, sort, update: (now) => rows.forEach((row) => row.write(now)) };
}

function domainRow(model, state, d, move, ended, scale) {
  const [name, id, { constraints }] = [model.domains[d], `${model.id}-d${d}`, model.data];
  let isHeld = false;
  const slider = element("input", { type: "range", min: 0, max: scale, step: "any", id,
    oninput: () => { isHeld = true; move(d, Number(slider.value), true); }, onchange: () => { isHeld = false; ended(); } });
  const field = element("input", { type: "number", min: 0, max: 100, step: 0.1, "aria-label": `${name}, percent`,
    onchange: () => move(d, Number(field.value) / 100, false) });
  const lock = element("input", { type: "checkbox", "aria-label": `Lock ${name}`, onchange: () => {
    state.locked[d] = slider.disabled = field.disabled = lock.checked;
  } });
  const epochs = element("span", { class: "wi-epochs" });
  const limit = model.limits.find((one) => one.domain === d && one.side > 0);
  const cap = limit && (limit.what === "epochs" ? limit.limit * constraints.inventory[d] / constraints.target_tokens : limit.limit);
  const marks = [["natural", model.natural[d]], ["most", cap]].filter(([, at]) => at <= scale)
    .map(([kind, at]) => element("i", { class: `wi-mark wi-${kind}`, "aria-hidden": "true", style: `--at:${at / scale}` }));
  const node = element("li", { class: "wi-row wi-domain" },
    element("label", { for: id, class: "wi-name" }, name), element("span", { class: "wi-number" }, field, "%"),
    element("span", { class: "wi-track" }, slider, ...marks),
    element("span", { class: "wi-soft" }, percent(model.natural[d])), epochs, lock);
  node.dataset.domain = name;
  return { node, name, write(now) {
    const share = now.weights[d], passes = epochsOf(constraints, d, share);
    node.dataset.share = share;
    if (share > Number(slider.max)) slider.max = 1;
    if (!isHeld && Number(slider.value) !== share) slider.value = share;
    if (focusedNear(field) !== field) field.value = (100 * share).toFixed(share < 0.00995 ? 2 : 1);
    setText(epochs, passes === null ? "" : `${decimals(2)(passes)}\u00d7`);
    const isBroken = now.broken.some((one) => one.limit.domain === d);
    node.classList.toggle("wi-broken", isBroken);
    slider.setAttribute("aria-valuetext", `${percent(share)}, natural ${percent(model.natural[d])}${isBroken ? ", outside its limit" : ""}`);
  } };
}

/** Predicted losses; the objective is the first row, its place among targets is -1. */
function targetList(model) {
  const list = foldedList("Losses", ["predicted, 90%", "gain over natural", `over ${model.baseName}`], "wi-target");
  const order = byChange(model.baseLosses, model.naturalLosses);
  const rows = [-1, ...order].map((t) => targetRow(model, t));
  list.show(rows);
  return { node: list.node, update: (now) => rows.forEach((row) => row.write(now)) };
}

function targetRow(model, t) {
  const { valueText, sizeText } = model, sign = t < 0 ? model.data.objective.factor : model.signs[t];
  const name = t < 0 ? "Objective" : model.targets[t], isHigher = sign < 0;
  const from = [model.naturalLosses[t], model.baseLosses[t]];
  const label = element("span", { class: "wi-name" }, name, ...(isHigher ? [element("small", {}, " higher is better")] : []));
  const value = element("span", { class: "wi-value" });
  const changes = ["natural", model.baseName].map((other) => element("span", { class: "wi-change", "data-from": `over ${other} ` }));
  const isShare = model.shares.has(t), text = isShare ? (one) => decimals(1)(100 * one) : t < 0 ? valueText : lossText;
  const node = element("li", { class: `wi-row wi-target${t < 0 ? " wi-objective" : ""}` }, label, value, ...changes);
  node.dataset.target = name;
  return { node, name, write(now) {
    const loss = t < 0 ? now.value : model.signs[t] * now.losses[t], half = now.halves && (t < 0 ? now.valueHalf : now.halves[t]);
    node.dataset.loss = loss;
    if (half) node.dataset.half = half;
    setText(value, `${text(loss)} \u00b1 ${half ? (t < 0 ? sizeText : text)(half) : "\u2026"}${isShare ? " points" : ""}`);
    changes.forEach((cell, i) => writeGain(cell, t < 0 ? now.gains[i] : from[i] - now.losses[t], t < 0 ? sizeText : text));
  } };
}

/** A list whose first rows are shown, with a button for the others and a filter that finds all. */
function foldedList(title, heads, kind) {
  let [rows, isOpen, wanted] = [[], false, ""];
  const list = element("ul", { class: "wi-list", "aria-label": title });
  const more = element("button", { type: "button", class: "wi-more", onclick: () => { isOpen = !isOpen; write(); } });
  const filter = element("input", { type: "search", placeholder: "filter", "aria-label": `Filter ${title.toLowerCase()}`,
    oninput: () => { wanted = filter.value.trim().toLowerCase(); write(); } });
  function write() {
    const isLong = rows.length > MAX_ROWS + 2;
    const fits = rows.filter((row) => row.name.toLowerCase().includes(wanted));
    list.replaceChildren(...(isLong && !isOpen && !wanted ? fits.slice(0, MAX_ROWS) : fits).map((row) => row.node));
    filter.hidden = !isLong;
    more.hidden = !isLong || Boolean(wanted);
    setText(more, isOpen ? "Show fewer" : `Show all ${rows.length}`);
    more.setAttribute("aria-expanded", String(isOpen));
  }
  const cells = ["", ...heads].map((name) => element("span", {}, name));
  const node = element("section", { class: "wi-panel", "aria-label": title },
    element("div", { class: "wi-tools" }, element("h3", {}, title), filter),
    element("div", { class: `wi-row wi-heads ${kind}`, "aria-hidden": "true" }, ...cells), list, more);
  return { node, show(all) { rows = all; write(); } };
}

/** Order by how much values differ from others, largest first. */
function byChange(values, from) {
  return Array.from(values.keys()).sort((a, b) => Math.abs(values[b] - from[b]) - Math.abs(values[a] - from[a]));
}

/** Make an element: `on...` are listeners, other entries attributes; children are nodes or text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** What has the focus where a node is: in a widget that is inside a shadow root. */
const focusedNear = (node) => node.getRootNode().activeElement;

/** Set text only where it changes: writing the same text again costs a layout. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Write a gain: above 0 is better. */
function writeGain(cell, gain, write) {
  const text = changeText(gain, write), hasMoved = /[1-9]/.test(text);
  setText(cell, text);
  cell.classList.toggle("wi-good", hasMoved && gain > 0);
  cell.classList.toggle("wi-bad", hasMoved && gain < 0);
}

const decimals = (digits) => (value) => value.toFixed(digits).replace("-", "\u2212");
const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.00995 ? 2 : 1)}%`;
const lossText = (value) => decimals(Math.abs(value) >= 100 ? 2 : 4)(value);

/** How values of the objective are written, and how gains and halves of intervals: points have two decimals. */
function objectiveTexts(factor) {
  const write = Math.abs(factor) === 1 ? lossText : decimals(2);
  return { valueText: (value) => write(factor * value), sizeText: (size) => write(Math.abs(factor) * size) };
}

function changeText(value, write = lossText) {
  const text = write(value);
  return /[1-9]/.test(text) && value > 0 ? `+${text}` : text;
}

/** Call a function when nothing has asked for it for a while. */
function debounced(wait, action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  };
}
