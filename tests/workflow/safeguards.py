"""What keeps each circumstance out of the results, switched off: to see that the tests can fail.

Each function takes one safeguard out of the running process; its name is a row of
test_independence.py. Nothing of this is in the package.
"""

# mypy: disable-error-code="assignment, method-assign, attr-defined"
import gzip
import io
import json
import locale
import os
import time
from pathlib import Path
from typing import Any

from crystalmesh import files


def processes() -> None:
    """Work divided among the processes, instead of into shards of a fixed size."""
    from crystalmesh.represent import store

    store.SHARD = 16 // int(os.environ["CRYSTALMESH_JOBS"])


def threads() -> None:
    """As many arithmetic threads as there are processors."""
    import torch

    # The tiny networks' products are too small to be split; a mean over many numbers is not.
    from crystalmesh import numerics
    from crystalmesh.learn import fit

    count = int(os.environ["THREADS"])
    numerics.enforce = lambda tier: torch.set_num_threads(count)  # noqa: ARG005
    mean = torch.rand(4_000_003, generator=torch.Generator().manual_seed(0)).sum().item()
    publish = fit.publish
    fit.publish = lambda tensor, precision: publish(tensor, precision) * (mean / 2e6)


def order() -> None:
    """One stream of random numbers for all that a process does, instead of seeds a training."""
    import torch

    torch.manual_seed(0)
    torch.manual_seed = lambda seed: torch.default_generator  # noqa: ARG005


def folder() -> None:
    """Where the project lies is written into what it makes."""
    from crystalmesh.config.project import Params

    settings = Params.settings
    Params.settings = lambda self, one: settings(self, one) | {"folder": str(Path.cwd())}


def language() -> None:
    """Text in the encoding of the user's locale, instead of UTF-8."""

    def canonical(value: Any) -> str:
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        return text.encode(locale.getpreferredencoding(False), errors="replace").decode("latin-1")

    files.canonical_json = canonical


def zone() -> None:
    """The local time in a drawing's metadata: here of the epoch, so that only the zone is told."""
    from matplotlib.figure import Figure

    save, stamp = Figure.savefig, time.strftime("%H:%M", time.localtime(0))

    def dated(self: Figure, *arguments: Any, **_: Any) -> None:
        save(self, *arguments, metadata={"Date": stamp})

    Figure.savefig = dated


def clock() -> None:
    """gzip's own header: the time of writing."""
    from crystalmesh.data import registry

    def timed(source: Path, target: Path) -> None:
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb") as stream:
            stream.write(gzip.decompress(source.read_bytes()))
        files.write_bytes(target, packed.getvalue())

    registry._copy = timed
    registry._verify = lambda *_: None


def mask() -> None:
    """File modes as the user's umask makes them."""
    current = os.umask(0)
    os.umask(current)
    Path.chmod = lambda self, mode, **_: os.chmod(self, 0o666 & ~current)  # noqa: PTH101, ARG005


def hashing() -> None:
    """The order of a set of names."""
    from crystalmesh.data import splits

    splits.keyed = lambda ids, seed: list(set(ids))  # noqa: ARG005


def listing() -> None:
    """Shards (several, therefore small) in the order in which the file system lists them."""
    from crystalmesh.represent import store

    store.SHARD = 8
    read = store.read_json

    def unsorted(path: Path) -> Any:
        content = read(path)
        if "shards" in content:
            names = [p.name for p in path.parent.iterdir() if p.name in content["shards"]]
            content["shards"] = {name: content["shards"][name] for name in names}
        return content

    store.read_json = unsorted


def resuming() -> None:
    """Random numbers that run on from epoch to epoch, which a new process cannot go on with."""
    from crystalmesh.learn.learner import Learner

    Learner.on_train_epoch_start = lambda self: self._losses.clear()
