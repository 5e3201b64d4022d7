// Two targets against each other: trials, the front, the mixture now.
//
// The front is made of the best mixtures for weighted sums of the two, each loss divided by its
// spread over the trials, within the limits; its points can be chosen. It is computed when the
// drawing is first seen, between frames, and kept.

const WIDE = 340;
const HIGH = 250;
const FRONT_POINTS = 11;

/** @param {function} choose Called as choose(weights) when a point of the front is chosen. */
function tradeOffView(model, state, choose, changed) {
  const kept = new Map(); // fronts by pair
  const [axes, dots, front] = ["wi-axes", "wi-dots", "wi-front"].map((kind) => drawn("g", { class: kind }));
  const [interval, natural, base, point] = [drawn("path", { class: "wi-interval" }),
    drawn("path", { class: "wi-natural" }), drawn("path", { class: "wi-base" }),
    drawn("circle", { r: 6, class: "wi-point" })];
  const described = `wi-${model.id}-pair`;
  const svg = drawn("svg", { viewBox: `-64 -14 ${WIDE + 84} ${HIGH + 62}`, class: "wi-trade", role: "group",
    "aria-label": "Trade-off of two targets", "aria-describedby": described }, axes, dots, interval, front, natural, base, point);
  const text = element("p", { class: "wi-soft", id: described });
  const tools = element("div", { class: "wi-tools" });
  let [scales, last, turned, stop] = [null, null, -Infinity, () => {}];

  function drawAll() {
    const [x, y] = state.pair;
    const points = kept.get(state.pair.join()) || [];
    scales = [x, y].map((t) => axisScale(model, t, points));
    drawAxes(model, state.pair, scales, axes);
    const at = (losses) => [scales[0].at(losses[x]), HIGH - scales[1].at(losses[y])];
    dots.replaceChildren(...model.trials.losses.map((losses, n) => ({ losses, n }))
      .filter(({ losses }) => Number.isFinite(losses[x] + losses[y]))
      .map(({ losses, n }) => {
        const [cx, cy] = at(losses);
        return drawn("circle", { cx, cy, r: 2.8 }, drawn("title", {}, `${model.trials.names[n]}: ${lossText(losses[x])}, ${lossText(losses[y])}`));
      }));
    drawFront(front, points, at, choose);
    natural.setAttribute("d", diamond(at(model.naturalLosses)));
    base.setAttribute("d", cross(at(model.baseLosses)));
    if (last) place(last);
  }
  function place(now) {
    last = now;
    if (!scales) return;
    const [x, y] = state.pair;
    const [cx, cy] = [scales[0].at(now.losses[x]), HIGH - scales[1].at(now.losses[y])];
    point.setAttribute("cx", cx);
    point.setAttribute("cy", cy);
    const [dx, dy] = now.halves ? [scales[0].size(now.halves[x]), scales[1].size(now.halves[y])] : [0, 0];
    interval.setAttribute("d", bar([cx, cy], [1, 0], dx, WIDE) + bar([cx, cy], [0, 1], dy, HIGH));
  }
  function describe() {
    const [x, y] = state.pair.map((t) => model.targets[t]);
    const points = kept.get(state.pair.join());
    const drawnNow = points ? `line: the front, ${points.length} mixtures to choose` : "the front is being computed";
    const tail = model.law.hasGradient ? `; ${drawnNow}` : "";
    setText(text, `${x} across, ${y} upwards. Dots: trials, each as it ${model.trials.seen}; large point: this mixture with its 90% interval (an arrow: beyond the frame);`
      + ` diamond: natural; cross: ${model.baseName}${tail}.`);
  }
  function compute() {
    stop();
    const pair = state.pair.join();
    if (kept.has(pair) || !model.law.hasGradient || !inSight(svg)) return;
    stop = runSliced(frontOf(model, state.pair), () => {}, (points) => {
      kept.set(pair, points);
      drawAll();
      describe();
    }, undefined, () => performance.now() - turned < RESTING);
  }
  const isSeen = whileSeen(svg, compute);
  const redraw = () => { drawAll(); describe(); compute(); changed(); };
  function refresh() {
    const choices = model.targets.map((name, t) => [name, String(t)]);
    const pick = (c) => selection(["Horizontal axis", "Vertical axis"][c], choices, String(state.pair[c]), (value) => {
      state.pair[c] = Number(value);
      redraw();
    });
    tools.replaceChildren(pick(0), pick(1));
    redraw();
  }
  const node = element("section", { class: "wi-panel", "aria-label": "Trade-off" },
    element("h3", {}, "Trade-off"), tools, svg, text);
  return { node, refresh, update(now) {
    turned = performance.now();
    if (isSeen() || !now.dragging) place(now);
  } };
}

/** The front of two targets: {losses, weights} each, none beaten by another; a generator. */
function* frontOf(model, [x, y]) {
  const { data, law } = model;
  const free = new Uint8Array(model.domains.length);
  const allowed = allowedMixtures(data, law, model.base, free);
  const found = [];
  let from = model.base;
  for (let k = 0; k < FRONT_POINTS; k++) {
    const part = k / (FRONT_POINTS - 1);
    const sum = weightedSum(model, [[x, (1 - part) * model.signs[x] / spreadOf(model, x)], [y, part * model.signs[y] / spreadOf(model, y)]]);
    const best = yield* bestMixture(law, allowed, from, sum);
    if (best.met) {
      from = best.weights;
      found.push({ weights: best.weights, losses: law.predict(best.weights) });
    }
  }
  const beats = (a, b) => [x, y].every((t) => model.signs[t] * (a.losses[t] - b.losses[t]) <= 0)
    && [x, y].some((t) => model.signs[t] * (a.losses[t] - b.losses[t]) < -1e-9);
  return found.filter((one) => !found.some((other) => beats(other, one)));
}

/** A weighted sum of losses as a quantity; `terms` are [target, weight] pairs. */
function weightedSum(model, terms) {
  const own = terms.map(([t, weight]) => ({ ...model.law.only(t), weight }));
  return {
    values: (w) => [own.reduce((sum, { loss, weight }) => sum + weight * loss(w), 0)],
    slopes(w) {
      const slopes = own.map(({ slope }) => slope(w));
      return [Float64Array.from(w, (_, d) => own.reduce((sum, { weight }, i) => sum + weight * slopes[i][d], 0))];
    },
  };
}

function spreadOf(model, t) {
  const [low, high] = lossRange(model, t);
  return high - low;
}

/** A linear axis over what is drawn: at(loss) and size(difference) in the drawing, and ticks. */
function axisScale(model, t, points) {
  const seen = [...model.trials.losses, model.naturalLosses, model.baseLosses, ...points.map((one) => one.losses)]
    .map((losses) => losses[t]).filter(Number.isFinite);
  const [low, high] = [Math.min(...seen), Math.max(...seen)];
  const room = 0.06 * (high - low) || 0.01;
  const [start, end] = [low - room, high + room];
  const step = tickStep(end - start);
  const ticks = [];
  for (let v = Math.ceil(start / step) * step; v <= end; v += step) ticks.push(v);
  return { start, end, ticks, digits: Math.max(0, -Math.floor(Math.log10(step))),
    of: (size) => (v) => Math.min(Math.max((v - start) / (end - start), -0.02), 1.02) * size, at: null, size: null };
}

function tickStep(length) {
  const rough = length / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((v) => v * power).find((v) => v >= rough);
}

function drawAxes(model, pair, scales, group) {
  const parts = [drawn("path", { d: `M0 0V${HIGH}H${WIDE}` })];
  scales.forEach((scale, i) => {
    const size = i ? HIGH : WIDE;
    scale.at = scale.of(size);
    scale.size = (difference) => difference / (scale.end - scale.start) * size;
    for (const tick of scale.ticks) {
      const at = scale.at(tick);
      const place = i ? { x: -8, y: HIGH - at + 4, "text-anchor": "end" } : { x: at, y: HIGH + 18, "text-anchor": "middle" };
      parts.push(drawn("path", { d: i ? `M-4 ${HIGH - at}H0` : `M${at} ${HIGH}v4` }), drawn("text", place, decimals(scale.digits)(tick)));
    }
  });
  const name = (t) => model.targets[t].slice(0, 32);
  parts.push(drawn("text", { x: WIDE, y: HIGH + 38, "text-anchor": "end" }, name(pair[0])),
    drawn("text", { x: -60, y: -4 }, name(pair[1])));
  group.replaceChildren(...parts);
}

function drawFront(group, points, at, choose) {
  const places = points.map((one) => at(one.losses));
  const buttons = points.map((one, k) => {
    const pick = () => choose(one.weights);
    const label = `Mixture ${k + 1} of ${points.length} on the front`;
    return drawn("circle", { cx: places[k][0], cy: places[k][1], r: 5, tabindex: 0, role: "button", "aria-label": label, onclick: pick,
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } } });
  });
  const line = places.length > 1 ? [drawn("path", { d: `M${places.map((place) => place.join(" ")).join("L")}` })] : [];
  group.replaceChildren(...line, ...buttons);
}

/** A bar of half a length around a point; an end beyond the frame is an arrow at its edge. */
function bar([x, y], [right, down], half, size) {
  const middle = right * x + down * y;
  return [-1, 1].map((way) => {
    const end = Math.min(Math.max(middle + way * half, 0), size);
    const [toX, toY] = [right ? end : x, down ? end : y];
    const cut = Math.abs(end - middle - way * half) > 0.5;
    const [back, side] = [-6 * way, 4];
    const head = `M${toX + right * back + down * side} ${toY + down * back + right * side}L${toX} ${toY}`
      + `L${toX + right * back - down * side} ${toY + down * back - right * side}`;
    return `M${x} ${y}L${toX} ${toY}${cut ? head : ""}`;
  }).join("");
}

const diamond = ([x, y]) => `M${x - 6} ${y}l6 -6l6 6l-6 6z`;
const cross = ([x, y]) => `M${x - 5} ${y - 5}l10 10M${x - 5} ${y + 5}l10 -10`;
