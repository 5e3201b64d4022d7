// The little linear algebra that a law needs: lower triangles, packed row by row.

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
    let [sum, other] = [b[i], 0]; // two sums are faster: neither waits for the other
    let k = 0;
    for (; k + 1 < i; k += 2, at += 2) {
      sum -= lower[at] * b[k];
      other -= lower[at + 1] * b[k + 1];
    }
    if (k < i) sum -= lower[at++] * b[k];
    b[i] = (sum + other) / lower[at++];
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
