// The sliders on domains: one row a domain, or a heading with a slider for each group.
//
// Rows that cannot be seen are not written: at 60 domains a drag moves 59 other sliders.

const FEW = 12; // rows that are shown before "Show all"
const THUMB_STEPS = 300; // of a slider that can be told apart

/**
 * @param {object} model What does not change: data, names, references, limits, groups.
 * @param {object} state What does: weights and locks.
 * @param {function} move Called as move(members, share) while a slider is dragged.
 * @param {function} ended Called when a drag ends.
 * @returns {{node: Element, update: function(object), sort: function()}}
 */
function domainList(model, state, move, ended) {
  const list = element("ul", { class: "wi-list", "aria-label": "Shares of the domains" });
  const scale = { most: sliderScale(model) };
  const rows = model.domains.map((name, d) => domainRow(model, state, d, move, ended));
  const heads = model.groups.map((group) => groupRow(group, move, ended));
  const show = foldedList(list, "domains");
  const watch = visibleRows([...rows, ...heads]);
  let order = "change";

  const sort = () => {
    const places = order === "given" ? Array.from(rows.keys()) : byChange(state.weights, model.natural);
    const shown = order === "group" ? grouped(model, places, rows, heads) : places.map((d) => rows[d]);
    show(shown);
  };
  const choices = [["largest change first", "change"], ["as in the run", "given"]];
  if (heads.length) choices.push(["by group", "group"]);
  const pick = selection("Order", choices, order, (value) => { order = value; sort(); });
  const node = element("section", { class: "wi-panel", "aria-label": "Domains" },
    element("div", { class: "wi-tools" }, element("h3", {}, "Domains"), pick, filterField(rows, heads, "domains", show)),
    columnHeads("wi-domain", ["share", "", "natural", model.hasEpochs ? "epochs" : "", "lock"]), list);
  sort();
  return {
    node,
    sort,
    update(now) {
      if (!now.dragging && Math.max(...now.weights) > scale.most) scale.most = 1;
      watch((row) => row.write(now, scale.most));
    },
  };
}

function domainRow(model, state, d, move, ended) {
  const name = model.domains[d];
  const id = `wi-${model.id}-d${d}`;
  const [slider, track] = sliderTrack(id, (value, held) => move([d], value, held), ended);
  const field = percentField(`${name}, percent`, (share) => { move([d], share); ended(); });
  const most = model.limits.find((one) => one.domain === d && one.side > 0);
  const epochs = element("span", { class: "wi-epochs" });
  const lock = element("input", { type: "checkbox", "aria-label": `Lock ${name}`, onchange: () => {
    state.locked[d] = lock.checked ? 1 : 0;
    ended();
  } });
  const natural = element("span", { class: "wi-soft" }, percent(model.natural[d]));
  const node = element("li", { class: "wi-row wi-domain" },
    element("label", { for: id, class: "wi-name" }, name), field.node, track, natural, epochs, lock);
  const cap = most && (most.what === "epochs" ? most.limit * model.data.constraints.inventory[d] / model.data.constraints.target_tokens : most.limit);
  const marks = trackMarks(track, [["natural", model.natural[d]], ["most", cap]]);
  node.dataset.domain = name;
  return { node, name, d, visible: true, write(now, scale) {
    const share = now.weights[d];
    const passes = epochsOf(model.data.constraints, d, share);
    const broken = now.broken.some((one) => one.limit.domain === d);
    node.dataset.share = share;
    const isHeld = now.held === slider;
    if (!isHeld) writeSlider(slider, share, scale, now.dragging);
    marks(scale);
    field.write(share);
    setText(epochs, passes === null ? "" : `${decimals(2)(passes)}\u00d7`);
    // Only the slider under the hand is read aloud while it moves.
    if (isHeld || !now.dragging) slider.setAttribute("aria-valuetext", `${percent(share)}, natural ${percent(model.natural[d])}`
      + (passes === null ? "" : `, ${passes.toFixed(2)} epochs`) + (broken ? ", outside its limit" : ""));
    node.classList.toggle("wi-broken", broken);
    if (lock.checked !== Boolean(state.locked[d])) lock.checked = Boolean(state.locked[d]);
    slider.disabled = Boolean(state.locked[d]);
  } };
}

function groupRow(group, move, ended) {
  const label = `Group ${group.name}`;
  const [slider, track] = sliderTrack(null, (value, held) => move(group.members, value, held), ended);
  slider.setAttribute("aria-label", label);
  const field = percentField(`${label}, percent`, (share) => { move(group.members, share); ended(); });
  const node = element("li", { class: "wi-row wi-domain wi-group" },
    element("strong", { class: "wi-name" }, label), field.node, track);
  return { node, name: group.name, visible: true, members: group.members, write(now) {
    const share = shareOf(now.weights, group.members);
    if (now.held !== slider) writeSlider(slider, share, 1, now.dragging);
    slider.setAttribute("aria-valuetext", percent(share));
    field.write(share);
  } };
}

/** Rows by group, each under its heading; domains of no group come last. */
function grouped(model, places, rows, heads) {
  const of = (d) => heads.findIndex((head) => head.members.includes(d));
  const own = (g) => places.filter((d) => of(d) === g).map((d) => rows[d]);
  return [...heads.flatMap((head, g) => [head, ...own(g)]), ...own(-1)];
}

/** The largest share on sliders: room above what is natural, recommended or a limit. */
function sliderScale(model) {
  const seen = Math.max(...model.starts.flatMap(([, weights]) => Array.from(weights)));
  return [0.1, 0.2, 0.3, 0.5].find((most) => most >= 1.4 * seen) || 1;
}

function sliderTrack(id, onslide, ended) {
  const slider = element("input", { type: "range", min: 0, max: 1, step: "any", id,
    oninput: () => onslide(Number(slider.value), slider), onchange: () => ended(slider) });
  return [slider, element("span", { class: "wi-track" }, slider)];
}

/**
 * Move a slider to a value. Its thumb costs more than all other writes of its row, so that a drag
 * elsewhere moves it once a difference can be seen; at rest it is exact.
 */
function writeSlider(slider, value, scale, dragging) {
  if (slider.max !== String(scale)) slider.max = scale;
  const length = scale - Number(slider.min);
  if (!dragging || Math.abs(value - Number(slider.value)) > length / THUMB_STEPS) slider.value = value;
}

/** Marks on a track, written again where the scale has changed. */
function trackMarks(track, marks) {
  let drawnAt = 0;
  const nodes = marks.map(([kind, at]) => {
    const node = element("i", { class: `wi-mark wi-${kind}`, "aria-hidden": "true", hidden: !(at >= 0) });
    track.append(node);
    return [node, at];
  });
  return (scale) => {
    if (scale === drawnAt) return;
    drawnAt = scale;
    for (const [node, at] of nodes) {
      node.hidden = !(at >= 0 && at <= scale);
      node.style.setProperty("--at", at / scale);
    }
  };
}

function percentField(label, onshare) {
  const field = element("input", { type: "number", min: 0, max: 100, step: 0.1, "aria-label": label,
    onchange: () => onshare(Math.min(Math.max(Number(field.value) / 100, 0), 1)) });
  return {
    node: element("span", { class: "wi-number" }, field, "%"),
    write(share) {
      const text = (100 * share).toFixed(share < 0.00995 ? 2 : 1);
      if (focusedNear(field) !== field && field.value !== text) field.value = text;
    },
  };
}

function columnHeads(kind, names) {
  const cells = ["", ...names].map((name) => element("span", {}, name));
  return element("div", { class: `wi-row wi-heads ${kind}`, "aria-hidden": "true" }, ...cells);
}

/** Show the first rows of a list, and a button for the others; a filter shows all that fit. */
function foldedList(list, what) {
  let [shown, open, wanted] = [[], false, ""];
  const more = element("button", { type: "button", class: "wi-more", onclick: () => { open = !open; write(); } });
  function write() {
    const fits = shown.filter((row) => row.name.toLowerCase().includes(wanted));
    const few = open || wanted || fits.length <= FEW + 2 ? fits : fits.slice(0, FEW);
    list.replaceChildren(...few.map((row) => row.node), ...(fits.length > FEW + 2 && !wanted ? [element("li", {}, more)] : []));
    more.setAttribute("aria-expanded", String(open));
    setText(more, open ? "Show fewer" : `Show all ${shown.length} ${what}`);
  }
  return (rows, filter) => {
    if (rows) shown = rows;
    if (filter !== undefined) wanted = filter.trim().toLowerCase();
    write();
  };
}

function filterField(rows, heads, what, show) {
  if (rows.length <= FEW) return "";
  const field = element("input", { type: "search", placeholder: `filter ${what}`, "aria-label": `Filter ${what}`,
    oninput: () => show(null, field.value) });
  return field;
}

/** Visit rows that can be seen; others are visited once they come into sight. */
function visibleRows(rows) {
  let again = () => {};
  const of = new Map(rows.map((row) => [row.node, row]));
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const row = of.get(entry.target);
      const comes = entry.isIntersecting && !row.visible;
      row.visible = entry.isIntersecting;
      if (comes) again(row);
    }
  }, { rootMargin: "120px" });
  rows.forEach((row) => observer.observe(row.node));
  const every = () => rows.forEach((row) => again(row));
  addEventListener("beforeprint", every);
  return (visit) => {
    again = visit;
    rows.forEach((row) => row.visible && visit(row));
  };
}
