// The state as the fragment of an address: `#what-if?of=k3f9&w=0.25,0.75&lock=1&...`.
//
//   of     a short hash of the names of domains and targets: a link of another run is refused
//   w      weights, in the order of the domains
//   lock   places of locked domains
//   goal   place of the target that was asked for (-1: the objective), and the loss
//   tri    corners of the ternary slice (d3: a domain, g0: a group); by: what colours it
//   pair   targets of the trade-off

const LINK = "#what-if?";

/** FNV-1a over the names, in base 36. */
function namesHash(names) {
  let hash = 0x811c9dc5;
  for (const character of names.join("\n")) {
    hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193) >>> 0;
  }
  return hash.toString(36);
}

function writeLink(model, state) {
  const places = Array.from(state.locked.keys()).filter((d) => state.locked[d]);
  const parts = [
    `of=${model.hash}`,
    `w=${Array.from(state.weights, (v) => String(Number(v.toPrecision(9)))).join()}`,
    ...(places.length ? [`lock=${places.join()}`] : []),
    ...(state.goal ? [`goal=${state.goal.target},${Number(state.goal.loss.toPrecision(9))}`] : []),
    `tri=${state.corners.join()}`, `by=${state.shade}`, `pair=${state.pair.join()}`,
  ];
  return LINK + parts.join("&");
}

/**
 * Read a fragment.
 * @returns {{state: object} | {why: string} | null} The entries that it has; why it cannot be
 *     read; null where it is none of ours.
 */
function readLink(model, fragment) {
  if (!fragment.startsWith(LINK)) return null;
  const entries = new Map(fragment.slice(LINK.length).split("&").map((part) => part.split("=")));
  if (entries.get("of") !== model.hash) return { why: "it is of a run with other domains or targets" };
  const weights = linkWeights(entries.get("w"), model.domains.length);
  if (!weights) return { why: "its weights are not shares that add up to 1" };
  return { state: { weights, ...linkViews(model, entries) } };
}

function linkWeights(text, size) {
  const weights = Float64Array.from((text || "").split(","), (part) => (part ? Number(part) : NaN));
  const sum = weights.reduce((a, b) => a + b, 0);
  const valid = weights.length === size && weights.every((v) => v >= 0 && v <= 1);
  return valid && Math.abs(sum - 1) < 1e-4 ? weights.map((v) => v / sum) : null;
}

/** Locks, goal and views; what does not fit is left out. */
function linkViews(model, entries) {
  const list = (name) => (entries.get(name) || "").split(",").filter(Boolean);
  const isTarget = (t, least) => Number.isInteger(t) && t >= least && t < model.targets.length;
  const found = { locked: new Uint8Array(model.domains.length) };
  for (const d of list("lock").map(Number)) if (d in found.locked) found.locked[d] = 1;
  const [target, loss] = list("goal").map(Number);
  if (isTarget(target, -1) && Number.isFinite(loss)) found.goal = { target, loss };
  const corners = list("tri");
  if (new Set(corners).size === 3 && corners.every((key) => model.corners.has(key))) found.corners = corners;
  if (isTarget(Number(entries.get("by") ?? NaN), -1)) found.shade = Number(entries.get("by"));
  const pair = list("pair").map(Number);
  if (pair.length === 2 && pair.every((t) => isTarget(t, 0))) found.pair = pair;
  return found;
}
