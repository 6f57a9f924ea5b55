"""The command `crystalmesh`: one subcommand a stage; both workflow engines call only these.

Each stage imports what it needs itself, so that the environment of the numerics tier is set
before torch or numpy is loaded, and so that `crystalmesh --help` is quick.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crystalmesh import __version__, numerics
from crystalmesh.errors import CrystalmeshError

if TYPE_CHECKING:
    from crystalmesh.config import Project

app = typer.Typer(
    help="Crystals as meshes: the stages of the reports. Settings are in params.yaml.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="a dataset or a benchmark of params.yaml")]
Dataset = Annotated[str, typer.Argument(help="a dataset of params.yaml")]
Key = Annotated[str, typer.Argument(help="a key of `splits` (split) or `features` (represent)")]
Benchmark = Annotated[str, typer.Argument(help="a benchmark of params.yaml")]
Group = Annotated[str, typer.Argument(help="a report, or the group `full`")]
Experiment = Annotated[str, typer.Argument(help="an experiment of the group")]
Report = Annotated[str, typer.Argument(help="a report of params.yaml")]


def _start(group: str | None = None, verifying: bool = False) -> "Project":
    """The project around the current folder, with the numerics of the group's report.

    Verification finds for itself what was changed, and says so of all files at once.
    """
    numerics.prepare("native")  # numpy reads its part while params.yaml is being checked
    from crystalmesh import config

    project = config.find()
    if group is not None:
        numerics.prepare(project.params.numerics(group))
    from crystalmesh import integrity, provenance

    if verifying:
        return project
    if not os.environ.get(provenance.UNLOCKED):
        provenance.check_lock(project.root)
    integrity.watch(project.root)
    project.restamp()
    return project


def _jobs() -> int:
    """Processes a stage may use: CRYSTALMESH_JOBS, or every CPU this process may run on."""
    value = os.environ.get("CRYSTALMESH_JOBS", str(len(os.sched_getaffinity(0))))
    if not value.isdecimal() or int(value) < 1:
        raise CrystalmeshError(f"CRYSTALMESH_JOBS={value}: set it to a whole number of 1 or more")
    return int(value)


@app.command()
def fetch(name: Name) -> None:
    """Get or make a raw file and verify its checksum."""
    project = _start()
    from crystalmesh.data import registry

    registry.fetch(project, name, _jobs())


@app.command()
def crystals(dataset: Dataset) -> None:
    """Validate a raw file and store its crystals in canonical order."""
    project = _start()
    from crystalmesh.data import validation

    validation.build(project, dataset, _jobs())


@app.command()
def split(key: Key) -> None:
    """Draw training, validation and test crystals."""
    project = _start()
    from crystalmesh.data import splits

    splits.build(project, key)


@app.command()
def folds(name: Benchmark) -> None:
    """Read the official folds of a benchmark as a split."""
    project = _start()
    from crystalmesh.data import splits

    splits.build_folds(project, name)


@app.command()
def represent(key: Key) -> None:
    """Turn crystals into tensors."""
    project = _start()
    from crystalmesh.represent import store

    store.build(project, key, _jobs())


@app.command()
def train(
    group: Group,
    experiment: Experiment,
    devices: Annotated[
        int,
        typer.Option(min=1, envvar="CRYSTALMESH_DEVICES", help="Of a node; they share batches."),
    ] = 1,
    nodes: Annotated[int, typer.Option(min=1, envvar="CRYSTALMESH_NODES")] = 1,
    accelerator: Annotated[
        str, typer.Option(envvar="CRYSTALMESH_ACCELERATOR", help="Lightning's: cpu, gpu, ...")
    ] = "auto",
    strategy: Annotated[
        str, typer.Option(envvar="CRYSTALMESH_STRATEGY", help="Lightning's, of several devices.")
    ] = "auto",
) -> None:
    """Train a network; an interrupted training continues where it was."""
    project = _start(group)
    from crystalmesh.learn import train

    machine = train.Devices(accelerator, devices, nodes, strategy)
    train.train(project, group, experiment, machine)


@app.command()
def predictions(group: Group, experiment: Experiment) -> None:
    """Predict the test crystals of an experiment."""
    project = _start(group)
    from crystalmesh.learn import predict

    predict.predict(project, group, experiment)


@app.command()
def calibrate(group: Group, experiment: Experiment) -> None:
    """Gather what predictions of an experiment's networks for other crystals need."""
    project = _start(group)
    from crystalmesh.learn import predictors

    predictors.calibrate(project, group, experiment)


@app.command()
def evaluate(group: Group, experiment: Experiment) -> None:
    """Compute an experiment's metrics from its predictions."""
    project = _start(group)
    from crystalmesh.learn import evaluate

    evaluate.evaluate(project, group, experiment)


@app.command()
def published(report: Report, name: Benchmark) -> None:
    """Compute the published algorithms' errors on our crystals."""
    project = _start(report)
    from crystalmesh.report import published

    published.evaluate(project, report, name)


@app.command()
def stability(report: Report) -> None:
    """Measure how often meshes change when atoms move a little."""
    project = _start(report)
    from crystalmesh.report import stability

    stability.build(project, report, _jobs())


@app.command()
def maps(report: Report) -> None:
    """Project the crystal vectors of a report's networks."""
    project = _start(report)
    from crystalmesh.report import maps

    maps.build(project, report)


@app.command()
def tables(report: Report) -> None:
    """Make the tables of a report."""
    project = _start(report)
    from crystalmesh.report import tables

    tables.build(project, report)


@app.command()
def figures(report: Report) -> None:
    """Draw the figures of a report."""
    project = _start(report)
    from crystalmesh.report import figures

    figures.build(project, report)


@app.command()
def metrics(report: Report) -> None:
    """List every experiment of a report as one record."""
    project = _start(report)
    from crystalmesh.report import metrics

    metrics.build(project, report)


@app.command()
def site(report: Report) -> None:
    """Make the pages that show a report's results and meshes."""
    project = _start(report)
    from crystalmesh.report import site

    site.build(project, report)


@app.command()
def paper(report: Report) -> None:
    """Typeset a report."""
    project = _start(report)
    from crystalmesh.report import paper

    paper.build(project, report)


@app.command()
def ledger(report: Report) -> None:
    """Record the checksum of every output of a report, and the numerics it was made with."""
    project = _start(report)
    from crystalmesh.report import ledger

    ledger.build(project, report)


@app.command()
def crate(report: Report) -> None:
    """Describe a report's results for machines (RO-Crate) and people (README.md)."""
    project = _start(report)
    from crystalmesh.report import crate

    crate.build(project, report)


@app.command()
def verify(
    report: Annotated[
        str | None, typer.Argument(help="a report of params.yaml; without one, all published")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Make only these outputs again.")
    ] = None,
    from_checkpoints: Annotated[
        bool, typer.Option("--from-checkpoints", help="Train nothing: predict from checkpoints.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Make nothing: hold the committed files to the ledger.")
    ] = False,
    cores: Annotated[
        int | None, typer.Option(min=1, help="Stages at once; default: all CPUs.")
    ] = None,
) -> None:
    """Make a report again in a clean folder and compare it with its ledger; exit code 1: differs.

    Prints every output with its stage and whether it is the same, by how much it differs, or is
    missing, and names the first stage at which a difference came in.
    """
    if quick and (only or from_checkpoints):
        raise CrystalmeshError("--quick makes nothing: leave out --only and --from-checkpoints")
    project = _start(report, verifying=True)
    from crystalmesh.report import verify

    reports = verify.with_ledger(project) if report is None else [report]
    if not reports:
        raise CrystalmeshError("results/: no report has a ledger; make one first")
    same = [
        verify.verify(
            project,
            one,
            only=only,
            from_checkpoints=from_checkpoints,
            committed_only=quick,
            cores=cores or _jobs(),
        )
        for one in reports
    ]
    if not all(same):
        raise typer.Exit(1)


@app.command()
def predict(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="CIF, POSCAR, extended XYZ, pymatgen or MP JSON; folders, patterns, - for stdin",
        ),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="A task of params.yaml; may be repeated. Default: all."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="A network of the group `predictors`; default: of the least test error."),
    ] = "best",
    out: Annotated[
        Path | None, typer.Option(help="A .csv or .json file; default: a CSV table on stdout.")
    ] = None,
) -> None:
    """Predict properties of crystals in files of one's own.

    Exit code 0: everything was predicted; 1: some files were skipped, each named on stderr; 2:
    nothing was predicted.
    """
    numerics.prepare("portable")
    _check_output("--out", out, ".csv", ".json")
    from crystalmesh import config
    from crystalmesh.learn import predictors

    project = config.locate()
    if model != "best" and task is None:
        task = [project.params.experiment(config.PREDICTORS, model).task]
    networks = [
        predictors.load(project, one, model)
        for one in dict.fromkeys(task or predictors.tasks(project))
    ]
    skipped, predicted = predictors.table(project, files, networks, _jobs(), out)
    if skipped:
        raise typer.Exit(1 if predicted else 2)


@app.command()
def show(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="a crystal: see `crystalmesh predict --help`")
    ],
    out: Annotated[Path, typer.Option(help="The page, an .html file.")] = Path("mesh.html"),
    png: Annotated[Path | None, typer.Option(help="A picture as well, a .png file.")] = None,
    task: Annotated[
        str,
        typer.Option(help="Whose mesh networks tell which faces decide; `none`: no network."),
    ] = "space_group",
) -> None:
    """Draw a crystal's two meshes: one page to turn and zoom them, which needs nothing else."""
    numerics.prepare("portable")
    _check_output("--out", out, ".html")
    _check_output("--png", png, ".png")
    from crystalmesh import config
    from crystalmesh.report import viewer

    notes = viewer.show(config.locate(), file, out, png, task)
    if notes:
        typer.echo(notes, err=True)
    for path in (out, png):
        if path is not None:
            typer.echo(path)


def _check_output(option: str, path: Path | None, *suffixes: str) -> None:
    """Refuse a name of another kind, and a folder that is not there: a slip of the hand."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise CrystalmeshError(f"{option} {path}: give a name that ends in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise CrystalmeshError(f"{option} {path}: there is no folder {path.parent}; make it first")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"crystalmesh {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options that come before the stage."""


def _run() -> tuple[int, str]:
    """Run the command line; its exit code, and the line for stderr where it failed."""
    try:
        # typer returns the code of an Exit, 130 for Ctrl-C among them
        code: int | None = app(
            sys.argv[1:] or ["--help"], prog_name="crystalmesh", standalone_mode=False
        )
    except CrystalmeshError as error:
        return 2, str(error)
    except OSError as error:  # a full disk, no permission, no network
        where = f"{error.filename}: " if error.filename else ""
        return 2, f"{where}{error.strerror or error}; mend that and run again"
    except KeyboardInterrupt:
        code = 130
    except SystemExit as exit_:
        # lightning turns Ctrl-C into SystemExit(1), raised while it handles the interrupt
        if not isinstance(exit_.__context__, KeyboardInterrupt):
            raise
        code = 130
    except Exception as error:
        # typer's own complaints about the command line carry a message and an exit code
        if not hasattr(error, "format_message"):
            raise
        said = error.format_message().rstrip(". ")
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "crystalmesh"
        return 2, f"{said}. See {command} --help."
    return code or 0, "interrupted; run again to continue" if code == 130 else ""


def main() -> None:
    """Entry point: one line on stderr and exit code 2 for what the user can mend; 130: Ctrl-C."""
    code, message = _run()
    if message:
        line = " ".join(message.split())
        print(line if code == 130 else f"error: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
