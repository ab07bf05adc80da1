"""Draw docs/demo.svg and docs/batch.svg: what a terminal shows of the demo, and of a batch at two moments and its end.

    pip install rich && python docs/make_pictures.py [FOLDER]

The commands run for real, in a pseudo-terminal, against a sandbox. Times differ from run to run, so that the pictures are made
anew when what they show has changed; CI draws them into a folder of its own to see that the script still can.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from typing import List

from rich.console import CONSOLE_SVG_FORMAT, Console  # type: ignore[import-not-found]
from rich.text import Text  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from hestiaos_lite.sandbox import Sandbox  # noqa: E402 - the checkout's

COLUMNS = 100
ROWS = 400  # enough that the progress is seen more than once


def shown_by(command: List[str], folder: str, url: str) -> str:
    """Run a command of ours on a terminal of its own and return all that it wrote there."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = dict(
        os.environ, HESTIAOS_BASE_URL=url, TERM="xterm", COLUMNS=str(COLUMNS), PYTHONPATH=sys.path[0]
    )
    # as somebody sees it who has installed the two dependencies alone
    program = "import sys; sys.modules['tqdm'] = None; from hestiaos_lite.__main__ import run; run()"
    command = [sys.executable, "-c", program, *command]
    process = subprocess.Popen(  # noqa: S603 - our own words
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=its_end, stderr=its_end
    )
    os.close(its_end)
    seen = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says EIO at the end
            break
        if not piece:
            break
        seen += piece
    os.close(terminal)
    if process.wait() != 0:
        sys.exit("{} ended with {}: {}".format(command, process.returncode, seen.decode("utf-8", "replace")))
    return seen.decode("utf-8").replace("\r\n", "\n")


def draw(path: Path, title: str, text: str) -> None:
    """Write one picture; it names no font of another host."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text))
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    path.write_text(console.export_svg(title=title, code_format=form), encoding="utf-8")
    print("wrote", path)


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work, Sandbox(token_delay_seconds=0) as box:
        demo = shown_by(["demo"], work, box.url)
        draw(folder / "demo.svg", "hestiaos-lite demo", "$ hestiaos-lite demo\n" + demo)

        lines = ["ticket,question"] + ["T-{0},create report {0}".format(n) for n in range(1, ROWS + 1)]
        Path(work, "in.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = "batch in.csv --column question --id-column ticket --out answers.csv"
        seen = shown_by([*command.split(), "--rate", "100/s"], work, box.url)
        frames = [frame.strip() for frame in re.split(r"\r(?:\x1b\[K)?", seen) if frame.strip()]
        moments = [frames[len(frames) // 4], frames[len(frames) // 2], *frames[-1:]]
        draw(
            folder / "batch.svg",
            "hestiaos-lite batch",
            "$ hestiaos-lite {}\n{}".format(command, "\n".join(moments)),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else os.path.dirname(os.path.abspath(__file__))))
