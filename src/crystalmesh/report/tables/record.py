"""What a report was made with: settings, raw files, packages; and what its text says of them."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from crystalmesh.learn.conformal import LEVEL
from crystalmesh.provenance.software import locked
from crystalmesh.report import bootstrap
from crystalmesh.report.own import Context
from crystalmesh.report.tables.table import Column, Table, power, unit
from crystalmesh.represent.delaunay.common import VOLUME

# What a reader needs to know of the software; all of it stands in the locks of env/.
PACKAGES = (
    "ase", "dvc", "lightning", "matplotlib", "numpy", "pymatgen", "safetensors", "scipy",
    "snakemake", "spglib", "torch", "typst",
)  # fmt: skip


def settings(context: Context) -> Table:
    """The settings that decide a study's results, as config/ and its study.yaml give them."""
    params, found = context.project.params, context.found
    columns = (Column("block", left=True), Column("setting", left=True))
    table = Table("settings", ("block", "setting"), columns, "Settings, from config/ and studies/")

    def add(block: str, value: Any) -> None:
        if value:
            table.add((block, flat(value)), (block, flat(value)))

    add(f"studies.{context.name}", {"numerics": context.study.numerics})
    add("validation", given(params.validation))
    used = {(r.run.dataset, r.run.split) for r in found}
    for dataset, split in sorted(used):
        if one := params.splits.get(dataset, {}).get(split):
            add(f"splits.{dataset}.{split}", given(one) | {"title": None})
    for name in sorted({r.run.representation for r in found}):
        add(f"representations.{name}", params.representation(name))
    for name in (m for m in params.models if any(r.run.model == m for r in found)):
        add(f"models.{name}.network", params.models[name].network)
        add(f"models.{name}.training", given(params.models[name].training))
    for run in {r.run.reference: r.run for r in found}.values():
        add(f"{run.reference}.training", run.training)
        add(f"{run.reference}.distillation", given(run.distillation))
    seeds = sorted({r.run.seed for r in found})
    if seeds:
        add("first seeds of the runs", seeds)
    return table


def given(block: BaseModel | None) -> dict[str, Any]:
    """What a settings file says of a block, without what it leaves out."""
    return block.model_dump(mode="json", exclude_unset=True) if block else {}


def flat(value: Any) -> str:
    """Settings in words: `a 1, b 2`; lists in square brackets; what is None is left out."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {flat(v)}" for key, v in value.items() if v is not None)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flat, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def checksums(context: Context) -> Table:
    """Source and SHA-256 of each raw file that the report starts from."""
    params = context.project.params
    columns = [Column(title, left=True) for title in ("name", "source", "SHA-256")]
    table = Table("checksums", ("name", "source", "sha256"), columns, "Raw files")
    rows = [
        (name, params.datasets[name].source, params.datasets[name].sha256)
        for name in params.datasets_of(context.name)
    ]
    for key in params.benchmarks_of(context.name):
        rows.append((key, params.benchmarks[key].source, params.benchmarks[key].sha256))
    for row in rows:
        table.add(row, [row[0], row[1], row[2] or "made by the pipeline; see the ledger"])
    return table


def software(context: Context) -> Table:
    """The locked versions of the packages that the results may depend on."""
    columns = (Column("package", left=True), Column("version", left=True))
    table = Table("software", ("package", "version"), columns, "Versions of the main packages")
    versions = locked(context.project.root)
    for name in PACKAGES:
        if name in versions:
            table.add((name, versions[name]), (name, versions[name]))
    return table


def prose(context: Context) -> dict[str, Any]:
    """What the text says beside the tables' numbers: names, settings, the bootstrap."""
    params, found = context.project.params, context.found
    study = context.study
    dataset = params.datasets[study.dataset]
    used = {(r.run.dataset, r.run.split) for r in found}
    models = {r.run.model for r in found}
    numbers: dict[str, Any] = {
        "title": study.title,
        "study": context.name,
        "numerics": study.numerics,
        "dataset": dataset.title,
        "dataset.name": study.dataset,
        "dataset.source": dataset.source,
        "targets": list(dict.fromkeys(r.target for r in found)),
        "models": [model.title for name, model in params.models.items() if name in models],
        "representations": sorted({r.run.representation for r in found}),
        "splits": sorted(
            {
                split.title
                for dataset, own in params.splits.items()
                for name, split in own.items()
                if (dataset, name) in used
            }
        ),
        "interval.level": f"{100 * LEVEL:.0f}%",
        "bootstrap.level": f"{bootstrap.LEVEL}%",
        "bootstrap.resamples": f"{bootstrap.RESAMPLES:,}",
        "tessellation.volume": power(round(math.log10(VOLUME))),
    }
    for name, target in params.targets.items():
        numbers |= {
            f"{name}.title": target.title,
            f"{name}.metric": target.metric,
            f"{name}.unit": unit(target),
        }
    for name in {r.run.representation for r in found}:
        for key, value in params.representation(name).items():
            numbers[f"{name}.{key}"] = flat(value)
    return numbers
