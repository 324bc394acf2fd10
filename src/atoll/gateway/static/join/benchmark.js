// How fast this device multiplies, in a worker of its own: one second of a plain matrix product.
//
// Answers with millions of multiplications and additions a second.

const SIDE = 96;
const MILLISECONDS = 1_000;

function product(left, right, out) {
  for (let row = 0; row < SIDE; row++) {
    for (let column = 0; column < SIDE; column++) {
      let sum = 0;
      for (let at = 0; at < SIDE; at++) sum += left[row * SIDE + at] * right[column * SIDE + at];
      out[row * SIDE + column] = sum;
    }
  }
}

self.onmessage = () => {
  const left = Float32Array.from({ length: SIDE * SIDE }, (_, at) => Math.sin(at));
  const right = Float32Array.from({ length: SIDE * SIDE }, (_, at) => Math.cos(at));
  const out = new Float32Array(SIDE * SIDE);
  const started = performance.now();
  let times = 0;
  while (performance.now() - started < MILLISECONDS) {
    product(left, right, out);
    times += 1;
  }
  const seconds = (performance.now() - started) / 1_000;
  self.postMessage((2 * SIDE ** 3 * times) / seconds / 1e6);
};
