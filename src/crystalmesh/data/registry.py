"""Where a raw file comes from: a mirror folder first, then its URL; checked at every read."""

import gzip
import logging
import os
import shutil
import sys
import zlib
from pathlib import Path

import pooch
import requests
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from crystalmesh.config.project import Project
from crystalmesh.config.read import lookup
from crystalmesh.config.schema import Benchmark, Dataset
from crystalmesh.errors import CrystalmeshError
from crystalmesh.files import CHUNK, sha256, verified, write_gzip, write_gzip_json, writing

TIMEOUT = 60  # seconds without a byte before a download is given up


def mirror(project: Project) -> Path:
    """The folder of local copies: CRYSTALMESH_MIRROR, else ../shared/data beside the project."""
    named = os.environ.get("CRYSTALMESH_MIRROR")
    return Path(named) if named else project.root.parent / "shared" / "data"


def fetch(project: Project, name: str, jobs: int) -> None:
    """Bring a dataset or benchmark to data/raw/, checked, or make an embedded dataset there.

    Raises:
        CrystalmeshError: unknown name; found nowhere; wrong checksum; the download failed.
    """
    source = _source(project, name)
    target = project.raw(name)
    if isinstance(source, Dataset) and source.kind != "file":
        _make(target, name, source, jobs)
        return
    local = _local(project, name, source)
    if local is not None:
        _verify(local, _declared(name, source, local), "replace it by an unchanged copy")
        _copy(local, target)
        return
    _declared(name, source, None)
    folder = project.scratch / "downloads"
    downloaded = _download(project, name, source, folder)
    _copy(downloaded, target)
    downloaded.unlink()


def _make(target: Path, name: str, source: Dataset, jobs: int) -> None:
    """Write an embedded dataset."""
    # Imported late: the potential is needed here only.
    from crystalmesh.data import emt
    from crystalmesh.data.emt import forces as emt_forces

    where = f"config: datasets.{name}.generator"
    with progress() as bar:
        task = bar.add_task(f"fetch {name}", total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        try:
            if source.kind == "emt":
                alloys = emt.generate(emt.EmtSettings(**source.generator), jobs, watch)
                write_gzip_json(target, alloys)
            else:
                settings = emt_forces.ForcesSettings(**source.generator)
                write_gzip(target, emt_forces.generate(settings, jobs, watch))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise CrystalmeshError(f"{where}: {place}: {first['msg']}") from error
        except ValueError as error:
            raise CrystalmeshError(f"{where}: {error}") from error


def open_raw(project: Project, name: str) -> Path:
    """The raw file of a dataset or benchmark, its checksum verified now.

    An embedded dataset is made here and has no declared checksum; the journal knows it.

    Raises:
        CrystalmeshError: unknown name; not fetched; changed since it was published.
    """
    source = _source(project, name)
    path = project.raw(name)
    if not path.exists():
        raise CrystalmeshError(f"{path}: missing; run `crystalmesh fetch {name}`")
    if isinstance(source, Dataset) and source.kind != "file":
        try:
            with gzip.open(path) as stream:
                while stream.read(CHUNK):
                    pass
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CrystalmeshError(
                f"{path}: broken gzip ({error}); run `crystalmesh fetch {name}`"
            ) from error
        verified(path)
    else:
        _verify(path, _declared(name, source, path), f"run `crystalmesh fetch {name}`")
    return path


def progress() -> Progress:
    """A bar on stderr, where somebody watches."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not sys.stderr.isatty())


def _source(project: Project, name: str) -> Dataset | Benchmark:
    declared = project.params.datasets.get(name)
    if declared and declared.catalogue:
        raise CrystalmeshError(
            f"config: datasets.{name} is declared only; take out its `catalogue` to use it"
        )
    return lookup(project.params.raw, name, "dataset or benchmark")


def _local(project: Project, name: str, source: Dataset | Benchmark) -> Path | None:
    """The file in the mirror, or in the project; an absolute path stands for itself."""
    file = source.file or project.raw(name).name
    places = (mirror(project) / file, project.root / file)
    return next((place for place in places if place.is_file()), None)


def _declared(name: str, source: Dataset | Benchmark, path: Path | None) -> str:
    if source.sha256 is None:
        hint = f"; that of {path} is {sha256(path)}" if path else ""
        raise CrystalmeshError(f"config: datasets.{name}.sha256: missing{hint}")
    return source.sha256


def _verify(path: Path, expected: str, remedy: str) -> None:
    found = sha256(path)
    if found != expected:
        raise CrystalmeshError(
            f"{path}: wrong checksum: expected sha256 {expected}, found {found}; {remedy}"
        )


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, writing(target) as writer:
        shutil.copyfileobj(reader, writer, CHUNK)


def _download(project: Project, name: str, source: Dataset | Benchmark, folder: Path) -> Path:
    place = mirror(project) / (source.file or project.raw(name).name)
    remedy = f"put it, with sha256 {source.sha256}, at {place}"
    if source.url is None:
        raise CrystalmeshError(f"{name}: no file {place} and no URL to load it from; {remedy}")
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        found = pooch.retrieve(
            source.url,
            known_hash=f"sha256:{source.sha256}",
            fname=project.raw(name).name,
            path=folder,
            downloader=_http,
        )
    except requests.RequestException as error:
        said = " ".join(str(error).split())
        raise CrystalmeshError(
            f"{name}: no file {place}, and {source.url} cannot be loaded ({said}); {remedy}"
        ) from error
    except ValueError as error:
        # Pooch's word for a wrong checksum; it has already deleted what it loaded.
        said = " ".join(str(error).split())
        raise CrystalmeshError(
            f"{name}: {source.url} has another file than declared: expected sha256 "
            f"{source.sha256} ({said}); {remedy}"
        ) from error
    return Path(found)


def _http(url: str, output_file: str, _: object) -> None:
    """Pooch's own downloader leaves its connection open after a failure."""
    # The file as it is stored: a server may pack it, and requests would unpack it again.
    headers = {"Accept-Encoding": "identity"}
    with (
        requests.get(url, stream=True, timeout=TIMEOUT, headers=headers) as response,
        Path(output_file).open("wb") as stream,
        progress() as bar,
    ):
        response.raise_for_status()
        task = bar.add_task(url, total=float(response.headers.get("Content-Length", 0)) or None)
        for block in response.iter_content(CHUNK):
            stream.write(block)
            bar.advance(task, len(block))
