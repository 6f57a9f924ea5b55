"""The command `crystalmesh`: one subcommand a stage; both workflow engines call only these.

Each stage imports what it needs itself, so that the environment of the numerics tier is set
before torch or numpy is loaded, and so that `crystalmesh --help` is quick.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crystalmesh import __version__, numerics
from crystalmesh.errors import CrystalmeshError

if TYPE_CHECKING:
    from crystalmesh.config.project import Project
    from crystalmesh.config.schema import Run

app = typer.Typer(
    help="Materials as meshes and graphs: the stages of the studies. Settings: config/, studies/.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="a dataset or a benchmark of config/")]
Dataset = Annotated[str, typer.Argument(help="a dataset of config/")]
SplitName = Annotated[str, typer.Argument(help="a split of the dataset")]
Representation = Annotated[str, typer.Argument(help="module.variant, as mesh.published")]
Benchmark = Annotated[str, typer.Argument(help="a benchmark of config/")]
Reference = Annotated[str, typer.Argument(metavar="STUDY/RUN", help="a run of a study")]
Target = Annotated[str, typer.Argument(help="a target of the run")]
Study = Annotated[str, typer.Argument(help="a folder of studies/")]


def _start(study: str | None = None, verifying: bool = False) -> "Project":
    """The project around the current folder, with the numerics of the study.

    Verification finds for itself what was changed, and says so of all files at once.
    """
    numerics.prepare("native")  # numpy reads its part while the settings are being checked
    from crystalmesh.config import plan, project

    found = project.find()
    if study is not None:
        numerics.prepare(found.params.study(study).numerics)
    from crystalmesh import integrity
    from crystalmesh.provenance import software

    if verifying:
        return found
    if not os.environ.get(software.UNLOCKED):
        software.check_lock(found.root)
    integrity.watch(found.root)
    plan.restamp(found.root)
    return found


def _run(reference: str) -> "tuple[Project, Run]":
    """A run with its project."""
    if "/" not in reference:
        raise CrystalmeshError(f"{reference}: give a run as STUDY/RUN")
    project = _start(reference.partition("/")[0])
    return project, project.params.run(reference)


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
def plan(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: fail where a plan is not up to date.")
    ] = False,
) -> None:
    """Write the plans of all studies, which both workflow engines read, from the settings."""
    numerics.prepare("native")
    from crystalmesh.config import plan, project

    changed = plan.write(project.root(), check)
    if check and changed:
        more = f" (and {len(changed) - 1} more)" if changed[1:] else ""
        raise CrystalmeshError(f"{changed[0]}: not up to date{more}; {plan.REMEDY}")
    for name in changed:
        typer.echo(name)


@app.command()
def split(dataset: Dataset, name: SplitName) -> None:
    """Draw training, validation and test crystals."""
    project = _start()
    from crystalmesh.data import splits

    splits.build(project, dataset, name)


@app.command()
def folds(name: Benchmark) -> None:
    """Read the official folds of a benchmark as a split."""
    project = _start()
    from crystalmesh.data import splits

    splits.build_folds(project, name)


@app.command()
def published(name: Benchmark) -> None:
    """Compute the errors of a benchmark's published algorithms on our crystals."""
    project = _start()
    from crystalmesh.learn import published

    published.evaluate(project, name)


@app.command()
def represent(dataset: Dataset, name: Representation) -> None:
    """Turn crystals into tensors."""
    project = _start()
    from crystalmesh.represent import store

    store.build(project, dataset, name, _jobs())


@app.command()
def train(
    run: Reference,
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
    """Train the networks of a run; an interrupted training continues where it was."""
    project, one = _run(run)
    from crystalmesh.learn import fit, train

    train.train(project, one, fit.Devices(accelerator, devices, nodes, strategy))


@app.command()
def convert(
    run: Reference, file: Annotated[Path, typer.Argument(help="a checkpoint of version 0.1")]
) -> None:
    """Take a checkpoint file that version 0.1 published as the checkpoint of a run."""
    project, one = _run(run)
    from crystalmesh.provenance import legacy

    legacy.convert(project, one, file)


@app.command()
def predictions(run: Reference) -> None:
    """Predict the test crystals of a run."""
    project, one = _run(run)
    from crystalmesh.learn import predict

    predict.predict(project, one)


@app.command()
def evaluate(run: Reference) -> None:
    """Compute a run's metrics from its predictions."""
    project, one = _run(run)
    from crystalmesh.learn import evaluate

    evaluate.evaluate(project, one)


@app.command()
def calibrate(run: Reference, target: Target) -> None:
    """Gather what predictions of a run's networks for other crystals need."""
    project, one = _run(run)
    from crystalmesh.inference import calibrate

    calibrate.calibrate(project, one, target)


@app.command()
def stability(study: Study) -> None:
    """Measure how often meshes change when atoms move a little."""
    project = _start(study)
    from crystalmesh.report import stability

    stability.build(project, study, _jobs())


@app.command()
def embeddings(study: Study) -> None:
    """Project the vectors that a study's networks form of crystals."""
    project = _start(study)
    from crystalmesh.report import embeddings

    embeddings.build(project, study)


@app.command()
def tables(study: Study) -> None:
    """Make the tables of a study."""
    project = _start(study)
    from crystalmesh.report import tables

    tables.build(project, study)


@app.command()
def figures(study: Study) -> None:
    """Draw the figures of a study."""
    project = _start(study)
    from crystalmesh.report import figures

    figures.build(project, study)


@app.command()
def metrics(study: Study) -> None:
    """List every run of a study and each of its targets as one record."""
    project = _start(study)
    from crystalmesh.report import metrics

    metrics.build(project, study)


@app.command()
def site(study: Study) -> None:
    """Make the pages that show a study's results and meshes."""
    project = _start(study)
    from crystalmesh.report import site

    site.build(project, study)


@app.command()
def document(study: Study) -> None:
    """Typeset the report of a study."""
    project = _start(study)
    from crystalmesh.report import document

    document.build(project, study)


@app.command()
def ledger(study: Study) -> None:
    """Record the checksum of every output of a study, and the numerics it was made with."""
    project = _start(study)
    from crystalmesh.provenance import ledger

    ledger.build(project, study)


@app.command()
def crate(study: Study) -> None:
    """Describe a study's results for machines (RO-Crate) and people (README.md)."""
    project = _start(study)
    from crystalmesh.provenance import crate

    crate.build(project, study)


@app.command()
def verify(
    study: Annotated[
        str | None, typer.Argument(help="a folder of studies/; without one, all published")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Make only these outputs again.")
    ] = None,
    from_checkpoints: Annotated[
        bool, typer.Option("--from-checkpoints", help="Train nothing: predict from checkpoints.")
    ] = False,
    from_predictions: Annotated[
        bool, typer.Option("--from-predictions", help="Make only tables, figures and PDF.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Make nothing: hold the committed files to the ledger.")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option("--next", metavar="MINUTES", help="Make runs again that were not verified."),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(min=1, help="Stages at once; default: all CPUs.")
    ] = None,
) -> None:
    """Make a study again in a clean folder and compare it with its ledger; exit code 1: differs.

    Prints every output with its stage and whether it is the same, by how much it differs, or is
    missing, and names the first stage at which a difference came in.
    """
    modes = (quick, from_checkpoints, from_predictions, minutes is not None)
    if sum(modes) > 1 or (only and (quick or minutes is not None)):
        raise CrystalmeshError(
            "--quick, --from-checkpoints, --from-predictions and --next: give one alone"
        )
    project = _start(study, verifying=True)
    from crystalmesh.provenance import verify

    studies = verify.with_ledger(project) if study is None else [study]
    if not studies:
        raise CrystalmeshError("results/: no study has a ledger; make one first")
    if minutes is not None:
        from crystalmesh.provenance import verified

        same = [verified.verify_next(project, one, minutes, cores or _jobs()) for one in studies]
        raise typer.Exit(not all(same))
    given: verify.From | Literal["all"] = "raw"
    if quick:
        given = "all"
    elif from_checkpoints:
        given = "checkpoints"
    elif from_predictions:
        given = "predictions"
    if not verify.verify(project, studies, given=given, only=only, cores=cores or _jobs()):
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
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="A target of config/; may be repeated. Default: all."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="A run that is served; default: that of the least test error."),
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
    from crystalmesh.config.project import locate
    from crystalmesh.inference import predictor, table

    project = locate()
    if model != "best" and target is None:
        target = [one for run, one in project.served() if run.name == model]
    networks = [
        predictor.load(project, one, model)
        for one in dict.fromkeys(target or predictor.targets(project))
    ]
    skipped, predicted = table.table(project, files, networks, _jobs(), out)
    if skipped:
        raise typer.Exit(1 if predicted else 2)


@app.command()
def show(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="a crystal: see `crystalmesh predict --help`")
    ],
    out: Annotated[Path, typer.Option(help="The page, an .html file.")] = Path("mesh.html"),
    png: Annotated[Path | None, typer.Option(help="A picture as well, a .png file.")] = None,
    target: Annotated[
        str,
        typer.Option(help="Whose mesh networks tell which faces decide; `none`: no network."),
    ] = "space_group",
) -> None:
    """Draw a crystal's two meshes: one page to turn and zoom them, which needs nothing else."""
    numerics.prepare("portable")
    _check_output("--out", out, ".html")
    _check_output("--png", png, ".png")
    from crystalmesh.config.project import locate
    from crystalmesh.report import viewer

    notes = viewer.show(locate(), file, out, png, target)
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


def _command() -> tuple[int, str]:
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
    code, message = _command()
    if message:
        line = " ".join(message.split())
        print(line if code == 130 else f"error: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
