"""What both workflow engines are told of a study: the stages of its report, and its dvc.yaml.

The Snakefile (rules/) and the dvc.yaml of each study hold the same stages; a test keeps them equal.
What a stage of a report reads is said once, here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from crystalmesh.config.project import Project
from crystalmesh.config.schema import Run

HEAD = "# Made by `crystalmesh plan` from study.yaml: change that, and run it again.\n"
# How DVC is to treat outputs: a stage replaces them in one step when it has succeeded. Without
# `persist` DVC would delete them first. Results are in Git, and not in DVC's cache.
KEPT = "{persist: true, cache: false}"
COMMAND = 'env PATH="$PATH:.venv/bin" crystalmesh'  # on PATH, or in the environment of make
SUFFIXES = {
    "checkpoints": ".safetensors", "history": ".csv", "cards": ".json", "predictions": "",
    "metrics": ".json",
}  # fmt: skip
CRYSTALS = ("crystals.safetensors", "index.json", "rejected.csv")


@dataclass(frozen=True)
class Stage:
    """A stage of a study's report.

    Attributes:
        files: paths that it reads.
        runs: kinds of results of every shown run that it reads: `predictions`, ...
        outputs: paths below results/<study>/.
        own: it reads the results of the study's own runs alone.
    """

    files: list[str]
    runs: list[str]
    outputs: list[str]
    own: bool = False


def studies(project: Project, study: str) -> list[str]:
    """The studies whose runs a study shows, its own first if it has any."""
    return list(dict.fromkeys(run.study for run in project.params.shown(study)))


def inputs(project: Project, study: str, stage: Stage) -> list[str]:
    """Every path that a stage reads."""
    read = [
        _of_run(run, kind)
        for kind, name in _read(project, study, stage)
        for run in project.params.study(name).runs.values()
    ]
    return [*stage.files, *read]


def _read(project: Project, study: str, stage: Stage) -> list[tuple[str, str]]:
    """Kinds of results that a stage reads, each with a study: there it reads that of every run."""
    shown = studies(project, study)
    names = [name for name in shown if name == study] if stage.own else shown
    return [(kind, name) for kind in stage.runs for name in names]


def _of_run(run: Run, kind: str) -> str:
    return f"results/{run.study}/{kind}/{run.name}{SUFFIXES[kind]}"


def report(project: Project, study: str) -> dict[str, Stage]:
    """The stages of a study's report by their command; only a ledger where it has no report."""
    params, own = project.params, project.params.study(study)
    shown = own.report
    if shown is None:
        return {"ledger": _ledger(project, study, [])}
    place = f"results/{study}"
    crystals = [one for name in params.datasets_of(study) for one in _crystals(name)]
    data = [*crystals, *_splits(project, study)]
    read = [*data, *_features(project, study, shown.features)]
    all_shown = dict.fromkeys([study, *studies(project, study)])
    stages: dict[str, Stage] = {}
    if shown.stability:
        stages["stability"] = Stage(_crystals(own.dataset), [], ["stability.json"])
    if shown.embeddings:
        stages["embeddings"] = _embeddings(project, study, shown.embeddings, data)
    extra = [f"{place}/{one.outputs[0]}" for one in stages.values()]
    scored = [project.relative(project.benchmark(name)) for name in params.benchmarks_of(study)]
    stages["tables"] = Stage(
        [
            *read, *scored, "benchmarks/models.json", "env/requirements.lock", "env/torch.txt",
            *_before(project, study), *_own(project, study, "tables.py"),
            *(one for name in all_shown for one in _own(project, name, "published.yaml")),
        ],
        ["predictions", "metrics", "cards", "history"],
        ["tables"],
    )  # fmt: skip
    stages["figures"] = Stage(
        [
            *read, "benchmarks/models.json", "benchmarks/representations.json", *extra,
            *_before(project, study), *_own(project, study, "figures.py"),
        ],
        ["predictions", "history", "cards", "metrics"],
        ["figures"],
    )  # fmt: skip
    frame = sorted(project.relative(one) for one in (project.root / "paper").glob("*"))
    text = [f"{place}/tables", f"{place}/figures", *frame, *_own(project, study, "chapter.typ")]
    stages["document"] = Stage(text, [], ["paper.pdf"])
    stages["metrics"] = Stage(
        [*data, *_before(project, study)],
        ["metrics", "cards", "predictions"],
        ["metrics.json"],
        own=True,
    )
    made = [*extra, f"{place}/tables", f"{place}/figures", f"{place}/paper.pdf"]
    stages["ledger"] = _ledger(project, study, made)
    stages["crate"] = Stage(
        [f"{place}/ledger.json", f"{place}/metrics.json", "CITATION.cff"],
        ["cards"],
        ["ro-crate-metadata.json", "README.md"],
        own=True,
    )
    if shown.site:
        networks = [_of_run(params.run(one), "checkpoints") for one in shown.site.networks]
        stages["site"] = Stage(
            [f"{place}/tables", *networks, *data],
            ["predictions", "history", "metrics", "cards"],
            ["site"],
        )
    return stages


def _embeddings(project: Project, study: str, names: Sequence[str], data: list[str]) -> Stage:
    """It reads the networks of the runs, not their predictions."""
    runs = [run for run in project.params.shown(study) if run.name in names]
    files = [_of_run(run, "checkpoints") for run in runs]
    files += _features(project, study, tuple({run.representation: None for run in runs}))
    return Stage([*files, *data], [], ["embeddings.json"])


def _ledger(project: Project, study: str, made: list[str]) -> Stage:
    """Its own runs alone, and the data that they are made from."""
    own = project.params.study(study)
    files = []
    if study == project.serving:
        files += [project.relative(project.calibration(*one)) for one in project.served()]
    for name in {run.dataset: None for run in own.runs.values()}:
        files += [*map(project.relative, project.raws(name)), *_crystals(name)]
    files += _splits(project, study)
    used = {(run.dataset, run.representation): None for run in own.runs.values()}
    files += [project.relative(project.features(*one)) for one in used]
    return Stage([*made, *files], list(SUFFIXES), ["ledger.json"], own=True)


def _before(project: Project, study: str) -> list[str]:
    """Histories, cards and splits of the runs that a shown run starts from or is taught by."""
    found: dict[str, None] = {}
    for run in project.params.shown(study):
        while run.before:
            run = project.params.run(run.before)
            found |= {_of_run(run, kind): None for kind in ("history", "cards")}
            found[project.relative(project.split(run.dataset, run.split))] = None
    return list(found)


def _own(project: Project, study: str, *names: str) -> list[str]:
    """The files of a study's folder that are there."""
    folder = project.root / "studies" / study
    return [project.relative(folder / name) for name in names if (folder / name).exists()]


def _crystals(dataset: str) -> list[str]:
    return [f"data/crystals/{dataset}/{name}" for name in CRYSTALS]


def _splits(project: Project, study: str) -> list[str]:
    """The splits of the runs that a study shows."""
    used = {(run.dataset, run.split): None for run in project.params.shown(study)}
    return [project.relative(project.split(*one)) for one in used]


def _features(project: Project, study: str, names: tuple[str, ...]) -> list[str]:
    dataset = project.params.study(study).dataset
    return [project.relative(project.features(dataset, name)) for name in names]


def dvc(project: Project, study: str) -> str:
    """The content of studies/<study>/dvc.yaml."""
    models = sorted((project.root / "config" / "models").glob("*.yaml"))
    named = "".join(f"- ../../{project.relative(one)}\n" for one in models)
    text = f"""{HEAD}params:  # `dvc params diff` names what was changed in them
- plan.json
{named}vars:
- plan.json
- command: {COMMAND}
stages:
  plan:  # stops here where the plan is older than its settings
    wdir: ../..
    cmd: ${{command}} plan --check
    deps: [config, studies/{study}/study.yaml, studies/{study}/plan.json]
"""
    runs = project.params.study(study).runs
    if runs:
        text += _runs(study)
    if study == project.serving:
        text += _calibrate()
    for name, stage in report(project, study).items():
        text += _stage(project, study, name, stage)
    if runs:
        title = f"{study}: validation MAE (or accuracy %)"
        drawn = f'{{x: epoch, y: val_metric, template: linear, title: "{title}"}}'
        text += f"plots:\n- ../../results/{study}/history: {drawn}\n"
    return text


def _runs(study: str) -> str:
    """The stages of every run: train, predictions, evaluate.

    Only the first has the digest: the checkpoint tells its settings, and so is another file.
    """
    read = '["${item.crystals}", "${item.split}", "${item.features}", %s]'
    place, checkpoint = f"results/{study}", f"results/{study}/checkpoints/${{key}}.safetensors"
    return f"""  train:
    foreach: ${{runs}}
    do:
      wdir: ../..
      cmd: ${{command}} train {study}/${{key}}
      deps: {read % '"${item.start}"'}
      params: [{{studies/{study}/plan.json: ["runs.${{key}}.digest"]}}]
      outs:
      - {checkpoint}: {KEPT}
      - {place}/history/${{key}}.csv: {KEPT}
      - {place}/cards/${{key}}.json: {KEPT}
  predictions:
    foreach: ${{runs}}
    do:
      wdir: ../..
      cmd: ${{command}} predictions {study}/${{key}}
      deps: {read % f'"{checkpoint}"'}
      outs:
      - {place}/predictions/${{key}}: {KEPT}
  evaluate:
    foreach: ${{runs}}
    do:
      wdir: ../..
      cmd: ${{command}} evaluate {study}/${{key}}
      deps: ["{place}/predictions/${{key}}", "{checkpoint}"]
      metrics:
      - {place}/metrics/${{key}}.json: {KEPT}
"""


def _calibrate() -> str:
    return f"""  calibrate:
    foreach: ${{served}}
    do:
      wdir: ../..
      cmd: ${{command}} calibrate ${{item.run}} ${{item.target}}
      deps: ["${{item.crystals}}", "${{item.split}}", "${{item.features}}", "${{item.checkpoint}}"]
      outs:
      - ${{item.calibration}}: {KEPT}
"""


def _stage(project: Project, study: str, name: str, stage: Stage) -> str:
    deps = "".join(f"    - {path}\n" for path in _deps(project, study, stage))
    outs = "".join(f"    - results/{study}/{one}: {KEPT}\n" for one in stage.outputs)
    settings = "stability" if name == "stability" else "report"
    return f"""  {name}:
    wdir: ../..
    cmd: ${{command}} {name} {study}
    deps:
{deps}    params: [{{studies/{study}/plan.json: [{settings}]}}]
    outs:
{outs}"""


def _deps(project: Project, study: str, stage: Stage) -> list[str]:
    """What DVC is told that a stage reads: a folder in place of the files that it has in it."""
    found: dict[str, None] = {}
    for path in stage.files:
        parts = path.split("/")
        crystals = parts[:2] == ["data", "crystals"]
        found["/".join(parts[:3]) if crystals else path] = None
    found |= {f"results/{name}/{kind}": None for kind, name in _read(project, study, stage)}
    return list(found)
