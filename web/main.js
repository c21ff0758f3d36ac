// The frame: tabs, colours, shortcuts, dropped and pasted pictures, the server's state.
import { listTasks, onTokenNeeded, serverState } from '/client.js';
import { $, kept } from '/controls.js';
import { photoTab, startPhoto } from '/photo.js';
import { sketchTab, startSketch } from '/sketch.js';

const tabs = { sketch: sketchTab, photo: photoTab };
let open = 'sketch';

/* ---- tabs ------------------------------------------------------------------------------------------ */

function openTab(name, focus) {
  open = name;
  for (const one of Object.keys(tabs)) {
    const tab = $(`tab-${one}`);
    tab.setAttribute('aria-selected', String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
    $(`panel-${one}`).hidden = one !== name;
  }
  if (focus) $(`tab-${name}`).focus();
  history.replaceState(null, '', `#${name}`);
}

function startTabs() {
  for (const name of Object.keys(tabs)) {
    $(`tab-${name}`).addEventListener('click', () => openTab(name));
    $(`tab-${name}`).addEventListener('keydown', (event) => {
      if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
        openTab(open === 'sketch' ? 'photo' : 'sketch', true);
      }
    });
  }
  openTab(location.hash === '#photo' ? 'photo' : 'sketch');
}

/* ---- colours ---------------------------------------------------------------------------------------- */

function startTheme() {
  const order = ['', 'light', 'dark'], names = ['as the system', 'light', 'dark'];
  const apply = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    const text = `Colours: ${names[order.indexOf(theme)]}`;
    $('theme').setAttribute('aria-label', text);
    $('theme').title = text;
    kept.set('theme', theme);
  };
  const before = kept.get('theme') || '';
  apply(order.includes(before) ? before : '');
  $('theme').addEventListener('click', () => {
    const now = document.documentElement.dataset.theme || '';
    apply(order[(order.indexOf(now) + 1) % 3]);
  });
}

/* ---- keys ------------------------------------------------------------------------------------------- */

function startKeys() {
  const keys = { '?': () => $('help').showModal(), 1: () => openTab('sketch', true), 2: () => openTab('photo', true),
    p: () => tabs[open].prompt.focus() };
  document.addEventListener('keydown', (event) => {
    if (document.querySelector('dialog[open]') || event.altKey) return;
    const control = event.ctrlKey || event.metaKey;
    const typing = event.target.closest('textarea, select, input:not([type="range"], [type="checkbox"], [type="radio"])');
    if (control && event.key === 'Enter') {
      tabs[open].run();
    } else if (control && event.key.toLowerCase() === 's') {
      tabs[open].save();
    } else if (event.key === 'Escape') {
      tabs[open].cancel();
    } else if (typing) {
      return;
    } else if (!control && event.key.toLowerCase() in keys) {
      keys[event.key.toLowerCase()]();
    } else if (!tabs[open].shortcut(event)) {
      return;
    }
    event.preventDefault();
  });
  $('help-open').addEventListener('click', () => $('help').showModal());
}

/* ---- pictures from outside --------------------------------------------------------------------------- */

function startPictures() {
  const stages = [$('sketch-stage'), $('photo-stage')];
  const mark = (on) => stages.forEach((stage) => stage.classList.toggle('over', on));
  document.addEventListener('dragover', (event) => { event.preventDefault(); mark(true); });
  document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) mark(false); });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    mark(false);
    const file = event.dataTransfer.files[0];
    if (file) tabs[open].take(file);
  });
  document.addEventListener('paste', (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith('image/'));
    if (file) {
      event.preventDefault();
      tabs[open].take(file);
    }
  });
}

/* ---- the server ---------------------------------------------------------------------------------------- */

const STATE_TEXT = { ready: 'ready', warming: 'warming up', gone: 'no connection' };
let known = false;

async function watchServer() {
  const state = await serverState();
  if ($('server-state').dataset.state !== state) {
    $('server-state').dataset.state = state;
    $('server-state').textContent = STATE_TEXT[state];
  }
  $('notice').hidden = state !== 'gone';
  $('notice').textContent = state === 'gone'
    ? 'The server cannot be reached. Your work on this page is safe; it goes on when the server is back.' : '';
  if (state === 'gone') known = false;
  if (state !== 'gone' && !known) {
    try {
      const list = await listTasks();
      known = true;
      for (const tab of Object.values(tabs)) tab.setServer(list);
    } catch (error) {
      $('notice').hidden = false;
      $('notice').textContent = error.message;
    }
  }
  setTimeout(watchServer, state === 'ready' && known ? 5000 : 1000);
}

let asking = null; // one dialog for all who ask at once
onTokenNeeded(() => {
  asking ??= new Promise((resolve) => {
    $('token-dialog').showModal();
    $('token-dialog').addEventListener('close', () => {
      asking = null;
      resolve($('token').value.trim());
      $('token').value = '';
    }, { once: true });
  });
  return asking;
});

startTheme();
startSketch();
startPhoto();
startTabs();
startKeys();
startPictures();
watchServer();
