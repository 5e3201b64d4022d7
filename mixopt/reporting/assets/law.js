// The fitted law in the browser: losses and intervals of any mixture, as Python has them.
//
// `makeLaw(readWhatIf(text))` takes the embedded JSON. Each kind of law is a function from the
// values of `plain_law()` to three functions:
//
//   means(w)    losses, Float64Array M
//   stds(w)     standard deviations of a new trial, Float64Array M
//   prepare()   does a part of the work that `stds` needs once; returns whether more is left
//
// w: shares of the D domains, adding up to 1. Nothing here changes its arguments.

const HELD_BACK = 0.5;
const LAW_KINDS = { mean: meanLaw }; // each file enters its own

function lawOf(plain) {
  if (!Object.hasOwn(LAW_KINDS, plain.kind)) throw new Error(`unknown kind of law: ${plain.kind}`);
  return LAW_KINDS[plain.kind](plain);
}

// Parse the embedded text: arrays are in a list of their own, each as base64 of little-endian
// numbers, and `{"$array": 3}` stands for the fourth.
function readWhatIf(text) {
  const packed = JSON.parse(text);
  const types = { f8: Float64Array, f4: Float32Array, i4: Int32Array, u1: Uint8Array };
  const arrays = packed.arrays.map(({ type, data }) =>
    new types[type](Uint8Array.from(atob(data), (one) => one.charCodeAt(0)).buffer));
  const unpacked = (value) => {
    if (Array.isArray(value)) return value.map(unpacked);
    if (value === null || typeof value !== "object") return value;
    if (Object.hasOwn(value, "$array")) return arrays[value.$array];
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, unpacked(one)]));
  };
  return unpacked(packed.data);
}

// The law of a page's data, which must have `domains`, `targets`, `law` and `objective`. The
// objective is the largest of a few weighted sums of the losses and offsets, its pieces.
function makeLaw(data) {
  const M = data.targets.length;
  const D = data.domains.length;
  const law = lawOf(data.law.model);
  const { pieces, offsets } = data.objective;
  const { factors, floors, locals, value: ofValue, tried, agrees, reach, items, item_variances: typical = [] } = data.law.intervals;
  const means = rememberLast(law.means);
  // The questions of shares of right answers count at the share that is predicted.
  const byItems = (std, share, m) => Math.sqrt(Math.max(std ** 2 - typical[m], 0)
    + Math.max(share * (1 - share), 0) / items[m]);
  // Shares are negated in the law, as all metrics of which higher is better.
  const stds = rememberLast((w) => law.stds(w).map((std, m) => typical[m] > 0 ? byItems(std, -means(w)[m], m) : std));
  const value = (w) => heldBack(Math.max(...pieces.map((piece, p) => dot(piece, means(w)) + offsets[p])), tried);
  const half = (factor, floor, local, std) => factor * (local ? Math.max(std, floor) : 1);
  // Errors are assumed to be fully correlated: the largest possible sum.
  const spread = (w) => Math.max(...pieces.map((piece) => dot(piece.map(Math.abs), stds(w))));

  function predict(w) {
    const found = means(w).slice(0, M);
    if (agrees != null) found[agrees] = value(w); // as the objective is predicted
    return found;
  }

  // Intervals are wider beyond the trials (mixopt/fitting/intervals.py).
  function stretch(w) {
    if (!reach || !(reach.radius > 0)) return 1;
    let nearest = Infinity;
    for (let at = 0; at < reach.weights.length; at += D) {
      nearest = Math.min(nearest, totalVariation(w, reach.weights.subarray(at, at + D)));
    }
    return (1 + Math.max(nearest - reach.reach, 0) / reach.radius) ** 2;
  }

  function halves(w) {
    const wider = stretch(w);
    const found = Float64Array.from({ length: M }, (_, m) =>
      wider * half(factors[m], floors[m], locals[m], locals[m] ? stds(w)[m] : 0));
    if (agrees != null) found[agrees] = valueHalf(w);
    return found;
  }

  function valueHalf(w) {
    const { factor, floor, local } = ofValue;
    return stretch(w) * half(factor, floor, local, local ? spread(w) : 0);
  }

  // Call `prepare` when idle until it returns false: then the first `halves` is as quick as others.
  return { predict, value, halves, valueHalf, stds: (w) => stds(w).slice(0, M), prepare: law.prepare };
}

// Predictions better than every trial are shrunk (mixopt/fitting/intervals.py).
function heldBack(value, tried) {
  const [best, error] = tried ?? [-Infinity, 0];
  const beyond = Math.max(best - value, 0);
  return beyond > 0 ? value + HELD_BACK * error * beyond / (beyond + error) : value;
}

// A function of a mixture that remembers its last answer; callers ask several times for one mixture.
function rememberLast(answer) {
  let last = null;
  return (w) => {
    if (last === null || last.w.some((share, d) => share !== w[d])) {
      last = { w: Float64Array.from(w), found: answer(w) };
    }
    return last.found;
  };
}

// A weighted mean of other laws, with weights by loss. Their disagreement counts beside their own
// deviations, in quadrature.
function meanLaw(plain) {
  const members = plain.members.map(lawOf);
  const M = plain.weights_CM.length / members.length;
  const weight = (c, m) => plain.weights_CM[c * M + m];
  const mixed = (parts) => Float64Array.from({ length: M }, (_, m) =>
    parts.reduce((sum, part, c) => (weight(c, m) > 0 ? sum + weight(c, m) * part[m] : sum), 0));

  function stds(w) {
    const parts = members.map((member) => member.means(w));
    const middle = mixed(parts);
    const own = mixed(members.map((member) => member.stds(w)));
    const apart = mixed(parts.map((part) => part.map((mean, m) => (mean - middle[m]) ** 2)));
    return own.map((std, m) => Math.sqrt(std * std + apart[m]));
  }

  return {
    means: (w) => mixed(members.map((member) => member.means(w))),
    stds,
    prepare: () => members.some((member) => member.prepare()),
  };
}

/** The share of the tokens that change domain: half the sum of absolute differences. */
function totalVariation(one, other) {
  let sum = 0;
  for (let d = 0; d < one.length; d++) sum += Math.abs(one[d] - other[d]);
  return sum / 2;
}

const triangle = (size) => (size * (size + 1)) / 2;
const squared = (values) => values.reduce((sum, value) => sum + value * value, 0);

function dot(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += one[i] * other[i];
  return sum;
}

// The product of row `row` of a matrix with a vector of its width.
function dotRow(matrix, row, vector) {
  let sum = 0;
  for (let d = 0, i = row * vector.length; d < vector.length; d++, i++) sum += matrix[i] * vector[d];
  return sum;
}

// The product of each row of a matrix with a vector of its width: four rows at once, so that no sum
// waits for another.
function timesRows(matrix, vector, rows) {
  const products = new Float64Array(rows);
  const width = vector.length;
  let n = 0;
  for (; n + 3 < rows; n += 4) {
    let [a, b, c, e] = [0, 0, 0, 0];
    for (let d = 0, i = n * width; d < width; d++, i++) {
      const value = vector[d];
      a += matrix[i] * value;
      b += matrix[i + width] * value;
      c += matrix[i + 2 * width] * value;
      e += matrix[i + 3 * width] * value;
    }
    [products[n], products[n + 1], products[n + 2], products[n + 3]] = [a, b, c, e];
  }
  for (; n < rows; n++) products[n] = dotRow(matrix, n, vector);
  return products;
}

// L' j of the m-th of some lower triangles L.
function timesRoot(j, roots, m = 0) {
  const product = new Float64Array(j.length);
  for (let p = 0, i = m * triangle(j.length); p < j.length; p++) {
    for (let q = 0; q <= p; q++) product[q] += j[p] * roots[i++];
  }
  return product;
}

// Replace a symmetric positive definite matrix by its Cholesky factor.
function factorise(lower, size) {
  for (let i = 0; i < size; i++) {
    const row = triangle(i);
    for (let j = 0; j <= i; j++) {
      const other = triangle(j);
      let sum = lower[row + j];
      for (let k = 0; k < j; k++) sum -= lower[row + k] * lower[other + k];
      lower[row + j] = i === j ? Math.sqrt(sum) : sum / lower[other + j];
    }
  }
}

// Replace B, (size, width), by the solution of L X = B, and of L' X = B where that is asked for.
function solve(lower, B, size, width, both = false) {
  const take = (to, from, factor) => {
    for (let p = 0; p < width; p++) B[to * width + p] -= factor * B[from * width + p];
  };
  const divide = (row, by) => {
    for (let p = 0; p < width; p++) B[row * width + p] /= by;
  };
  for (let i = 0; i < size; i++) {
    for (let k = 0; k < i; k++) take(i, k, lower[triangle(i) + k]);
    divide(i, lower[triangle(i) + i]);
  }
  for (let i = size - 1; both && i >= 0; i--) {
    divide(i, lower[triangle(i) + i]);
    for (let k = 0; k < i; k++) take(k, i, lower[triangle(i) + k]);
  }
}
