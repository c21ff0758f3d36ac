// The photo tab: a picture in, a picture out, one divider between them.
import { translate } from '/client.js';
import { canny } from '/canny.js';

const $ = (id) => document.getElementById(id);

const TASKS = {
  edge_to_image: ['Edges to picture', 'Finds the edges of your picture and paints a new one along them.'],
  day_to_night: ['Day to night', 'For street scenes.'],
  night_to_day: ['Night to day', 'For street scenes.'],
  clear_to_rainy: ['Clear to rainy', 'For street scenes.'],
  rainy_to_clear: ['Rainy to clear', 'For street scenes.'],
};

// Larger pictures are scaled down before they are sent: the networks see far less.
const SENT_SIDE_MOST = 2048;

let tasks = [], demo = false;
let file = null, picture = null; // as chosen, and decoded
let current = null, resultUrl = null, inputUrl = null;

function task() {
  return tasks.find((one) => one.id === $('photo-task').value);
}

function say(text, bad) {
  $('photo-status').textContent = text;
  $('photo-status').classList.toggle('bad', Boolean(bad));
}

/* ---- sizes ---------------------------------------------------------------------------------------- */

function listSizes() {
  const t = task(), kept = $('photo-size').value;
  if (!t) return;
  const own = t.family === 'unpaired' && !demo ? [new Option('As trained (512×512)', 'official')] : [];
  const sides = demo ? [64, 128, 256] : [256, 512, 768, 1024];
  $('photo-size').replaceChildren(...own, ...sides.map((side) => new Option(`${side} px`, side)));
  $('photo-size').value = [...$('photo-size').options].some((o) => o.value === kept) ? kept
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

let edgeTimer = 0;
function drawEdges() {
  const wanted = picture && task()?.id === 'edge_to_image' && $('show-edges').checked;
  $('edges').hidden = !wanted;
  $('photo-input').hidden = !picture || wanted;
  if (!wanted) return;
  cancelAnimationFrame(edgeTimer);
  edgeTimer = requestAnimationFrame(() => {
    const { canvas, context } = scaled(Number($('photo-size').value) || 512);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    $('edges').width = canvas.width;
    $('edges').height = canvas.height;
    $('edges').getContext('2d').putImageData(canny(pixels, Number($('low').value), Number($('high').value)), 0, 0);
  });
}

function chooseTask() {
  const t = task(), edges = t?.id === 'edge_to_image';
  $('edge-settings').hidden = !edges;
  $('edges-toggle').hidden = !edges;
  $('photo-task-note').textContent = t ? TASKS[t.id]?.[1] || (t.caption ? '' : 'An own checkpoint.') : '';
  listSizes();
  drawEdges();
}

/* ---- the picture ------------------------------------------------------------------------------------- */

async function take(chosen) {
  try {
    picture = await createImageBitmap(chosen);
  } catch {
    say(`${chosen.name || 'That'} is no picture that this browser can read.`, true);
    return;
  }
  file = chosen;
  cancel();
  if (inputUrl) URL.revokeObjectURL(inputUrl);
  inputUrl = URL.createObjectURL(chosen);
  $('photo-input').src = $('photo-before').src = inputUrl;
  $('photo-input').alt = 'The picture to translate';
  $('photo-empty').hidden = true;
  showResult(null);
  say(`${picture.width}×${picture.height}`);
  drawEdges();
}

function showResult(blob) {
  if (resultUrl) URL.revokeObjectURL(resultUrl);
  resultUrl = blob ? URL.createObjectURL(blob) : null;
  for (const id of ['photo-before', 'photo-result', 'divider']) $(id).hidden = !blob;
  $('compare').disabled = !blob;
  $('photo-result-empty').hidden = Boolean(blob);
  $('photo-download').setAttribute('aria-disabled', String(!blob));
  if (blob) {
    $('photo-result').src = $('photo-download').href = resultUrl;
    $('photo-result').alt = `After: ${TASKS[task().id]?.[0] || task().id}`;
    $('photo-before').alt = 'Before';
    divide();
  } else {
    $('photo-download').removeAttribute('href');
  }
}

function divide() {
  const part = Number($('compare').value);
  $('photo-result').style.clipPath = `inset(0 0 0 ${part}%)`;
  $('photo-before').style.clipPath = `inset(0 ${100 - part}% 0 0)`;
  $('divider').style.left = `${part}%`;
}

/* ---- running ------------------------------------------------------------------------------------------- */

function toSend() {
  if (Math.max(picture.width, picture.height) <= SENT_SIDE_MOST && file.size < 8e6) return file;
  return scaled(SENT_SIDE_MOST).canvas.convertToBlob({ type: 'image/png' });
}

async function run() {
  const t = task();
  if (!t) return say('This server has no task for photos.', true);
  if (!picture) return say('Choose a picture first.', true);
  const prompt = t.id === 'edge_to_image' || !t.caption ? $('photo-prompt').value.trim() : '';
  if (!t.caption && !prompt) {
    $('photo-prompt').focus();
    return say('Say in a few words what the picture shall become.', true);
  }
  if (!$('photo-seed').checkValidity() || !$('photo-seed').value) {
    $('photo-seed').focus();
    return say('The seed must be a whole number.', true);
  }
  current?.controller.abort();
  const mine = current = { controller: new AbortController() };
  const edges = t.id === 'edge_to_image';
  const fields = { task: t.id, prompt, seed: $('photo-seed').value, ...sizeFields(),
    'low-threshold': edges ? $('low').value : null, 'high-threshold': edges ? $('high').value : null };
  $('photo-result-stage').setAttribute('aria-busy', 'true');
  $('photo-cancel').disabled = false;
  say('working');
  try {
    const result = await translate(await toSend(), fields, { signal: mine.controller.signal,
      onProgress(fraction, stage) {
        $('photo-progress').value = fraction;
        if (stage.startsWith('waiting')) say(stage);
      } });
    if (current !== mine) return undefined;
    showResult(result.blob);
    say(`${result.seconds.translate.toFixed(2)} s · ${result.width}×${result.height} · seed ${result.seed} · “${result.prompt}”`);
  } catch (error) {
    if (current === mine) say(error.name === 'AbortError' ? 'Cancelled.' : error.message, error.name !== 'AbortError');
  } finally {
    if (current === mine) {
      current = null;
      $('photo-result-stage').setAttribute('aria-busy', 'false');
      $('photo-cancel').disabled = true;
      $('photo-progress').value = 0;
    }
  }
  return undefined;
}

function cancel() {
  current?.controller.abort();
}

export const photoTab = {
  run, cancel, take,
  shortcut: () => false,
  setServer(list) {
    demo = list.demo;
    tasks = list.data.filter((one) => !one.stochastic && !one.own_direction);
    const kept = $('photo-task').value;
    $('photo-task').replaceChildren(...tasks.map((one) => new Option(TASKS[one.id]?.[0] || one.id, one.id)));
    if (tasks.some((one) => one.id === kept)) $('photo-task').value = kept;
    $('photo-run').disabled = tasks.length === 0;
    if (tasks.length === 0) say('This server has no task for photos.', true);
    if (demo) $('photo-prompt').placeholder = 'a blue bird on a yellow ground';
    chooseTask();
  },
};

export function startPhoto() {
  $('photo-task').addEventListener('change', chooseTask);
  $('photo-size').addEventListener('change', drawEdges);
  $('show-edges').addEventListener('change', drawEdges);
  for (const name of ['low', 'high']) {
    $(name).addEventListener('input', () => { $(`${name}-value`).value = $(name).value; drawEdges(); });
  }
  $('compare').addEventListener('input', divide);
  $('photo-run').addEventListener('click', run);
  $('photo-cancel').addEventListener('click', cancel);
  $('photo-settings').addEventListener('submit', (event) => { event.preventDefault(); run(); });
  $('photo-file').addEventListener('change', (event) => {
    if (event.target.files[0]) take(event.target.files[0]);
    event.target.value = '';
  });
}
