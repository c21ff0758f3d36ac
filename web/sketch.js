// The sketch tab: words, style, guidance and seed; live pictures; history.
import { $, choose, chosen, describe, download, fileName, kept, rollDice, seedIsGood } from '/controls.js';
import { translate } from '/client.js';
import { drawingKey, dropStroke, isBlank, place, sketchBlob, startDrawing } from '/drawing.js';
import { makeHistory } from '/history.js';
import { makeRunner, reveal } from '/runner.js';

const TASK = 'sketch_to_image_stochastic';

/* ---- styles: a look in words; {prompt} stands for the user's -------------------------------------- */

const STYLES = {
  none: '{prompt}',
  cinematic: 'film still of {prompt}, wide lens, soft key light, shallow focus, rich colour grading, fine grain',
  model: '{prompt} as a clean 3D render, smooth surfaces, studio lighting, global illumination, high detail',
  anime: 'anime drawing of {prompt}, crisp line work, cel shading, bright colours, painted background',
  digital: 'digital painting of {prompt}, confident brushwork, matte finish, layered light, very detailed',
  photo: 'photograph of {prompt}, 50 mm lens, natural light, sharp focus, true colours',
  pixel: 'pixel art of {prompt}, low resolution, limited palette, clean blocks, 16-bit game look',
  fantasy: 'fantasy illustration of {prompt}, magical light, epic scenery, ornate detail, storybook mood',
  neon: 'neonpunk scene of {prompt}, glowing magenta and cyan, rain and reflections, night city, vivid contrast',
  manga: 'manga panel of {prompt}, black ink, screentone shading, strong line weight, dynamic composition',
};

function showStyle() {
  const name = chosen($('style'));
  $('style-text').value = kept.get(`style.${name}`) || STYLES[name];
}

function fullPrompt() {
  const words = $('sketch-prompt').value.trim();
  const template = $('style-text').value.trim() || '{prompt}';
  return template.includes('{prompt}') ? template.replaceAll('{prompt}', words) : `${words}, ${template}`;
}

/* ---- making pictures ------------------------------------------------------------------------------- */

// Above this time a quick small picture comes first.
const QUICK_SECONDS = 0.7;
const QUICK_SIDE = 256;

const runner = makeRunner('sketch');
const addToHistory = makeHistory('sketch', restore);
let side = 512, available = false;
let lastSeconds = 1;
let result = null; // {blob, name}
let resultUrl = null;

function show(blob, draft, words = $('sketch-prompt').value, seed = $('seed').value) {
  const image = $('sketch-result'), link = $('sketch-download');
  if (resultUrl) URL.revokeObjectURL(resultUrl);
  resultUrl = URL.createObjectURL(blob);
  image.src = resultUrl;
  image.alt = `Made from the sketch: ${words}`;
  image.hidden = false;
  image.classList.toggle('draft', draft);
  $('sketch-empty').hidden = true;
  result = draft ? null : { blob, name: fileName(words, seed) };
  link.setAttribute('aria-disabled', String(draft));
  if (draft) {
    link.removeAttribute('href');
  } else {
    link.href = resultUrl;
    link.download = result.name;
  }
}

// Of a live picture that waits for the user to finish typing.
let timer = 0;

// What keeps a picture from being made, in words; null when nothing does.
function obstacle() {
  if (!available) return [$('sketch-run'), `This server has no sketch model (${TASK}).`];
  if (!$('sketch-prompt').value.trim()) {
    return [$('sketch-prompt'), 'Say in a few words what the sketch shall become.'];
  }
  if (!seedIsGood($('seed'))) return [$('seed'), 'The seed must be a whole number.'];
  return null;
}

async function run() {
  clearTimeout(timer); // what it would have asked for is in this picture
  const hindered = obstacle();
  if (hindered) {
    hindered[0].focus();
    runner.say(hindered[1], true);
    return;
  }
  const settings = { words: $('sketch-prompt').value, style: chosen($('style')),
    styleText: $('style-text').value, gamma: $('gamma').value, seed: $('seed').value };
  const fields = { task: TASK, prompt: fullPrompt(), gamma: settings.gamma, seed: settings.seed };
  await runner.run(async ({ signal, part }) => {
    const sketch = await sketchBlob();
    signal.throwIfAborted();
    const quick = lastSeconds > QUICK_SECONDS && side > QUICK_SIDE;
    if (quick) {
      const draft = await translate(sketch, { ...fields, 'max-side': QUICK_SIDE },
        { signal, onProgress: part(0, 0.2) });
      signal.throwIfAborted();
      show(draft.blob, true, settings.words, settings.seed);
    }
    const begun = performance.now();
    const full = await translate(sketch, { ...fields, 'max-side': side },
      { signal, onProgress: part(quick ? 0.2 : 0, 1) });
    signal.throwIfAborted();
    lastSeconds = (performance.now() - begun) / 1000;
    show(full.blob, false, settings.words, settings.seed);
    runner.say(describe(full));
    addToHistory({ sketch, blob: full.blob, text: describe(full), settings });
  });
}

// A new picture of what has changed, if the user wants that and it is possible.
function runLive() {
  if (!$('live').checked || isBlank()) return;
  const hindered = obstacle();
  if (hindered) runner.say(hindered[1]);
  else run();
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(runLive, 350);
}

async function restore(entry) {
  clearTimeout(timer);
  runner.drop();
  const { words, style, styleText, gamma, seed } = entry.settings;
  $('sketch-prompt').value = words;
  choose($('style'), style);
  $('style-text').value = styleText;
  $('gamma').value = gamma;
  $('gamma-value').value = Number(gamma).toFixed(2);
  $('seed').value = seed;
  place(await createImageBitmap(entry.sketch), true);
  show(entry.blob, false, words, seed);
  runner.say(entry.text);
}

/* ---- pictures from outside -------------------------------------------------------------------------- */

async function take(file) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    runner.say(`${file.name || 'That'} is no picture that this browser can read.`, true);
    return;
  }
  place(image);
}

const EXAMPLES = [['cat', 'a yellow cat on an orange ground'], ['boat', 'a red boat on a yellow ground'],
  ['fish', 'a blue fish on a brown ground'], ['house', 'a white house on a blue ground']];
let nextExample = 0;

async function example() {
  const [name, words] = EXAMPLES[nextExample++ % EXAMPLES.length];
  try {
    const answer = await fetch(`/examples/${name}.png`);
    const blob = await answer.blob();
    $('sketch-prompt').value = words;
    await take(blob);
  } catch {
    runner.say('The server cannot be reached.', true);
  }
}

/* ---- the tab ------------------------------------------------------------------------------------------ */

function dice() {
  rollDice($('seed'));
  soon();
}

function toggleLive() {
  $('live').checked = !$('live').checked;
  runLive();
}

let greeted = false;

export const sketchTab = {
  run, take,
  cancel() { if (!dropStroke()) runner.cancel(); },
  save() { if (result) download(result.blob, result.name); },
  prompt: $('sketch-prompt'),
  shortcut(event) {
    if (drawingKey(event)) return true;
    const keys = { r: dice, l: toggleLive }, key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || !(key in keys)) return false;
    keys[key]();
    return true;
  },
  setServer(list) {
    const task = list.data.find((one) => one.id === TASK);
    available = Boolean(task);
    $('sketch-run').disabled = !available;
    side = task?.side || 512;
    $('sketch-example').hidden = !list.demo;
    if (!available) {
      runner.say(`This server has no sketch model (${TASK}).`, true);
    } else if (list.demo && !greeted) {
      if (!$('sketch-prompt').value) $('sketch-prompt').value = EXAMPLES[0][1];
      runner.say('Demo models: small pictures of a toy world. Draw a cat, a boat, a fish or a house, or press Example.');
    }
    greeted = true;
  },
};

export function startSketch() {
  $('style').addEventListener('change', () => { showStyle(); soon(); });
  showStyle();
  $('style-text').addEventListener('input', () => {
    kept.set(`style.${chosen($('style'))}`, $('style-text').value);
    soon();
  });
  $('style-reset').addEventListener('click', () => {
    kept.set(`style.${chosen($('style'))}`, null);
    showStyle();
    soon();
  });
  $('sketch-prompt').addEventListener('input', soon);
  $('seed').addEventListener('input', soon);
  $('gamma').addEventListener('input', () => { $('gamma-value').value = Number($('gamma').value).toFixed(2); soon(); });
  $('live').addEventListener('change', runLive);
  $('dice').addEventListener('click', dice);
  $('sketch-save').addEventListener('click', async () => download(await sketchBlob(), 'sketch.png'));
  $('sketch-example').addEventListener('click', example);
  for (const form of ['sketch-ask', 'sketch-settings']) {
    $(form).addEventListener('submit', (event) => {
      event.preventDefault();
      reveal($('sketch-result-stage'));
      run();
    });
  }
  $('sketch-file').addEventListener('change', (event) => {
    if (event.target.files[0]) take(event.target.files[0]);
    event.target.value = '';
  });
  startDrawing(runLive, (text) => runner.say(text));
}
