// Talking to the server: what it serves, and translations as streams of events.

let token = sessionStorage.getItem('onestep.token') || '';
let askForToken = async () => '';

export function onTokenNeeded(ask) { askForToken = ask; }

function headers(accept) {
  return token ? { Accept: accept, Authorization: `Bearer ${token}` } : { Accept: accept };
}

// A busy server is asked again this often, when it says that it takes not too long.
const RETRIES = 20;
const RETRY_SECONDS_MOST = 60;

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener('abort', stop); resolve(); }, seconds * 1000);
    signal?.addEventListener('abort', stop, { once: true });
  });
}

// fetch that asks for a token when the server wants one, waits while it is busy, and fails with words.
async function request(path, options, accept, onBusy) {
  for (let busy = 0; ;) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: headers(accept) });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Error('The server cannot be reached. Is onestep serve still running?');
    }
    if (response.status === 401) {
      token = await askForToken();
      if (token) {
        sessionStorage.setItem('onestep.token', token);
        continue;
      }
    }
    const wait = Number(response.headers.get('Retry-After'));
    if (onBusy && [429, 503].includes(response.status) && wait > 0 && wait <= RETRY_SECONDS_MOST && busy < RETRIES) {
      busy += 1;
      onBusy(wait);
      await pause(wait, options.signal);
      continue;
    }
    if (!response.ok) throw new Error(await explain(response));
    return response;
  }
}

async function explain(response) {
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch { /* a proxy's page, perhaps: the number has to do */ }
  const wait = response.headers.get('Retry-After');
  return wait ? `${message} (in about ${wait} s)` : message;
}

export async function listTasks() {
  return (await request('/v1/models', {}, 'application/json')).json();
}

// 'ready', 'warming' or 'gone'.
export async function serverState() {
  try {
    const response = await fetch('/readyz', { cache: 'no-store' });
    return response.ok ? 'ready' : 'warming';
  } catch {
    return 'gone';
  }
}

function base64Blob(text, type) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Blob([bytes], { type });
}

// Translates a picture. `fields` are named as the options of `onestep translate`; those that are
// null or empty are left out. `onProgress(fraction, stage)` is told how far it is. Gives
// {blob, control, task, prompt, seed, gamma, width, height, seconds}.
export async function translate(picture, fields, { signal, onProgress }) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null && value !== undefined && value !== '') form.append(name, String(value));
  }
  form.append('image', picture, 'picture');
  const response = await request('/v1/translate', { method: 'POST', body: form, signal },
    'text/event-stream', (wait) => onProgress(0, `waiting: the server is busy, next try in ${wait} s`));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
    let end;
    while ((end = text.indexOf('\n\n')) >= 0) {
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(text.slice(0, end)) || [];
      text = text.slice(end + 2);
      const content = data ? JSON.parse(data) : {};
      if (name === 'error') throw new Error(content.error.message);
      if (name === 'queued') onProgress(0, content.position > 1 ? `waiting, ${content.position} in line` : 'waiting');
      if (name === 'progress') onProgress(content.fraction, content.stage);
      if (name === 'image') {
        onProgress(1, 'done');
        const { image, control, type, ...rest } = content;
        return { ...rest, blob: base64Blob(image, type),
          control: control ? base64Blob(control, 'image/png') : null };
      }
    }
  }
  throw new Error('The connection ended before the picture was done.');
}
