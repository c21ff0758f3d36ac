// The sketch tab: drawing, settings, live pictures, history.
import { translate } from '/client.js';

const $ = (id) => document.getElementById(id);
const canvas = $('canvas'), context = canvas.getContext('2d', { willReadFrequently: true });
const SIDE = canvas.width;

/* ---- styles: a look in words; {prompt} stands for the user's -------------------------------- */

const STYLES = {
  none: ['No style', '{prompt}'],
  cinematic: ['Cinematic', 'film still of {prompt}, wide lens, soft key light, shallow focus, rich colour grading, fine grain'],
  model: ['3D model', '{prompt} as a clean 3D render, smooth surfaces, studio lighting, global illumination, high detail'],
  anime: ['Anime', 'anime drawing of {prompt}, crisp line work, cel shading, bright colours, painted background'],
  digital: ['Digital art', 'digital painting of {prompt}, confident brushwork, matte finish, layered light, very detailed'],
  photo: ['Photographic', 'photograph of {prompt}, 50 mm lens, natural light, sharp focus, true colours'],
  pixel: ['Pixel art', 'pixel art of {prompt}, low resolution, limited palette, clean blocks, 16-bit game look'],
  fantasy: ['Fantasy art', 'fantasy illustration of {prompt}, magical light, epic scenery, ornate detail, storybook mood'],
  neon: ['Neonpunk', 'neonpunk scene of {prompt}, glowing magenta and cyan, rain and reflections, night city, vivid contrast'],
  manga: ['Manga', 'manga panel of {prompt}, black ink, screentone shading, strong line weight, dynamic composition'],
};

function styleText(name) {
  return localStorage.getItem(`onestep.style.${name}`) || STYLES[name][1];
}

function fullPrompt() {
  const words = $('sketch-prompt').value.trim();
  const template = $('style-text').value.trim() || '{prompt}';
  return template.includes('{prompt}') ? template.replaceAll('{prompt}', words) : `${words}, ${template}`;
}

/* ---- drawing: a list of things done, played again for undo ----------------------------------- */

const done = [], undone = [];
let tool = 'pen', stroke = null;
const cursor = { x: SIDE / 2, y: SIDE / 2, down: false };

function paintSegment(item, index) {
  const [x, y, pressure] = item.points[index], [u, v] = item.points[Math.max(index - 1, 0)];
  context.strokeStyle = item.tool === 'eraser' ? '#fff' : '#000';
  context.lineCap = context.lineJoin = 'round';
  context.lineWidth = item.width * (item.tool === 'eraser' ? 2 : pressure);
  context.beginPath();
  context.moveTo(u, v);
  context.lineTo(x, y + (index ? 0 : 0.01));
  context.stroke();
}

function paint(item) {
  if (item.kind === 'clear') {
    white();
  } else if (item.kind === 'image') {
    white();
    const scale = Math.min(SIDE / item.image.width, SIDE / item.image.height);
    const width = item.image.width * scale, height = item.image.height * scale;
    context.drawImage(item.image, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  } else {
    item.points.forEach((_, index) => paintSegment(item, index));
  }
}

function white() {
  context.fillStyle = '#fff';
  context.fillRect(0, 0, SIDE, SIDE);
}

function repaint() {
  white();
  // What lies before the last clear or picture cannot be seen.
  const from = done.findLastIndex((item) => item.kind !== 'stroke');
  done.slice(Math.max(from, 0)).forEach(paint);
}

function isBlank() {
  const last = done.at(-1);
  return !last || last.kind === 'clear';
}

function changed() {
  $('undo').disabled = done.length === 0;
  $('redo').disabled = undone.length === 0;
  $('canvas-hint').hidden = done.length > 0;
  if ($('live').checked && !isBlank() && $('sketch-prompt').value.trim()) run();
}

function add(item) {
  done.push(item);
  undone.length = 0;
  changed();
}

function undo() {
  if (done.length) undone.push(done.pop());
  repaint();
  changed();
}

function redo() {
  if (undone.length) done.push(undone.pop());
  repaint();
  changed();
}

function clear() {
  if (!isBlank()) {
    white();
    add({ kind: 'clear' });
  }
}

function chooseTool(name) {
  tool = name;
  $('pen').setAttribute('aria-pressed', String(name === 'pen'));
  $('eraser').setAttribute('aria-pressed', String(name === 'eraser'));
}

function setWidth(width) {
  $('pen-width').value = width;
  $('pen-width-value').value = $('pen-width').value;
}

function begin(x, y, pressure) {
  stroke = { kind: 'stroke', tool, width: Number($('pen-width').value), points: [[x, y, pressure]] };
  paintSegment(stroke, 0);
  $('canvas-hint').hidden = true;
}

function extend(x, y, pressure) {
  stroke.points.push([x, y, pressure]);
  paintSegment(stroke, stroke.points.length - 1);
}

function end() {
  if (stroke) {
    const item = stroke;
    stroke = null;
    add(item);
  }
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  // A pen tells its pressure; a mouse says 0.5 always, which is taken as the full width.
  const pressure = event.pointerType === 'pen' && event.pressure > 0 ? 0.25 + event.pressure * 1.25 : 1;
  return [(event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height, pressure];
}

function listenToPointer() {
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || stroke) return;
    canvas.setPointerCapture(event.pointerId);
    begin(...place(event));
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!stroke || !canvas.hasPointerCapture(event.pointerId)) return;
    const all = event.getCoalescedEvents?.() || [];
    (all.length ? all : [event]).forEach((one) => extend(...place(one)));
  });
  canvas.addEventListener('pointerup', end);
  canvas.addEventListener('pointercancel', end);
}

// With the keyboard: arrows move a cross, Space puts the pen down or up.
function listenToKeys() {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener('keydown', (event) => {
    const move = moves[event.key];
    if (move) {
      const step = event.shiftKey ? 2 : 12;
      cursor.x = Math.min(Math.max(cursor.x + move[0] * step, 0), SIDE);
      cursor.y = Math.min(Math.max(cursor.y + move[1] * step, 0), SIDE);
      if (stroke) extend(cursor.x, cursor.y, 1);
    } else if (event.key === ' ') {
      if (stroke) end();
      else begin(cursor.x, cursor.y, 1);
    } else {
      return;
    }
    event.preventDefault();
    $('sketch-status').textContent =
      `pen ${stroke ? 'down' : 'up'} at ${Math.round(cursor.x)}, ${Math.round(cursor.y)} of ${SIDE}`;
  });
  canvas.addEventListener('blur', end);
}

/* ---- making pictures --------------------------------------------------------------------------- */

let side = 512, available = false;
let current = null; // the run under way: {controller}
let lastSeconds = 1;
let resultUrl = null;

function settings() {
  return { words: $('sketch-prompt').value, style: $('style').value, styleText: $('style-text').value,
    gamma: $('gamma').value, seed: $('seed').value };
}

function sketchBlob() {
  return new Promise((resolve) => { canvas.toBlob(resolve, 'image/png'); });
}

function show(blob, draft) {
  if (resultUrl) URL.revokeObjectURL(resultUrl);
  resultUrl = URL.createObjectURL(blob);
  const image = $('sketch-result'), link = $('sketch-download');
  image.src = resultUrl;
  image.alt = `Made from the sketch: ${$('sketch-prompt').value}`;
  image.hidden = false;
  image.classList.toggle('draft', draft);
  $('sketch-empty').hidden = true;
  link.href = resultUrl;
  link.setAttribute('aria-disabled', String(draft));
}

function say(text, bad) {
  $('sketch-status').textContent = text;
  $('sketch-status').classList.toggle('bad', Boolean(bad));
}

function busy(on) {
  $('sketch-result-stage').setAttribute('aria-busy', String(on));
  $('sketch-cancel').disabled = !on;
  if (!on) $('sketch-progress').value = 0;
}

async function run() {
  if (!available) return say('This server has no sketch model (sketch_to_image_stochastic).', true);
  if (!$('sketch-prompt').value.trim()) {
    $('sketch-prompt').focus();
    return say('Say in a few words what the sketch shall become.', true);
  }
  if (!$('seed').checkValidity() || !$('seed').value) {
    $('seed').focus();
    return say('The seed must be a whole number.', true);
  }
  current?.controller.abort(); // what it would show is stale
  const mine = current = { controller: new AbortController() };
  const sketch = await sketchBlob();
  if (current !== mine) return undefined;
  const fields = { task: 'sketch_to_image_stochastic', prompt: fullPrompt(), gamma: $('gamma').value,
    seed: $('seed').value };
  const options = { signal: mine.controller.signal, onProgress(fraction, stage) {
    $('sketch-progress').value = fraction;
    if (stage.startsWith('waiting')) say(stage);
  } };
  const kept = settings();
  busy(true);
  say('working');
  try {
    if (lastSeconds > 0.7 && side > 256) {
      // Slow here: a quick small picture first.
      show((await translate(sketch, { ...fields, 'max-side': side / 2 }, options)).blob, true);
    }
    const begun = performance.now();
    const result = await translate(sketch, { ...fields, 'max-side': side }, options);
    lastSeconds = (performance.now() - begun) / 1000;
    if (current !== mine) return undefined;
    show(result.blob, false);
    say(`${result.seconds.translate.toFixed(2)} s · ${result.width}×${result.height} · guidance ` +
      `${Number(result.gamma).toFixed(2)} · seed ${result.seed} · “${result.prompt}”`);
    remember({ sketch, blob: result.blob, text: $('sketch-status').textContent, settings: kept });
  } catch (error) {
    if (current === mine) say(error.name === 'AbortError' ? 'Cancelled.' : error.message, error.name !== 'AbortError');
  } finally {
    if (current === mine) {
      current = null;
      busy(false);
    }
  }
  return undefined;
}

function cancel() {
  current?.controller.abort();
}

/* ---- history ------------------------------------------------------------------------------------- */

const HISTORY_MOST = 60;

function remember(entry) {
  const item = document.createElement('li'), button = document.createElement('button');
  const image = document.createElement('img');
  image.src = URL.createObjectURL(entry.blob);
  image.alt = '';
  button.type = 'button';
  button.title = entry.text;
  button.setAttribute('aria-label', `Restore: ${entry.text}`);
  button.append(image);
  button.addEventListener('click', () => restore(entry));
  item.append(button);
  $('history').prepend(item);
  $('history-empty').hidden = true;
  if ($('history').children.length > HISTORY_MOST) {
    URL.revokeObjectURL($('history').lastChild.querySelector('img').src);
    $('history').lastChild.remove();
  }
}

async function restore(entry) {
  const image = await createImageBitmap(entry.sketch), live = $('live').checked;
  cancel();
  $('sketch-prompt').value = entry.settings.words;
  $('style').value = entry.settings.style;
  $('style-text').value = entry.settings.styleText;
  $('gamma').value = entry.settings.gamma;
  $('gamma-value').value = Number(entry.settings.gamma).toFixed(2);
  $('seed').value = entry.settings.seed;
  $('live').checked = false; // the picture is there already
  const item = { kind: 'image', image };
  paint(item);
  add(item);
  $('live').checked = live;
  show(entry.blob, false);
  say(entry.text);
}

/* ---- pictures from outside -------------------------------------------------------------------------- */

export async function takeSketch(file) {
  try {
    const item = { kind: 'image', image: await createImageBitmap(file) };
    paint(item);
    add(item);
  } catch {
    say(`${file.name || 'That'} is no picture that this browser can read.`, true);
  }
}

async function save() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await sketchBlob());
  link.download = 'sketch.png';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/* ---- the tab ------------------------------------------------------------------------------------------ */

export const sketchTab = {
  run, cancel, take: takeSketch,
  shortcut(event) {
    const key = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && key === 'z') {
      if (event.shiftKey) redo();
      else undo();
      return true;
    }
    if ((event.ctrlKey || event.metaKey) && key === 'y') { redo(); return true; }
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const width = Number($('pen-width').value);
    const keys = { b: () => chooseTool('pen'), e: () => chooseTool('eraser'), '[': () => setWidth(width - 2),
      ']': () => setWidth(width + 2), r: dice };
    keys[key]?.();
    return key in keys;
  },
  setServer(list) {
    const task = list.data.find((one) => one.id === 'sketch_to_image_stochastic');
    available = Boolean(task);
    $('sketch-run').disabled = !available;
    side = task?.side || 512;
    if (list.demo) {
      $('sketch-prompt').placeholder = 'a yellow cat on an orange ground';
      say('Demo models: small pictures of a toy world. Try “a yellow cat on an orange ground”, a boat, a fish or a house.');
    } else if (!available) {
      say('This server has no sketch model (sketch_to_image_stochastic).', true);
    }
  },
};

let timer = 0;
function soon() {
  clearTimeout(timer);
  timer = setTimeout(() => { if ($('live').checked && !isBlank() && $('sketch-prompt').value.trim()) run(); }, 350);
}

function dice() {
  $('seed').value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
  soon();
}

export function startSketch() {
  for (const [name, [title]] of Object.entries(STYLES)) $('style').append(new Option(title, name));
  $('style-text').value = styleText('none');
  $('style').addEventListener('change', () => { $('style-text').value = styleText($('style').value); soon(); });
  $('style-text').addEventListener('input', () => {
    localStorage.setItem(`onestep.style.${$('style').value}`, $('style-text').value);
    soon();
  });
  $('style-reset').addEventListener('click', () => {
    localStorage.removeItem(`onestep.style.${$('style').value}`);
    $('style-text').value = styleText($('style').value);
    soon();
  });
  $('sketch-prompt').addEventListener('input', soon);
  $('seed').addEventListener('input', soon);
  $('gamma').addEventListener('input', () => { $('gamma-value').value = Number($('gamma').value).toFixed(2); soon(); });
  $('dice').addEventListener('click', dice);
  $('pen').addEventListener('click', () => chooseTool('pen'));
  $('eraser').addEventListener('click', () => chooseTool('eraser'));
  $('pen-width').addEventListener('input', () => setWidth($('pen-width').value));
  $('undo').addEventListener('click', undo);
  $('redo').addEventListener('click', redo);
  $('clear').addEventListener('click', clear);
  $('sketch-save').addEventListener('click', save);
  $('sketch-run').addEventListener('click', run);
  $('sketch-cancel').addEventListener('click', cancel);
  $('sketch-settings').addEventListener('submit', (event) => { event.preventDefault(); run(); });
  $('sketch-file').addEventListener('change', (event) => {
    if (event.target.files[0]) takeSketch(event.target.files[0]);
    event.target.value = '';
  });
  white();
  listenToPointer();
  listenToKeys();
}
