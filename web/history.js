// A strip of pictures that were made, newest first; a click brings everything back.
import { $ } from '/controls.js';

const MOST = 60;

// Gives a function that adds {blob, text, ...}; `restore` is called with such an entry.
export function makeHistory(tab, restore) {
  const list = $(`${tab}-history`);

  function mark(button) {
    list.querySelector('[aria-current]')?.removeAttribute('aria-current');
    button?.setAttribute('aria-current', 'true');
  }

  return function add(entry) {
    const item = document.createElement('li'), button = document.createElement('button');
    const image = document.createElement('img');
    image.src = URL.createObjectURL(entry.blob);
    image.alt = '';
    button.type = 'button';
    button.title = entry.text;
    button.setAttribute('aria-label', `Restore: ${entry.text}`);
    button.append(image);
    button.addEventListener('click', () => {
      mark(button);
      restore(entry);
    });
    item.append(button);
    list.prepend(item);
    list.scrollLeft = 0;
    mark(button);
    if (list.children.length > MOST) {
      URL.revokeObjectURL(list.lastChild.querySelector('img').src);
      list.lastChild.remove();
    }
  };
}
