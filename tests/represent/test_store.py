"""The feature store: same bytes for any number of processes, resumed work, bad crystals listed."""

from pathlib import Path
from typing import Any

import pytest

from crystalmesh.config.project import Project
from crystalmesh.data.crystals import Crystal
from crystalmesh.errors import CrystalmeshError
from crystalmesh.represent import graph, store
from crystalmesh.represent.store import Features


def folder(project: Project, representation: str = "graph.cgcnn") -> Path:
    return project.features("tiny", representation)


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(path.iterdir())}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD", 7)


@pytest.mark.usefixtures("small_shards")
def test_result_does_not_depend_on_the_number_of_processes(project: Project) -> None:
    """Of the one whose code is compiled; what each process runs is the same for all."""
    name = "mesh.canonical"
    found = []
    for jobs in (1, 2):
        store.build(project, "tiny", name, jobs)
        found.append(contents(folder(project, name)))
    assert found[0] == found[1]
    assert len(found[0]) == 5 + 1


def test_a_bad_crystal_is_listed_and_does_not_stop_the_others(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = graph.Cgcnn.build

    def picky(self: graph.Cgcnn, crystal: Crystal) -> dict[str, Any]:
        if crystal.id == "mp-3":
            raise CrystalmeshError("mp-3: no such luck")
        return build(self, crystal)

    monkeypatch.setattr(graph.Cgcnn, "build", picky)
    store.build(project, "tiny", "graph.cgcnn", 1)
    features = Features(folder(project))
    assert features.rejected == {"mp-3": "mp-3: no such luck"}
    assert len(features) == 29
    assert "mp-3" not in features


def test_what_nobody_thought_of_does_not_stop_the_others_either(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = graph.Cgcnn.build

    def broken(self: graph.Cgcnn, crystal: Crystal) -> dict[str, Any]:
        if crystal.id in ("mp-3", "mp-4"):
            raise ZeroDivisionError("by\nzero")
        return build(self, crystal)

    monkeypatch.setattr(graph.Cgcnn, "build", broken)
    store.build(project, "tiny", "graph.cgcnn", 1)
    features = Features(folder(project))
    assert features.rejected == dict.fromkeys(("mp-3", "mp-4"), "ZeroDivisionError: by zero")
    assert "rejected mp-3 (ZeroDivisionError: by zero)" in capsys.readouterr().err


@pytest.mark.usefixtures("small_shards")
def test_a_killed_stage_goes_on_where_it_was(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.build(project, "tiny", "graph.cgcnn", 1)
    expected = contents(folder(project))
    built: list[str] = []
    build = graph.Cgcnn.build

    def dying(self: graph.Cgcnn, crystal: Crystal) -> dict[str, Any]:
        if crystal.id == "mp-20" and "mp-20" not in built:
            built.append(crystal.id)
            raise KeyboardInterrupt
        built.append(crystal.id)
        return build(self, crystal)

    monkeypatch.setattr(graph.Cgcnn, "build", dying)
    with pytest.raises(KeyboardInterrupt):
        store.build(project, "tiny", "graph.cgcnn", 1)
    assert contents(folder(project)) == expected  # the old output stands whole
    first = built.index("mp-20")
    store.build(project, "tiny", "graph.cgcnn", 1)
    assert contents(folder(project)) == expected
    assert set(built[: first // 7 * 7]).isdisjoint(built[first + 1 :])
