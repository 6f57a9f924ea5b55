"""Snakefile and dvc.yaml must hold the same stages: both are expanded and compared."""

import re
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.workflow.conftest import MINI, run

SETTINGS = ".crystalmesh/settings/"


class Stage(NamedTuple):
    """What decides a stage: paths, and keys of params.yaml."""

    command: str
    inputs: frozenset[str]
    outputs: frozenset[str]
    keys: frozenset[str]


def in_snakefile(root: Path) -> set[Stage]:
    """The jobs of both reports, as a dry run prints them."""
    ended = run(root, "snakemake", "--dry-run", "--forceall", "--printshellcmds", "--cores", "2")
    assert ended.returncode == 0, ended.stdout
    stages = set()
    for block in re.split(r"\n(?:local)?rule ", ended.stdout)[1:]:
        lines = dict(re.findall(r"^(?:    )?(input|output|Shell command): (.*)$", block, re.M))
        if "output" not in lines:
            continue  # a target without a command
        inputs = [path for path in lines.get("input", "").split(", ") if path]
        keys = {path.removeprefix(SETTINGS) for path in inputs if path.startswith(SETTINGS)}
        stages.add(
            Stage(
                lines["Shell command"].removeprefix("crystalmesh "),
                frozenset(path for path in inputs if not path.startswith(SETTINGS)),
                frozenset(lines["output"].split(", ")),
                frozenset(key.removesuffix(".json") for key in keys),
            )
        )
    return stages


def in_dvc(root: Path) -> set[Stage]:
    """The stages of dvc.yaml, with templates and loops over params.yaml resolved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dvc.dependency import ParamsDependency
        from dvc.repo import Repo

        stages = set()
        with Repo(str(root)) as repo:
            for stage in repo.index.stages:
                params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
                files = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
                stages.add(
                    Stage(
                        stage.cmd.partition("crystalmesh ")[2],
                        frozenset(dep.def_path for dep in files),
                        frozenset(out.def_path for out in stage.outs),
                        frozenset(key for dep in params for key in dep.params),
                    )
                )
    return stages


def comparable(stages: Iterable[Stage], units: Iterable[str], root: Path) -> set[Stage]:
    """The same stages with every path as `units`, the outputs of dvc.yaml, or as source files.

    dvc.yaml names a folder where the Snakefile names files in it, or the other way round.
    """
    units = set(units)

    def resolved(paths: Iterable[str]) -> frozenset[str]:
        found: set[str] = set()
        for path in paths:
            above = {unit for unit in units if path == unit or path.startswith(f"{unit}/")}
            beneath = {unit for unit in units if unit.startswith(f"{path}/")}
            sources = {str(p.relative_to(root)) for p in (root / path).rglob("*") if p.is_file()}
            found |= above or beneath or sources or {path}
        return frozenset(found)

    return {s._replace(inputs=resolved(s.inputs), outputs=resolved(s.outputs)) for s in stages}


def disagreements(root: Path) -> list[Stage]:
    """The stages that only one of the two files holds."""
    dvc = in_dvc(root)
    units = {path for stage in dvc for path in stage.outputs}
    snakemake = comparable(in_snakefile(root), units, root)
    return sorted(snakemake ^ comparable(dvc, units, root))


def test_snakefile_and_dvc_yaml_hold_the_same_stages(project: Path) -> None:
    assert disagreements(project) == []
    assert len(in_dvc(project)) > 20


@pytest.mark.parametrize(
    ("file", "old", "new", "stage"),
    [
        ("dvc.yaml", "cmd: ${run} evaluate", "cmd: ${run} assess", "evaluate"),
        ("dvc.yaml", "        - env/requirements.lock\n", "", "tables"),
        ("dvc.yaml", "        - models.${item.model}\n", "", "train"),
        ("dvc.yaml", "        - results/${report}/history/${key}.csv: *result\n", "", "train"),
        ("Snakefile", "        numerics,\n    output:", "    output:", "predictions"),
        ("Snakefile", '        "paper/published.yaml",\n', "", "tables"),
        ("Snakefile", '"results/{group}/cards/', '"other/{group}/{experiment}", \\g<0>', "train"),
        ("Snakefile", '"crystalmesh folds', "\\g<0> --all", "folds"),
    ],
)
def test_a_stage_changed_in_one_file_is_found(
    project: Path, file: str, old: str, new: str, stage: str
) -> None:
    if stage != "folds":  # the mini project has all other stages, and is expanded much sooner
        shutil.copy(MINI, project)
        assert disagreements(project) == []
    text = (project / file).read_text()
    changed = re.sub(re.escape(old), new, text)
    assert changed != text
    (project / file).write_text(changed)
    assert stage in {found.command.split()[0] for found in disagreements(project)}
