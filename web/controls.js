// Small things that both tabs use.

export const $ = (id) => document.getElementById(id);

// What outlives a reload. Browsers may forbid it; the page works without.
export const kept = {
  get(name) {
    try { return localStorage.getItem(`onestep.${name}`); } catch { return null; }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(`onestep.${name}`);
      else localStorage.setItem(`onestep.${name}`, value);
    } catch { /* then it is forgotten */ }
  },
};

// A group of which one is chosen, as radio buttons in a fieldset: entries are [value, title].
export function chips(fieldset, entries, onChange) {
  for (const old of fieldset.querySelectorAll('label')) old.remove();
  for (const [value, title] of entries) {
    const label = document.createElement('label'), input = document.createElement('input');
    input.type = 'radio';
    input.name = fieldset.id;
    input.value = value;
    input.addEventListener('change', onChange);
    label.append(input, title);
    fieldset.append(label);
  }
}

export function chosen(fieldset) {
  return fieldset.querySelector('input:checked')?.value;
}

export function choose(fieldset, value) {
  const input = [...fieldset.querySelectorAll('input')].find((one) => one.value === value);
  if (input) input.checked = true;
}

// Any 64-bit number; the server says when one is beyond.
export function seedIsGood(input) {
  return input.value !== '' && input.checkValidity();
}

export function rollDice(input) {
  input.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
}

export function download(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// "a red boat!" -> "a-red-boat": for file names.
export function fileName(words, seed) {
  const stem = words.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 40);
  return `${stem || 'onestep'}-${seed}.png`;
}

export function describe(result) {
  const seconds = result.seconds.translate;
  return [`${seconds.toFixed(seconds < 10 ? 2 : 1)} s`, `${result.width}×${result.height}`,
    ...(result.gamma === undefined ? [] : [`guidance ${Number(result.gamma).toFixed(2)}`]),
    `seed ${result.seed}`, `“${result.prompt}”`].join(' · ');
}
