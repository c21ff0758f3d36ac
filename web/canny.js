// Canny edges exactly as the server computes them (OpenCV's: aperture 3, L1 norm), so that the
// thresholds can be tried without a round trip.

// `picture` is an ImageData; gives an ImageData with dark edges on white.
export function canny(picture, low, high) {
  const { width, height, data } = picture;
  if (low > high) [low, high] = [high, low];
  low = Math.floor(low);
  high = Math.floor(high);
  const count = width * height;
  const dx = new Int16Array(count), dy = new Int16Array(count), strength = new Int32Array(count);
  gradients(data, width, height, dx, dy, strength);
  const marks = thin(width, height, dx, dy, strength, low, high);
  const edges = new ImageData(width, height);
  for (let i = 0; i < count; i++) {
    edges.data.set(marks[i] === 2 ? [24, 24, 27, 255] : [255, 255, 255, 255], 4 * i);
  }
  return edges;
}

// Sobel with the border replicated; a pixel takes the channel of the largest |dx| + |dy|.
function gradients(data, width, height, dx, dy, strength) {
  for (let y = 0; y < height; y++) {
    const above = Math.max(y - 1, 0) * width, here = y * width;
    const below = Math.min(y + 1, height - 1) * width;
    for (let x = 0; x < width; x++) {
      const left = Math.max(x - 1, 0), right = Math.min(x + 1, width - 1);
      let best = -1;
      for (let c = 0; c < 3; c++) {
        const at = (row, column) => data[4 * (row + column) + c];
        const a = at(above, left), b = at(above, x), d = at(above, right);
        const e = at(here, left), f = at(here, right);
        const g = at(below, left), h = at(below, x), i = at(below, right);
        const gx = d + 2 * f + i - a - 2 * e - g;
        const gy = g + 2 * h + i - a - 2 * b - d;
        const size = Math.abs(gx) + Math.abs(gy);
        if (size > best) {
          best = size;
          dx[here + x] = gx;
          dy[here + x] = gy;
          strength[here + x] = size;
        }
      }
    }
  }
}

// Local maxima along the gradient; then growth from those above `high` over those above `low`.
function thin(width, height, dx, dy, strength, low, high) {
  const marks = new Uint8Array(width * height), stack = [];
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : strength[y * width + x]);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x, m = strength[i];
      if (m <= low) continue;
      const ax = Math.abs(dx[i]), ay = Math.abs(dy[i]) * 32768, flat = ax * 13573;
      let peak;
      if (ay < flat) {
        peak = m > at(x - 1, y) && m >= at(x + 1, y);
      } else if (ay > flat + ax * 65536) {
        peak = m > at(x, y - 1) && m >= at(x, y + 1);
      } else {
        const s = (dx[i] ^ dy[i]) < 0 ? -1 : 1;
        peak = m > at(x - s, y - 1) && m > at(x + s, y + 1);
      }
      if (peak) {
        marks[i] = m > high ? 2 : 1;
        if (marks[i] === 2) stack.push(i);
      }
    }
  }
  while (stack.length) {
    const i = stack.pop(), x = i % width, y = (i - x) / width;
    for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
      for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
        if (marks[v * width + u] === 1) {
          marks[v * width + u] = 2;
          stack.push(v * width + u);
        }
      }
    }
  }
  return marks;
}
