// The canvas: pen and eraser by pointer and keyboard, undo and redo, pictures from outside.
import { $ } from '/controls.js';

const canvas = $('canvas'), context = canvas.getContext('2d', { willReadFrequently: true });
const SIDE = canvas.width;
const WIDTH_LEAST = 2, WIDTH_MOST = 48;
// The eraser is this much wider than the pen.
const ERASER = 2;

// A list of things done, played again for undo.
const done = [], undone = [];
let tool = 'pen', stroke = null;
let onChange = () => {}, onSay = () => {};
const cursor = { x: SIDE / 2, y: SIDE / 2 };

/* ---- painting ------------------------------------------------------------------------------------ */

function paintSegment(item, index) {
  const [x, y, pressure] = item.points[index], [u, v] = item.points[Math.max(index - 1, 0)];
  context.strokeStyle = item.tool === 'eraser' ? '#fff' : '#000';
  context.lineCap = context.lineJoin = 'round';
  context.lineWidth = item.width * (item.tool === 'eraser' ? ERASER : pressure);
  context.beginPath();
  context.moveTo(u, v);
  context.lineTo(x, y + (index ? 0 : 0.01));
  context.stroke();
}

function white() {
  context.fillStyle = '#fff';
  context.fillRect(0, 0, SIDE, SIDE);
}

function paint(item) {
  if (item.kind === 'stroke') {
    item.points.forEach((_, index) => paintSegment(item, index));
    return;
  }
  white();
  if (item.kind === 'image') {
    const scale = Math.min(SIDE / item.image.width, SIDE / item.image.height);
    const width = item.image.width * scale, height = item.image.height * scale;
    context.imageSmoothingQuality = 'high';
    context.drawImage(item.image, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  }
}

function repaint() {
  white();
  // What lies before the last clear or picture cannot be seen.
  const from = done.findLastIndex((item) => item.kind !== 'stroke');
  done.slice(Math.max(from, 0)).forEach(paint);
}

/* ---- what was done ------------------------------------------------------------------------------- */

export function isBlank() {
  const last = done.at(-1);
  return !last || last.kind === 'clear';
}

function changed(quietly) {
  $('undo').disabled = done.length === 0;
  $('redo').disabled = undone.length === 0;
  $('canvas-hint').hidden = done.length > 0;
  if (!quietly) onChange();
}

function add(item, quietly) {
  done.push(item);
  undone.length = 0;
  changed(quietly);
}

function undo() {
  if (!done.length) return;
  undone.push(done.pop());
  repaint();
  changed();
}

function redo() {
  if (!undone.length) return;
  done.push(undone.pop());
  repaint();
  changed();
}

function clear() {
  if (isBlank()) return;
  white();
  add({ kind: 'clear' });
}

// Puts a picture in the drawing's place; undo brings the drawing back.
export function place(image, quietly) {
  const item = { kind: 'image', image };
  paint(item);
  add(item, quietly);
}

export function sketchBlob() {
  return new Promise((resolve) => { canvas.toBlob(resolve, 'image/png'); });
}

/* ---- tools --------------------------------------------------------------------------------------- */

function chooseTool(name) {
  tool = name;
  $('pen').setAttribute('aria-pressed', String(name === 'pen'));
  $('eraser').setAttribute('aria-pressed', String(name === 'eraser'));
}

function setWidth(width) {
  $('pen-width').value = Math.min(Math.max(width, WIDTH_LEAST), WIDTH_MOST);
  $('pen-width-value').value = $('pen-width').value;
}

// The ring that shows where and how thick the pen would draw; with the keyboard, a cross.
function showBrush(x, y, keyboard) {
  const brush = $('brush'), scale = canvas.clientWidth / SIDE;
  const width = Number($('pen-width').value) * (tool === 'eraser' ? ERASER : 1) * scale;
  brush.hidden = false;
  brush.classList.toggle('cross', Boolean(keyboard));
  brush.style.left = `${x * scale}px`;
  brush.style.top = `${y * scale}px`;
  brush.style.width = brush.style.height = `${Math.max(width, 3)}px`;
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
  if (!stroke) return;
  const item = stroke;
  stroke = null;
  add(item);
}

// Esc while drawing takes the stroke back. True when there was one.
export function dropStroke() {
  if (!stroke) return false;
  stroke = null;
  repaint();
  changed(true);
  return true;
}

/* ---- pointer ------------------------------------------------------------------------------------- */

function position(event) {
  const box = canvas.getBoundingClientRect();
  // A pen tells its pressure; mouse and finger draw in the full width.
  const pressure = event.pointerType === 'pen' && event.pressure > 0 ? 0.25 + event.pressure * 1.25 : 1;
  return [(event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height, pressure];
}

function listenToPointer() {
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || stroke) return;
    canvas.setPointerCapture(event.pointerId);
    begin(...position(event));
  });
  canvas.addEventListener('pointermove', (event) => {
    const [x, y] = position(event);
    if (event.pointerType !== 'touch') showBrush(x, y);
    if (!stroke || !canvas.hasPointerCapture(event.pointerId)) return;
    const all = event.getCoalescedEvents?.() || [];
    (all.length ? all : [event]).forEach((one) => extend(...position(one)));
  });
  canvas.addEventListener('pointerup', end);
  canvas.addEventListener('pointercancel', end);
  canvas.addEventListener('pointerleave', () => { $('brush').hidden = true; });
}

/* ---- keyboard: arrows move a cross, Space puts the pen down or up ---------------------------------- */

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
    showBrush(cursor.x, cursor.y, true);
    onSay(`Pen ${stroke ? 'down' : 'up'} at ${Math.round(cursor.x)}, ${Math.round(cursor.y)} of ${SIDE}.`);
  });
  canvas.addEventListener('focus', () => {
    if (canvas.matches(':focus-visible')) showBrush(cursor.x, cursor.y, true);
  });
  canvas.addEventListener('blur', () => {
    end();
    $('brush').hidden = true;
  });
}

// True when the key was one of the drawing's.
export function drawingKey(event) {
  const key = event.key.toLowerCase(), width = Number($('pen-width').value);
  if (event.ctrlKey || event.metaKey) {
    if (key !== 'z' && key !== 'y') return false;
    if (key === 'y' || event.shiftKey) redo();
    else undo();
    return true;
  }
  const keys = { b: () => chooseTool('pen'), e: () => chooseTool('eraser'), '[': () => setWidth(width - 2),
    ']': () => setWidth(width + 2), delete: clear };
  keys[key]?.();
  return key in keys;
}

// `changedDrawing` after each stroke, undo and so on; `say` for words.
export function startDrawing(changedDrawing, say) {
  onChange = changedDrawing;
  onSay = say;
  $('pen').addEventListener('click', () => chooseTool('pen'));
  $('eraser').addEventListener('click', () => chooseTool('eraser'));
  $('pen-width').addEventListener('input', () => setWidth(Number($('pen-width').value)));
  $('undo').addEventListener('click', undo);
  $('redo').addEventListener('click', redo);
  $('clear').addEventListener('click', clear);
  white();
  listenToPointer();
  listenToKeys();
}
