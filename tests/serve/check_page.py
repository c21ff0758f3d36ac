#!/usr/bin/env python3
"""The page in a real Chromium: drawing, sliders, pictures, undo, history, errors, offline, a phone,
the keyboard, accessibility rules. Usage: check_page.py PROGRAM [FOLDER FOR SCREENSHOTS]"""
import os
import signal
import sys
import unittest

from serving import ROOT, Server
from webdriver import Browser, circle

PROGRAM = sys.argv.pop(1)
SHOTS = sys.argv.pop(1) if len(sys.argv) > 1 else None
CONTROL, SHIFT, ENTER = "\ue009", "\ue008", "\ue007"
ARROW_RIGHT = "\ue014"

# Mean colour of an <img>, and whether it has more than one colour.
LOOK = """
const image = document.getElementById(arguments[0]), done = arguments[arguments.length - 1];
image.decode().then(() => {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0, low = 255, high = 0;
  for (let i = 0; i < data.length; i += 4) {
    sum = (sum * 31 + data[i] * 7 + data[i + 1] * 3 + data[i + 2]) % 4294967291;
    low = Math.min(low, data[i]); high = Math.max(high, data[i]);
  }
  done([sum, canvas.width, canvas.height, high - low]);
}, () => done(null));
"""
INK = """
const c = document.getElementById('canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
let ink = 0;
for (let i = 0; i < d.length; i += 4) ink += d[i] < 128;
return ink;
"""
# What automated accessibility checkers look for first: names, labels, alt texts, unique ids, sizes
# of targets, contrast of text.
RULES = r"""
const bad = [], seen = new Set();
const visible = (e) => e.getClientRects().length > 0;
for (const e of document.querySelectorAll('[id]')) {
  if (seen.has(e.id)) bad.push('id twice: ' + e.id);
  seen.add(e.id);
}
for (const e of document.querySelectorAll('button, a[href], input, select, textarea, canvas[tabindex], progress')) {
  if (!visible(e)) continue;
  const name = e.getAttribute('aria-label') || e.textContent.trim() ||
    [...(e.labels || [])].map((l) => l.textContent.trim()).join('');
  if (!name) bad.push('no name: ' + e.outerHTML.slice(0, 80));
  const box = e.getBoundingClientRect();
  if (e.matches('button, select') && !e.closest('.note') && (box.height < 24 || box.width < 24)) bad.push('small: ' + e.id);
}
for (const e of document.querySelectorAll('img')) if (!e.hasAttribute('alt')) bad.push('no alt: ' + e.id);
for (const e of document.querySelectorAll('[aria-controls],[aria-labelledby],[aria-describedby]')) {
  for (const a of ['aria-controls', 'aria-labelledby', 'aria-describedby']) {
    for (const id of (e.getAttribute(a) || '').split(' ').filter(Boolean)) {
      if (!document.getElementById(id)) bad.push(`${a} of nothing: ${id}`);
    }
  }
}
const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
const light = (c) => c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !visible(e) || e.closest(':disabled, [aria-disabled="true"], .visually-hidden, .skip, option, #sketch-stage')) continue;
  let ground = [0, 0, 0, 0];
  for (let p = e; p && !(ground[3] ?? 1); p = p.parentElement) ground = parse(getComputedStyle(p).backgroundColor);
  if (ground.length === 4 && !ground[3]) ground = parse(getComputedStyle(document.documentElement).backgroundColor);
  const a = light(parse(getComputedStyle(e).color)), b = light(ground);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) bad.push(`contrast ${ratio.toFixed(2)}: ${e.textContent.trim().slice(0, 40)}`);
}
if (!document.documentElement.lang) bad.push('no language');
if (document.querySelectorAll('h1').length !== 1) bad.push('not one h1');
return bad;
"""
IDLE = ("return !document.getElementById('{0}-result').hidden && document.getElementById("
        "'{0}-result-stage').getAttribute('aria-busy') === 'false'")


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(PROGRAM, demo=True)
        cls.server.await_ready(300)
        cls.url = f"http://127.0.0.1:{cls.server.port}/"

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def setUp(self):
        self.browser = Browser()
        self.addCleanup(self.browser.close)
        self.open()

    def open(self, url=None):
        self.browser.open(url or self.url)
        self.browser.wait("return document.getElementById('server-state').dataset.state === 'ready'"
                          " && document.getElementById('photo-task').options.length > 0", "the server")

    def picture(self, tab="sketch"):
        self.browser.wait(IDLE.format(tab), "a picture")
        return self.browser.run_async(LOOK, f"{tab}-result")

    def text(self, name):
        return self.browser.run("return document.getElementById(arguments[0]).textContent", name)

    def slide(self, name, value):
        self.browser.run("const e = document.getElementById(arguments[0]); e.value = arguments[1];"
                         "e.dispatchEvent(new Event('input', {bubbles: true}));", name, value)

    def shot(self, name):
        if SHOTS:
            self.browser.screenshot(os.path.join(SHOTS, name + ".png"))

    def test_sketch(self):
        b = self.browser
        b.type("#sketch-prompt", "a yellow cat on an orange ground")
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        first, ink = self.picture(), b.run(INK)
        self.assertEqual(first[1:3], [128, 128])
        self.assertGreater(first[3], 20, "a picture of one colour")
        self.assertGreater(ink, 1000)
        self.assertIn("seed 42", self.text("sketch-status"))
        # A pen's stroke changes drawing and picture; undo brings both back.
        b.draw("#canvas", [(0.3, 0.3), (0.7, 0.7)], "pen")
        b.wait("return document.querySelectorAll('#history li').length === 2", "a second picture")
        second = self.picture()
        self.assertNotEqual(first[0], second[0])
        b.click("#undo")
        self.assertEqual(b.run(INK), ink)
        b.wait("return document.querySelectorAll('#history li').length === 3", "a third picture")
        self.assertEqual(self.picture()[0], first[0])
        b.click("#redo")
        self.assertGreater(b.run(INK), ink)
        b.wait("return document.querySelectorAll('#history li').length === 4", "a fourth picture")
        # Guidance and seed count.
        self.slide("gamma", "1")
        b.wait("return document.getElementById('sketch-status').textContent.includes('guidance 1.00')",
               "guidance")
        self.assertNotEqual(self.picture()[0], second[0])
        self.shot("sketch")
        # The oldest entry brings everything back.
        b.click("#history li:last-child button")
        b.wait("return document.getElementById('gamma').value === '0.4'", "the restored guidance")
        self.assertEqual(self.picture()[0], first[0])
        self.assertAlmostEqual(b.run(INK), ink, delta=ink * 0.02)
        # The eraser takes ink away.
        b.click("#live")
        b.click("#eraser")
        b.draw("#canvas", [(0.2, 0.5), (0.8, 0.5)])
        self.assertLess(b.run(INK), ink)
        b.click("#clear")
        self.assertEqual(b.run(INK), 0)
        self.assertEqual(b.complaints(), [])

    def test_photo(self):
        b = self.browser
        b.click("#tab-photo")
        b.type("#photo-file", f"{ROOT}/models/demo/inputs/edge_to_image_bird.png")
        b.wait("return !document.getElementById('edges').hidden", "the edges")
        count = ("const c = document.getElementById('edges'), d = c.getContext('2d').getImageData(0, 0,"
                 " c.width, c.height).data; let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i] < 99;"
                 " return n;")
        b.wait(count, "drawn edges")
        few = b.run(count)
        # The page's edges are the server's, pixel by pixel.
        self.assertEqual(b.run_async("""
            const done = arguments[arguments.length - 1];
            (async () => {
              const { canny } = await import('/canny.js');
              const image = document.getElementById('photo-input');
              const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
              const context = canvas.getContext('2d', { willReadFrequently: true });
              context.drawImage(image, 0, 0);
              let different = 0, edges = 0;
              for (const [low, high] of [[100, 200], [30, 60], [250, 90]]) {
                const mine = canny(context.getImageData(0, 0, canvas.width, canvas.height), low, high);
                const form = new FormData();
                for (const [name, value] of Object.entries({ task: 'edge_to_image', prompt: 'x',
                  with_control: true, 'low-threshold': low, 'high-threshold': high })) form.append(name, value);
                form.append('image', await canvas.convertToBlob());
                const answer = await (await fetch('/v1/translate', { method: 'POST', body: form,
                  headers: { Accept: 'application/json' } })).json();
                const bytes = Uint8Array.from(atob(answer.control), (c) => c.charCodeAt(0));
                const map = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
                map.drawImage(await createImageBitmap(new Blob([bytes], { type: 'image/png' })), 0, 0);
                const theirs = map.getImageData(0, 0, canvas.width, canvas.height).data;
                for (let i = 0; i < theirs.length; i += 4) {
                  different += (theirs[i] > 127) !== (mine.data[i] < 99);
                  edges += theirs[i] > 127;
                }
              }
              done([different, edges > 500]);
            })().catch((error) => done(String(error)));"""), [0, True])
        self.slide("low", "20")
        self.slide("high", "40")
        b.wait(f"return (function() {{ {count} }})() > {few}", "more edges")
        b.click("#photo-run")
        self.assertIn("few words", self.text("photo-status"))
        b.type("#photo-prompt", "a blue bird on a yellow ground")
        b.click("#photo-run")
        edges = self.picture("photo")
        self.assertGreater(edges[3], 20)
        self.slide("compare", "25")
        self.assertEqual(b.run("return document.getElementById('divider').style.left"), "25%")
        self.shot("photo")
        for task in ("day_to_night", "night_to_day", "clear_to_rainy", "rainy_to_clear"):
            b.run("const e = document.getElementById('photo-task'); e.value = arguments[0];"
                  "e.dispatchEvent(new Event('change'));", task)
            before = self.text("photo-status")
            b.click("#photo-run")
            b.wait(f"return document.getElementById('photo-status').textContent !== {before!r}"
                   " && document.getElementById('photo-result-stage').getAttribute('aria-busy') === 'false'",
                   task)
            self.assertIn("seed 42", self.text("photo-status"), task)
        self.assertEqual(b.complaints(), [])

    def test_errors_and_offline(self):
        b = self.browser
        b.click("#sketch-run")
        self.assertIn("few words", self.text("sketch-status"))
        b.type("#sketch-prompt", "a cat")
        b.run("document.getElementById('seed').value = 'x'")
        b.click("#sketch-run")
        self.assertIn("whole number", self.text("sketch-status"))
        b.run("document.getElementById('seed').value = '42'")
        b.type("#sketch-file", os.path.abspath(__file__))
        b.wait("return document.getElementById('sketch-status').textContent.includes('no picture')",
               "words for a bad file")
        b.run("document.getElementById('live').checked = false")
        b.draw("#canvas", [(0.2, 0.2), (0.8, 0.8)])
        b.offline(True)
        b.click("#sketch-run")
        b.wait("return document.getElementById('sketch-status').textContent.includes('cannot be reached')",
               "words for no connection")
        b.wait("return !document.getElementById('notice').hidden", "the notice", 20)
        self.assertGreater(b.run(INK), 100)
        b.offline(False)
        b.wait("return document.getElementById('notice').hidden", "the way back", 20)
        b.click("#sketch-run")
        self.picture()

    def test_keyboard_alone(self):
        b = self.browser
        b.run("document.getElementById('sketch-prompt').value = 'a cat';"
              "document.getElementById('canvas').focus()")
        b.keys(" ")
        for _ in range(8):
            b.keys(ARROW_RIGHT)
        b.keys(" ")
        self.assertGreater(b.run(INK), 300)
        self.picture()
        b.keys(CONTROL, "z")
        self.assertEqual(b.run(INK), 0)
        b.keys(CONTROL, SHIFT, "z")
        self.assertGreater(b.run(INK), 300)
        b.keys("e")
        self.assertEqual(b.run("return document.getElementById('eraser').getAttribute('aria-pressed')"),
                         "true")
        b.keys("?")
        self.assertTrue(b.run("return document.getElementById('help').open"))
        b.keys(ENTER)
        b.run("document.getElementById('tab-sketch').focus()")
        b.keys(ARROW_RIGHT)
        self.assertFalse(b.run("return document.getElementById('panel-photo').hidden"))

    def test_phone(self):
        b = self.browser
        b.resize(375, 812)
        for tab in ("sketch", "photo"):
            b.click(f"#tab-{tab}")
            self.assertLessEqual(b.run("return document.documentElement.scrollWidth"), 375, tab)
        b.click("#tab-sketch")
        b.type("#sketch-prompt", "a red boat on a yellow ground")
        b.run("document.getElementById('canvas').scrollIntoView({block: 'center'})")
        b.draw("#canvas", [(0.2, 0.6), (0.5, 0.8), (0.8, 0.6)], "touch")
        self.assertGreater(b.run(INK), 300)
        self.picture()
        self.shot("phone")

    def test_no_layout_jump(self):
        b = self.browser
        places = ("return ['canvas', 'sketch-result-stage', 'sketch-settings'].map((id) =>"
                  " document.getElementById(id).getBoundingClientRect()).map((r) => [r.x, r.y, r.width])")
        before = b.run(places)
        b.type("#sketch-prompt", "a cat")
        b.draw("#canvas", [(0.2, 0.2), (0.8, 0.8)])
        self.picture()
        self.assertEqual(b.run(places), before)

    def test_accessibility(self):
        b = self.browser
        for theme in ("light", "dark"):
            b.run("document.documentElement.dataset.theme = arguments[0]", theme)
            for tab in ("sketch", "photo"):
                b.click(f"#tab-{tab}")
                self.assertEqual(b.run(RULES), [], f"{theme}, {tab}")
                self.shot(f"{tab}-{theme}")


if __name__ == "__main__":
    unittest.main()
