// What automated accessibility checkers look for first: names, labels, alt texts, unique ids, roles
// and their states, sizes of targets, contrast of text and of fields. Gives the list of what is bad.
const bad = [], seen = new Set();
const visible = (e) => e.getClientRects().length > 0;
const short = (e) => e.outerHTML.slice(0, 90);
for (const e of document.querySelectorAll('[id]')) {
  if (seen.has(e.id)) bad.push('id twice: ' + e.id);
  seen.add(e.id);
}
const named = 'button, a[href], [role=link], input, select, textarea, canvas[tabindex], progress, [role=toolbar], '
  + '[role=tablist], [role=tabpanel], fieldset, dialog';
for (const e of document.querySelectorAll(named)) {
  if (!visible(e)) continue;
  const by = (e.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean)
    .map((id) => document.getElementById(id)?.textContent.trim()).join('');
  const text = e.matches('fieldset') ? e.querySelector('legend')?.textContent
    : e.matches('button, a, [role=link]') ? e.textContent.trim() : '';
  const name = e.getAttribute('aria-label') || by || text || [...(e.labels || [])].map((l) => l.textContent.trim()).join('');
  if (!name) bad.push('no name: ' + short(e));
  const box = (e.closest('.button, .chips label') || e).getBoundingClientRect();
  if (e.matches('button, select, input') && !e.closest('.note') && !e.matches('[type=checkbox]') &&
      (box.height < 24 || box.width < 24)) bad.push('small: ' + e.id);
}
for (const e of document.querySelectorAll('img')) if (!e.hasAttribute('alt')) bad.push('no alt: ' + e.id);
for (const a of ['aria-controls', 'aria-labelledby', 'aria-describedby']) {
  for (const e of document.querySelectorAll(`[${a}]`)) {
    for (const id of e.getAttribute(a).split(' ')) {
      if (!document.getElementById(id)) bad.push(`${a} of nothing: ${id}`);
    }
  }
}
const tabs = [...document.querySelectorAll('[role=tab]')];
if (tabs.filter((t) => t.getAttribute('aria-selected') === 'true').length !== 1) bad.push('not one tab is selected');
for (const t of tabs) {
  const panel = document.getElementById(t.getAttribute('aria-controls'));
  if (panel?.getAttribute('role') !== 'tabpanel') bad.push('tab without panel: ' + t.id);
  else if ((t.getAttribute('aria-selected') === 'true') !== visible(panel)) bad.push('tab and panel disagree: ' + t.id);
  if (t.tabIndex !== (t.getAttribute('aria-selected') === 'true' ? 0 : -1)) bad.push('tabindex of ' + t.id);
}
for (const id of ['sketch-status', 'photo-status', 'server-state']) {
  if (document.getElementById(id).getAttribute('role') !== 'status') bad.push('not announced: ' + id);
}
if (document.getElementById('notice').getAttribute('role') !== 'alert') bad.push('no alert');
const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
const light = (c) => c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const groundOf = (e) => {
  let ground = [0, 0, 0, 0];
  for (let p = e; p && !(ground[3] ?? 1); p = p.parentElement) ground = parse(getComputedStyle(p).backgroundColor);
  return ground;
};
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !visible(e) || e.closest(':disabled, [aria-disabled="true"], .visually-hidden, .skip, option, .pill, #sketch-stage')) continue;
  const r = ratio(parse(getComputedStyle(e).color), groundOf(e));
  if (r < 4.5) bad.push(`contrast ${r.toFixed(2)}: ${e.textContent.trim().slice(0, 40)}`);
}
for (const e of document.querySelectorAll('textarea, select, input[inputmode]')) {
  if (!visible(e)) continue;
  const r = ratio(parse(getComputedStyle(e).borderTopColor), groundOf(e.parentElement));
  if (r < 3) bad.push(`border ${r.toFixed(2)}: ${e.id}`);
}
if (!document.documentElement.lang) bad.push('no language');
if (document.querySelectorAll('h1').length !== 1) bad.push('not one h1');
if (!document.querySelector('main') || !document.querySelector('a.skip[href="#main"]')) bad.push('no way past the header');
return bad;
