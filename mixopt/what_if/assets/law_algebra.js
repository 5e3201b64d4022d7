// The kinds of laws, and the little linear algebra that they need: lower triangles, packed row by
// row.

const MODEL_KINDS = {}; // each file enters its own

function makeModel(plain) {
  if (!Object.hasOwn(MODEL_KINDS, plain.kind)) throw new Error("unknown kind of law: " + plain.kind);
  return MODEL_KINDS[plain.kind](plain);
}

const nothingToPrepare = () => false;
const isWanted = (wanted, m) => !wanted || wanted[m] === 1; // all are, where nothing is said

// j' C j of a symmetric matrix whose lower triangle starts at `at`.
function quadratic(lower, at, j) {
  let total = 0;
  for (let p = 0, i = at; p < j.length; p++) {
    let row = 0;
    for (let q = 0; q < p; q++) row += lower[i++] * j[q];
    total += j[p] * (2 * row + lower[i++] * j[p]);
  }
  return total;
}

const triangle = (size) => (size * (size + 1)) / 2;

// L' j of a lower triangle L.
function timesLower(j, lower) {
  const product = new Float64Array(j.length);
  for (let p = 0, i = 0; p < j.length; p++) {
    for (let q = 0; q <= p; q++) product[q] += j[p] * lower[i++];
  }
  return product;
}

// The lower triangle of a root, from whole numbers of a unit for each row.
function wholeRoot(plain, m, P) {
  const root = Float64Array.from(plain.roots_MT.subarray(m * triangle(P), (m + 1) * triangle(P)));
  for (let p = 0, i = 0; p < P; p++) {
    for (let q = 0; q <= p; q++) root[i++] *= plain.root_units_MP[m * P + p];
  }
  return root;
}

// The product of a row of a matrix with a vector of its width.
function dotRow(matrix, row, vector) {
  let sum = 0;
  for (let d = 0, i = row * vector.length; d < vector.length; d++, i++) sum += matrix[i] * vector[d];
  return sum;
}

// The product of each row of a matrix with a vector of its width, into `products`: four rows at
// once, so that no sum waits for another.
function timesRows(matrix, vector, products) {
  const [width, rows] = [vector.length, products.length];
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
}

// Add the sum of a matrix's rows, each times its factor, to `sums`: four rows at once, so that sums
// are written a quarter as often.
function addRows(matrix, factors, sums) {
  const [width, rows] = [sums.length, factors.length];
  let n = 0;
  for (; n + 3 < rows; n += 4) {
    const at = n * width;
    const [a, b, c, e] = [factors[n], factors[n + 1], factors[n + 2], factors[n + 3]];
    for (let p = 0; p < width; p++) {
      const i = at + p;
      sums[p] +=
        a * matrix[i] + b * matrix[i + width] + (c * matrix[i + 2 * width] + e * matrix[i + 3 * width]);
    }
  }
  for (; n < rows; n++) {
    for (let p = 0, i = n * width; p < width; p++, i++) sums[p] += factors[n] * matrix[i];
  }
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

// Replace b by the solution of L x = b.
function solveLower(lower, b, size) {
  for (let i = 0, at = 0; i < size; i++) {
    let sum = b[i]; // four sums are faster: none waits for another
    let second = 0;
    let third = 0;
    let fourth = 0;
    let k = 0;
    for (; k + 3 < i; k += 4, at += 4) {
      sum -= lower[at] * b[k];
      second -= lower[at + 1] * b[k + 1];
      third -= lower[at + 2] * b[k + 2];
      fourth -= lower[at + 3] * b[k + 3];
    }
    for (; k < i; k++) sum -= lower[at++] * b[k];
    b[i] = (sum + second + (third + fourth)) / lower[at++];
  }
}

// Replace B, (size, width), by the solution of L L' X = B.
function solveBoth(lower, B, size, width) {
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
  for (let i = size - 1; i >= 0; i--) {
    divide(i, lower[triangle(i) + i]);
    for (let k = 0; k < i; k++) take(k, i, lower[triangle(i) + k]);
  }
}

const squared = (values) => values.reduce((sum, value) => sum + value * value, 0);
