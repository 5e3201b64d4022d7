// The mixture nearest to a point within bounds and rows: a quadratic program, solved exactly.
//
// min |x - point|^2 over low <= x <= high with sum x = 1 and row.a . x <= row.most, by the dual
// active-set method of Goldfarb and Idnani (1983): it starts at the point itself and takes up one
// broken limit after the other. The matrix of the program is the identity, so bounds that are
// active only fix variables; the linear system is as large as the active rows.
//
// Shapes: D domains, R active rows. A limit is n . x >= b; bounds have n = +-1 in one place.

const QP_BROKEN = 1e-12; // by which a limit may be broken
const QP_STEPS = 2000;

/**
 * @param {Float64Array} point Any point, shape (D,).
 * @param {{low: Float64Array, high: Float64Array}} bounds Least and most weights.
 * @param {{a: Float64Array, most: number}[]} rows Further limits, a . x <= most.
 * @returns {{weights: Float64Array, forces: Float64Array, pulls: Float64Array} | null} The
 *     mixture, and the multipliers of rows and of bounds; null where no mixture is within all limits.
 */
function nearestMixture(point, bounds, rows) {
  const size = point.length;
  const ones = new Float64Array(size).fill(1);
  // Row 0 is the sum, which holds with equality; the others are turned to n . x >= b.
  const normals = [ones, ...rows.map((row) => row.a.map((v) => -v))];
  const levels = [1, ...rows.map((row) => -row.most)];
  const x = Float64Array.from(point);
  const held = []; // active limits: {kind: "row", at} or {kind: "bound", at, sign}, with force u
  for (let step = 0; step < QP_STEPS; step++) {
    const next = mostBroken(x, bounds, normals, levels, held, step === 0);
    if (next === null) return finished(x, held, rows.length);
    if (!takeUp(next, x, bounds, normals, levels, held)) return null;
  }
  return finished(x, held, rows.length);
}

/** The limit that is broken most and not yet active; the sum comes first, whatever its sign. */
function mostBroken(x, bounds, normals, levels, held, first) {
  if (first) {
    const short = levels[0] - dot(normals[0], x);
    return { kind: "row", at: 0, sign: short >= 0 ? 1 : -1, equal: true };
  }
  let worst = null;
  let most = QP_BROKEN;
  const isHeld = (kind, at) => held.some((one) => one.at === at && one.kind === kind);
  const consider = (kind, at, sign, short) => {
    if (short > most && !isHeld(kind, at)) [worst, most] = [{ kind, at, sign }, short];
  };
  for (let d = 0; d < x.length; d++) {
    consider("bound", d, 1, bounds.low[d] - x[d]);
    consider("bound", d, -1, x[d] - bounds.high[d]);
  }
  for (let r = 1; r < normals.length; r++) {
    const scale = Math.max(1, norm(normals[r]));
    consider("row", r, 1, (levels[r] - dot(normals[r], x)) / scale);
  }
  return worst;
}

/** Make one limit active, dropping those that are in its way; false where the set is empty. */
function takeUp(limit, x, bounds, normals, levels, held) {
  const normal = normalOf(limit, normals, x.length);
  const level = levelOf(limit, bounds, levels);
  let force = 0;
  for (;;) {
    const { along, relief } = directions(normal, normals, held, x.length);
    const slope = dot(along, normal);
    const whole = slope > 1e-14 * dot(normal, normal) ? (level - dot(normal, x)) / slope : Infinity;
    const [part, blocking] = firstToVanish(held, relief);
    const length = Math.min(whole, part);
    if (length === Infinity) return false;
    if (whole < Infinity) for (let d = 0; d < x.length; d++) x[d] += length * along[d];
    held.forEach((one, i) => (one.force -= length * relief[i]));
    force += length;
    if (whole <= part) {
      held.push({ ...limit, force });
      return true;
    }
    held.splice(blocking, 1);
  }
}

/** The length of step at which the force of an active limit vanishes first, and its place. */
function firstToVanish(held, relief) {
  let [part, blocking] = [Infinity, -1];
  held.forEach((one, i) => {
    if (one.equal || relief[i] <= 1e-14) return;
    const length = Math.max(one.force, 0) / relief[i];
    if (length < part) [part, blocking] = [length, i];
  });
  return [part, blocking];
}

/**
 * The direction in which a limit is met while active ones stay met (`along`), and how fast the
 * forces of the active ones fall on the way (`relief`).
 */
function directions(normal, normals, held, size) {
  const fixed = new Uint8Array(size);
  const rows = [];
  held.forEach((one) => {
    if (one.kind === "bound") fixed[one.at] = 1;
    else rows.push(normalOf(one, normals, size));
  });
  const free = (a, b) => {
    let sum = 0;
    for (let d = 0; d < size; d++) if (!fixed[d]) sum += a[d] * b[d];
    return sum;
  };
  const pulls = solveSymmetric(rows.map((a) => rows.map((b) => free(a, b))), rows.map((a) => free(a, normal)));
  const left = Float64Array.from(normal);
  rows.forEach((a, r) => {
    for (let d = 0; d < size; d++) left[d] -= pulls[r] * a[d];
  });
  let row = 0;
  const relief = held.map((one) => (one.kind === "row" ? pulls[row++] : one.sign * left[one.at]));
  return { along: left.map((v, d) => (fixed[d] ? 0 : v)), relief };
}

function normalOf(limit, normals, size) {
  if (limit.kind === "row") {
    return limit.sign > 0 ? normals[limit.at] : normals[limit.at].map((v) => -v);
  }
  const normal = new Float64Array(size);
  normal[limit.at] = limit.sign;
  return normal;
}

function levelOf(limit, bounds, levels) {
  if (limit.kind === "row") return limit.sign * levels[limit.at];
  return limit.sign > 0 ? bounds.low[limit.at] : -bounds.high[limit.at];
}

function finished(x, held, count) {
  const forces = new Float64Array(count);
  const pulls = new Float64Array(x.length);
  for (const one of held) {
    if (one.kind === "bound") pulls[one.at] = one.force;
    else if (one.at > 0) forces[one.at - 1] = one.force;
  }
  return { weights: x, forces, pulls };
}

/** Solve a small symmetric positive system by elimination with pivots. */
function solveSymmetric(matrix, right) {
  const rows = matrix.map((row, r) => [...row, right[r]]);
  const size = rows.length;
  for (let c = 0; c < size; c++) {
    let pivot = c;
    for (let r = c + 1; r < size; r++) if (Math.abs(rows[r][c]) > Math.abs(rows[pivot][c])) pivot = r;
    [rows[c], rows[pivot]] = [rows[pivot], rows[c]];
    if (Math.abs(rows[c][c]) < 1e-300) continue;
    for (let r = c + 1; r < size; r++) {
      const factor = rows[r][c] / rows[c][c];
      for (let k = c; k <= size; k++) rows[r][k] -= factor * rows[c][k];
    }
  }
  const found = new Float64Array(size);
  for (let r = size - 1; r >= 0; r--) {
    let sum = rows[r][size];
    for (let c = r + 1; c < size; c++) sum -= rows[r][c] * found[c];
    found[r] = Math.abs(rows[r][r]) < 1e-300 ? 0 : sum / rows[r][r];
  }
  return found;
}

function dot(one, other) {
  let sum = 0;
  for (let d = 0; d < one.length; d++) sum += one[d] * other[d];
  return sum;
}

const norm = (vector) => Math.sqrt(dot(vector, vector));
