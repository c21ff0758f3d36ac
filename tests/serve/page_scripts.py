"""JavaScript that check_page.py runs in the page."""
import os

# A checksum of an <img>'s pixels, its size, and how many levels of red it has.
LOOK = """
const image = document.getElementById(arguments[0]), done = arguments[arguments.length - 1];
image.decode().then(() => {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0, low = 255, high = 0;
  for (let i = 0; i < data.length; i += 4) {
    sum = (sum * 31 + data[i] * 7 + data[i + 1] * 3 + data[i + 2]) % 4294967291;
    low = Math.min(low, data[i]); high = Math.max(high, data[i]);
  }
  done([sum, canvas.width, canvas.height, high - low]);
}, () => done(null));
"""
# Dark pixels of a canvas, and a checksum of all.
CANVAS = """
const c = document.getElementById(arguments[0]), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
let ink = 0, sum = 0;
for (let i = 0; i < d.length; i += 4) { ink += d[i] < 128; sum = (sum * 31 + d[i]) % 4294967291; }
return [ink, sum];
"""
# The page's edges beside the server's, in pixels that differ.
EDGES = """
const done = arguments[arguments.length - 1];
(async () => {
  const { canny } = await import('/canny.js');
  const image = document.getElementById('photo-input');
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  let different = 0, edges = 0;
  for (const [low, high] of [[100, 200], [30, 60], [250, 90]]) {
    const mine = canny(context.getImageData(0, 0, canvas.width, canvas.height), low, high);
    const form = new FormData();
    for (const [name, value] of Object.entries({ task: 'edge_to_image', prompt: 'x',
      with_control: true, 'low-threshold': low, 'high-threshold': high })) form.append(name, value);
    form.append('image', await canvas.convertToBlob());
    const answer = await (await fetch('/v1/translate', { method: 'POST', body: form,
      headers: { Accept: 'application/json' } })).json();
    const bytes = Uint8Array.from(atob(answer.control), (c) => c.charCodeAt(0));
    const map = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
    map.drawImage(await createImageBitmap(new Blob([bytes], { type: 'image/png' })), 0, 0);
    const theirs = map.getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < theirs.length; i += 4) {
      different += (theirs[i] > 127) !== (mine.data[i] < 99);
      edges += theirs[i] > 127;
    }
  }
  done([different, edges > 500]);
})().catch((error) => done(String(error)));
"""
# Notes every translation that is asked for, and whether it was dropped.
WATCH = """
window.asked = [];
const real = window.fetch;
window.fetch = (url, options) => {
  if (url === '/v1/translate') {
    const one = { side: options.body.get('max-side'), dropped: false };
    window.asked.push(one);
    options.signal.addEventListener('abort', () => { one.dropped = true; });
  }
  return real(url, options);
};
"""
# Every change of the result picture: [is it a draft, its width].
WATCH_RESULT = """
window.shown = [];
const image = document.getElementById('sketch-result');
image.addEventListener('load', () => window.shown.push([image.classList.contains('draft'), image.naturalWidth]));
"""
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "page_rules.js"), encoding="utf-8") as rules:
    RULES = rules.read()
SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => { for (const e of list.getEntries()) window.shift += e.value; })
  .observe({ type: 'layout-shift', buffered: true });
"""
