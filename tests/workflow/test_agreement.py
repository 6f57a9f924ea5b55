"""Snakefile and rules/ hold the stages of all dvc.yaml files: both are expanded and compared."""

import re
import shutil
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from crystalmesh.config import plan
from tests.workflow.conftest import CHECKS, copy_project, mini, run

SETTINGS = ".crystalmesh/plan/"


class Stage(NamedTuple):
    """What decides a stage: paths, and digests of the plans."""

    command: str
    inputs: frozenset[str]
    outputs: frozenset[str]
    keys: frozenset[str]


@cache
def in_snakefile(root: Path, *more: str) -> set[Stage]:
    """The jobs of all studies, and of `more` files, as a dry run prints them."""
    options = ("--dry-run", "--forceall", "--printshellcmds", "--cores", "2")
    ended = run(root, "snakemake", *options, "all", *more)
    assert ended.returncode == 0, ended.stdout
    stages = set()
    for block in re.split(r"\n(?:local)?rule ", ended.stdout)[1:]:
        lines = dict(re.findall(r"^(?:    )?(input|output|Shell command): (.*)$", block, re.M))
        if "output" not in lines or "dvc commit" in lines["Shell command"]:
            continue  # a target without a command; what DVC is told
        inputs = [path for path in lines.get("input", "").split(", ") if path]
        keys = {path.removeprefix(SETTINGS) for path in inputs if path.startswith(SETTINGS)}
        stages.add(
            Stage(
                lines["Shell command"].removeprefix("crystalmesh "),
                frozenset(path for path in inputs if not path.startswith(SETTINGS)),
                frozenset(lines["output"].split(", ")),
                frozenset(keys),
            )
        )
    return stages


@cache
def in_dvc(root: Path) -> set[Stage]:
    """The stages of all dvc.yaml files, with templates and loops over the plans resolved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dvc.dependency import ParamsDependency
        from dvc.repo import Repo

        stages = set()
        with Repo(str(root)) as repo:
            for stage in repo.index.stages:
                if stage.name in CHECKS:
                    continue
                params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
                files = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
                stages.add(
                    Stage(
                        stage.cmd.partition("crystalmesh ")[2],
                        frozenset(dep.def_path for dep in files),
                        frozenset(out.def_path for out in stage.outs),
                        frozenset(
                            digest(dep.def_path, key) for dep in params for key in dep.params
                        ),
                    )
                )
    return stages


def digest(file: str, key: str) -> str:
    """A digest of a plan, as Snakemake's file of it is called."""
    folder = Path(file).parent.name
    if folder == "config":
        return key
    return f"{folder}.{key.removeprefix('runs.').removesuffix('.digest')}"


def comparable(stages: Iterable[Stage], units: Iterable[str], root: Path) -> set[Stage]:
    """The same stages with every path as `units`, the outputs of DVC's stages, or as source files.

    DVC's stages name a folder where Snakemake's name files in it, or the other way round.
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


def disagreements(root: Path, other: Path | None = None) -> list[Stage]:
    """The stages that only one of the engines has; Snakemake reads `other`, if given."""
    dvc = in_dvc(root)
    units = {path for stage in dvc for path in stage.outputs}
    data = sorted(path for path in units if path.startswith(("data/", "results/benchmarks/")))
    more = [path if path.endswith((".json", ".gz")) else f"{path}/index.json" for path in data]
    snakemake = comparable(in_snakefile(other or root, *more), units, root)
    return sorted(snakemake ^ comparable(dvc, units, root))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mini(tmp_path_factory.mktemp("agreement") / "project")


def test_both_engines_hold_the_same_stages(tmp_path: Path, small: Path) -> None:
    assert disagreements(small) == []
    project = copy_project(tmp_path / "project")
    assert plan.write(project, check=True) == []
    assert disagreements(project) == []
    assert len(in_dvc(project)) > 500


@pytest.mark.parametrize(
    ("file", "old", "new", "stage"),
    [
        ("studies/demo/dvc.yaml", "cmd: ${command} evaluate", "cmd: ${command} assess", "evaluate"),
        ("studies/front/dvc.yaml", "    - env/requirements.lock\n", "", "tables"),
        ("studies/demo/dvc.yaml", ', "${item.start}"', "", "train"),
        ("studies/demo/dvc.yaml", "- results/demo/history/${key}.csv: {persist", "#", "train"),
        ("data/dvc.yaml", '"${item.split}"', "", "represent"),
        ("rules/data.smk", '"crystalmesh split', "\\g<0> --all", "split"),
        (
            "rules/run.smk",
            '{run}.safetensors",\n            read,\n',
            '{run}.safetensors",\n',
            "predictions",
        ),
        ("rules/report.smk", 'for_report("tables"),', "", "tables"),
        ("rules/run.smk", '            settings("{study}.{run}"),\n', "", "train"),
        ("rules/run.smk", '{wildcards.target}"', '{wildcards.target} --all"', "calibrate"),
    ],
)
def test_a_stage_changed_in_one_file_is_found(
    small: Path, tmp_path: Path, file: str, old: str, new: str, stage: str
) -> None:
    root = tmp_path / "project"
    shutil.copytree(small, root)
    text = (root / file).read_text()
    changed = re.sub(re.escape(old), new, text)
    assert changed != text
    (root / file).write_text(changed)
    # the other engine reads what it has read before
    both = (small, root) if file.startswith("rules/") else (root, small)
    assert stage in {found.command.split()[0] for found in disagreements(*both)}
