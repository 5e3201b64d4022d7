// A slice of the simplex: three domains or groups divide what they have together, others stay.
//
// Cells of a grid are coloured by a prediction; the point is dragged, or moved by arrows. Trials
// are drawn where their own proportions of the three put them, fainter the farther they are from
// the slice. What is drawn of the law is computed between frames, once the mixture rests.

const SIDE = 300;
const TOP = (SIDE * Math.sqrt(3)) / 2;
const CELLS = 16; // along a side
const NEAR = 0.5; // total variation from the slice up to which trials are drawn
const RAMP = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];

/**
 * @param {function} divide Called as divide(parts) while the point is moved.
 * @param {function} ended Called when a drag ends.
 * @param {function} changed Called when other corners or colours are chosen.
 */
function ternaryView(model, state, divide, ended, changed) {
  const cells = triangleCells().map(({ corners, middle }) => ({
    middle, node: drawn("path", { d: `M${corners.map(placeOf).join("L")}Z`, fill: "none" }),
  }));
  const [heat, dots, names] = ["wi-heat", "wi-dots", "wi-corners"].map((kind) => drawn("g", { class: kind }));
  heat.append(...cells.map((cell) => cell.node));
  const point = drawn("circle", { r: 8, class: "wi-point" });
  const described = `wi-${model.id}-tri`;
  const svg = drawn("svg", { viewBox: `-40 -26 ${SIDE + 80} ${TOP + 58}`, class: "wi-ternary", tabindex: 0,
    role: "application", "aria-label": "Ternary slice; arrow keys move the mixture", "aria-describedby": described },
    heat, drawn("path", { d: `M0 ${TOP}L${SIDE} ${TOP}L${SIDE / 2} 0Z`, class: "wi-edge" }), dots, names, point);
  const legend = element("div", { class: "wi-legend" });
  const text = element("p", { class: "wi-soft", id: described });
  let stop = () => {};
  const members = () => state.corners.map((key) => model.corners.get(key).members);
  const parts = () => members().map((own) => shareOf(state.weights, own));

  moveByPointer(svg, (x, y) => divide(members(), partsAt(x, y)), ended);
  moveByKeys(svg, (step) => divide(members(), stepped(parts(), step)), ended);

  const colour = debounced(120, () => {
    stop();
    if (!inSight(svg)) return;
    stop = runSliced(cellValues(model, state, members(), cells), () => {}, (found) => paint(model, state, cells, found, legend));
  });
  const isSeen = whileSeen(svg, colour);

  function place() {
    const now = parts();
    const total = now.reduce((a, b) => a + b, 0);
    point.setAttribute("visibility", total > 0 ? "visible" : "hidden");
    if (total <= 0) return setText(text, "These three have nothing to divide.");
    const [x, y] = placeOf(now.map((part) => part / total));
    point.setAttribute("cx", x);
    point.setAttribute("cy", y);
    const shares = now.map((part, c) => `${model.corners.get(state.corners[c]).label} ${percent(part)}`);
    setText(text, `${shares.join(", ")}: together ${percent(total)}${total < 1 - 1e-9 ? ", other domains stay" : ""}.`);
  }
  function drawFixed() {
    drawCorners(model, state, names);
    drawTrials(model, state, members(), dots);
  }
  const redraw = () => { drawFixed(); place(); colour(); changed(); };
  const pick = (c) => selection(["Left", "Right", "Top"][c], model.cornerChoices, state.corners[c], (key) => {
    const other = state.corners.indexOf(key);
    if (other >= 0) state.corners[other] = state.corners[c]; // two corners change places
    state.corners[c] = key;
    refresh();
  });
  const tools = element("div", { class: "wi-tools" });
  function refresh() {
    const shades = [["objective", "-1"], ...model.targets.map((name, t) => [name, String(t)])];
    tools.replaceChildren(...[0, 1, 2].map(pick), selection("Colour", shades, String(state.shade), (value) => {
      state.shade = Number(value);
      redraw();
    }));
    redraw();
  }
  const node = element("section", { class: "wi-panel", "aria-label": "Ternary slice" },
    element("h3", {}, "Ternary slice"), tools, svg, legend, text);
  const rest = debounced(150, () => { drawFixed(); colour(); });
  return { nodes: [node], refresh, update(now) {
    if (isSeen() || !now.dragging) place();
    if (now.dividing) return;
    stop(); // what is being coloured is another mixture's
    rest();
  } };
}

/** Small triangles that fill the large one: corners and middle, each as parts of the three. */
function triangleCells() {
  const found = [];
  const cell = (...corners) => found.push({
    corners: corners.map((one) => one.map((v) => v / CELLS)),
    middle: [0, 1, 2].map((c) => corners.reduce((sum, one) => sum + one[c], 0) / (3 * CELLS)),
  });
  for (let a = 0; a < CELLS; a++) {
    for (let b = 0; a + b < CELLS; b++) {
      const c = CELLS - a - b;
      cell([a + 1, b, c - 1], [a, b + 1, c - 1], [a, b, c]);
      if (c > 1) cell([a + 1, b, c - 1], [a, b + 1, c - 1], [a + 1, b + 1, c - 2]);
    }
  }
  return found;
}

/** Where parts (left, right, top) of a sum of 1 are in the drawing. */
function placeOf([, right, top]) {
  return [SIDE * (right + top / 2), TOP * (1 - top)].map((v) => Number(v.toFixed(2)));
}

/** The parts at a place of the drawing, the nearest of the triangle's. */
function partsAt(x, y) {
  const top = Math.min(Math.max(1 - y / TOP, 0), 1);
  const right = Math.min(Math.max(x / SIDE - top / 2, 0), 1 - top);
  return [1 - top - right, right, top];
}

function stepped(parts, [right, top]) {
  const total = parts.reduce((a, b) => a + b, 0) || 1;
  const moved = parts.map((part) => part / total);
  const up = Math.min(Math.max(moved[2] + top, 0), 1);
  const along = moved[1] + right - (up - moved[2]) / 2;
  const most = Math.min(Math.max(along, 0), 1 - up);
  return [1 - up - most, most, up];
}

function moveByPointer(svg, moveTo, ended) {
  let toDrawing = null; // read once a drag, so that no move costs a layout
  const move = (event) => {
    if (!toDrawing) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(toDrawing);
    moveTo(at.x, at.y);
  };
  svg.addEventListener("pointerdown", (event) => {
    toDrawing = svg.getScreenCTM().inverse();
    svg.setPointerCapture(event.pointerId);
    move(event);
  });
  svg.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) {
    svg.addEventListener(name, () => { if (toDrawing) ended(); toDrawing = null; });
  }
}

function moveByKeys(svg, moveBy, ended) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  svg.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    moveBy(step.map((v) => v * (event.shiftKey ? 0.1 : 0.02)));
    ended();
  });
}

/** Predictions of all cells' middles, and whether each breaks a limit; yields after each. */
function* cellValues(model, state, corners, cells) {
  const still = new Uint8Array(model.domains.length);
  const total = corners.reduce((sum, own) => sum + shareOf(state.weights, own), 0);
  const found = [];
  for (const { middle } of cells) {
    const weights = divideAmong(state.weights, corners, middle.map((part) => part * total), still, model.natural);
    const losses = model.law.predict(weights);
    const value = state.shade < 0 ? model.law.value(weights) : losses[state.shade];
    const outside = model.limits.some((one) => excessOf(one, one.value(weights, losses)) > TOLERANCE);
    yield found.push({ value, outside });
  }
  return found;
}

function paint(model, state, cells, found, legend) {
  const values = found.map((one) => one.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const higher = state.shade >= 0 && model.signs[state.shade] < 0;
  found.forEach(({ value, outside }, i) => {
    const at = high > low ? (value - low) / (high - low) : 0.5;
    cells[i].node.setAttribute("fill", rampColour(higher ? at : 1 - at));
    cells[i].node.setAttribute("fill-opacity", outside ? 0.25 : 1);
  });
  const ends = (higher ? [low, high] : [high, low]).map(lossText);
  const faint = found.some((one) => one.outside) ? "; faint: outside the limits" : "";
  legend.replaceChildren(ends[0], element("i", { "aria-hidden": "true" }), `${ends[1]} (better)${faint}`);
}

function rampColour(at) {
  const place = Math.min(Math.max(at, 0), 1) * (RAMP.length - 1);
  const [from, part] = [Math.min(Math.floor(place), RAMP.length - 2), place % 1 || (place === RAMP.length - 1 ? 1 : 0)];
  return `rgb(${RAMP[from].map((v, i) => Math.round(v + part * (RAMP[from + 1][i] - v))).join()})`;
}

function drawCorners(model, state, group) {
  const places = [[-6, TOP + 22, "start"], [SIDE + 6, TOP + 22, "end"], [SIDE / 2, -12, "middle"]];
  group.replaceChildren(...places.map(([x, y, anchor], c) => {
    const label = model.corners.get(state.corners[c]).label;
    const short = label.length > 24 ? `${label.slice(0, 23)}\u2026` : label;
    return drawn("text", { x, y, "text-anchor": anchor }, short, drawn("title", {}, label));
  }));
}

function drawTrials(model, state, corners, group) {
  const fixed = new Set(corners.flat());
  const near = model.trials.weights.map((row, n) => {
    const parts = corners.map((own) => shareOf(row, own));
    const total = parts.reduce((a, b) => a + b, 0);
    let away = Math.abs(total - corners.reduce((sum, own) => sum + shareOf(state.weights, own), 0));
    for (let d = 0; d < row.length; d++) if (!fixed.has(d)) away += Math.abs(row[d] - state.weights[d]);
    return { n, away: away / 2, parts: parts.map((part) => part / total), total };
  }).filter((one) => one.total > 0 && one.away <= NEAR);
  near.sort((a, b) => b.away - a.away);
  group.replaceChildren(...near.slice(-120).map(({ n, away, parts }) => {
    const [cx, cy] = placeOf(parts);
    const title = `${model.trials.names[n]}: ${decimals(2)(away)} from the slice`;
    return drawn("circle", { cx, cy, r: 3.2, opacity: 1 - away / NEAR * 0.85 }, drawn("title", {}, title));
  }));
}

/** Tell whether a node is on the screen or just beyond it; reads the layout. */
function inSight(node) {
  const { top, bottom } = node.getBoundingClientRect();
  return bottom > -200 && top < innerHeight + 200;
}
