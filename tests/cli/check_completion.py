#!/usr/bin/env python3
"""Completion in real shells: types into bash, zsh and fish on a terminal of their own, presses Tab and looks at the line.

Usage: check_completion.py PROGRAM
"""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

# What is typed, and what the line must begin with after Tab (None: a list that must contain the words).
CASES = [
    ("onestep tra", "onestep translate", None),
    ("onestep models pul", "onestep models pull", None),
    ("onestep translate -t day", "onestep translate -t day_to_night", None),
    ("onestep translate --task day", "onestep translate --task day_to_night", None),
    ("onestep translate --memory", "onestep translate --memory-limit", None),
    ("onestep translate -i pict", "onestep translate -i picture.png", None),
    ("onestep translate --demo -t edge_to_image -i pict", "onestep translate --demo -t edge_to_image -i picture.png", None),
    ("onestep completion f", "onestep completion fish", None),
    ("onestep info pict", "onestep info picture.png", None),
    ("onestep models pull day", "onestep models pull day_to_night", None),
    ("onestep translate --precision ", None, ["auto", "f32", "bf16", "int16"]),
    ("onestep translate --co", None, ["--count", "--control"]),
    ("onestep ", None, ["translate", "serve", "models", "demo", "bench"]),
]


class Shell:
    def __init__(self, command, environment, folder):
        self.child, self.terminal = pty.fork()
        if self.child == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        self.seen = ""

    def type(self, text):
        os.write(self.terminal, text.encode())

    def read(self, until=None, seconds=10.0, quiet=0.5):
        """What comes until a text is seen, or until nothing came for a while."""
        text, end = "", time.monotonic() + seconds
        while time.monotonic() < end:
            ready, _, _ = select.select([self.terminal], [], [], quiet)
            if not ready:
                if until is None and text:
                    break
                continue
            try:
                piece = os.read(self.terminal, 65536).decode("utf-8", "replace")
            except OSError:
                break
            # Shells ask the terminal who it is; without an answer some of them wait.
            if "\x1b[c" in piece or "\x1b[0c" in piece:
                self.type("\x1b[?62c")
            text += piece
            if until and until in text:
                break
        return text

    def close(self):
        os.close(self.terminal)
        os.kill(self.child, 9)
        os.waitpid(self.child, 0)


def plain(text):
    """The text without escape sequences, with every line of the screen on its own."""
    text = re.sub(r"\x1b\][^\x07\x1b]*(\x07|\x1b\\)", "", text)
    text = re.sub(r"\x1b\[[0-9;?>=]*[ -/]*[@-~]", "", text)
    text = re.sub(r"\x1b[()][A-Z0-9]|\x1b[=>]", "", text)
    while "\b" in text:
        shorter = re.sub("[^\b]\x08", "", text)
        text = shorter if shorter != text else text.replace("\b", "")
    return text


def start(shell, program, folder):
    environment = {"PATH": os.path.dirname(program) + ":/usr/bin:/bin", "HOME": folder, "TERM": "xterm", "LC_ALL": "C.UTF-8",
                   "COLUMNS": "200", "LINES": "60", "XDG_CONFIG_HOME": folder + "/config", "XDG_DATA_HOME": folder + "/data"}
    script = subprocess.run([program, "completion", shell], check=True, capture_output=True, text=True).stdout
    if shell == "bash":
        with open(folder + "/onestep.bash", "w") as file:
            file.write(script)
        with open(folder + "/rc", "w") as file:
            file.write("PS1='ready> '\nsource %s/onestep.bash\nbind 'set show-all-if-ambiguous on'\n"
                       "bind 'set enable-bracketed-paste off'\nbind 'set page-completions off'\n" % folder)
        return Shell(["bash", "--noprofile", "--rcfile", folder + "/rc", "-i"], environment, folder)
    if shell == "zsh":
        os.makedirs(folder + "/functions", exist_ok=True)
        with open(folder + "/functions/_onestep", "w") as file:
            file.write(script)
        with open(folder + "/.zshrc", "w") as file:
            file.write("PS1='ready> '\nfpath=(%s/functions $fpath)\nautoload -Uz compinit\ncompinit -u -D\n"
                       "unsetopt BEEP\nsetopt LIST_AMBIGUOUS AUTO_LIST\nLISTMAX=1000\nunset zle_bracketed_paste\n" % folder)
        return Shell(["zsh", "-d", "-i"], environment, folder)
    os.makedirs(folder + "/config/fish/completions", exist_ok=True)
    with open(folder + "/config/fish/completions/onestep.fish", "w") as file:
        file.write(script)
    return None  # fish says by itself what it would offer


def ask_fish(program, folder, typed):
    environment = {"PATH": os.path.dirname(program) + ":/usr/bin:/bin", "HOME": folder, "TERM": "dumb", "LC_ALL": "C.UTF-8",
                   "XDG_CONFIG_HOME": folder + "/config", "XDG_DATA_HOME": folder + "/data"}
    out = subprocess.run(["fish", "-c", "complete -C " + "'%s'" % typed], cwd=folder, env=environment, capture_output=True,
                         text=True, timeout=60)
    return [line.split("\t")[0] for line in out.stdout.splitlines()], out.stderr


def check(shell, program):
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        open(folder + "/picture.png", "w").close()
        session = start(shell, program, folder)
        if session:
            session.read(until="ready> ")
        for typed, line, words in CASES:
            if session:
                session.type(typed + "\t")
                answer = plain(session.read())
                session.type("\x15")  # the line is not run
                session.read(quiet=0.2)
                good = line in answer if line else all(word in answer for word in words)
            else:
                offered, errors = ask_fish(program, folder, typed)
                answer = " ".join(offered) + errors
                good = (line.split(" ")[-1] in offered) if line else all(word in offered for word in words)
            if not good or "rror" in answer or "not found" in answer:
                failures.append("%s: %r gives %r, expected %r" % (shell, typed, answer, line or words))
        if session:
            session.close()
    return failures


def main():
    program, failures, checked = os.path.abspath(sys.argv[1]), [], []
    for shell in ("bash", "zsh", "fish"):
        if shutil.which(shell):
            checked.append(shell)
            failures += check(shell, program)
    for failure in failures:
        print(failure)
    print("checked: %s, %d cases each, %d failed" % (", ".join(checked), len(CASES), len(failures)))
    return bool(failures) or "bash" not in checked


sys.exit(main())
