// What a new proposal is asked for in a notebook: bounds, epochs, length, radius and objective.
//
// Fields are shown and read as people write them: shares in percent, tokens as 25e9. What is wrong
// with them is for Python to say, which knows all rules.

/**
 * @param {object} form What is asked for at first: `bounds` (percent are made here), `max_epochs`,
 *     `tokens`, `radius`, `objective` (in words), `targets`.
 * @param {string[]} domains Names.
 * @param {function} onask Called with the fields when somebody asks for a proposal.
 * @returns {{node: Element, answer: function(object), wait: function()}}
 */
function proposalForm(form, domains, onask) {
  const number = (label, value, attributes = {}) => element("input", { type: "number", step: "any", min: "0", "aria-label": label, value: value ?? "", ...attributes });
  const percentOf = (share) => Number((100 * share).toPrecision(6));
  const bounds = domains.map((name, d) => [0, 1].map((side) =>
    number(`${name}, ${side ? "maximum" : "minimum"} percent`, percentOf(form.bounds[d][side]), { max: "100" })));
  const epochs = number("Maximum epochs", form.max_epochs, { placeholder: "no limit" });
  const tokens = element("input", { type: "text", size: 8, "aria-label": "Target tokens", placeholder: "such as 25e9", value: form.tokens ?? "" });
  const radius = number("Radius", form.radius && form.radius.size, { placeholder: "no limit" });
  const held = { kind: form.radius ? form.radius.kind : "tv", around: form.radius ? form.radius.reference : "natural", target: "" };
  const places = [...new Set(["natural", "uniform", held.around])].map((name) => [name, name]);
  const kinds = selection("of", [["total variation", "tv"], ["KL divergence, nats", "kl"]], held.kind, (kind) => { held.kind = kind; });
  const around = selection("around", places, held.around, (name) => { held.around = name; });
  const goals = [[form.objective, ""], ...form.targets.map((name) => [name, name])];
  const goal = selection("Objective", goals, "", (name) => { held.target = name; });
  const button = element("button", { type: "button", class: "wi-ask", onclick: () => onask(read()) }, "Propose");
  const said = element("div", { class: "wi-answer-lines", role: "status", "aria-live": "polite" });

  const valueOf = (field) => (field.value.trim() === "" ? null : Number(field.value));
  // A bound that nobody touched stays what it was, to the last digit.
  function share(d, side) {
    const value = valueOf(bounds[d][side]);
    if (value === null) return side;
    return value === percentOf(form.bounds[d][side]) ? form.bounds[d][side] : value / 100;
  }
  function read() {
    const size = valueOf(radius);
    return {
      bounds: Object.fromEntries(domains.map((name, d) => [name, [share(d, 0), share(d, 1)]])),
      max_epochs: valueOf(epochs),
      tokens: tokens.value.trim() || null,
      radius: size === null ? null : { kind: held.kind, size, reference: held.around },
      target: held.target || null,
    };
  }

  const field = (label, ...parts) => element("label", { class: "wi-pick" }, element("span", {}, label), ...parts);
  const rows = domains.map((name, d) => element("li", { class: "wi-row wi-bounds" }, element("span", { class: "wi-name" }, name),
    ...bounds[d].map((one) => element("span", { class: "wi-number" }, one, " %"))));
  const node = element("section", { class: "wi-form", "aria-label": "New proposal" },
    element("h3", {}, "Propose again, in Python"),
    element("div", { class: "wi-tools" }, goal, field("Target tokens", tokens), field("Maximum epochs", epochs), field("Radius", radius), kinds, around),
    element("details", {}, element("summary", {}, "Bounds of the domains"),
      columnHeads("wi-bounds", ["minimum", "maximum"]), element("ul", { class: "wi-list" }, ...rows)),
    element("p", { class: "wi-soft" }, "A locked domain keeps the share that it has now."),
    element("div", { class: "wi-tools" }, button), said);

  return {
    node,
    wait() {
      button.disabled = true;
      said.replaceChildren(element("p", { class: "wi-soft" }, "Searching ..."));
    },
    answer(found) {
      button.disabled = false;
      said.replaceChildren(...answerLines(found));
    },
  };
}

/** The new proposal in a few lines, or why there is none. */
function answerLines({ error, lines, active, warnings }) {
  if (error) return [element("p", { class: "wi-note wi-error" }, error)];
  const item = (text) => element("li", {}, text);
  const held = active.length ? element("p", {}, `Active constraints: ${active.join("; ")}.`) : element("p", {}, "No constraint is active.");
  return [...lines.map((text) => element("p", {}, text)), held, ...(warnings.length ? [element("ul", {}, ...warnings.map(item))] : [])];
}
