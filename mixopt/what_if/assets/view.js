// The what-if: a mixture that is turned by hand, and everything that it is predicted to change.
//
// `renderWhatIf(root, data, options)` builds it inside an element. A change of the mixture is drawn
// once a frame, whatever changed it; nothing is read from the layout on the way. Intervals need
// factors that are made in idle time first; until then they are left out.
//
// Options: `useHash` keeps the state in the address; `onChange(weights)` hears of each mixture at
// rest. The handle has `weights`, `locked` (names), `setWeights(weights)` and `destroy()`.

// Milliseconds of a frame while dragging: a search takes what it needs of them, and intervals the
// rest. Those that have to wait are as they were some frames ago, and all are exact once the
// mixture rests.
const FRAME_BUDGET = 4;
const HALVES_LEAST = 1;
const RESTING = 150; // milliseconds without a move after which a search is checked
let whatIfCount = 0;

function renderWhatIf(root, data, options = {}) {
  const model = whatIfModel(data, `${++whatIfCount}`);
  const state = firstState(model);
  const held = { slider: null, anchor: null, drag: null, stop: () => {}, dividing: false };
  const status = element("p", { class: "wi-live", role: "status", "aria-live": "polite" });
  const note = element("p", { class: "wi-note", hidden: true });
  const summary = summaryBar(model);

  const schedule = onceAFrame(() => frame());
  const rest = debounced(120, () => {
    if (!state.now || (!state.now.dragging && (state.now.areExact || !model.hasHalves))) return;
    Object.assign(state.now, { ...predicted(model, state, { ...held, anchor: null, dividing: false }), held: held.slider });
    draw(state.now);
  });
  const settle = debounced(300, () => {
    setText(status, spoken(model, state.now));
    saveLink();
    if (options.onChange) options.onChange(Float64Array.from(state.weights));
  });
  const saveLink = debounced(100, () => options.useHash && keepLink(writeLink(model, state)));

  function set(weights, { goal = null } = {}) {
    state.weights = weights;
    state.goal = goal;
    schedule();
    settle();
  }
  /** Begin a drag, or go on with it: moves are measured from where it began. */
  function anchored(slider) {
    if (held.slider !== slider || !held.anchor) Object.assign(held, { slider, anchor: state.weights, drag: null });
    return held.anchor;
  }
  function ended() {
    Object.assign(held, { slider: null, anchor: null, dividing: false });
    domains.sortLater();
    schedule();
    settle();
  }
  function move(members, share, slider = null) {
    held.stop();
    if (!slider) Object.assign(held, { slider: null, anchor: null });
    const from = slider ? anchored(slider) : state.weights;
    set(moveShare(from, members, share, state.locked, model.natural));
  }
  function divide(corners, parts) {
    held.stop();
    held.dividing = true;
    set(divideAmong(state.weights, corners, parts, state.locked, model.natural));
  }
  function ask(target, loss, slider) {
    held.stop();
    const start = anchored(slider);
    const drag = held.drag ??= targetDrag(model, start, state.locked, target);
    const goal = { target, loss };
    const show = ({ weights }, spent) => {
      Object.assign(state, { weights, goal });
      frame(spent); // in the frame of the search, not in the next one
      settle();
    };
    const answer = (found, spent) => {
      show(found, spent);
      targets.say(reachedText(model, goal, start, found));
    };
    const check = () => runSliced(drag.afresh(), () => {}, answer);
    held.stop = runSliced(drag.toward(loss), show, (found, spent) => {
      answer(found, spent);
      if (found.continues) held.stop = later(RESTING, () => (held.stop = check()));
    }, FRAME_BUDGET);
  }
  function start(weights) {
    held.stop();
    Object.assign(held, { slider: null, anchor: null });
    targets.say("");
    set(Float64Array.from(weights));
    domains.sortLater();
  }

  // A search would move a domain that is locked meanwhile.
  const domains = domainList(model, state, move, () => { held.stop(); ended(); });
  domains.sortLater = () => { if (!domains.node.contains(focusedNear(root))) domains.sort(); };
  const targets = targetList(model, ask, ended);
  // Two domains are one slider: three corners there are not.
  const ternary = model.domains.length < 3 ? { nodes: [], update() {}, refresh() {} }
    : ternaryView(model, state, divide, ended, () => saveLink());
  const trade = tradeOffView(model, state, start, () => saveLink());

  /** `spent`: milliseconds that a search took of the frame. */
  function frame(spent = null) {
    const began = performance.now() - spent;
    draw(state.now = predicted(model, state, held, spent));
    rest();
    root.dataset.frame = (performance.now() - began).toFixed(3);
  }
  function draw(now) {
    root.dataset.value = now.value;
    if (now.halves) root.dataset.half = now.valueHalf;
    summary.update(now);
    for (const part of [domains, targets, ternary, trade]) part.update(now);
  }
  function restore(fragment) {
    const read = readLink(model, fragment);
    if (!read) return false;
    note.hidden = !read.why;
    setText(note, read.why ? `The link in the address was ignored: ${read.why}.` : "");
    if (read.why) return false;
    held.stop();
    const { weights, goal = null, ...views } = read.state;
    Object.assign(state, views);
    set(weights, { goal });
    domains.sort();
    ternary.refresh();
    trade.refresh();
    if (goal) targets.say(`This mixture was asked for: ${goalText(model, goal)}.`);
    return true;
  }

  const copied = element("span", { class: "wi-soft", role: "status" });
  const tools = toolBar(model, state, start, copied, options);
  root.classList.add("what-if");
  root.replaceChildren(note, tools, summary.node,
    element("div", { class: "wi-columns" }, domains.node, targets.node),
    element("div", { class: "wi-columns" }, ...ternary.nodes, trade.node), status);
  ternary.refresh();
  trade.refresh();
  const onHash = () => restore(location.hash);
  if (options.useHash) {
    addEventListener("hashchange", onHash);
    if (restore(location.hash)) root.scrollIntoView();
  }
  frame();
  prepareIntervals(model, schedule);
  return {
    get weights() { return Float64Array.from(state.weights); },
    get locked() { return model.domains.filter((_, d) => state.locked[d]); },
    setWeights: start,
    destroy() { held.stop(); removeEventListener("hashchange", onHash); root.replaceChildren(); },
  };
}

/** What does not change while the mixture is turned. */
function whatIfModel(data, id) {
  const { domains, targets } = data;
  const law = makeLaw(data);
  const rowsOf = (flat, width) => data.trials.names.map((_, n) => flat.slice(n * width, (n + 1) * width));
  const observed = rowsOf(data.trials.losses, targets.length);
  const base = data.recommended || data.proposal;
  const baseName = data.recommended ? "recommended" : "proposal";
  const groups = (data.constraints.groups || []).map(({ name, members }) => ({ name, members: Array.from(members) }));
  const corners = new Map([...domains.map((label, d) => [`d${d}`, { label, members: [d] }]),
    ...groups.map(({ name, members }, g) => [`g${g}`, { label: `group ${name}`, members }])]);
  const starts = [["Recommended", data.recommended], ["Proposal", data.proposal], ["Natural", data.natural]];
  const choices = (first) => [...corners].filter(([key]) => key[0] === first).map(([key, { label }]) => [label, key]);
  return {
    id, data, law, domains, targets, groups, corners, base, baseName,
    natural: data.natural,
    starts: starts.filter(([, weights]) => weights),
    hash: namesHash([...domains, "", ...targets]),
    pieces: data.objective.pieces,
    signs: data.objective.signs,
    limits: readLimits(data, law),
    hasEpochs: Boolean(data.constraints.target_tokens),
    trials: { names: data.trials.names, weights: rowsOf(data.trials.weights, domains.length), losses: observed,
      values: observed.map((losses) => observedValue(data.objective, losses)),
      seen: data.trials.carried ? "is predicted for the target size" : "was observed" },
    cornerChoices: groups.length ? [{ group: "domains", entries: choices("d") }, { group: "groups", entries: choices("g") }] : choices("d"),
    naturalLosses: law.predict(data.natural), naturalValue: law.value(data.natural),
    baseLosses: law.predict(base), baseValue: law.value(base), hasHalves: false,
  };
}

/** The objective of losses that were observed. */
function observedValue({ kind, measured, weights, spreads, signs }, losses) {
  const terms = measured.map((m, i) => weights[i] * signs[m] * losses[m] / spreads[i]);
  return kind === "worst" ? Math.max(...terms) : terms.reduce((a, b) => a + b, 0);
}

function firstState(model) {
  const order = byChange(model.base, model.natural);
  const corners = order.slice(0, 3).map((d) => `d${d}`);
  const [x, y] = byChange(model.baseLosses, model.naturalLosses);
  return {
    weights: Float64Array.from(model.base), locked: new Uint8Array(model.domains.length), goal: null,
    corners, shade: -1, pair: [x, y ?? x],
  };
}

/** Everything that is predicted of the mixture now; intervals of a drag follow a little behind. */
function predicted(model, state, held, spent = null) {
  const { law, limits } = model;
  const { weights } = state;
  const losses = law.predict(weights);
  const values = limits.map((limit) => limit.value(weights, losses));
  const broken = limits.map((limit, i) => ({ limit, value: values[i] }))
    .filter(({ limit, value }) => excessOf(limit, value) > TOLERANCE);
  const dragging = Boolean(held.anchor) || held.dividing || spent !== null;
  const value = law.value(weights);
  return {
    weights, losses, broken, value,
    ...intervals(model, weights, dragging ? Math.max(FRAME_BUDGET - spent, HALVES_LEAST) : Infinity),
    nearest: nearestTrial(weights, model.trials.weights),
    held: held.slider, dragging, dividing: held.dividing,
  };
}

function intervals(model, weights, budget) {
  if (!model.hasHalves) return { halves: null, valueHalf: 0, areExact: false };
  if (budget < Infinity) return { ...model.law.movingWidths(weights, budget), areExact: false };
  return { halves: model.law.halves(weights), valueHalf: model.law.valueHalf(weights), areExact: true };
}

/** Make in idle time what intervals need, then draw them. */
function prepareIntervals(model, schedule) {
  const idle = window.requestIdleCallback || ((work) => setTimeout(() => work({ timeRemaining: () => 8 }), 1));
  idle(function work(deadline) {
    do {
      if (model.law.prepare()) continue;
      model.hasHalves = true;
      return schedule();
    } while (deadline.timeRemaining() > 2);
    idle(work);
  });
}

function onceAFrame(action) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; action(); });
  };
}

function keepLink(fragment) {
  // A document without an address of its own, as in a preview, may not change it.
  try { history.replaceState(null, "", fragment); } catch { /* the state is not kept there */ }
}
