#!/usr/bin/env python3
"""The page in a real Chromium: drawing with pointers and keys, sliders, pixels of pictures, undo,
history, styles, live pictures, dropping and pasting, before and after, errors, offline, a phone,
accessibility rules. Usage: check_page.py PROGRAM [FOLDER FOR SCREENSHOTS] [unittest's arguments].
ONESTEP_AXE may name axe-core's axe.min.js, whose rules are then checked too."""
import os
import sys
import tempfile
import threading
import time
import unittest

from page_scripts import CANVAS, EDGES, LOOK, RULES, SHIFTS, WATCH, WATCH_RESULT
from serving import ROOT, Server, png, png_pixels
from webdriver import Browser, circle

PROGRAM = sys.argv.pop(1)
SHOTS = sys.argv.pop(1) if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]) else None
AXE = os.environ.get("ONESTEP_AXE")
INPUTS = f"{ROOT}/models/demo/inputs"
CONTROL, SHIFT, ENTER, TAB, ESCAPE, DELETE = "\ue009", "\ue008", "\ue007", "\ue004", "\ue00c", "\ue017"
ARROW_LEFT, ARROW_RIGHT, ARROW_DOWN = "\ue012", "\ue014", "\ue015"
CAT = "a yellow cat on an orange ground"
# Occupies the engine of the golden models for a while.
SLOW = [("task", "mine"), ("prompt", "slow"), ("max-side", "1024"), ("image", png(1024, 1000, (0, 0, 0)))]


class OnPage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(PROGRAM, demo=True)
        cls.server.await_ready(300)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def setUp(self):
        self.browser = Browser()
        self.addCleanup(self.browser.close)
        self.browser.resize(1280, 900)
        self.open(self.server)

    def open(self, server):
        self.browser.open(f"http://127.0.0.1:{server.port}/")
        self.await_server()

    def await_server(self):
        self.browser.wait("return document.getElementById('server-state').dataset.state === 'ready'"
                          " && document.querySelectorAll('#photo-task input').length > 0", "the server")

    def another_server(self, *options, **more):
        server = Server(PROGRAM, *options, **more)
        self.addCleanup(server.stop)
        server.await_ready(300)
        return server

    # ---- looking

    def text(self, name):
        return self.browser.run("return document.getElementById(arguments[0]).textContent", name)

    def value(self, name):
        return self.browser.run("return document.getElementById(arguments[0]).value", name)

    def ink(self, canvas="canvas"):
        return self.browser.run(CANVAS, canvas)[0]

    def pixels(self, image):
        return self.browser.run_async(LOOK, image)

    def made(self, tab="sketch"):
        return self.browser.run(f"return document.querySelectorAll('#{tab}-history li').length")

    def await_status(self, words, tab="sketch"):
        self.browser.wait(f"return document.getElementById('{tab}-status').textContent.includes({words!r})"
                          f" && document.getElementById('{tab}-result-stage').getAttribute('aria-busy') === 'false'",
                          f"the words {words}")

    def await_made(self, count, tab="sketch", seconds=60):
        self.browser.wait(f"return document.querySelectorAll('#{tab}-history li').length >= {count}"
                          f" && document.getElementById('{tab}-result-stage').getAttribute('aria-busy') === 'false'",
                          f"{count} pictures", seconds)
        return self.pixels(f"{tab}-result")

    def shot(self, name):
        if SHOTS:
            self.browser.screenshot(os.path.join(SHOTS, name + ".png"))

    # ---- doing

    def write(self, selector, text):
        self.browser.run("document.querySelector(arguments[0]).value = ''", selector)
        self.browser.type(selector, text)

    def choose(self, group, value):
        self.browser.click(f"#{group} label:has([value={value}])")

    def live(self, on):
        if self.browser.run("return document.getElementById('live').checked") != on:
            self.browser.click("#live")


class Sketching(OnPage):
    def test_picture_undo_redo_clear(self):
        b = self.browser
        self.write("#sketch-prompt", CAT)
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        first, ink = self.await_made(1), b.run(CANVAS, "canvas")
        self.assertEqual(first[1:3], [128, 128])
        self.assertGreater(first[3], 20, "a picture of one colour")
        # A ring of radius 0.2 and width 10 on 512 pixels.
        self.assertAlmostEqual(ink[0], 2 * 3.1416 * 0.2 * 512 * 10, delta=900)
        self.assertIn("seed 42", self.text("sketch-status"))
        # Another stroke changes drawing and picture; undo brings both back.
        b.draw("#canvas", [(0.3, 0.3), (0.7, 0.7)])
        second, both = self.await_made(2), b.run(CANVAS, "canvas")
        self.assertNotEqual(first[0], second[0])
        b.click("#undo")
        self.assertEqual(b.run(CANVAS, "canvas"), ink)
        self.assertEqual(self.await_made(3)[0], first[0])
        b.click("#redo")
        self.assertEqual(b.run(CANVAS, "canvas"), both)
        self.assertEqual(self.await_made(4)[0], second[0])
        self.assertTrue(b.run("return document.getElementById('redo').disabled"))
        # The eraser takes ink away; so does clear, and undo gives it back.
        self.live(False)
        b.click("#eraser")
        b.draw("#canvas", [(0.2, 0.5), (0.8, 0.5)])
        erased = self.ink()
        self.assertLess(erased, both[0])
        b.click("#clear")
        self.assertEqual(self.ink(), 0)
        b.click("#undo")
        self.assertEqual(self.ink(), erased)
        b.click("#undo")
        self.assertEqual(b.run(CANVAS, "canvas"), both)
        self.assertEqual(self.made(), 4, "a picture although live is off")
        self.assertEqual(b.complaints(), [])

    def test_pen_pressure_and_width(self):
        b = self.browser
        self.live(False)

        def ink_of(**how):
            b.draw("#canvas", [(0.2, 0.5), (0.8, 0.5)], **how)
            ink = self.ink()
            b.click("#clear")
            return ink
        usual = ink_of()
        soft, hard = ink_of(kind="pen", pressure=0.1), ink_of(kind="pen", pressure=1)
        self.assertAlmostEqual(soft / usual, 0.375, delta=0.15)
        self.assertAlmostEqual(hard / usual, 1.5, delta=0.15)
        # The width's slider, moved with a real pointer.
        b.draw("#pen-width", [(0.2, 0.5), (0.99, 0.5)])
        self.assertEqual(self.value("pen-width"), "48")
        self.assertEqual(self.text("pen-width-value"), "48")
        self.assertGreater(ink_of(), 4 * usual)

    def test_guidance_seed_dice(self):
        b = self.browser
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        first = self.await_made(1)
        b.draw("#gamma", [(0.4, 0.5), (0.995, 0.5)])
        self.await_status("guidance 1.00")
        self.assertEqual(self.text("gamma-value"), "1.00")
        drawn = self.pixels("sketch-result")
        self.assertNotEqual(drawn[0], first[0])
        # The seed has no say when the guidance is 1 and much when it is 0.
        b.run("document.getElementById('gamma').focus()")
        b.keys("\ue011")  # Home
        self.await_status("guidance 0.00")
        free = self.pixels("sketch-result")
        b.click("#dice")
        seed = self.value("seed")
        self.assertNotEqual(seed, "42")
        self.await_status(f"seed {seed}")
        self.assertNotEqual(self.pixels("sketch-result")[0], free[0])
        b.run("document.activeElement.blur()")
        b.keys("r")
        self.assertNotEqual(self.value("seed"), seed)
        self.write("#seed", "42")
        self.await_status("guidance 0.00 · seed 42")
        self.assertEqual(self.pixels("sketch-result")[0], free[0], "the same seed, another picture")

    def test_styles(self):
        b = self.browser
        names = b.run("return [...document.querySelectorAll('#style label')].map((l) => l.textContent)")
        self.assertEqual(names, ["No style", "Cinematic", "3D model", "Anime", "Digital art", "Photographic",
                                 "Pixel art", "Fantasy art", "Neonpunk", "Manga"])
        self.write("#sketch-prompt", "a red boat")
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        self.await_status("“a red boat”")
        wordings = set()
        for value in b.run("return [...document.querySelectorAll('#style input')].map((i) => i.value)")[1:]:
            self.choose("style", value)
            text = self.value("style-text")
            self.assertIn("{prompt}", text)
            wordings.add(text)
            self.await_status(f"“{text.replace('{prompt}', 'a red boat')}”")
        self.assertEqual(len(wordings), 9)
        # The wording can be changed, outlives a reload, and can be had back.
        b.click("#sketch-settings summary")
        self.write("#style-text", "{prompt} in chalk")
        self.await_status("“a red boat in chalk”")
        b.open(f"http://127.0.0.1:{self.server.port}/")
        self.await_server()
        b.click("#sketch-settings summary")
        self.choose("style", "manga")
        self.assertEqual(self.value("style-text"), "{prompt} in chalk")
        b.click("#style-reset")
        self.assertIn("manga", self.value("style-text"))

    def test_history_restores_everything(self):
        b = self.browser
        self.write("#sketch-prompt", "a red boat on a yellow ground")
        self.live(False)
        self.choose("style", "pixel")
        b.click("#sketch-settings summary")
        self.write("#style-text", "small {prompt}")
        b.draw("#gamma", [(0.4, 0.5), (0.7, 0.5)])
        self.write("#seed", "-7")
        b.draw("#canvas", circle(0.4, 0.6, 0.2))
        b.draw("#canvas", [(0.1, 0.1), (0.9, 0.2)], "pen", 0.3)
        b.click("#sketch-run")
        picture, canvas = self.await_made(1), b.run(CANVAS, "canvas")
        state = ("return ['sketch-prompt', 'style-text', 'gamma', 'seed'].map((id) => document.getElementById(id).value)"
                 ".concat(document.querySelector('#style input:checked').value, document.getElementById('gamma-value').textContent,"
                 " document.getElementById('sketch-status').textContent, document.getElementById('sketch-download').download)")
        before = b.run(state)
        self.assertEqual(before[0], "a red boat on a yellow ground")
        # Everything else becomes different, and another picture is made.
        b.click("#clear")
        self.choose("style", "manga")
        self.write("#sketch-prompt", "a house")
        self.write("#seed", "5")
        b.draw("#gamma", [(0.7, 0.5), (0.2, 0.5)])
        b.draw("#canvas", [(0.5, 0.1), (0.5, 0.9)])
        b.click("#sketch-run")
        self.assertNotEqual(self.await_made(2)[0], picture[0])
        self.assertEqual(b.run("return document.querySelector('#sketch-history li:first-child button').ariaCurrent"), "true")
        other = b.run(CANVAS, "canvas")
        self.live(True)  # which makes a picture of what is there
        self.await_made(3)
        b.click("#sketch-history li:last-child button")
        b.wait("return document.getElementById('seed').value === '-7'", "the restored seed")
        b.wait(f"return (function() {{ {CANVAS.replace('arguments[0]', repr('canvas'))} }})()[1] === {canvas[1]}",
               "the restored sketch")
        self.assertEqual(b.run(state), before)
        self.assertEqual(self.pixels("sketch-result"), picture)
        self.assertEqual(b.run("return document.querySelector('#sketch-history li:last-child button').ariaCurrent"), "true")
        time.sleep(0.6)
        self.assertEqual(self.made(), 3, "restoring makes a new picture")
        self.live(False)
        b.click("#undo")
        self.assertEqual(b.run(CANVAS, "canvas"), other, "undo brings the drawing before back")
        self.assertEqual(b.complaints(), [])

    def test_pictures_from_outside(self):
        b = self.browser
        boat = f"{INPUTS}/sketch_to_image_stochastic_boat.png"
        b.type("#sketch-file", boat)
        uploaded = self.await_made(1)
        canvas = b.run(CANVAS, "canvas")
        self.assertGreater(canvas[0], 1000)
        b.click("#clear")
        b.drop("#sketch-stage", boat)
        self.assertEqual(self.await_made(2)[0], uploaded[0])
        self.assertEqual(b.run(CANVAS, "canvas"), canvas)
        # Copies the sketch, clears, and pastes it.
        b.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        self.assertTrue(b.run_async(
            "const done = arguments[0]; document.getElementById('canvas').toBlob((blob) =>"
            " navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]).then(() => done(true), () => done(false)))"))
        b.click("#clear")
        b.run("document.getElementById('canvas').focus()")
        b.keys(CONTROL, "v")
        self.assertEqual(self.await_made(3)[0], uploaded[0])
        self.assertEqual(b.run(CANVAS, "canvas"), canvas)
        # The demo's own example.
        b.click("#sketch-example")
        self.await_made(4)
        b.drop("#sketch-stage", os.path.abspath(__file__))
        self.await_status("check_page.py is no picture")
        self.assertEqual(b.complaints(), [])

    def test_downloads(self):
        b = self.browser
        with tempfile.TemporaryDirectory() as folder:
            b.downloads_to(folder)
            self.write("#sketch-prompt", "a red boat!")
            b.draw("#canvas", circle(0.5, 0.5, 0.2))
            self.await_made(1)

            def await_file(name, seconds=20):
                end = time.monotonic() + seconds
                while not os.path.exists(f"{folder}/{name}"):
                    self.assertLess(time.monotonic(), end, f"{name}: {os.listdir(folder)}")
                    time.sleep(0.05)
                with open(f"{folder}/{name}", "rb") as file:
                    return file.read()
            b.click("#sketch-download")
            data = await_file("a-red-boat-42.png")
            self.assertEqual(png_pixels(data)[:2], (128, 128))
            self.assertIn(b"onestep.seed", data, "the parameters are in the file")
            os.remove(f"{folder}/a-red-boat-42.png")
            b.keys(CONTROL, "s")
            self.assertEqual(await_file("a-red-boat-42.png"), data)
            b.click("#sketch-save")
            self.assertEqual(await_file("sketch.png")[16:24], (512).to_bytes(4, "big") * 2)


class Live(OnPage):
    """On the golden models at 512 pixels, which take long enough to be overtaken."""
    @classmethod
    def setUpClass(cls):
        cls.server = Server(PROGRAM, "--no-warm-up", "--queue", "3")
        cls.server.await_ready()

    def occupy(self, count):
        threads = [threading.Thread(target=self.server.post_form, args=("/v1/translate", SLOW),
                                    kwargs={"timeout": 600}) for _ in range(count)]
        for thread in threads:
            thread.start()
            self.addCleanup(thread.join)
        end = time.monotonic() + 30
        while self.server.metric("onestep_queue_depth") + self.server.metric("onestep_jobs_running") < count:
            self.assertLess(time.monotonic(), end, "the engine is not occupied")
            time.sleep(0.01)

    def test_quick_picture_first(self):
        b = self.browser
        b.run(WATCH)
        b.run(WATCH_RESULT)
        self.write("#sketch-prompt", "a cat")
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        self.assertEqual(self.await_made(1)[1:3], [512, 512])
        self.assertEqual(b.run("return window.asked"), [{"side": "256", "dropped": False}, {"side": "512", "dropped": False}])
        self.assertEqual(b.run("return window.shown"), [[True, 256], [False, 512]])
        self.assertFalse(b.run("return document.getElementById('sketch-result').classList.contains('draft')"))

    def test_stale_requests_are_dropped(self):
        b = self.browser
        self.write("#sketch-prompt", "a cat")
        b.run(WATCH)
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        self.await_made(1)
        self.occupy(4)
        cancelled = self.server.metric("onestep_cancelled_total")
        b.run("window.asked.length = 0")
        b.draw("#canvas", [(0.1, 0.1), (0.9, 0.1)])
        b.wait("return document.getElementById('sketch-pill').textContent.startsWith('waiting')", "its turn")
        self.shot("waiting")
        b.draw("#canvas", [(0.1, 0.9), (0.9, 0.9)])
        last = b.run(CANVAS, "canvas")
        self.await_made(2)
        asked = b.run("return window.asked")
        self.assertEqual([one["dropped"] for one in asked], [True] + [False] * (len(asked) - 1), asked)
        self.assertGreaterEqual(len(asked), 2)
        self.assertGreater(self.server.metric("onestep_cancelled_total"), cancelled, "the server went on")
        # What came out belongs to the last stroke, and the dropped one left nothing behind.
        self.assertEqual(self.made(), 2)
        self.live(False)
        picture = self.pixels("sketch-result")
        b.click("#sketch-run")
        self.assertEqual(self.await_made(3)[0], picture[0])
        self.assertEqual(b.run(CANVAS, "canvas"), last)

    def flood(self, count):
        """Keeps the queue full, whatever is done meanwhile, until the returned event is set."""
        stop = threading.Event()

        def ask():
            while not stop.is_set():
                self.server.post_form("/v1/translate", SLOW, timeout=600)
        threads = [threading.Thread(target=ask) for _ in range(count)]
        for thread in threads:
            thread.start()
            self.addCleanup(thread.join)
        self.addCleanup(stop.set)
        return stop

    def test_progress_and_cancel(self):
        b = self.browser
        self.write("#sketch-prompt", "a cat")
        self.live(False)
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        b.run("""window.seen = [];
          new MutationObserver(() => window.seen.push(document.getElementById('sketch-progress').value))
            .observe(document.getElementById('sketch-pill'), { childList: true });""")
        b.click("#sketch-run")
        self.await_made(1)
        seen = b.run("return window.seen")
        self.assertGreater(len(seen), 4)
        self.assertEqual(seen, sorted(seen), "progress goes back")
        self.assertEqual(b.run("return document.getElementById('sketch-progress').value"), 0)
        self.occupy(3)
        b.click("#sketch-run")
        self.assertEqual(b.run("return document.getElementById('sketch-result-stage').getAttribute('aria-busy')"), "true")
        b.click("#sketch-cancel")
        self.await_status("Cancelled.")
        b.click("#sketch-run")
        b.keys(ESCAPE)
        self.await_status("Cancelled.")
        self.assertEqual(self.made(), 1)

    def test_busy_server(self):
        b = self.browser
        self.write("#sketch-prompt", "a cat")
        self.live(False)
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        stop = self.flood(12)
        end = time.monotonic() + 30
        while self.server.metric("onestep_queue_depth") < 3:
            self.assertLess(time.monotonic(), end, "the queue never fills")
        b.click("#sketch-run")
        b.wait("return document.getElementById('sketch-status').textContent.includes('the server is busy')", "words for 429")
        self.shot("busy")
        stop.set()
        self.await_made(1, seconds=300)
        self.assertIn("seed 42", self.text("sketch-status"))


class Photos(OnPage):
    def setUp(self):
        super().setUp()
        self.browser.click("#tab-photo")

    def test_edges(self):
        b = self.browser
        b.type("#photo-file", f"{INPUTS}/edge_to_image_bird.png")
        b.wait("return !document.getElementById('edges').hidden && document.getElementById('edges').width === 128", "the edges")
        b.wait(f"return (function() {{ {CANVAS.replace('arguments[0]', repr('edges'))} }})()[0] > 100", "drawn edges")
        few = self.ink("edges")
        self.assertEqual(b.run_async(EDGES), [0, True], "the page's edges are not the server's")
        # The sliders, with a real pointer; the map follows without a round trip.
        b.offline(True)
        b.draw("#low", [(0.2, 0.5), (0.04, 0.5)])
        b.draw("#high", [(0.25, 0.5), (0.05, 0.5)])
        self.assertEqual(self.text("low-value"), self.value("low"))
        self.assertLess(int(self.value("high")), 60)
        b.wait(f"return (function() {{ {CANVAS.replace('arguments[0]', repr('edges'))} }})()[0] > {few} * 1.05", "more edges")
        many = self.ink("edges")
        b.run("document.getElementById('low').focus()")
        b.keys("\ue010")  # End
        b.wait(f"return (function() {{ {CANVAS.replace('arguments[0]', repr('edges'))} }})()[0] < {many}", "fewer edges")
        b.offline(False)
        b.wait("return document.getElementById('notice').hidden", "the connection", 20)
        b.click("#show-edges")
        self.assertTrue(b.run("return document.getElementById('edges').hidden && !document.getElementById('photo-input').hidden"))
        b.click("#photo-run")
        self.assertIn("few words", self.text("photo-status"))
        b.type("#photo-prompt", "a blue bird on a yellow ground")
        b.click("#photo-run")
        first = self.await_made(1, "photo")
        self.assertGreater(first[3], 20)
        # Other thresholds, another picture.
        b.draw("#low", [(0.99, 0.5), (0.2, 0.5)])
        b.draw("#high", [(0.05, 0.5), (0.25, 0.5)])
        b.click("#photo-run")
        self.assertNotEqual(self.await_made(2, "photo")[0], first[0])

    def test_all_tasks_and_history(self):
        b = self.browser
        pictures = {}
        for count, (task, name) in enumerate((("day_to_night", "day_to_night_street_1"), ("night_to_day", "night_to_day_street_1"),
                                              ("clear_to_rainy", "clear_to_rainy_street_1"),
                                              ("rainy_to_clear", "rainy_to_clear_street_1"))):
            self.choose("photo-task", task)
            b.drop("#photo-stage", f"{INPUTS}/{name}.png")
            b.wait("return document.getElementById('photo-result').hidden", "the new picture")
            b.click("#photo-run")
            pictures[task] = self.await_made(count + 1, "photo")
            self.assertGreater(pictures[task][3], 60, task)
            self.assertIn("driving in", self.text("photo-status"), task)
        self.assertEqual(len({picture[0] for picture in pictures.values()}), 4)
        b.click("#photo-history li:last-child button")
        b.wait("return document.querySelector('#photo-task input:checked').value === 'day_to_night'", "the task")
        b.wait("return document.getElementById('photo-size-note').textContent === '128×128'", "the original")
        self.assertEqual(self.pixels("photo-result"), pictures["day_to_night"])
        # Words for one task are none for another.
        b.type("#photo-prompt", "driving in the snow")
        self.choose("photo-task", "night_to_day")
        self.assertEqual(self.value("photo-prompt"), "")
        self.choose("photo-task", "day_to_night")
        self.assertEqual(self.value("photo-prompt"), "driving in the snow")
        self.assertEqual(b.complaints(), [])

    def test_before_and_after(self):
        b = self.browser
        self.choose("photo-task", "day_to_night")
        b.click("#photo-example")
        self.await_made(1, "photo")
        # Drags the divider on the picture itself.
        b.draw("#photo-result-stage", [(0.5, 0.5), (0.25, 0.4)])
        self.assertAlmostEqual(int(self.value("compare")), 25, delta=1)
        colours = """
          const [id, from, to, done] = arguments, image = document.getElementById(id);
          image.decode().then(() => {
            const c = new OffscreenCanvas(100, 100).getContext('2d');
            c.drawImage(image, 0, 0, 100, 100);
            const d = c.getImageData(from, 10, to - from, 80).data, mean = [0, 0, 0];
            for (let i = 0; i < d.length; i++) if (i % 4 < 3) mean[i % 4] += d[i] / (d.length / 4);
            done(mean);
          });"""

        def stage(from_, to):
            width, height, pixels = png_pixels(b.element_shot("#photo-result-stage"))
            rows = [pixels[3 * (y * width + width * from_ // 100):3 * (y * width + width * to // 100)]
                    for y in range(height // 10, height * 9 // 10)]
            flat = b"".join(rows)
            return [sum(flat[c::3]) / (len(flat) / 3) for c in range(3)]

        def compare(image, from_, to):
            for seen, meant in zip(stage(from_, to), b.run_async(colours, image, from_, to)):
                self.assertAlmostEqual(seen, meant, delta=4)
        b.run("document.activeElement.blur()")
        compare("photo-before", 3, 20)
        compare("photo-result", 40, 97)
        # With the keyboard.
        b.run("document.getElementById('compare').focus()")
        b.keys("\ue010")  # End
        compare("photo-before", 3, 90)
        b.keys("\ue011")  # Home
        compare("photo-result", 10, 97)
        day, night = (sum(b.run_async(colours, name, 0, 100)) for name in ("photo-before", "photo-result"))
        self.assertGreater(day, night + 60)
        self.shot("photo")

    def test_wide_picture(self):
        b = self.browser
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            file.write(png(200, 100, lambda x, y: (x, 2 * y, 90)))
            file.flush()
            b.type("#photo-file", file.name)
            b.wait("return document.getElementById('photo-size-note').textContent === '200×100'", "the picture")
        self.choose("photo-task", "day_to_night")
        b.click("#photo-run")
        picture = self.await_made(1, "photo")
        self.assertEqual(picture[1:3], [128, 64])
        # Original and result lie on each other.
        boxes = b.run("const s = document.getElementById('photo-result-stage').getBoundingClientRect(),"
                      " r = document.getElementById('photo-before').getBoundingClientRect();"
                      " return [(r.left - s.left) / s.width, (r.top - s.top) / s.height, r.width / s.width, r.height / s.height]")
        for seen, meant in zip(boxes, (0, 0.25, 1, 0.5)):
            self.assertAlmostEqual(seen, meant, delta=0.01)


class Failing(OnPage):
    def test_errors_and_offline(self):
        b = self.browser
        b.run("document.getElementById('sketch-prompt').value = ''")
        b.click("#sketch-run")
        self.assertIn("few words", self.text("sketch-status"))
        self.assertEqual(b.run("return document.activeElement.id"), "sketch-prompt")
        b.draw("#canvas", [(0.2, 0.2), (0.8, 0.8)])
        self.assertIn("few words", self.text("sketch-status"), "live tells what it lacks")
        self.write("#sketch-prompt", "a cat")
        self.await_made(1)
        self.write("#seed", "x")
        b.click("#sketch-run")
        self.assertIn("whole number", self.text("sketch-status"))
        self.write("#seed", "99999999999999999999")
        b.click("#sketch-run")
        b.wait("return document.getElementById('sketch-status').classList.contains('bad')", "the server's words")
        self.assertIn("seed", self.text("sketch-status"))
        self.shot("error")
        self.write("#seed", "42")
        self.live(False)
        ink = b.run(CANVAS, "canvas")
        b.offline(True)
        b.click("#sketch-run")
        b.wait("return document.getElementById('sketch-status').textContent.includes('cannot be reached')", "words for no connection")
        b.wait("return !document.getElementById('notice').hidden", "the notice", 20)
        self.assertEqual(self.text("server-state"), "no connection")
        self.shot("offline")
        self.assertEqual(b.run(CANVAS, "canvas"), ink)
        made = self.made()
        b.offline(False)
        b.wait("return document.getElementById('notice').hidden", "the way back", 20)
        self.await_server()
        b.click("#sketch-run")
        self.await_made(made + 1)

    def test_limits_in_words(self):
        b = self.browser
        self.open(self.another_server("--no-warm-up", "--max-work", "100000"))
        self.write("#sketch-prompt", "a cat")
        b.draw("#canvas", [(0.2, 0.2), (0.8, 0.8)])
        b.wait("return document.getElementById('sketch-status').classList.contains('bad')", "the server's words")
        self.assertIn("512 x 512 pixels are more than the 100000", self.text("sketch-status"))

    def test_token(self):
        b = self.browser
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("correct-horse-battery\n")
            file.flush()
            server = self.another_server("--token-file", file.name, demo=True)
        b.open(f"http://127.0.0.1:{server.port}/")
        for token in ("wrong", "correct-horse-battery"):
            b.wait("return document.getElementById('token-dialog').open", "the question")
            b.type("#token", token)
            b.keys(ENTER)
        self.await_server()
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        self.await_made(1)

    def test_server_that_stops(self):
        b = self.browser
        server = self.another_server(demo=True)
        self.open(server)
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        self.await_made(1)
        self.assertEqual(server.stop(), 0)
        b.click("#sketch-run")
        self.await_status("cannot be reached")
        b.wait("return document.getElementById('server-state').dataset.state === 'gone'", "the state", 20)
        self.assertGreater(self.ink(), 1000)


class Usable(OnPage):
    def test_keyboard_alone(self):
        b = self.browser
        self.write("#sketch-prompt", CAT)
        b.run("document.getElementById('canvas').focus()")
        b.keys(" ")
        for _ in range(8):
            b.keys(ARROW_RIGHT)
        self.assertFalse(b.run("return document.getElementById('brush').hidden"), "no cross shows where the pen is")
        for _ in range(4):
            b.keys(SHIFT, ARROW_DOWN)
        b.keys(" ")
        line = self.ink()
        self.assertAlmostEqual(line, (8 * 12 + 4 * 2) * 10, delta=250)
        first = self.await_made(1)
        b.keys(CONTROL, "z")
        self.assertEqual(self.ink(), 0)
        b.keys(CONTROL, SHIFT, "z")
        self.assertEqual(self.ink(), line)
        b.keys(CONTROL, "z")
        b.keys(CONTROL, "y")
        self.assertEqual(self.ink(), line)
        self.await_made(2)
        b.keys("e")
        self.assertEqual(b.run("return document.getElementById('eraser').ariaPressed"), "true")
        b.keys("b")
        self.assertEqual(b.run("return document.getElementById('pen').ariaPressed"), "true")
        b.keys("]")
        b.keys("]")
        b.keys("[")
        self.assertEqual(self.value("pen-width"), "12")
        b.keys("l")
        self.assertFalse(b.run("return document.getElementById('live').checked"))
        made = self.made()
        b.keys(CONTROL, ENTER)
        self.assertEqual(self.await_made(made + 1)[0], first[0])
        b.keys(DELETE)
        self.assertEqual(self.ink(), 0)
        b.keys("p")
        self.assertEqual(b.run("return document.activeElement.id"), "sketch-prompt")
        # In a field letters are letters.
        b.keys("e")
        self.assertEqual(self.value("sketch-prompt"), CAT + "e")
        self.assertEqual(b.run("return document.getElementById('pen').ariaPressed"), "true")
        b.run("document.activeElement.blur()")
        b.keys("?")
        self.assertTrue(b.run("return document.getElementById('help').open"))
        b.keys(ENTER)
        self.assertFalse(b.run("return document.getElementById('help').open"))
        b.keys("2")
        self.assertFalse(b.run("return document.getElementById('panel-photo').hidden"))
        b.keys(ARROW_LEFT)
        self.assertFalse(b.run("return document.getElementById('panel-sketch').hidden"))

    def test_focus_order(self):
        b = self.browser
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        self.await_made(1)
        b.run("document.activeElement.blur(); window.getSelection().removeAllRanges();"
              "document.querySelector('.skip').focus()")
        order = []
        for _ in range(40):
            stop = b.run("""const e = document.activeElement || document.body;
              const ring = e.closest('.button, .chips label') || e;
              return [e.id || e.name || e.className || e.parentElement?.parentElement?.id || e.tagName,
                getComputedStyle(ring).outlineStyle !== 'none' || e.className === 'skip'];""")
            if stop[0] in ("BODY", "HTML") or stop[0] in [name for name, _ in order]:
                break
            order.append(stop)
            b.keys(TAB)
        self.assertEqual([name for name, _ in order], [
            "skip", "tab-sketch", "theme", "help-open", "sketch-prompt", "sketch-run", "pen", "eraser", "pen-width", "undo",
            "clear", "canvas", "sketch-file", "sketch-save", "sketch-example", "live", "sketch-download", "style", "sketch-settings",
            "gamma", "seed", "dice", "sketch-history"])
        self.assertEqual([name for name, ring in order if not ring], [], "no ring shows the focus")

    def test_phone(self):
        b = self.browser
        b.resize(375, 812)
        for tab in ("photo", "sketch"):
            b.click(f"#tab-{tab}")
            self.assertLessEqual(b.run("return document.documentElement.scrollWidth"), 375, tab)
            self.assertEqual(b.run("""return [...document.querySelectorAll('button, .button, .chips label, select')].filter((e) => {
                const r = e.getBoundingClientRect();
                return r.width && !e.closest('.note, .history') && (r.height < 40 || r.width < 40 || r.left < 0 || r.right > 375);
              }).map((e) => e.id || e.textContent)"""), [], f"{tab}: too small for a finger, or cut off")
            self.assertEqual(b.run(RULES), [], tab)
            self.shot(f"phone-{tab}")
        self.live(False)
        self.write("#sketch-prompt", "a red boat on a yellow ground")
        b.run("document.getElementById('canvas').scrollIntoView({block: 'center'})")
        b.draw("#canvas", [(0.2, 0.6), (0.5, 0.8), (0.8, 0.6)], "touch")
        self.assertGreater(self.ink(), 2000)
        b.run("document.getElementById('sketch-run').scrollIntoView({block: 'end'})")
        b.click("#sketch-run")
        self.await_made(1)
        b.wait("const r = document.getElementById('sketch-result').getBoundingClientRect();"
               "return r.top >= 0 && r.bottom <= innerHeight", "the picture in view")
        self.shot("phone")
        b.click("#tab-photo")
        b.type("#photo-file", f"{INPUTS}/day_to_night_street_1.png")
        self.choose("photo-task", "day_to_night")
        b.run("document.getElementById('photo-run').scrollIntoView({block: 'center'})")
        b.click("#photo-run")
        self.await_made(1, "photo")
        b.run("document.getElementById('photo-result-stage').scrollIntoView({block: 'center'})")
        b.draw("#photo-result-stage", [(0.5, 0.5), (0.75, 0.5)], "touch")
        self.assertAlmostEqual(int(self.value("compare")), 75, delta=2)

    def test_no_layout_jump(self):
        b = self.browser
        b.run(SHIFTS)
        places = ("return ['sketch-prompt', 'canvas', 'sketch-result-stage', 'sketch-settings', 'sketch-history-title', 'sketch-download']"
                  ".map((id) => document.getElementById(id).getBoundingClientRect()).map((r) => [r.x, Math.round(r.y), r.width])")
        before = b.run(places)
        b.draw("#canvas", [(0.2, 0.2), (0.8, 0.8)])
        self.await_made(1)
        self.assertEqual(b.run(places), before)
        self.choose("style", "neon")
        self.await_made(2)
        self.assertEqual(b.run(places), before, "long words")
        self.live(False)
        b.offline(True)
        b.click("#sketch-run")
        b.wait("return !document.getElementById('notice').hidden", "the notice", 20)
        self.assertEqual(b.run(places), before, "no connection")
        self.assertLess(b.run("return window.shift"), 0.005)

    def test_colours(self):
        b = self.browser
        ground = "return getComputedStyle(document.documentElement).backgroundColor"
        b.prefer("light")
        light = b.run(ground)
        b.prefer("dark")
        dark = b.run(ground)
        self.assertGreater(sum(map(int, light[4:-1].split(","))), 600)
        self.assertLess(sum(map(int, dark[4:-1].split(","))), 120)
        b.click("#theme")
        self.assertEqual(b.run(ground), light)
        self.open(self.server)
        self.assertEqual(b.run(ground), light, "the choice is kept")
        b.click("#theme")
        b.prefer("light")
        self.assertEqual(b.run(ground), dark)

    def test_accessibility(self):
        b = self.browser
        if AXE:
            with open(AXE, encoding="utf-8") as file:
                b.devtools("Runtime.evaluate", expression=file.read())
        b.draw("#canvas", circle(0.5, 0.5, 0.2))
        self.await_made(1)
        b.click("#tab-photo")
        b.click("#photo-example")
        self.await_made(1, "photo")
        for theme in ("light", "dark"):
            b.run("document.documentElement.dataset.theme = arguments[0]", theme)
            for tab in ("sketch", "photo"):
                b.click(f"#tab-{tab}")
                time.sleep(0.2)
                self.assertEqual(b.run(RULES), [], f"{theme}, {tab}")
                if AXE:
                    self.assertEqual(b.run_async(
                        "const done = arguments[0]; axe.run().then((r) => done(r.violations.map((v) => [v.id, v.help,"
                        " v.nodes.map((n) => n.html.slice(0, 100))])), (e) => done(String(e)))"), [], f"axe: {theme}, {tab}")
                self.shot(f"{tab}-{theme}")


if __name__ == "__main__":
    unittest.main()
