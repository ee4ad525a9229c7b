#!/usr/bin/env python3
"""Runs `flm-tui --demo` on a pseudo-terminal, shows each tab and some journeys in each language, and paints what the screen
shows. The English session is written as a recording too (asciicast v2: asciinema play FOLDER/../demo.cast).

usage: screenshots.py FLM_TUI FOLDER        (called by scripts/screenshots.sh)
"""

import codecs
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
import unicodedata

import pyte
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 140, 36
LANGUAGES = {"en": "en_US.UTF-8", "ja": "ja_JP.UTF-8"}
TABS = ["engines", "models", "proxy", "security", "blocklist", "prompts"]
F3, F7, ESCAPE, DOWN = "\x1bOR", "\x1b[18~", "\x1b", "\x1b[B"
# Name, what is typed with the seconds that are watched after it.
JOURNEYS = [
    ("load", [("3", 1), ("v", 0.3), ("v", 0.3), ("v", 2)]),
    ("chat", [("2", 1), ("c", 1), ("Why is the sky blue?", 1), ("\r", 7)]),
    ("compare", [(F7, 1), (F3, 1), (" " + DOWN + " " + DOWN + " ", 1), ("\r", 1), ("Why is the sky blue?", 1), ("\r", 8)]),
    ("wizard", [(ESCAPE, 1), ("3", 1), ("w", 2), ("\r", 2)]),
]
# The demo's clients have sent enough by then for every list to have rows.
DEMO_SECONDS = 12

SIZE = 18
DEJAVU = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono%s.ttf"
CJK = "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"
CJK_MONO_JP = 5
FOREGROUND, BACKGROUND = "#d7dae0", "#0f1419"
NAMED = {
    "black": "#000000", "red": "#cd3131", "green": "#0dbc79", "brown": "#e5e510",
    "blue": "#2472c8", "magenta": "#bc3fbc", "cyan": "#11a8cd", "white": "#e5e5e5",
}
EIGHTHS = "▁▂▃▄▅▆▇█"


def colour(name, default):
    if name == "default":
        return default
    return NAMED.get(name) or ("#" + name if len(name) == 6 else default)


def paint(screen, path):
    plain = ImageFont.truetype(DEJAVU % "", SIZE)
    bold = ImageFont.truetype(DEJAVU % "-Bold", SIZE)
    wide = ImageFont.truetype(CJK, SIZE + 2, index=CJK_MONO_JP)
    width, height = round(plain.getlength("M")), SIZE + 3
    image = Image.new("RGB", (width * screen.columns + 20, height * screen.lines + 20), BACKGROUND)
    draw = ImageDraw.Draw(image)
    cells = []
    for row in range(screen.lines):
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            fore, back = colour(cell.fg, FOREGROUND), colour(cell.bg, BACKGROUND)
            if cell.reverse:
                fore, back = back, fore
            cells.append((10 + column * width, 10 + row * height, cell, fore, back))
    for x, y, _, _, back in cells:
        draw.rectangle([x, y, x + width - 1, y + height - 1], fill=back)
    for x, y, cell, fore, _ in cells:
        text = cell.data
        if not text.strip():
            continue
        if text in EIGHTHS:
            filled = round(height * (EIGHTHS.index(text) + 1) / 8)
            draw.rectangle([x, y + height - filled, x + width - 1, y + height - 1], fill=fore)
        elif unicodedata.east_asian_width(text[0]) in "WF":
            draw.text((x + 1, y - 5), text, font=wide, fill=fore)
        else:
            draw.text((x, y), text, font=bold if cell.bold else plain, fill=fore)
    image.save(path, optimize=True)


class Terminal:
    def __init__(self, program, locale):
        self.home = tempfile.mkdtemp(prefix="flm-", dir="/tmp")
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.began, self.written = time.monotonic(), []
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            environment = {
                "HOME": self.home, "PATH": "/usr/bin:/bin", "TERM": "xterm-256color", "COLORTERM": "truecolor",
                "LANG": locale, "LC_ALL": locale,
            }
            os.execve(program, [program, "--demo"], environment)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def watch(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.terminal], [], [], left)[0]:
                try:
                    written = os.read(self.terminal, 65536)
                except OSError:
                    sys.exit("flm-tui ended; the screen showed:\n" + "\n".join(self.screen.display))
                for question, answer in ((b"\x1b[6n", b"\x1b[1;1R"), (b"\x1b[c", b"\x1b[?62;4c")):
                    if question in written:
                        os.write(self.terminal, answer)
                self.stream.feed(written)
                self.written.append((time.monotonic() - self.began, written))

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def record(self, path):
        """Writes what was shown so far as an asciicast."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "flm-tui --demo"}
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(header) + "\n")
            for at, written in self.written:
                file.write(json.dumps([round(at, 3), "o", decoder.decode(written)], ensure_ascii=False) + "\n")

    def close(self):
        os.kill(self.pid, signal.SIGTERM)
        os.close(self.terminal)
        os.waitpid(self.pid, 0)
        shutil.rmtree(self.home, ignore_errors=True)


def picture(terminal, folder, name, language):
    path = os.path.join(folder, f"{name}-{language}.png")
    paint(terminal.screen, path)
    print(path)


def main():
    program, folder = os.path.abspath(sys.argv[1]), sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    for language, locale in LANGUAGES.items():
        terminal = Terminal(program, locale)
        try:
            terminal.watch(DEMO_SECONDS)
            for number, tab in enumerate(TABS, 1):
                terminal.type(str(number))
                terminal.watch(1.5)
                picture(terminal, folder, tab, language)
            for name, steps in JOURNEYS:
                for keys, seconds in steps:
                    terminal.type(keys)
                    terminal.watch(seconds)
                picture(terminal, folder, name, language)
            if language == "en":
                terminal.record(os.path.join(folder, os.pardir, "demo.cast"))
        finally:
            terminal.close()


main()
