"""Features of a dataset on disk: sharded safetensors and an index."""

import functools
import hashlib
import itertools
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalmesh.config.project import Project
from crystalmesh.config.read import lookup
from crystalmesh.data import registry, splits
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import (
    read_json,
    read_tensors,
    sha256,
    write_json,
    write_tensors,
    writing_folder,
)
from crystalmesh.represent import representation
from crystalmesh.workers import in_order

SHARD_NAME = re.compile(r"shard-[0-9]{4,}\.safetensors")
SHARD = 512  # crystals; small enough that a killed stage loses little


class Features(Mapping[str, dict[str, NDArray[Any]]]):
    """All features of one dataset and representation: crystal id -> its arrays.

    Attributes:
        rejected: id -> reason, of the crystals that have no such representation.

    Raises:
        CrystalmeshError: a file is missing, or is not the one that the index was written with.
    """

    def __init__(self, folder: Path) -> None:
        index = read_json(folder / "index.json")
        self.rejected: dict[str, str] = index["rejected"]
        self._row = {name: row for row, name in enumerate(index["ids"])}
        for name, checksum in index["shards"].items():
            if not SHARD_NAME.fullmatch(name):
                raise CrystalmeshError(f"{folder / 'index.json'}: '{name}' is no shard's name")
            if sha256(folder / name) != checksum:
                raise CrystalmeshError(f"{folder / name}: damaged; delete its folder and run again")
        shards = [tensors for name in index["shards"] if (tensors := read_tensors(folder / name))]
        keys = [key for key in shards[0] if not key.endswith(".pointer")] if shards else []
        self._arrays = {key: np.concatenate([shard[key] for shard in shards]) for key in keys}
        self._pointers: dict[str, NDArray[np.int64]] = {}
        for key in keys:
            counts = np.concatenate([np.diff(shard[f"{key}.pointer"]) for shard in shards])
            self._pointers[key] = np.concatenate([[0], np.cumsum(counts)])

    def __getitem__(self, name: str) -> dict[str, NDArray[Any]]:
        row = self._row[name]
        return {
            key: array[self._pointers[key][row] : self._pointers[key][row + 1]]
            for key, array in self._arrays.items()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


def build(project: Project, dataset: str, name: str, jobs: int) -> None:
    """The stage `represent`: make a dataset's features as config/ declares them.

    Shards are made side by side by `jobs` processes and merged in a fixed order. Finished shards
    outlive a killed run in the project's scratch folder and are used by the next one.
    """
    own = project.params.features.get(dataset, {})
    features = lookup(own, name, f"features of {dataset}")
    settings, folder = project.params.representation(name), project.crystals(dataset)
    wanted = splits.wanted(project, dataset, features)
    identity = json.dumps([name, settings, wanted, (folder / "index.json").read_text()])
    scratch = project.scratch / "represent" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    tasks = [
        (scratch, number, folder, name, settings, wanted[start : start + SHARD])
        for number, start in enumerate(range(0, len(wanted), SHARD))
    ]
    with registry.progress() as bar:
        work = bar.track(in_order(_shard, tasks, jobs), len(tasks), description=f"represent {name}")
        reports = list(work)
    rejected = {one: reason for report in reports for one, reason in report.items()}
    if len(rejected) == len(wanted):
        raise CrystalmeshError(f"represent {dataset}: no crystal has a {name}; see its settings")
    with writing_folder(project.features(dataset, name)) as output:
        for task in tasks:
            shutil.copyfile(_path(scratch, task[1]), _path(output, task[1]))
        write_json(
            output / "index.json",
            {
                "representation": name,
                "settings": settings,
                "ids": [one for one in wanted if one not in rejected],
                "rejected": rejected,
                # checksums, so that the index changes whenever the features do
                "shards": {path.name: sha256(path) for path in sorted(output.iterdir())},
            },
        )
    shutil.rmtree(scratch)
    said = f"represent {dataset} {name}: {len(wanted) - len(rejected)} crystals"
    for one, reason in itertools.islice(rejected.items(), 3):
        said += f"; rejected {one} ({reason})"
    more = len(rejected) - 3
    print(said + (f" and {more} more, see index.json" if more > 0 else ""), file=sys.stderr)


@functools.lru_cache(maxsize=1)
def _crystals(folder: Path, identity: str) -> Crystals:  # noqa: ARG001 (a part of the key)
    """A dataset, read once a process and not once a shard."""
    return Crystals.load(folder)


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:04d}.safetensors"


def _shard(task: tuple[Path, int, Path, str, Mapping[str, Any], list[str]]) -> dict[str, str]:
    """Make one shard unless it is there; returns the reasons of the crystals it leaves out."""
    scratch, number, folder, name, settings, ids = task
    path, notes = _path(scratch, number), scratch / f"shard-{number:04d}.json"
    if path.exists() and notes.exists():
        reasons: dict[str, str] = read_json(notes)
        return reasons
    crystals, maker = _crystals(folder, scratch.name), representation(name, settings)
    rows: list[dict[str, NDArray[Any]]] = []
    rejected: dict[str, str] = {}
    for crystal_id in ids:
        try:
            rows.append(maker.build(crystals[crystals.position(crystal_id)]))
        except CrystalmeshError as error:
            rejected[crystal_id] = str(error)
        except Exception as error:  # one crystal never stops the others; the index names it
            rejected[crystal_id] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    tensors: dict[str, NDArray[Any]] = {}
    for key in rows[0] if rows else ():
        tensors[key] = np.concatenate([row[key] for row in rows])
        tensors[f"{key}.pointer"] = np.cumsum([0, *(len(row[key]) for row in rows)])
    write_tensors(path, tensors)
    write_json(notes, rejected)
    return rejected
