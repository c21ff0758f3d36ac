"""A real Chromium through chromedriver's WebDriver protocol, with Python's standard library only."""
import base64
import json
import os
import socket
import subprocess
import time
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    def __init__(self, width=1280, height=900, dark=False):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._await_driver()
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--hide-scrollbars", f"--window-size={width},{height}"]
        if dark:
            arguments.append("--force-dark-mode")
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = f"/session/{answer['sessionId']}"

    def _await_driver(self):
        for _ in range(300):
            try:
                if self._call("GET", "/status")["ready"]:
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("chromedriver does not start")

    def _call(self, method, path, body=None):
        data = json.dumps(body if body is not None else {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"},
                                         method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def open(self, url):
        self._call("POST", self.session + "/url", {"url": url})

    def run(self, script, *arguments):
        """Runs JavaScript; `return` gives the value."""
        return self._call("POST", self.session + "/execute/sync",
                          {"script": script, "args": list(arguments)})

    def run_async(self, script, *arguments):
        """Runs JavaScript that calls its last argument with the value."""
        return self._call("POST", self.session + "/execute/async",
                          {"script": script, "args": list(arguments)})

    def wait(self, script, what, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s in vain: {what}")

    def find(self, selector):
        return self._call("POST", self.session + "/element",
                          {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self._call("POST", f"{self.session}/element/{self.find(selector)}/click")

    def type(self, selector, text):
        self._call("POST", f"{self.session}/element/{self.find(selector)}/value", {"text": text})

    def keys(self, *keys):
        """Presses keys in order and releases them in the other, on what has the focus."""
        actions = [{"type": "keyDown", "value": key} for key in keys]
        actions += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self._actions([{"type": "key", "id": "keyboard", "actions": actions}])

    def draw(self, selector, points, kind="mouse", pressure=0.5):
        """Draws a line with a real pointer; points are fractions of the element's box."""
        box = self.run("const b = document.querySelector(arguments[0]).getBoundingClientRect();"
                       "return [b.left, b.top, b.width, b.height];", selector)
        places = [(round(box[0] + x * box[2]), round(box[1] + y * box[3])) for x, y in points]
        actions = [{"type": "pointerMove", "duration": 0, "x": places[0][0], "y": places[0][1]},
                   {"type": "pointerDown", "button": 0, "pressure": pressure}]
        actions += [{"type": "pointerMove", "duration": 20, "x": x, "y": y, "pressure": pressure}
                    for x, y in places[1:]]
        actions.append({"type": "pointerUp", "button": 0})
        self._actions([{"type": "pointer", "id": kind, "parameters": {"pointerType": kind},
                        "actions": actions}])

    def _actions(self, actions):
        self._call("POST", self.session + "/actions", {"actions": actions})

    def devtools(self, command, **parameters):
        return self._call("POST", self.session + "/goog/cdp/execute",
                          {"cmd": command, "params": parameters})

    def resize(self, width, height):
        # Chrome's windows have a least width; what is emulated has none.
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=1, mobile=False)

    def prefer(self, colours):
        self.devtools("Emulation.setEmulatedMedia",
                      features=[{"name": "prefers-color-scheme", "value": colours}])

    def offline(self, on):
        self.devtools("Network.enable")
        self.devtools("Network.emulateNetworkConditions", offline=on, latency=0,
                      downloadThroughput=-1, uploadThroughput=-1)

    def drop(self, selector, path):
        """Drags a file from outside onto the middle of an element."""
        x, y = self.run("const b = document.querySelector(arguments[0]).getBoundingClientRect();"
                        "return [b.left + b.width / 2, b.top + b.height / 2];", selector)
        data = {"items": [], "files": [path], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.devtools("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def downloads_to(self, folder):
        self.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder)

    def complaints(self):
        """Errors in the browser's console."""
        log = self._call("POST", self.session + "/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def screenshot(self, path):
        data = self._call("GET", self.session + "/screenshot")
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def element_shot(self, selector):
        return base64.b64decode(self._call("GET", f"{self.session}/element/{self.find(selector)}/screenshot"))

    def close(self):
        try:
            self._call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait(30)


def circle(x, y, radius, count=24):
    import math
    return [(x + radius * math.cos(2 * math.pi * i / count),
             y + radius * math.sin(2 * math.pi * i / count)) for i in range(count + 1)]
