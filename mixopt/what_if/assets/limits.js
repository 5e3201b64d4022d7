// What is allowed: which limits a mixture breaks, in words and numbers, and the same for searches.
//
// A limit is {name, what, side, limit, write, source, domain, value(weights, losses)}: `side` is 1
// for at most and -1 for at least, `domain` its place or -1, `write` how its numbers are written.
// Shapes: D domains, M targets, G guardrails.

const TOLERANCE = 1e-6; // by which a limit may be missed, as in Python

/** All limits of a run's data. `law` predicts what the guardrails' reference gives. */
function readLimits(data, law) {
  const { radius, guardrails, groups } = data.constraints;
  const found = data.domains.flatMap((_, d) => domainLimits(data, d));
  for (const group of groups || []) found.push(...groupLimits(group));
  if (radius) found.push(radiusLimit(radius));
  if (guardrails) found.push(...guardLimits(data, guardrails, compared(guardrails, law)));
  return found;
}

/** Losses that guardrails compare with: those of a checkpoint as measured, or of a mixture. */
function compared(rails, law) {
  return rails.base || law.predict(rails.weights);
}

/** Passes over a domain in the full run; null where the run's length is not known. */
function epochsOf(constraints, d, share) {
  const { inventory, target_tokens: tokens } = constraints;
  return tokens && inventory && inventory[d] > 0 ? (share * tokens) / inventory[d] : null;
}

function domainLimits(data, d) {
  const { low, high, inventory, target_tokens: tokens, max_epochs: most } = data.constraints;
  const share = { name: data.domains[d], what: "share", write: percent, domain: d, value: (w) => w[d] };
  const found = [];
  if (low[d] > 0) found.push({ ...share, side: -1, limit: low[d], source: "constraints.bounds" });
  const epochs = most && most[d] && tokens ? most[d] : null;
  const cap = epochs === null ? Infinity : (epochs * inventory[d]) / tokens;
  if (epochs !== null && cap < 1 && cap <= high[d] + 1e-12) {
    const value = (w) => epochsOf(data.constraints, d, w[d]) ?? (w[d] > 0 ? Infinity : 0);
    const source = "constraints.max_epochs";
    found.push({ ...share, what: "epochs", side: 1, limit: epochs, write: decimals(2), source, value });
  } else if (high[d] < 1) {
    found.push({ ...share, side: 1, limit: high[d], source: "constraints.bounds" });
  }
  return found;
}

function groupLimits(group) {
  const value = (w) => shareOf(w, group.members);
  const source = `constraints.groups.${group.name}`;
  const shared = { name: `group ${group.name}`, what: "share", write: percent, domain: -1, value, source };
  const found = [];
  if (group.low > 0) found.push({ ...shared, side: -1, limit: group.low });
  if (group.high < 1) found.push({ ...shared, side: 1, limit: group.high });
  return found;
}

function radiusLimit(radius) {
  const kl = radius.kind === "kl";
  return {
    name: `distance from ${radius.reference}`, what: kl ? "KL divergence" : "total variation",
    side: 1, limit: radius.size, write: decimals(4), source: "constraints.radius", domain: -1,
    value: (w) => (kl ? divergence(w, radius.weights) : totalVariation(w, radius.weights)),
  };
}

function guardLimits(data, rails, reference) {
  return Array.from(rails.targets, (target, g) => ({
    name: data.targets[target], what: `worse than ${rails.reference.replace("_", " ")}`, side: 1,
    limit: rails.margins[g], write: decimals(4), source: "constraints.guardrails", domain: -1,
    value: (w, losses) => rails.signs[g] * (losses[target] - reference[target]),
  }));
}

/** KL divergence in nats; infinite where a mixture has what the reference lacks. */
function divergence(weights, reference) {
  let sum = 0;
  for (let d = 0; d < weights.length; d++) {
    if (weights[d] > 0 && reference[d] <= 0) return Infinity;
    if (weights[d] > 0) sum += weights[d] * Math.log(weights[d] / reference[d]);
  }
  return sum;
}

/** How far beyond a limit a value is; above TOLERANCE the limit is broken. */
function excessOf(limit, value) {
  return limit.side * (value - limit.limit);
}

/** A limit with its value in a line: `web: 5.31 epochs, at most 4.00 (constraints.max_epochs)`. */
function limitText(limit, value) {
  const side = limit.side > 0 ? "at most" : "at least";
  const [is, bound] = [limit.write(value), limit.write(limit.limit)];
  return `${limit.name}: ${limit.what} ${is}, ${side} ${bound} (${limit.source})`;
}

/** The limits as a search needs them; locked domains stay where they are. */
function allowedMixtures(data, law, weights, locked) {
  const { low, high, groups, radius, guardrails } = data.constraints;
  const bounds = { low: Float64Array.from(low), high: Float64Array.from(high) };
  const inReach = (d) => !radius || radius.kind !== "kl" || radius.weights[d] > 0;
  for (let d = 0; d < weights.length; d++) {
    if (!inReach(d)) bounds.high[d] = 0;
    if (locked[d]) bounds.low[d] = bounds.high[d] = weights[d];
  }
  return {
    bounds,
    rows: (groups || []).flatMap((group) => groupRows(group, weights.length)),
    kinked: radius && radius.kind !== "kl" ? [variationLimit(radius)] : [],
    smooth: radius && radius.kind === "kl" ? [divergenceLimit(radius)] : [],
    guards: guardrails ? guardRows(guardrails, compared(guardrails, law)) : [],
  };
}

function groupRows(group, size) {
  const sign = (s) => Float64Array.from({ length: size }, (_, d) => (group.members.includes(d) ? s : 0));
  const rows = [];
  if (group.low > 0) rows.push({ a: sign(-1), most: -group.low });
  if (group.high < 1) rows.push({ a: sign(1), most: group.high });
  return rows;
}

function variationLimit({ weights: middle, size }) {
  const slope = (w) => w.map((v, d) => Math.sign(v - middle[d]) / 2);
  return { value: (w) => totalVariation(w, middle), slope, most: size, weights: middle, size };
}

function divergenceLimit({ weights: middle, size }) {
  const slope = (w) => w.map((v, d) => (middle[d] > 0 ? Math.log(Math.max(v, 1e-12) / middle[d]) + 1 : 0));
  return { value: (w) => divergence(w.map((v) => Math.max(v, 0)), middle), slope, most: size };
}

function guardRows(rails, reference) {
  return Array.from(rails.targets, (target, g) => ({
    target, sign: rails.signs[g], most: rails.margins[g] + rails.signs[g] * reference[target],
  }));
}
