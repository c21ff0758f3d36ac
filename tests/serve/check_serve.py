#!/usr/bin/env python3
"""The server from outside: shapes of requests and answers, limits, fairness, leaving clients,
draining, security. Usage: check_serve.py PROGRAM"""
import base64
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from serving import Server, multipart, png, png_of_one_bit, png_pixels

PROGRAM = sys.argv.pop(1)
PICTURE = png(64, 64, lambda x, y: (x * 4, y * 4, 255 if (x // 8 + y // 8) % 2 else 30))
EDGE = [("task", "edge_to_image"), ("prompt", "a bird"), ("image", PICTURE)]
SLOW = [("task", "mine"), ("prompt", "slow"), ("max-side", "1024"),
        ("image", png(1024, 1000, (0, 0, 0)))]


def error_of(response):
    return json.loads(response.content)["error"]


class Shared(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(PROGRAM, "--no-warm-up", "--log-json", "--max-body", "2M", "--max-pixels", "3M",
                            "--allow-host", "pictures.example")
        cls.server.await_ready()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, "".join(cls.server.log[-20:])

    def refused(self, response, status, *words, field=None):
        error = error_of(response)
        self.assertEqual(response.status, status, error)
        self.assertEqual(error["code"], status)
        for word in words:
            self.assertIn(word, error["message"])
        if field:
            self.assertEqual(error["param"], field)
        self.assertEqual(response.getheader("Content-Type"), "application/json")


class Translating(Shared):
    def test_picture_equals_the_command_lines(self):
        served = self.server.post_form("/v1/translate", EDGE)
        self.assertEqual(served.status, 200, served.content[:300])
        self.assertEqual(served.getheader("Content-Type"), "image/png")
        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/in.png", "wb") as file:
                file.write(PICTURE)
            models = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden/models")
            subprocess.run([PROGRAM, "translate", "-q", "-t", "edge_to_image", "-b",
                            f"{models}/base_a", "-c", f"{models}/base_a_edge.pkl", "-p", "a bird",
                            "-i", f"{folder}/in.png", "-o", f"{folder}/out.png", "--no-canny"],
                           check=True)
            with open(f"{folder}/out.png", "rb") as file:
                self.assertEqual(png_pixels(served.content), png_pixels(file.read()))
        self.assertIn(b"onestep.seed", served.content)

    def test_json_and_multipart_agree(self):
        content = {"task": "sketch_to_image_stochastic", "prompt": "a cat", "gamma": 0.5,
                   "seed": 7, "image": "data:image/png;base64," + base64.b64encode(PICTURE).decode()}
        by_json = self.server.post_json("/v1/translate", content, {"Accept": "application/json"})
        by_form = self.server.post_form("/v1/translate", [
            ("model_name", "sketch_to_image_stochastic"), ("prompt", "a cat"), ("gamma", "0.5"),
            ("seed", "7"), ("image", PICTURE)])
        self.assertEqual(by_json.status, 200, by_json.content[:300])
        answer = json.loads(by_json.content)
        self.assertEqual(png_pixels(base64.b64decode(answer["image"])),
                         png_pixels(by_form.content))
        self.assertEqual((answer["seed"], answer["gamma"], answer["width"]), ("7", 0.5, 64))
        self.assertGreater(answer["seconds"]["translate"], 0)

    def test_nothing_is_kept_between_requests(self):
        def picture(gamma):
            return self.server.post_form("/v1/translate", [
                ("task", "sketch_to_image_stochastic"), ("prompt", "x"), ("gamma", gamma),
                ("image", PICTURE)]).content
        first = picture(0.4)
        self.assertNotEqual(png_pixels(picture(1))[2], png_pixels(first)[2])
        self.server.post_form("/v1/translate", EDGE)
        self.assertEqual(picture(0.4), first)

    def test_directions_of_one_checkpoint_differ(self):
        pictures = {task: png_pixels(self.server.post_form("/v1/translate", [
            ("task", task), ("image-prep", "no_resize"), ("image", PICTURE)]).content)[2]
            for task in ("day_to_night", "night_to_day")}
        self.assertNotEqual(pictures["day_to_night"], pictures["night_to_day"])

    def test_formats(self):
        for accept, start in (("image/webp", b"RIFF"), ("image/jpeg", b"\xff\xd8"),
                              ("image/png;q=0.5, image/webp", b"RIFF"), ("*/*", b"\x89PNG")):
            answer = self.server.post_form("/v1/translate", EDGE, {"Accept": accept})
            self.assertTrue(answer.content.startswith(start), accept)
        answer = self.server.post_form("/v1/translate", EDGE + [("format", "jpg")])
        self.assertEqual(answer.getheader("Content-Type"), "image/jpeg")
        self.refused(self.server.post_form("/v1/translate", EDGE, {"Accept": "text/html"}), 406)

    def test_events(self):
        answer = self.server.post_form("/v1/translate", EDGE + [("with_control", "true")],
                                       {"Accept": "text/event-stream"})
        self.assertEqual(answer.getheader("Content-Type"), "text/event-stream")
        events = [(name, json.loads(data)) for name, data in
                  re.findall(r"event: (\w+)\ndata: (.*)\n\n", answer.content.decode())]
        self.assertEqual(events[0][0], "queued")
        self.assertEqual(events[-1][0], "image")
        fractions = [data["fraction"] for name, data in events if name == "progress"]
        self.assertEqual(fractions, sorted(fractions))
        self.assertLessEqual({"encode", "unet", "decode"},
                             {data["stage"] for name, data in events if name == "progress"})
        self.assertEqual(png_pixels(base64.b64decode(events[-1][1]["image"]))[:2], (64, 64))
        self.assertEqual(png_pixels(base64.b64decode(events[-1][1]["control"]))[:2], (64, 64))

    def test_events_end_with_the_error(self):
        answer = self.server.post_form("/v1/translate", [
            ("task", "mine"), ("prompt", "x"), ("image", PICTURE[:300])],
            {"Accept": "text/event-stream"})
        last = re.findall(r"event: (\w+)\ndata: (.*)\n\n", answer.content.decode())[-1]
        self.assertEqual(last[0], "error")
        self.assertEqual(json.loads(last[1])["error"]["code"], 422)

    def test_openai_shape(self):
        answer = self.server.post_form("/v1/images/edits", [
            ("model", "sketch_to_image_stochastic"), ("prompt", "a cat"), ("n", "2"),
            ("size", "64x64"), ("response_format", "b64_json"), ("image[]", PICTURE)])
        self.assertEqual(answer.status, 200, answer.content[:300])
        data = [png_pixels(base64.b64decode(one["b64_json"]))
                for one in json.loads(answer.content)["data"]]
        self.assertEqual(len(data), 2)
        self.assertNotEqual(data[0][2], data[1][2])
        models = json.loads(self.server.get("/v1/models").content)
        self.assertEqual([model["id"] for model in models["data"]][0], "edge_to_image")
        self.assertEqual(json.loads(self.server.get("/v1/models/mine").content)["id"], "mine")
        self.refused(self.server.get("/v1/models/../../etc/passwd"), 404)
        self.refused(self.server.post_form("/v1/images/edits", [
            ("model", "dall-e-2"), ("prompt", "x"), ("image", PICTURE)]), 404, "edge_to_image",
            field="model")
        self.refused(self.server.post_form("/v1/images/edits", [
            ("model", "mine"), ("prompt", "x"), ("response_format", "url"), ("image", PICTURE)]),
            422, "b64_json", field="response_format")


class Refusing(Shared):
    def test_fields(self):
        post = self.server.post_form
        path = "/v1/translate"
        self.refused(post(path, EDGE + [("gamma", "7")]), 422, "0 to 1", field="gamma")
        self.refused(post(path, EDGE + [("gama", "1")]), 422, "did you mean gamma", field="gama")
        self.refused(post(path, EDGE + [("checkpoint", "/etc/passwd")]), 422, "command line")
        self.refused(post(path, EDGE + [("noise", "/etc/passwd")]), 422, "command line")
        self.refused(post(path, EDGE[:1] + EDGE[2:]), 422, "prompt", field="prompt")
        self.refused(post(path, EDGE[:2]), 422, "image", field="image")
        self.refused(post(path, EDGE + [("image", PICTURE)]), 422, "more than one picture")
        self.refused(post(path, EDGE + [("direction", "a2b")]), 422, "direction")
        self.refused(post(path, [("task", "clear_to_rainy"), ("image", PICTURE)]), 422,
                     "not served here")
        self.refused(post(path, EDGE[:2] + [("image", b"GIF89a")]), 422, "no PNG, JPEG or WebP")
        self.refused(post(path, [("f%d" % i, "x") for i in range(70)]), 422)
        self.refused(self.server.post_json(path, {"task": "mine", "image": "!!"}), 422, "base64")
        self.refused(self.server.post_json(path, {"task": ["mine"]}), 422, "task")
        self.refused(self.server.post_json(path, []), 400)
        self.refused(self.server.request("POST", path, b"{", {"Content-Type": "application/json"}),
                     400, "JSON")
        self.refused(self.server.request("POST", path, b"x", {"Content-Type": "text/plain"}), 415)
        self.refused(self.server.request("POST", path, b"--b\r\n", {
            "Content-Type": "multipart/form-data; boundary=b"}), 400, "multipart")

    def test_limits(self):
        post = self.server.post_form
        self.refused(post("/v1/translate", EDGE[:2] + [("image", b"\x89PNG" + bytes(3 << 20))]),
                     413, "bytes")
        big = png(2000, 2, (0, 0, 0))
        # The header says 2000 x 2000: beyond the limit before a pixel is decoded.
        bomb = big[:20] + (2000).to_bytes(4, "big") + big[24:]
        self.refused(post("/v1/translate", EDGE[:2] + [("image", bomb)]), 422, field="image")
        self.refused(post("/v1/translate", [("task", "mine"), ("prompt", "x"),
                                            ("image", png(1500, 1000, (9, 9, 9)))]),
                     422, "max-side=", field="max-side")

    def test_decompression_ratio(self):
        """A small file of 2.9 million pixels, under --max-pixels, that a bomb could well be."""
        big = png_of_one_bit(8000, 360)
        self.assertLess(len(big), 1000)
        # As many pixels as that are fine up to 4 million, so this one is only too large to translate.
        self.refused(self.server.post_form("/v1/translate", EDGE[:2] + [("image", big)]), 422, field="max-side")

    def test_deep_json(self):
        self.refused(self.server.request("POST", "/v1/translate", b'{"image":' + b"[" * 500000, {
            "Content-Type": "application/json"}), 400)

    def test_chunked_body_over_the_limit(self):
        body = (b"x" * 65536 for _ in range(40))
        answer = self.server.request("POST", "/v1/translate", body, {
            "Content-Type": "application/json"})
        self.refused(answer, 413)

    def test_hosts_and_origins(self):
        self.refused(self.server.get("/", {"Host": "evil.example"}), 403, "allow-host")
        self.refused(self.server.get("/v1/models", {"Host": "127.0.0.1.evil.example"}), 403)
        self.assertEqual(self.server.get("/healthz", {"Host": "evil.example"}).status, 200)
        for host in ("localhost:1", "[::1]", "pictures.example", "10.0.0.7:80"):
            self.assertEqual(self.server.get("/", {"Host": host}).status, 200, host)
        own = f"http://127.0.0.1:{self.server.port}"
        for headers, status in (({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
                                ({"Origin": own + "0"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403),
                                ({"Origin": own, "Sec-Fetch-Site": "same-origin"}, 200)):
            answer = self.server.post_form("/v1/translate", EDGE, headers)
            self.assertEqual(answer.status, status, headers)

    def test_routes(self):
        page = self.server.get("/")
        self.assertIn("default-src 'none'", page.getheader("Content-Security-Policy"))
        # Nothing of the page comes from elsewhere, and all of it is there.
        for path in re.findall(r'(?:src|href)="([^"#]+)"', page.content.decode()):
            self.assertTrue(path.startswith("/"), path)
            self.assertEqual(self.server.get(path).status, 200, path)
        self.refused(self.server.get("/nope"), 404)
        self.refused(self.server.get("/../cli/main.c"), 404)
        wrong = self.server.get("/v1/translate")
        self.refused(wrong, 405)
        self.assertEqual(wrong.getheader("Allow"), "POST")
        self.assertEqual(self.server.request("HEAD", "/").status, 200)

    def test_many_headers(self):
        self.assertEqual(self.server.get("/healthz", {f"X-{i}": "v" for i in range(90)}).status, 200)
        for path in ("/healthz", "/", "/metrics"):
            self.refused(self.server.get(path, {f"X-{i}": "v" for i in range(101)}), 431, "headers")
        self.refused(self.server.post_form("/v1/translate", EDGE, {f"X-{i}": "v" for i in range(101)}), 431)
        # Beyond 32 KiB not even they are kept: the connection ends.
        try:
            self.assertIn(self.server.get("/healthz", {f"X-{i}": "v" * 1000 for i in range(60)}).status, (413, 431))
        except OSError:
            pass
        self.assertEqual(self.server.get("/healthz").status, 200)

    def test_log_and_metrics(self):
        self.server.post_form("/v1/translate", EDGE)
        self.assertGreater(self.server.metric("onestep_pictures_total"), 0)
        self.assertGreater(self.server.metric("onestep_stage_seconds_count"), 0)
        self.assertGreater(self.server.metric("process_resident_memory_bytes"), 1e6)
        text = self.server.get("/metrics").content.decode()
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? [-+.e\d]+)$')
        for stage in ("queue", "read", "text", "encode", "unet", "decode", "write", "total"):
            buckets = [int(n) for n in re.findall(rf'onestep_stage_seconds_bucket\{{stage="{stage}",le="[^"]+"\}} (\d+)', text)]
            count = int(re.search(rf'onestep_stage_seconds_count\{{stage="{stage}"\}} (\d+)', text).group(1))
            self.assertEqual(len(buckets), 13, stage)
            self.assertEqual(buckets, sorted(buckets), stage)
            self.assertEqual(buckets[-1], count, stage)
            self.assertGreater(count, 0, stage)
            self.assertGreater(float(re.search(rf'onestep_stage_seconds_sum\{{stage="{stage}"\}} (\S+)', text).group(1)), 0)
        self.assertRegex(text, r'onestep_requests_total\{route="/v1/translate",code="200"\} [1-9]')
        self.assertIn("\nonestep_queue_depth 0\n", text)
        time.sleep(0.1)
        lines = [json.loads(line) for line in self.server.log if line.startswith("{")]
        self.assertTrue(any(line.get("task") == "edge_to_image" and line["status"] == 200
                            for line in lines))
        self.assertFalse(any("a bird" in line for line in self.server.log))


class Leaving(unittest.TestCase):
    """What happens in time: full queues, deadlines, clients that leave, the end."""

    def start(self, *options, **more):
        server = Server(PROGRAM, "--no-warm-up", *options, **more)
        self.addCleanup(server.stop, signal.SIGKILL)
        server.await_ready()
        return server

    def send(self, server, fields, accept="image/png"):
        """A request whose answer nobody has read yet."""
        body, content_type = multipart(fields)
        client = socket.create_connection((server.host, server.port), timeout=60)
        client.sendall((f"POST /v1/translate HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
                        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
                        "Connection: close\r\n\r\n").encode() + body)
        self.addCleanup(client.close)
        return client

    def wait(self, condition, what, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.02)

    def test_full_queue_and_fair_order(self):
        # Nothing runs during the warm-up, so the queue fills for certain.
        server = Server(PROGRAM, "--queue", "2", "--trust-forwarded")
        self.addCleanup(server.stop, signal.SIGKILL)
        clients = [self.send(server, EDGE) for _ in range(2)]
        self.wait(lambda: server.metric("onestep_queue_depth") == 2, "a full queue")
        answer = server.post_form("/v1/translate", EDGE)
        self.assertEqual(server.metric("onestep_ready"), 0)
        self.assertEqual(answer.status, 429)
        self.assertGreaterEqual(int(answer.getheader("Retry-After")), 1)
        # Another client has a claim to a place: the greedy one's newest job makes room.
        other = server.post_form("/v1/translate", EDGE, {"X-Forwarded-For": "1.2.3.4, 10.9.8.7"})
        self.assertEqual(other.status, 200)
        lines = [client.recv(4096).split(b"\r\n", 1)[0] for client in clients]
        self.assertEqual(lines, [b"HTTP/1.1 200 OK", b"HTTP/1.1 429 Too Many Requests"])
        self.wait(lambda: any(" 10.9.8.7 " in line for line in server.log), "the access log")

    def test_client_that_leaves(self):
        for accept in ("image/png", "text/event-stream"):
            server = self.start()
            clients = [self.send(server, SLOW, accept) for _ in range(6)]
            self.wait(lambda: server.metric("onestep_jobs_running") == 4, "work")
            for client in clients:
                client.close()
            self.wait(lambda: server.metric("onestep_jobs_running") +
                      server.metric("onestep_queue_depth") == 0, "the end of all jobs")
            self.assertGreaterEqual(server.metric("onestep_cancelled_total"), 4)
            self.assertEqual(server.post_form("/v1/translate", EDGE).status, 200)
            self.assertEqual(server.stop(), 0)

    def test_deadline(self):
        server = self.start("--timeout", "0.15")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(
            server.post_form("/v1/translate", SLOW))) for _ in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertIn(503, [answer.status for answer in answers])
        self.assertTrue(all(answer.getheader("Retry-After") for answer in answers
                            if answer.status == 503))

    def test_slow_clients(self):
        """Whoever drips a request or does not take the answer is cut off, however alive it seems."""
        server = self.start("--client-timeout", "1")
        body, content_type = multipart(EDGE)
        head = (f"POST /v1/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode()
        for name, start, drip in (("headers", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n"),
                                  ("body", head, b"x")):
            with socket.create_connection((server.host, server.port), timeout=20) as client:
                client.sendall(start)
                begin = time.monotonic()
                with self.assertRaises(OSError, msg=name):
                    while time.monotonic() - begin < 60:
                        client.sendall(drip)
                        time.sleep(0.1)
                        client.setblocking(False)
                        try:
                            if client.recv(4096) == b"":
                                raise ConnectionResetError
                        except BlockingIOError:
                            pass
                        client.setblocking(True)
                self.assertLess(time.monotonic() - begin, 30, name)
        # A client that asks for much and reads nothing.
        with socket.create_connection((server.host, server.port), timeout=20) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000)
            self.wait(lambda: server.metric("onestep_connections") == 1, "its end", 20)
        self.assertEqual(server.post_form("/v1/translate", EDGE).status, 200)

    def test_decompression_bomb(self):
        server = self.start("--max-pixels", "64M")
        for side in (3000, 7000):
            small = png_of_one_bit(side, side)
            answer = server.post_form("/v1/translate", EDGE[:2] + [("image", small)])
            error = error_of(answer)
            self.assertEqual((answer.status, error["param"]), (422, "image"), (len(small), error))
            self.assertIn("pixels", error["message"])

    def test_drain(self):
        server = self.start("--drain", "300")
        clients = [self.send(server, SLOW) for _ in range(2)]
        self.wait(lambda: server.metric("onestep_jobs_running") +
                  server.metric("onestep_queue_depth") == 2, "work")
        server.process.send_signal(signal.SIGTERM)
        self.wait(lambda: any("finishing" in line for line in server.log), "the note")
        for client in clients:
            data = b""
            while chunk := client.recv(65536):
                data += chunk
            self.assertTrue(data.startswith(b"HTTP/1.1 200"),
                            (data[:200], server.process.poll(), server.log[-5:]))
            self.assertTrue(data.endswith(b"IEND\xaeB`\x82"))
        self.assertEqual(server.process.wait(60), 0)

    def test_everything_at_once(self):
        """Tasks, sizes, answers and clients that leave, all mixed; sanitized builds look for races here."""
        server = self.start("--queue", "8")
        end, answers, pictures = time.monotonic() + 4, [], {}
        large = png(320, 300, lambda x, y: (x % 256, y % 256, x * y % 256))

        def client(number):
            choice = random.Random(number)
            while time.monotonic() < end:
                task = choice.choice(("mine", "edge_to_image", "sketch_to_image_stochastic", "day_to_night"))
                side = choice.choice(("32", "64", "320"))
                accept = choice.choice(("image/png", "application/json", "text/event-stream"))
                fields = [("task", task), ("prompt", "x"), ("max-side", side), ("image", large)]
                fields += [("fit", "exact")] if task == "day_to_night" else []
                connection = self.send(server, fields, accept)
                if choice.random() < 0.2:
                    time.sleep(choice.random() * 0.05)
                    connection.close()
                    continue
                data = b""
                while chunk := connection.recv(65536):
                    data += chunk
                answers.append(data[9:12])
                if data[9:12] == b"200" and accept == "image/png":
                    pictures.setdefault((task, side), set()).add(data.split(b"\r\n\r\n", 1)[1])
        threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertIn(b"200", answers)
        self.assertLessEqual(set(answers), {b"200", b"429"})
        self.assertEqual([which for which, made in pictures.items() if len(made) > 1], [], "another picture in company")
        self.assertEqual(server.stop(), 0, "".join(server.log[-60:]))

    def test_stop_at_once(self):
        server = self.start("--drain", "0")
        clients = [self.send(server, SLOW) for _ in range(8)]
        self.wait(lambda: server.metric("onestep_jobs_running") > 0, "work")
        self.assertEqual(server.stop(), 1)
        for client in clients:
            self.assertNotIn(b" 200 ", client.recv(64))

    def test_token(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("correct-horse-battery\n")
            file.flush()
            server = self.start("--token-file", file.name)
            self.assertEqual(server.get("/").status, 200)
            for path in ("/v1/models", "/metrics"):
                self.assertEqual(server.get(path).status, 401)
                for token in ("correct-horse-batterx", "correct-horse-battery-", "correct", ""):
                    self.assertEqual(server.get(path, {"Authorization": f"Bearer {token}"}).status,
                                     401)
                self.assertEqual(server.get(
                    path, {"Authorization": "Bearer correct-horse-battery"}).status, 200)
            self.assertEqual(server.post_form("/v1/translate", EDGE).status, 401)
            self.assertEqual(server.post_form("/v1/translate", EDGE, {
                "Authorization": "Bearer correct-horse-battery"}).status, 200)

    def test_command_line(self):
        def mistake(*options):
            done = subprocess.run([PROGRAM, "serve", "--demo", *options], capture_output=True,
                                  text=True, timeout=60)
            return done.returncode, done.stderr
        code, text = mistake("--listen", "0.0.0.0:0")
        self.assertEqual(code, 2)
        self.assertIn("--token-file", text)
        for options in (("--listen", "nowhere"), ("--listen", "127.0.0.1:99999"),
                        ("--tasks", "edge_to_imag"), ("--queue", "0"), ("--tasks", ",")):
            self.assertEqual(mistake(*options)[0], 2, options)


if __name__ == "__main__":
    unittest.main(verbosity=1)
