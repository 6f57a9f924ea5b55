# The stages of every study; dvc.yaml, data/dvc.yaml and studies/*/dvc.yaml hold the same ones, and
# tests/workflow keeps them equal.
#
#   snakemake --cores N            all reports (or name studies: demo, mesh, ...)
#
# profiles/default is used without being named. Settings enter as input files, one for each digest of
# the plans, so that an output is stale when its own settings change.
import os
import re
import sys
from pathlib import Path

from crystalmesh.config import engines, plan
from crystalmesh.config.project import load
from crystalmesh.errors import CrystalmeshError

try:
    project = load(Path.cwd())
    if workflow.is_main_process:  # a cluster's job reads this file too, while others write
        plan.restamp(project.root)  # all of them now: Snakemake lists a folder once
except CrystalmeshError as error:
    sys.exit(f"error: {error}")
params = project.params

# The command is on PATH, or lies beside the snakemake that runs this.
os.environ["PATH"] += os.pathsep + os.path.dirname(sys.executable)
# A stage starts as many processes as it has threads, which Snakemake tells it as OMP_NUM_THREADS.
shell.prefix("set -euo pipefail; export CRYSTALMESH_JOBS=${{CRYSTALMESH_JOBS:-$OMP_NUM_THREADS}}; ")
ALL = 1024  # threads of a stage that starts processes itself; scaled down to --cores, --max-threads

RUNS = {name for study in params.studies.values() for name in study.runs}
REPORTS = [name for name, study in params.studies.items() if study.report]
STAGES = {name: engines.report(project, name) for name in params.studies}


def one_of(names):
    """A wildcard's constraint."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


def settings(*keys):
    """Input function: the files of digests whose keys have the wildcards filled in."""
    return lambda w: [os.path.relpath(plan.stamp(project.root, key.format(**w))) for key in keys]


# `crystalmesh verify` gives a clean folder what it does not want made again.
GIVEN = {str(path) for path in Path("results").rglob("*")} if "given" in config else set()


def unless_given(output, *inputs):
    """Input function: nothing, where the output was given; else what the inputs say."""

    def paths(w):
        if output.format(**w) in GIVEN:
            return []
        found = [one(w) if callable(one) else one.format(**w) for one in inputs]
        return [path for one in found for path in ([one] if isinstance(one, str) else one)]

    return paths


def last(study):
    """What a study ends in."""
    names = [f"results/{study}/{one}" for one in ("ledger.json", "ro-crate-metadata.json", "site")]
    made = {f"results/{study}/{out}" for stage in STAGES[study].values() for out in stage.outputs}
    return [name for name in names if name in made]


wildcard_constraints:
    dataset=one_of(params.datasets),
    file=one_of(project.raw(name).name for name in params.raw),
    benchmark=one_of(params.benchmarks),
    split=one_of({name for splits in params.splits.values() for name in splits}),
    representation=one_of({name for own in params.features.values() for name in own}),
    study=one_of(params.studies),
    run=one_of(RUNS),
    target=one_of(params.targets),
    serving=one_of({project.serving} - {None}),


def whole(study):
    """What is asked for with a study: what it ends in, and that DVC knows of it."""
    return [*last(study), *([f"studies/{study}/dvc.lock"] if Path(".dvc").is_dir() else [])]


rule all:
    input:
        [whole(study) for study in params.studies],


for target in params.studies:

    rule:
        name:
            target
        input:
            whole(target),


include: "rules/data.smk"
include: "rules/run.smk"
include: "rules/report.smk"


# After it, `dvc repro` has nothing to do for the study. The other way round, DVC writes its lock
# whenever it has made something, and then this rule has nothing to do. Files stay what they are (no
# links into the cache), for a new time would be a change to Snakemake.
localrules:
    dvc,


rule dvc:
    input:
        lambda w: last(w.study),
    output:
        update("studies/{study}/dvc.lock"),
    threads: ALL  # DVC does one thing at a time
    shell:
        "dvc commit --quiet --force --no-relink --with-deps studies/{wildcards.study}/dvc.yaml ||"
        " echo 'DVC was not told of this run (see above): it will run the stages again' >&2;"
        " touch {output}"
