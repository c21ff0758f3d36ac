// The photo tab: a picture in, a picture out, one divider between them.
import { $, chips, choose, chosen, describe, download, fileName, rollDice, seedIsGood } from '/controls.js';
import { canny } from '/canny.js';
import { translate } from '/client.js';
import { makeHistory } from '/history.js';
import { makeRunner, reveal } from '/runner.js';

const TASKS = {
  edge_to_image: ['Edges to picture', 'Finds the edges of your picture and paints a new one along them.'],
  day_to_night: ['Day to night', 'For street scenes.'],
  night_to_day: ['Night to day', 'For street scenes.'],
  clear_to_rainy: ['Clear to rainy', 'For street scenes.'],
  rainy_to_clear: ['Rainy to clear', 'For street scenes.'],
};

// Larger pictures are scaled down before they are sent: the networks see far less.
const SENT_SIDE_MOST = 2048;
const SENT_BYTES_MOST = 8e6;

const runner = makeRunner('photo');
const addToHistory = makeHistory('photo', restore);
let tasks = [], demo = false;
let file = null, picture = null; // as chosen, and decoded
let result = null; // {blob, name}
let resultUrl = null, inputUrl = null;

function task() {
  return tasks.find((one) => one.id === chosen($('photo-task')));
}

/* ---- sizes ---------------------------------------------------------------------------------------- */

function listSizes() {
  const t = task(), before = $('photo-size').value;
  if (!t) return;
  const own = t.family === 'unpaired' && !demo ? [new Option('As trained (512×512)', 'official')] : [];
  const sides = demo ? [64, 128, 256] : [256, 512, 768, 1024];
  $('photo-size').replaceChildren(...own, ...sides.map((side) => new Option(`${side} px`, side)));
  $('photo-size').value = [...$('photo-size').options].some((o) => o.value === before) ? before
    : own.length ? 'official' : String(t.side);
}

function sizeFields() {
  const size = $('photo-size').value;
  if (size === 'official') return {};
  return task().family === 'unpaired' ? { 'max-side': size, fit: 'exact' } : { 'max-side': size };
}

// The picture on a canvas of at most this longer side.
function scaled(side) {
  const scale = Math.min(1, side / Math.max(picture.width, picture.height));
  const canvas = new OffscreenCanvas(Math.max(8, Math.round(picture.width * scale)),
    Math.max(8, Math.round(picture.height * scale)));
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return { canvas, context };
}

/* ---- edges ----------------------------------------------------------------------------------------- */

let edgeFrame = 0;
function drawEdges() {
  const wanted = picture && task()?.id === 'edge_to_image' && $('show-edges').checked;
  $('edges').hidden = !wanted;
  $('photo-input').hidden = !picture || wanted;
  cancelAnimationFrame(edgeFrame);
  if (!wanted) return;
  edgeFrame = requestAnimationFrame(() => {
    const { canvas, context } = scaled(Number($('photo-size').value) || 512);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    $('edges').width = canvas.width;
    $('edges').height = canvas.height;
    $('edges').getContext('2d').putImageData(canny(pixels, Number($('low').value), Number($('high').value)), 0, 0);
  });
}

// Words belong to their task: those for a bird are none for a street.
const wordsOf = {};
let shownTask = null;

function showTask() {
  const t = task(), edges = t?.id === 'edge_to_image';
  if (shownTask) wordsOf[shownTask] = $('photo-prompt').value;
  shownTask = t?.id;
  $('photo-prompt').value = wordsOf[shownTask] || '';
  $('edge-settings').hidden = !edges;
  $('edges-toggle').hidden = !edges;
  $('photo-task-note').textContent = t ? TASKS[t.id]?.[1] || 'An own checkpoint.' : '';
  $('photo-prompt-label').textContent = t?.caption ? 'In other words (optional)' : 'What shall it become?';
  $('photo-prompt').placeholder = t?.caption || (demo ? 'a blue bird on a yellow ground' : 'a blue bird on a branch');
  listSizes();
  drawEdges();
}

/* ---- the picture ------------------------------------------------------------------------------------- */

async function setPicture(chosenFile) {
  // A copy: the file may change or vanish before it is sent.
  const blob = new Blob([await chosenFile.arrayBuffer()], { type: chosenFile.type });
  const decoded = await createImageBitmap(blob);
  runner.drop();
  picture = decoded;
  file = blob;
  if (inputUrl) URL.revokeObjectURL(inputUrl);
  inputUrl = URL.createObjectURL(blob);
  $('photo-input').src = $('photo-before').src = inputUrl;
  $('photo-input').alt = 'The picture to translate';
  $('photo-empty').hidden = true;
  $('photo-size-note').textContent = `${picture.width}×${picture.height}`;
  drawEdges();
}

async function take(blob) {
  try {
    await setPicture(blob);
  } catch {
    runner.say(`${blob.name || 'That'} is no picture that this browser can read.`, true);
    return;
  }
  showResult(null);
  runner.say('');
}

const EXAMPLES = { edge_to_image: 'bird', day_to_night: 'day', night_to_day: 'night',
  clear_to_rainy: 'clear', rainy_to_clear: 'rainy' };

async function example() {
  const id = task()?.id;
  try {
    const answer = await fetch(`/examples/${EXAMPLES[id] || 'bird'}.png`);
    const blob = await answer.blob();
    if (id === 'edge_to_image' && !$('photo-prompt').value) {
      $('photo-prompt').value = 'a blue bird on a yellow ground';
    }
    await take(blob);
  } catch {
    runner.say('The server cannot be reached.', true);
    return;
  }
  run();
}

/* ---- before and after ---------------------------------------------------------------------------------- */

function showResult(blob, t, words, seed) {
  if (resultUrl) URL.revokeObjectURL(resultUrl);
  resultUrl = blob ? URL.createObjectURL(blob) : null;
  for (const id of ['photo-before', 'photo-result', 'divider']) $(id).hidden = !blob;
  $('compare').disabled = !blob;
  $('photo-result-empty').hidden = Boolean(blob);
  $('photo-download').setAttribute('aria-disabled', String(!blob));
  result = null;
  if (!blob) {
    $('photo-download').removeAttribute('href');
    return;
  }
  const title = TASKS[t]?.[0] || t;
  result = { blob, name: fileName(words || title, seed) };
  $('photo-result').src = $('photo-download').href = resultUrl;
  $('photo-download').download = result.name;
  $('photo-result').alt = `After: ${title}`;
  $('photo-before').alt = 'Before';
  $('photo-result').decode().then(divide, () => {});
}

// Where the result lies in its square stage, in parts of it: {left, top, width, height}.
function resultBox() {
  const { naturalWidth: width, naturalHeight: height } = $('photo-result');
  if (!width || !height) return { left: 0, top: 0, width: 1, height: 1 };
  const longer = Math.max(width, height);
  return { left: (1 - width / longer) / 2, top: (1 - height / longer) / 2, width: width / longer, height: height / longer };
}

function divide() {
  const part = Number($('compare').value) / 100, box = resultBox();
  const before = $('photo-before').style, at = box.left + part * box.width;
  // Sizes of networks are multiples of 8: the original is fitted to the result, pixel on pixel.
  before.left = `${box.left * 100}%`;
  before.top = `${box.top * 100}%`;
  before.width = `${box.width * 100}%`;
  before.height = `${box.height * 100}%`;
  before.clipPath = `inset(0 ${(1 - part) * 100}% 0 0)`;
  $('photo-result').style.clipPath = `inset(0 0 0 ${at * 100}%)`;
  $('divider').style.left = `${at * 100}%`;
}

function listenToDivider() {
  const stage = $('photo-result-stage');
  const follow = (event) => {
    const box = stage.getBoundingClientRect(), inner = resultBox();
    const part = ((event.clientX - box.left) / box.width - inner.left) / inner.width;
    $('compare').value = Math.round(Math.min(Math.max(part, 0), 1) * 100);
    divide();
  };
  stage.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || $('compare').disabled) return;
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener('pointermove', (event) => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });
  $('compare').addEventListener('input', divide);
}

/* ---- running ------------------------------------------------------------------------------------------- */

function toSend() {
  if (Math.max(picture.width, picture.height) <= SENT_SIDE_MOST && file.size < SENT_BYTES_MOST) return file;
  return scaled(SENT_SIDE_MOST).canvas.convertToBlob({ type: 'image/png' });
}

// What keeps a picture from being made: [where, words]; null when nothing does.
function obstacle() {
  const t = task();
  if (!t) return [$('photo-run'), 'This server has no task for photos.'];
  if (!picture) return [$('photo-file'), 'Choose a picture first.'];
  if (!t.caption && !$('photo-prompt').value.trim()) {
    return [$('photo-prompt'), 'Say in a few words what the picture shall become.'];
  }
  if (!seedIsGood($('photo-seed'))) return [$('photo-seed'), 'The seed must be a whole number.'];
  return null;
}

async function run() {
  const hindered = obstacle();
  if (hindered) {
    hindered[0].focus();
    runner.say(hindered[1], true);
    return;
  }
  const t = task(), edges = t.id === 'edge_to_image', words = $('photo-prompt').value.trim();
  const settings = { task: t.id, words: $('photo-prompt').value, low: $('low').value,
    high: $('high').value, size: $('photo-size').value, seed: $('photo-seed').value };
  const fields = { task: t.id, prompt: words, seed: settings.seed, ...sizeFields(),
    'low-threshold': edges ? settings.low : null, 'high-threshold': edges ? settings.high : null };
  const original = file;
  await runner.run(async ({ signal, part }) => {
    const sent = await toSend();
    signal.throwIfAborted();
    const made = await translate(sent, fields, { signal, onProgress: part(0, 1) });
    signal.throwIfAborted();
    showResult(made.blob, t.id, words, settings.seed);
    runner.say(describe(made));
    addToHistory({ original, blob: made.blob, text: describe(made), settings });
  });
}

async function restore(entry) {
  const { task: id, words, low, high, size, seed } = entry.settings;
  choose($('photo-task'), id);
  showTask();
  $('photo-prompt').value = words;
  $('low').value = $('low-value').value = low;
  $('high').value = $('high-value').value = high;
  $('photo-size').value = size;
  $('photo-seed').value = seed;
  await setPicture(entry.original);
  showResult(entry.blob, id, words, seed);
  runner.say(entry.text);
}

/* ---- the tab ------------------------------------------------------------------------------------------- */

export const photoTab = {
  run, take,
  cancel: () => runner.cancel(),
  save() { if (result) download(result.blob, result.name); },
  prompt: $('photo-prompt'),
  shortcut(event) {
    if (event.key.toLowerCase() !== 'r' || event.ctrlKey || event.metaKey) return false;
    rollDice($('photo-seed'));
    return true;
  },
  setServer(list) {
    demo = list.demo;
    tasks = list.data.filter((one) => !one.stochastic && !one.own_direction);
    const before = chosen($('photo-task'));
    chips($('photo-task'), tasks.map((one) => [one.id, TASKS[one.id]?.[0] || one.id]), showTask);
    choose($('photo-task'), tasks.some((one) => one.id === before) ? before : tasks[0]?.id);
    $('photo-run').disabled = tasks.length === 0;
    $('photo-example').hidden = !demo;
    if (tasks.length === 0) runner.say('This server has no task for photos.', true);
    showTask();
  },
};

export function startPhoto() {
  $('photo-size').addEventListener('change', drawEdges);
  $('show-edges').addEventListener('change', drawEdges);
  for (const name of ['low', 'high']) {
    $(name).addEventListener('input', () => { $(`${name}-value`).value = $(name).value; drawEdges(); });
  }
  $('photo-dice').addEventListener('click', () => rollDice($('photo-seed')));
  $('photo-example').addEventListener('click', example);
  for (const form of ['photo-ask', 'photo-settings']) {
    $(form).addEventListener('submit', (event) => {
      event.preventDefault();
      reveal($('photo-result-stage'));
      run();
    });
  }
  $('photo-file').addEventListener('change', (event) => {
    if (event.target.files[0]) take(event.target.files[0]);
    event.target.value = '';
  });
  listenToDivider();
}
