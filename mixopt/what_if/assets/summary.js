// What is seen first: the objective, the limits, the nearest trial; and the buttons.

/** The bar that stays in sight while sliders are moved. */
function summaryBar(model) {
  const { unit, description } = model.data.objective;
  const [value, half, natural, base] = ["wi-big", "wi-half", "wi-change", "wi-change"].map((kind) => element("span", { class: kind }));
  const [limits, nearest] = [element("div", { class: "wi-limits" }), element("p", { class: "wi-nearest wi-soft" })];
  const node = element("div", { class: "wi-summary", role: "group", "aria-label": "This mixture" },
    element("div", { class: "wi-answer" },
      element("span", { class: "wi-soft" }, `Predicted: ${description}, ${unit.replaceAll("_", " ")}`),
      element("span", { class: "wi-line" }, value, half),
      element("span", { class: "wi-line wi-soft" }, "vs natural ", natural, ` vs ${model.baseName} `, base)),
    element("div", { class: "wi-beside" }, nearest, limits));
  return { node, update(now) {
    setText(value, lossText(now.value));
    setText(half, now.halves ? `\u00b1 ${lossText(now.valueHalf)} (90%)` : "\u00b1 \u2026 (90%)");
    writeChange(natural, 1, now.value - model.naturalValue);
    writeChange(base, 1, now.value - model.baseValue);
    writeLimits(model, now, limits);
    setText(nearest, nearestText(model, now));
    nearest.classList.toggle("wi-far", isFar(model, now));
  } };
}

const keptText = (count) =>
  count === 1 ? "The limit is satisfied." : count === 2 ? "Both limits are satisfied." : `All ${count} limits are satisfied.`;

/** Broken limits as a list, each with its value and bound; else that all are satisfied. */
function writeLimits(model, now, box) {
  const lines = now.broken.map(({ limit, value }) => limitText(limit, value));
  const key = lines.join("\n");
  if (box.dataset.lines === key) return;
  box.dataset.lines = key;
  const few = lines.slice(0, 6).map((line) => element("li", {}, line));
  if (lines.length > 6) few.push(element("li", {}, `and ${lines.length - 6} more`));
  const kept = model.limits.length ? keptText(model.limits.length) : "No limits are set.";
  const title = lines.length === 1 ? "1 limit is broken" : `${lines.length} limits are broken`;
  box.replaceChildren(lines.length ? element("strong", {}, `\u2717 ${title}`) : element("span", { class: "wi-soft" }, kept),
    ...(lines.length ? [element("ul", {}, ...few)] : []));
}

function nearestText(model, now) {
  if (!now.nearest) return "";
  const { row, distance } = now.nearest;
  const [name, seen] = [model.trials.names[row], `${model.trials.seen} at ${lossText(model.trials.values[row])}.`];
  if (!isFar(model, now)) return `Nearest trial: ${name}, total variation ${decimals(3)(distance)}; it ${seen}`;
  return `\u26a0 ${farText(model, now)} Nearest: ${name}, which ${seen}`;
}

/** Whether a mixture is beyond the trials, as `mixopt predict` warns; intervals widen from there. */
function isFar(model, now) {
  const { reach } = model.data.law.intervals;
  return Boolean(reach && now.nearest && now.nearest.distance > reach.reach);
}

function farText(model, now) {
  const [apart, most] = [now.nearest.distance, model.data.law.intervals.reach.reach].map(decimals(2));
  return `Extrapolation: ${apart} (total variation) from the nearest trial, farther than any trial is from its nearest neighbour (${most}).`;
}

/** The result in a sentence, for who cannot see it. */
function spoken(model, now) {
  if (!now) return "";
  const half = now.halves ? ` plus or minus ${lossText(now.valueHalf)}` : "";
  const change = changeText(now.value - model.naturalValue);
  const broken = now.broken.map(({ limit, value }) => limitText(limit, value)).join("; ");
  const far = isFar(model, now) ? `${farText(model, now)} ` : "";
  return `Objective ${lossText(now.value)}${half}, ${change} against natural. ${far}${broken ? `Broken: ${broken}.` : "No limit is broken."}`;
}

function goalText(model, { target, loss }) {
  return `${target < 0 ? "the objective" : model.targets[target]} at ${lossText(loss)}`;
}

function reachedText(model, goal, start, found) {
  const moved = `${percent(totalVariation(start, found.weights))} of the tokens change domain`;
  if (found.reached) return `Reached: ${goalText(model, goal)}. The smallest squared change of the weights: ${moved}.`;
  const best = largest(quantityOf(model, goal.target).values(found.weights));
  return `Not reachable within the limits: ${goalText(model, goal)}. The best reachable is ${lossText(best)}; ${moved}.`;
}

/** Buttons: where to start from, and copies. */
function toolBar(model, state, start, copied, options) {
  const button = (text, action) => element("button", { type: "button", onclick: action }, text);
  const trials = selection("Trial", [["choose ...", ""], ...model.trials.names.map((name, n) => [name, String(n)])], "", (n) => {
    if (n !== "") start(model.trials.weights[Number(n)]);
  });
  const copy = async (what, text) => setText(copied, (await copyText(text)) ? `${what} copied.` : "The browser refused to copy.");
  const weights = () => model.domains.map((name, d) => `${JSON.stringify(name)}: ${Number(state.weights[d].toPrecision(9))}`).join("\n");
  const address = () => (typeof location === "undefined" ? "" : location.href.split("#")[0]) + writeLink(model, state);
  return element("div", { class: "wi-tools wi-top" }, element("span", { class: "wi-soft" }, "Start from"),
    ...model.starts.map(([name, from]) => button(name, () => start(from))), trials,
    element("span", { class: "wi-copies" },
      ...(options.useHash ? [button("Copy link", () => copy("Link", address()))] : []), button("Copy weights", () => copy("Weights", weights())), copied));
}
