"""Many commands, each in a fork of one process that has imported all that they need.

A stage of the tiny report takes a second, and a new process some more until it has imported torch.
The processes here end as any other, and leave nothing behind for the next one.

    forks = Forks()
    ended = forks.run("command", ["verify", "demo"], folder)

The process reads a request a line from stdin, as JSON, and answers with a line. Where the start of
the interpreter itself matters (its hash seed, its locale) a new one is needed.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import signal
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
OWN = (
    "DVC_",
    "CRYSTALMESH",
    "LC_",
    "LANG",
    "TZ",
    "PYTHON",
    "OMP_",
    "MKL_",
)  # of who runs the tests


class Ended(NamedTuple):
    """A command that ended: its exit code, what it said, and what of that on stderr."""

    code: int
    said: str
    complaint: str


class Forks:
    """The process, until it is closed."""

    def __init__(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(OWN)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.workflow.forks"],
            cwd=ROOT,
            env=environment | {"PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        what: str,
        arguments: Sequence[str],
        folder: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run one of `WHAT` with arguments in a folder, to its end."""
        assert self._process.stdin
        assert self._process.stdout
        request = [what, list(arguments), str(folder), dict(environment or {})]
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Ended(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


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


def answer(request: Sequence[Any]) -> Ended:
    """Do what is asked in a fork, and wait for it."""
    what, arguments, folder, environment = request
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complaint:
        if process := os.fork():
            _, status = os.waitpid(process, 0)
            texts = []
            for stream in (said, complaint):
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
            return Ended(os.waitstatus_to_exitcode(status), *texts)
        code = 70
        try:
            os.dup2(said.fileno(), 1)
            os.dup2(complaint.fileno(), 2)
            os.environ.update(environment)
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


def main() -> None:
    """Import everything; then answer until stdin ends."""
    import crystalmesh

    numerics.prepare("portable")
    for module in pkgutil.walk_packages(crystalmesh.__path__, "crystalmesh."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
