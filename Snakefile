# The stages as Snakemake rules; dvc.yaml holds the same ones, and tests/workflow keeps them equal.
#
#   snakemake --cores N            both reports (or name them: demo, paper; full: full-size runs)
#
# profiles/default is used without being named. Settings enter as input files, one for each key of
# params.yaml that a stage depends on, so that an output is stale when its own settings change.
import os
import re
import sys
from pathlib import Path

from crystalmesh import engines
from crystalmesh.config import PREDICTORS, load
from crystalmesh.errors import CrystalmeshError

try:
    project = load(Path.cwd())
except CrystalmeshError as error:
    sys.exit(f"error: {error}")
params = project.params
if workflow.is_main_process:  # a cluster's job reads this file too, while others write
    project.restamp()  # all of them now: Snakemake lists a folder once
    engines.forget(project.root)

# The command is on PATH, or lies beside the snakemake that runs this.
os.environ["PATH"] += os.pathsep + os.path.dirname(sys.executable)
# A stage starts as many processes as it has threads, which Snakemake tells it as OMP_NUM_THREADS.
shell.prefix("set -euo pipefail; export CRYSTALMESH_JOBS=${{CRYSTALMESH_JOBS:-$OMP_NUM_THREADS}}; ")
ALL = 1024  # threads of a stage that starts processes itself; scaled down to --cores, --max-threads

SPLITS = {(s.dataset, s.split): key for key, s in params.splits.items()}
FEATURES = {(f.dataset, f.representation): (key, f) for key, f in params.features.items()}
EXPERIMENTS = {name for group in params.experiments for name in params.group(group)}
MESHES = ("published", "canonical")
FINAL = ("ledger", "metrics", "ro-crate-metadata")
FOR_PEOPLE = [f"results/{PREDICTORS}/ledger.json"] if params.group(PREDICTORS) else []
CRYSTALS = [
    f"data/crystals/{{dataset}}/{name}"
    for name in ("crystals.safetensors", "index.json", "rejected.csv")
]
EXPERIMENT = [
    "data/features/{dataset}/{representation}/index.json",  # holds the shards' checksums
    "data/splits/{dataset}/{split}.json",
    *CRYSTALS,
]


def one_of(names):
    """A wildcard's constraint."""
    return "|".join(map(re.escape, names)) or "(?!)"


def facts(w):
    """A job's wildcards and what params.yaml says of its experiment, report or benchmark."""
    names = dict(w.items())
    if "experiment" in names:
        names |= dict(params.experiment(w.group, w.experiment))
    elif "report" in names:
        names |= dict(params.reports[w.report])
    return names


def at(*patterns):
    """Input function: paths with the facts filled in."""
    return lambda w: [pattern.format_map(facts(w)) for pattern in patterns]


def settings(*keys):
    """Input function: settings files of the keys of params.yaml with the facts filled in."""
    return lambda w: [os.path.relpath(project.stamp(key)) for key in at(*keys)(w)]


def own(*keys):
    """Input function: settings files of an experiment's own block, and of others."""
    return lambda w: settings(params.block(w.group, w.experiment), *keys)(w)


def of_report(*keys):
    """Input function: settings files of all experiments of a report, and of others."""
    parts = ["experiments.{report}"]
    return lambda w: settings(
        *parts, *(["transfer.{report}"] if w.report in params.transfer else []), *keys
    )(w)


def pretrained(w):
    """The checkpoint that a training starts from."""
    source = params.experiment(w.group, w.experiment).pretrained
    return f"results/{source.group}/checkpoints/{source.name}.safetensors" if source else []


def numerics(w):
    """The tier of a report decides the bits of its trainings; the group `full` has no report."""
    return settings("reports.{group}.numerics")(w) if w.group in params.reports else []


def each(*patterns):
    """Input function: paths for every experiment of a report."""
    return lambda w: expand(
        [f"results/{w.report}/{pattern}" for pattern in patterns],
        experiment=params.group(w.report),
    )


def benchmarks(w):
    """The benchmarks on the dataset of a report."""
    dataset = params.reports[w.report].dataset
    return [name for name, b in params.benchmarks.items() if b.dataset == dataset]


def published(w):
    return [f"results/{w.report}/metrics/{name}.json" for name in benchmarks(w)]


def meshes(w):
    """The meshes of a report's dataset, which tables count and figures draw."""
    return at(*(f"data/features/{{dataset}}/mesh.{kind}/index.json" for kind in MESHES))(w)


def representations(w):
    """Every representation of a report's dataset."""
    dataset = params.reports[w.report].dataset
    return [f"data/features/{d}/{name}/index.json" for d, name in FEATURES if d == dataset]


def splits(w):
    """Every split of a report's dataset."""
    dataset = params.reports[w.report].dataset
    names = [split for d, split in SPLITS if d == dataset] + benchmarks(w)
    return [f"data/splits/{dataset}/{name}.json" for name in names]


wildcard_constraints:
    dataset=one_of(params.datasets),
    benchmark=one_of(params.benchmarks),
    split=one_of({split for _, split in SPLITS}),
    representation=one_of({name for _, name in FEATURES}),
    group=one_of(params.experiments),
    report=one_of(params.reports),
    experiment=one_of(EXPERIMENTS),


rule all:
    input:
        expand("results/{report}/{file}.json", report=params.reports, file=FINAL),
        expand("results/{report}/site", report=params.site),
        FOR_PEOPLE,


for target in params.reports:

    rule:
        name:
            target
        input:
            expand("results/{report}/{file}.json", report=target, file=FINAL),
            expand("results/{report}/site", report=params.site.keys() & {target}),


rule predictors:  # the networks of `crystalmesh predict`
    input:
        FOR_PEOPLE,


rule full:
    input:
        expand("results/full/metrics/{name}.json", name=params.experiments.get("full", {})),


rule fetch:
    input:
        settings("datasets.{dataset}"),
    output:
        "data/raw/{dataset}.json.gz",
    threads: ALL
    priority: 1  # takes all cores: first, or cores lie idle while one long training ends
    shell:
        "crystalmesh fetch {wildcards.dataset}"


rule fetch_benchmark:
    input:
        settings("benchmarks.{benchmark}"),
    output:
        "data/raw/{benchmark}.csv.gz",
    shell:
        "crystalmesh fetch {wildcards.benchmark}"


rule crystals:
    input:
        "data/raw/{dataset}.json.gz",
        settings("datasets.{dataset}", "validation", "tasks"),
    output:
        CRYSTALS,
    threads: ALL
    priority: 1
    shell:
        "crystalmesh crystals {wildcards.dataset}"


rule split:
    input:
        CRYSTALS,
        settings("tasks"),
        lambda w: settings(f"splits.{SPLITS[w.dataset, w.split]}")(w),
    output:
        "data/splits/{dataset}/{split}.json",
    params:
        key=lambda w: SPLITS[w.dataset, w.split],
    shell:
        "crystalmesh split {params.key}"


rule folds:
    input:
        "data/raw/{benchmark}.csv.gz",
        CRYSTALS,
        settings("benchmarks.{benchmark}", "tasks"),
    output:
        "data/splits/{dataset}/{benchmark}.json",
    shell:
        "crystalmesh folds {wildcards.benchmark}"


rule represent:
    input:
        CRYSTALS,
        lambda w: f"data/splits/{w.dataset}/{FEATURES[w.dataset, w.representation][1].split}.json",
        settings("representations.{representation}"),
        lambda w: settings(f"features.{FEATURES[w.dataset, w.representation][0]}")(w),
    output:
        "data/features/{dataset}/{representation}/index.json",
    params:
        key=lambda w: FEATURES[w.dataset, w.representation][0],
    threads: ALL
    priority: 1
    shell:
        "crystalmesh represent {params.key}"


# `crystalmesh verify --from-checkpoints` brings what was trained, and nothing may train it again.
brought = {p.stem for p in Path("results").glob("*/checkpoints/*")} if config.get("trained") else {}


rule train:
    input:
        at(*EXPERIMENT),
        own("models.{model}", "tasks.{task}"),
        numerics,
        pretrained,
    output:
        "results/{group}/checkpoints/{experiment}.safetensors",
        "results/{group}/history/{experiment}.csv",
        "results/{group}/cards/{experiment}.json",
    wildcard_constraints:
        experiment=one_of(EXPERIMENTS - set(brought)),
    shell:
        "crystalmesh train {wildcards.group} {wildcards.experiment}"


rule predictions:
    input:
        "results/{group}/checkpoints/{experiment}.safetensors",
        at(*EXPERIMENT),
        own("models.{model}", "tasks.{task}"),
        numerics,
    output:
        "results/{group}/predictions/{experiment}.csv",
    shell:
        "crystalmesh predictions {wildcards.group} {wildcards.experiment}"


rule evaluate:
    input:
        "results/{group}/predictions/{experiment}.csv",
        "results/{group}/checkpoints/{experiment}.safetensors",  # says what was trained
        own("tasks.{task}"),
    output:
        "results/{group}/metrics/{experiment}.json",
    shell:
        "crystalmesh evaluate {wildcards.group} {wildcards.experiment}"


rule calibrate:
    input:
        "results/{group}/checkpoints/{experiment}.safetensors",
        at(*EXPERIMENT),
        own("models.{model}", "tasks.{task}"),
    output:
        "results/{group}/calibration/{experiment}.safetensors",
    wildcard_constraints:
        group=PREDICTORS,
    shell:
        "crystalmesh calibrate {wildcards.group} {wildcards.experiment}"


rule published:
    input:
        "data/raw/{benchmark}.csv.gz",
        at("data/splits/{dataset}/60-20-20.json"),
        settings("benchmarks.{benchmark}", "tasks"),
    output:
        "results/{report}/metrics/{benchmark}.json",
    shell:
        "crystalmesh published {wildcards.report} {wildcards.benchmark}"


rule stability:
    input:
        at(*CRYSTALS),
        settings("reports.{report}", "representations.mesh"),
    output:
        "results/{report}/stability.json",
    threads: ALL
    shell:
        "crystalmesh stability {wildcards.report}"


rule maps:
    input:
        each("checkpoints/{experiment}.safetensors"),
        at(*CRYSTALS),
        splits,
        representations,
        of_report("reports.{report}", "models", "representations", "tasks"),
    output:
        "results/{report}/maps.json",
    shell:
        "crystalmesh maps {wildcards.report}"


rule tables:
    input:
        each("predictions/{experiment}.csv", "metrics/{experiment}.json"),
        each("cards/{experiment}.json"),  # hold the checksums of the data, also of other datasets
        published,
        at(*CRYSTALS),
        meshes,
        splits,
        "paper/published.yaml",
        "benchmarks/models.json",
        "env/requirements.lock",
        "env/torch.txt",
        of_report("reports.{report}"),
        settings("benchmarks", "datasets", "models", "representations", "splits", "tasks", "validation"),
    output:
        directory("results/{report}/tables"),
    shell:
        "crystalmesh tables {wildcards.report}"


rule figures:
    input:
        each("predictions/{experiment}.csv", "history/{experiment}.csv", "cards/{experiment}.json"),
        "results/{report}/stability.json",
        "results/{report}/maps.json",
        at(*CRYSTALS),
        meshes,
        splits,
        "benchmarks/models.json",
        "benchmarks/representations.json",
        of_report("reports.{report}", "models", "representations", "tasks"),
    output:
        report(directory("results/{report}/figures"), patterns=["{figure}.svg"]),
    shell:
        "crystalmesh figures {wildcards.report}"


rule document:
    input:
        "results/{report}/tables",
        "results/{report}/figures",
        sorted(str(path) for path in Path("paper").rglob("*") if path.is_file()),
    output:
        report("results/{report}/paper.pdf"),
    shell:
        "crystalmesh paper {wildcards.report}"


rule metrics:
    input:
        each("metrics/{experiment}.json", "cards/{experiment}.json"),
        published,
        of_report(),
    output:
        "results/{report}/metrics.json",
    shell:
        "crystalmesh metrics {wildcards.report}"


rule ledger:
    input:
        each("checkpoints/{experiment}.safetensors", "history/{experiment}.csv"),
        each("predictions/{experiment}.csv", "metrics/{experiment}.json", "cards/{experiment}.json"),
        published,
        "results/{report}/stability.json",
        "results/{report}/maps.json",
        "results/{report}/tables",
        "results/{report}/figures",
        "results/{report}/paper.pdf",
        at("data/raw/{dataset}.json.gz", *CRYSTALS),
        splits,
        representations,
        of_report("reports.{report}"),
        settings("benchmarks", "datasets", "features", "models", "representations"),
        settings("splits", "tasks", "validation"),
    output:
        "results/{report}/ledger.json",
    shell:
        "crystalmesh ledger {wildcards.report}"


rule ledger_of_predictors:
    input:
        expand(
            [
                f"results/{PREDICTORS}/{pattern}"
                for pattern in (
                    "checkpoints/{experiment}.safetensors",
                    "history/{experiment}.csv",
                    "cards/{experiment}.json",  # hold the checksums of the data
                    "predictions/{experiment}.csv",
                    "metrics/{experiment}.json",
                    "calibration/{experiment}.safetensors",
                )
            ],
            experiment=params.group(PREDICTORS),
        ),
        settings(f"experiments.{PREDICTORS}", f"transfer.{PREDICTORS}", "datasets", "features", "models", "representations"),
        settings("splits", "tasks", "validation"),
    output:
        f"results/{PREDICTORS}/ledger.json",
    params:
        group=PREDICTORS,
    shell:
        "crystalmesh ledger {params.group}"


rule site:
    input:
        each("predictions/{experiment}.csv", "history/{experiment}.csv"),
        each("metrics/{experiment}.json", "cards/{experiment}.json"),
        published,
        "results/{report}/tables",
        lambda w: [
            f"results/{one.group}/checkpoints/{one.name}.safetensors"
            for one in params.site[w.report].networks
        ],
        at(*CRYSTALS),
        splits,
        of_report("reports.{report}", "site.{report}", "models", "representations", "tasks"),
    output:
        directory("results/{report}/site"),
    wildcard_constraints:
        report=one_of(params.site),
    shell:
        "crystalmesh site {wildcards.report}"


rule crate:
    input:
        "results/{report}/ledger.json",
        "results/{report}/metrics.json",
        each("cards/{experiment}.json"),
        "CITATION.cff",
        of_report("reports.{report}"),
    output:
        "results/{report}/ro-crate-metadata.json",
        "results/{report}/README.md",
    shell:
        "crystalmesh crate {wildcards.report}"


def tell_dvc():
    """After this run, `dvc repro` has nothing to do for what is up to date here."""
    jobs = [job for job in workflow.dag.jobs if job.is_shell]
    done = [job for job in jobs if workflow.dag.finished(job) or not workflow.dag.needrun(job)]
    engines.record(project.root, {job.shellcmd for job in done})


onsuccess:
    tell_dvc()


onerror:
    tell_dvc()
