// Predicted losses by target, with sliders that ask for a loss.
//
// The objective is the first row; its place among targets is -1.

/**
 * @param {function} ask Called as ask(target, loss, slider) while a slider is dragged.
 * @param {function} ended Called when the drag ends.
 * @returns {{node: Element, update: function(object), say: function(string)}}
 */
function targetList(model, ask, ended) {
  const list = element("ul", { class: "wi-list", "aria-label": "Predicted losses" });
  const rows = [-1, ...model.targets.keys()].map((t) => targetRow(model, t, ask, ended));
  const show = foldedList(list, "targets");
  const watch = visibleRows(rows);
  const order = byChange(model.baseLosses, model.naturalLosses);
  show([rows[0], ...order.map((t) => rows[t + 1])]);
  const hint = model.law.hasGradient
    ? "Drag a target to ask for a loss: the nearest mixture that reaches it within the limits (least"
      + " squared change of the weights) is found, and locked domains stay."
    : "The fit's regressor has no slopes, so no mixture can be searched for a loss.";
  const said = element("p", { class: "wi-said", role: "status" }, hint);
  const node = element("section", { class: "wi-panel", "aria-label": "Targets" },
    element("div", { class: "wi-tools" }, element("h3", {}, "Targets"), filterField(rows, [], "targets", show)),
    said,
    columnHeads("wi-target", ["predicted, 90%", "vs natural", `vs ${model.baseName}`, ""]), list);
  return {
    node,
    update: (now) => watch((row) => row.write(now)),
    say: (text) => setText(said, text || hint),
  };
}

function targetRow(model, t, ask, ended) {
  const name = t < 0 ? "Objective" : model.targets[t];
  const id = `wi-${model.id}-t${t}`;
  const higher = t >= 0 && model.signs[t] < 0;
  const [low, high] = lossRange(model, t);
  const slider = element("input", { type: "range", min: low, max: high, step: "any", id, disabled: !model.law.hasGradient,
    oninput: () => ask(t, Number(slider.value), slider), onchange: () => ended(slider) });
  const cells = [element("span", { class: "wi-value" }), ...["natural", model.baseName].map((from) =>
    element("span", { class: "wi-change", "data-from": `vs ${from} ` }))];
  const label = element("label", { for: id, class: "wi-name" }, name);
  if (higher) label.append(element("small", {}, " higher is better"));
  const node = element("li", { class: `wi-row wi-target${t < 0 ? " wi-objective" : ""}` },
    label, ...cells, element("span", { class: "wi-track" }, slider));
  node.dataset.target = name;
  return { node, name, visible: true, write(now) {
    const loss = t < 0 ? now.value : now.losses[t];
    const half = now.halves && (t < 0 ? now.valueHalf : now.halves[t]);
    const changes = [model.naturalLosses, model.baseLosses].map((from, i) =>
      loss - (t < 0 ? [model.naturalValue, model.baseValue][i] : from[t]));
    node.dataset.loss = loss;
    setText(cells[0], lossText(loss) + (half ? ` \u00b1 ${lossText(half)}` : " \u00b1 \u2026"));
    if (half) node.dataset.half = half;
    changes.forEach((change, i) => writeChange(cells[i + 1], higher ? -1 : 1, change));
    const isHeld = now.held === slider;
    if (!isHeld) writeSlider(slider, loss, high, now.dragging);
    if (isHeld || !now.dragging) slider.setAttribute("aria-valuetext", `${lossText(loss)}${half ? ` plus or minus ${lossText(half)}` : ""}, ${
      changeText(changes[0])} against natural`);
  } };
}

/** Write a change, and whether it is better; the sign says it too. */
function writeChange(cell, sign, change) {
  const text = changeText(change);
  const moved = /[1-9]/.test(text);
  setText(cell, text);
  cell.classList.toggle("wi-good", moved && sign * change < 0);
  cell.classList.toggle("wi-bad", moved && sign * change > 0);
}

/** Where a slider begins and ends: what trials have seen, and a quarter more on both sides. */
function lossRange(model, t) {
  const seen = t < 0 ? [...model.trials.values] : model.trials.losses.map((row) => row[t]);
  const own = t < 0 ? [model.naturalValue, model.baseValue] : [model.naturalLosses[t], model.baseLosses[t]];
  const known = [...seen.filter(Number.isFinite), ...own];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const room = 0.25 * (high - low) || 0.01;
  return [low - room, high + room];
}

/** A target's loss, or the objective, for searches: values whose largest counts, and slopes. */
function quantityOf(model, t) {
  const { law, pieces } = model;
  const size = model.domains.length;
  if (t >= 0) {
    const { loss, slope } = law.only(t);
    return { values: (w) => [loss(w)], slopes: (w) => [slope(w)] };
  }
  // With pilots the objective has columns of its own, which the law alone knows.
  if (pieces.length === 1 || pieces[0].length !== model.targets.length) {
    return { values: (w) => [law.value(w)], slopes: (w) => [law.valueGradient(w)] };
  }
  const sums = (piece, slopes) => Float64Array.from({ length: size }, (_, d) =>
    piece.reduce((sum, part, m) => (part ? sum + part * slopes[m * size + d] : sum), 0));
  return {
    values(w) {
      const losses = law.predict(w);
      return pieces.map((piece) => dot(piece, losses));
    },
    slopes(w) {
      const slopes = law.gradient(w);
      return pieces.map((piece) => sums(piece, slopes));
    },
  };
}
