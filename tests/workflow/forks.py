"""Many commands, each in a fork of one process that has imported all that they need.

A stage of the tiny report takes a second, and a new process some more until it has imported torch.
The processes here end as any other, and leave nothing behind for the next one.

    forks = Forks()
    ended = forks.run("command", ["verify", "demo"], folder)
    PATH=forks.path snakemake       # `crystalmesh` is then a small program that asks this process

The process listens at a socket. A request is a line of JSON, and comes with the three streams that
the command gets; the answer is its exit code. Where the start of the interpreter itself matters
(its hash seed, its locale) a new process is needed.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crystalmesh import numerics

ROOT = Path(__file__).parents[2]
# Variables of who runs the tests.
OWN = ("DVC_", "CRYSTALMESH", "LC_", "LANG", "TZ", "PYTHON", "OMP_", "MKL_")
PROGRAM = """#!{python} -SE
import json, os, socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.connect({address!r})
request = ["command", sys.argv[1:], os.getcwd(), dict(os.environ)]
socket.send_fds(asked, [b"?"], [0, 1, 2])
asked.sendall(json.dumps(request).encode() + b"\\n")
sys.exit(int(asked.makefile().readline() or 70) % 256)
"""


class Ended(NamedTuple):
    """A command that ended: its exit code, what it said, and what of that on stderr."""

    code: int
    said: str
    complaint: str


class Forks:
    """The process, until it is closed; `source` is the folder of the package, if not that here."""

    def __init__(self, source: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="forks"))
        self._address = str(self._folder / "socket")
        programs = self._folder / "bin"
        programs.mkdir()
        program = programs / "crystalmesh"
        program.write_text(PROGRAM.format(python=sys.executable, address=self._address))
        program.chmod(0o755)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(OWN)}
        if source is not None:
            environment["PYTHONPATH"] = str(source)
        path = (str(programs), str(Path(sys.executable).parent), os.environ["PATH"])
        self.path = os.pathsep.join(path)
        self._environment = environment | {"PATH": self.path}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.workflow.forks", self._address],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def run(
        self,
        what: str,
        arguments: Sequence[str],
        folder: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        heard: str = "",
    ) -> Ended:
        """Run one of `WHAT` with arguments in a folder, to its end; `heard` is its stdin."""
        variables = self._environment | dict(environment or {})
        request = json.dumps([what, list(arguments), str(folder), variables])
        with (
            tempfile.TemporaryFile() as hearing,
            tempfile.TemporaryFile() as said,
            tempfile.TemporaryFile() as complaint,
            socket.socket(socket.AF_UNIX) as asked,
        ):
            hearing.write(heard.encode())
            hearing.seek(0)
            asked.connect(self._address)
            streams = [stream.fileno() for stream in (hearing, said, complaint)]
            socket.send_fds(asked, [b"?"], streams)
            asked.sendall(request.encode() + b"\n")
            code = int(asked.makefile().readline())
            texts = []
            for stream in (said, complaint):
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
        return Ended(code, *texts)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        shutil.rmtree(self._folder)


@functools.cache
def shared() -> Forks:
    """One that is closed when this process ends."""
    made = Forks()
    atexit.register(made.close)
    return made


def chain(arguments: list[str]) -> None:
    """Stages of the tiny report: see chain.py."""
    from tests.workflow import chain

    chain.main(arguments)


def command(arguments: list[str]) -> None:
    """The command line."""
    from crystalmesh import cli

    sys.argv = ["crystalmesh", *arguments]
    cli.main()


def interrupted(arguments: list[str]) -> None:
    """The command line, with Ctrl-C when an output is written, but not yet in its place."""

    def interrupt(_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    # Where these tests run in the background of a shell, they are started with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.fsync = interrupt  # type: ignore[assignment]
    command(arguments)


WHAT = {one.__name__: one for one in (chain, command, interrupted)}


def answer(asked: socket.socket) -> None:
    """Do what is asked in a fork, wait for it, and answer with its exit code."""
    _, streams, _, _ = socket.recv_fds(asked, 1, 3)
    request = asked.makefile().readline()
    if process := os.fork():
        _, status = os.waitpid(process, 0)
        with contextlib.suppress(BrokenPipeError):  # who asked may have been stopped
            asked.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        return
    what, arguments, folder, environment = json.loads(request)
    asked.close()
    code = 70
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        numeric = numerics.ALWAYS | numerics.PORTABLE  # these hold since torch was imported
        kept = {name: os.environ[name] for name in numeric if name in os.environ}
        os.environ.clear()
        os.environ.update(environment | kept)
        time.tzset()
        os.chdir(folder)
        WHAT[what](arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # never into the code of the parent


def main(address: str) -> None:
    """Import everything; then answer, several at once, until stdin ends."""
    numerics.prepare("portable")
    import numpy as np

    import crystalmesh
    from crystalmesh.represent import delaunay

    for module in pkgutil.walk_packages(crystalmesh.__path__, "crystalmesh."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    delaunay.tessellate(np.eye(3), np.zeros((1, 3)))  # loads what numba has compiled
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that have answered are not waited for
        while listening in select.select([listening, sys.stdin], [], [])[0]:
            asked, _ = listening.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listening.close()
                answer(asked)
                os._exit(0)
            asked.close()


if __name__ == "__main__":
    main(sys.argv[1])
