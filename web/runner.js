// One picture under way in a tab: progress, cancel, words for what went wrong. A newer run drops
// the one before it.
import { $ } from '/controls.js';

const STAGES = { text: 'Reading the words', encode: 'Looking closely', unet: 'Painting',
  decode: 'Developing' };

export function makeRunner(tab) {
  const stage = $(`${tab}-result-stage`), bar = $(`${tab}-progress`), pill = $(`${tab}-pill`);
  const status = $(`${tab}-status`), cancelButton = $(`${tab}-cancel`);
  let current = null;

  // Read aloud by screen readers, so the quickly changing progress stays in the pill.
  function say(text, bad) {
    status.textContent = text;
    status.title = text;
    status.classList.toggle('bad', Boolean(bad));
  }

  function showProgress(fraction, stageName) {
    const waiting = stageName.startsWith('waiting');
    bar.value = fraction;
    pill.hidden = false;
    pill.textContent = waiting ? stageName : `${STAGES[stageName] || 'Starting'} · ${Math.round(fraction * 100)} %`;
    if (waiting && status.textContent !== stageName) say(stageName);
  }

  function busy(on) {
    stage.setAttribute('aria-busy', String(on));
    cancelButton.disabled = !on;
    bar.value = 0;
    pill.hidden = true;
  }

  cancelButton.addEventListener('click', () => current?.abort());

  return {
    say,
    cancel() { current?.abort(); },
    // Cancels without a word: something else is shown already.
    drop() {
      current?.abort();
      current = null;
      busy(false);
    },
    // `work` gets {signal, part(from, to)}; part gives an onProgress for this share of the whole.
    // Its error is told in words; whatever a dropped run still does is not seen.
    async run(work) {
      current?.abort();
      const mine = current = new AbortController();
      const part = (from, to) => (fraction, stageName) => {
        if (current === mine) showProgress(from + fraction * (to - from), stageName);
      };
      busy(true);
      say('Working …');
      try {
        await work({ signal: mine.signal, part });
      } catch (error) {
        if (current === mine) {
          const cancelled = error.name === 'AbortError';
          say(cancelled ? 'Cancelled.' : error.message, !cancelled);
        }
      } finally {
        if (current === mine) {
          current = null;
          busy(false);
        }
      }
    },
  };
}

// On a phone the result lies below: brings it into view after the button was pressed.
export function reveal(stage) {
  const box = stage.getBoundingClientRect();
  if (box.top > innerHeight - 120 || box.bottom < 120) {
    stage.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  }
}
