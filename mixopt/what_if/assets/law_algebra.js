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
    let sum = b[i];
    for (let k = 0; k < i; k++) sum -= lower[at++] * b[k];
    b[i] = sum / lower[at++];
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

// A B, where A is (rows, size) and B (size, size).
function rowsTimes(A, B, rows, size) {
  const product = new Float64Array(rows * size);
  for (let n = 0; n < rows; n++) {
    for (let p = 0; p < size; p++) {
      const factor = A[n * size + p];
      for (let q = 0; q < size; q++) product[n * size + q] += factor * B[p * size + q];
    }
  }
  return product;
}

const squared = (values) => values.reduce((sum, value) => sum + value * value, 0);
