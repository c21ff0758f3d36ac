#!/usr/bin/env python3
"""What docs/DEPLOY.md shows, tried: the nginx example with a real nginx on loopback in front of the
server (TLS, events, clients told apart, leaving clients), and the systemd unit with systemd-analyze.
Usage: check_deploy.py PROGRAM"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from serving import ROOT, Server, multipart, png, png_pixels

PROGRAM = os.path.realpath(sys.argv.pop(1))
PICTURE = png(64, 64, lambda x, y: (x * 4, y * 4, 255 if (x // 8 + y // 8) % 2 else 30))
EDGE = [("task", "edge_to_image"), ("prompt", "a bird"), ("image", PICTURE)]
SLOW = [("task", "mine"), ("prompt", "slow"), ("max-side", "1024"), ("image", png(1024, 1000, (0, 0, 0)))]
HOST = "pictures.example.org"


def block(language):
    """The code block of this language in docs/DEPLOY.md."""
    with open(f"{ROOT}/docs/DEPLOY.md", encoding="utf-8") as file:
        return re.search(rf"```{language}\n(.*?)```", file.read(), re.S).group(1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@unittest.skipUnless(shutil.which("nginx") and shutil.which("openssl"), "nginx or openssl is not installed")
class Nginx(unittest.TestCase):
    def setUp(self):
        self.server = Server(PROGRAM, "--no-warm-up", "--trust-forwarded", "--allow-host", HOST, "--log-json")
        self.addCleanup(self.server.stop)
        self.server.await_ready()
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}",
                        "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", f"{folder}/pictures.key",
                        "-out", f"{folder}/pictures.crt"], check=True, stderr=subprocess.DEVNULL)
        self.port = free_port()
        text = block("nginx").replace("127.0.0.1:8080", f"127.0.0.1:{self.server.port}")
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl").replace("/etc/ssl/", f"{folder}/")
        paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(f"{folder}/nginx.conf", "w", encoding="utf-8") as file:
            file.write(f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
                       f"events {{}}\nhttp {{ access_log off;\n{paths}{text}}}\n")
        self.nginx = subprocess.Popen(["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"])
        self.addCleanup(lambda: (self.nginx.terminate(), self.nginx.wait(20)))
        self.context = ssl.create_default_context(cafile=f"{folder}/pictures.crt")
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                self.assertLess(time.monotonic(), end, "nginx does not start")
                time.sleep(0.05)

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        return self.context.wrap_socket(plain, server_hostname=HOST)

    def ask(self, method, path, fields=None, headers=None):
        body, content_type = multipart(fields) if fields else (None, "")
        connection = http.client.HTTPSConnection(HOST, self.port, timeout=120)
        connection.sock = self.connect()
        self.addCleanup(connection.close)
        connection.request(method, path, body, {"Host": HOST, **({"Content-Type": content_type} if fields else {}),
                                                **(headers or {})})
        return connection.getresponse()

    def wait(self, condition, what):
        end = time.monotonic() + 120
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.02)

    def test_page_and_pictures(self):
        page = self.ask("GET", "/")
        self.assertIn(b"<title>onestep</title>", page.read())
        answer = self.ask("POST", "/v1/translate", EDGE, {"Origin": f"https://{HOST}", "Sec-Fetch-Site": "same-origin"})
        self.assertEqual(answer.status, 200)
        self.assertEqual(png_pixels(answer.read()), png_pixels(self.server.post_form("/v1/translate", EDGE).content))
        self.assertEqual(self.ask("POST", "/v1/translate", EDGE, {"Origin": "https://evil.example"}).status, 403)
        self.assertEqual(self.ask("GET", "/metrics").status, 403)
        self.assertEqual(self.ask("GET", "/readyz").status, 200)

    def test_events_come_as_they_happen(self):
        answer = self.ask("POST", "/v1/translate", SLOW, {"Accept": "text/event-stream"})
        first = answer.readline()
        self.assertEqual(first, b"event: queued\n")
        self.assertEqual(self.server.metric("onestep_pictures_total"), 0, "the events came only with the picture")
        self.assertIn(b"event: image\n", answer.read())

    def test_clients_are_told_apart(self):
        """The address that nginx adds counts, not what the client claims."""
        self.ask("POST", "/v1/translate", EDGE, {"X-Forwarded-For": "6.6.6.6"}).read()
        self.wait(lambda: any('"path": "/v1/translate"' in line for line in self.server.log), "the log")
        line = json.loads(next(line for line in self.server.log if '"path": "/v1/translate"' in line))
        self.assertEqual(line["client"], "127.0.0.1")

    def test_client_that_leaves(self):
        body, content_type = multipart(SLOW)
        client = self.connect()
        client.sendall((f"POST /v1/translate HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content_type}\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        self.wait(lambda: self.server.metric("onestep_jobs_running") == 1, "work")
        client.close()
        self.wait(lambda: self.server.metric("onestep_jobs_running") == 0, "its end")
        self.assertEqual(self.server.metric("onestep_cancelled_total"), 1)

    def test_large_body(self):
        connection = self.ask("POST", "/v1/translate", [("image", bytes(33 << 20))])
        self.assertEqual(connection.status, 413)

    def test_drain_behind_a_proxy(self):
        results = []
        thread = threading.Thread(target=lambda: results.append(self.ask("POST", "/v1/translate", SLOW).status))
        thread.start()
        self.wait(lambda: self.server.metric("onestep_jobs_running") == 1, "work")
        self.server.process.send_signal(signal.SIGTERM)
        thread.join()
        self.assertIn(results[0], (200, 503), "nginx had to invent an answer")


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
class Systemd(unittest.TestCase):
    def test_unit(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/onestep.service"
            with open(path, "w", encoding="utf-8") as file:
                file.write(block("ini").replace("/usr/local/bin/onestep", PROGRAM))
            done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            # Its command line is one that the program takes: --help, put last, is only reached then.
            command = re.search(r"ExecStart=\S+ (.*)", block("ini")).group(1).split()
            self.assertEqual(subprocess.run([PROGRAM, *command, "--help"], capture_output=True).returncode, 0)


if __name__ == "__main__":
    unittest.main()
