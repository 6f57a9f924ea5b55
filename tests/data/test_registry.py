"""Where raw files come from, and that a changed one is never read."""

import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crystalmesh import files
from crystalmesh.config.project import Project, find
from crystalmesh.data import emt, registry, validation
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from tests.data.conftest import Tree, dataframe, many, packed

Declare = Callable[..., Project]
RAW = packed(dataframe(many(3)))
ZEROS = "0" * 64


def dataset(**values: Any) -> Tree:
    return {"title": "t", "source": "s", "sha256": hashlib.sha256(RAW).hexdigest()} | values


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on localhost: its address, and the folder that it serves."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(
            target=functools.partial(server.serve_forever, poll_interval=0.02)
        )
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()
        thread.join()


def test_the_mirror_comes_first(declare: Declare) -> None:
    tiny = dataset(file="tiny.json.gz", url="http://127.0.0.1:1/never")
    project = declare(RAW, datasets={"tiny": tiny})
    registry.fetch(project, "tiny", 1)
    assert registry.open_raw(project, "tiny") == project.raw("tiny")
    assert project.raw("tiny").read_bytes() == RAW


def test_the_default_mirror_is_beside_the_project(
    declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = declare(RAW)
    named = registry.mirror(project)
    monkeypatch.delenv("CRYSTALMESH_MIRROR")
    assert registry.mirror(project) == project.root.parent / "shared" / "data"
    registry.mirror(project).parent.mkdir()
    named.rename(registry.mirror(project))
    registry.fetch(project, "tiny", 1)
    assert project.raw("tiny").read_bytes() == RAW


def test_a_users_file_by_absolute_path_or_in_the_project(declare: Declare, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_bytes(gzip.decompress(RAW))
    checksum = hashlib.sha256(own.read_bytes()).hexdigest()
    there = dataset(file=str(own), sha256=checksum)
    here = dataset(file="own.json", sha256=checksum)
    project = declare(RAW, datasets={"there": there, "here": here})
    (project.root / "own.json").write_bytes(own.read_bytes())
    found = []
    for name in ("tiny", "there", "here"):
        registry.fetch(project, name, 1)
        validation.build(project, name, 1)
        found.append(Crystals.load(project.crystals(name)))
    assert found[0].ids == found[1].ids == found[2].ids == ["mp-1", "mp-2", "mp-3"]


def test_what_comes_with_the_repository_is_declared_and_whole() -> None:
    project = find(Path(__file__))
    declared = {one.file: one.sha256 for one in project.params.raw.values() if one.file}
    folder = project.root / "data" / "source"
    table = (folder / "README.md").read_text()
    found = [path for path in folder.rglob("*.*") if path.name != "README.md"]
    for path in found:
        assert files.sha256(path) == declared[project.relative(path)], path
        assert f"| `{path.relative_to(folder)}` |" in table
    assert {project.relative(path) for path in found} == set(declared)


def test_a_download_over_http(declare: Declare, served: tuple[str, Path]) -> None:
    """A file of the shape of mp_all_20181018, as its own server would give it."""
    address, folder = served
    (folder / "13309250").write_bytes(RAW)
    old = dataset(file="mp/mp_all_20181018.json.gz", url=f"{address}/13309250")
    project = declare(RAW, datasets={"mp_all_20181018": old})
    registry.fetch(project, "mp_all_20181018", 1)
    validation.build(project, "mp_all_20181018", 1)
    assert len(Crystals.load(project.crystals("mp_all_20181018"))) == 3
    assert not list((project.scratch / "downloads").iterdir())


def test_a_download_of_something_else_is_refused(
    declare: Declare, served: tuple[str, Path]
) -> None:
    address, folder = served
    (folder / "file").write_bytes(RAW + b"!")
    project = declare(RAW, datasets={"far": dataset(url=f"{address}/file")})
    with pytest.raises(CrystalmeshError, match="another file than declared: expected") as caught:
        registry.fetch(project, "far", 1)
    message = str(caught.value)
    assert hashlib.sha256(RAW + b"!").hexdigest() in message
    assert "\n" not in message
    assert not project.raw("far").exists()


@pytest.mark.parametrize("url", [None, "missing", "http://127.0.0.1:1/nobody"])
def test_nowhere_to_be_found(declare: Declare, served: tuple[str, Path], url: str | None) -> None:
    if url == "missing":
        url = f"{served[0]}/missing"
    project = declare(RAW, datasets={"far": dataset(file="some/far.json.gz", url=url)})
    with pytest.raises(CrystalmeshError) as caught:
        registry.fetch(project, "far", 1)
    message = str(caught.value)
    place = registry.mirror(project) / "some" / "far.json.gz"
    assert message.startswith(f"far: no file {place}")
    assert f"put it, with sha256 {hashlib.sha256(RAW).hexdigest()}, at {place}" in message
    assert "\n" not in message
    assert not project.raw("far").exists()


def test_a_changed_mirror_is_refused(declare: Declare) -> None:
    project = declare(RAW, datasets={"tiny": dataset(file="tiny.json.gz", sha256=ZEROS)})
    with pytest.raises(CrystalmeshError) as caught:
        registry.fetch(project, "tiny", 1)
    found = hashlib.sha256(RAW).hexdigest()
    path = registry.mirror(project) / "tiny.json.gz"
    assert str(caught.value) == (
        f"{path}: wrong checksum: expected sha256 {ZEROS}, found {found}; "
        "replace it by an unchanged copy"
    )
    assert not project.raw("tiny").exists()


def test_a_raw_file_is_verified_at_every_read(declare: Declare) -> None:
    project = declare(RAW)
    with pytest.raises(CrystalmeshError, match="missing; run `crystalmesh fetch tiny`"):
        registry.open_raw(project, "tiny")
    registry.fetch(project, "tiny", 1)
    validation.build(project, "tiny", 1)
    before = (project.crystals("tiny") / "index.json").read_bytes()
    changed = packed(dataframe(many(2)))
    project.raw("tiny").write_bytes(changed)
    for _ in range(2):
        with pytest.raises(CrystalmeshError, match="wrong checksum") as caught:
            validation.build(project, "tiny", 1)
        for part in (RAW, changed):
            assert hashlib.sha256(part).hexdigest() in str(caught.value)
    assert (project.crystals("tiny") / "index.json").read_bytes() == before


def test_a_dataset_needs_a_checksum(declare: Declare) -> None:
    project = declare(RAW, datasets={"tiny": dataset(file="tiny.json.gz", sha256=None)})
    with pytest.raises(CrystalmeshError, match=hashlib.sha256(RAW).hexdigest()):
        registry.fetch(project, "tiny", 1)


def test_unknown_names_are_explained(declare: Declare) -> None:
    project = declare(
        RAW, datasets={"old": dataset(url="http://127.0.0.1:1/old") | {"catalogue": True}}
    )
    with pytest.raises(CrystalmeshError, match="no dataset or benchmark 'tinny'; did you mean"):
        registry.fetch(project, "tinny", 1)
    with pytest.raises(CrystalmeshError, match=r"datasets\.old is declared only; take out"):
        registry.fetch(project, "old", 1)


def test_the_embedded_dataset_is_made(declare: Declare, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def generate(settings: emt.EmtSettings, jobs: int, progress: Callable[..., None]) -> Tree:
        progress(1, 2)
        made.append((settings, jobs))
        return dataframe(many(2))

    monkeypatch.setattr(emt, "generate", generate)
    entry = {"title": "t", "source": "s", "kind": "emt"}
    project = declare(RAW, datasets={"emt": entry})
    registry.fetch(project, "emt", 3)
    assert made == [(emt.EmtSettings(), 3)]
    path = registry.open_raw(project, "emt")
    first = path.read_bytes()
    registry.fetch(project, "emt", 1)
    assert path.read_bytes() == first
    path.write_bytes(first[:-10])
    with pytest.raises(CrystalmeshError, match=r"broken gzip .* run `crystalmesh fetch emt`"):
        registry.open_raw(project, "emt")
    bad = declare(RAW, datasets={"emt": entry | {"generator": {"no_such": 1}}})
    with pytest.raises(CrystalmeshError, match=r"config: datasets.emt.generator: no_such"):
        registry.fetch(bad, "emt", 1)


def test_the_declared_datasets_are_complete() -> None:
    """Every real dataset of the project can be checked, and the original one downloaded."""
    params = find(Path(__file__)).params
    for source in params.datasets.values():
        assert source.kind != "file" or (source.sha256 and (source.file or source.url))
    old = params.datasets["mp_all_20181018"]
    assert old.url == "https://ndownloader.figshare.com/files/13309250"
