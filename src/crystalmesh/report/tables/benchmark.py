"""Official folds of a benchmark: published algorithms and ours on the same entries."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crystalmesh import files
from crystalmesh.config.schema import Target
from crystalmesh.report import results
from crystalmesh.report.own import Context
from crystalmesh.report.results import Result
from crystalmesh.report.tables.table import NONE, Column, Table, count, deviation_of, shown, unit


@dataclass
class Line:
    """A printed line: by target, the MAE over all folds, its deviation, and that of fold 0."""

    title: str
    seen: int | None = None
    minutes: float | None = None
    values: dict[str, list[float | None]] = field(default_factory=dict)

    def cells(self, targets: Mapping[str, Target]) -> list[str]:
        """As printed."""
        found = [self.title, count(self.seen)]
        found.append(NONE if self.minutes is None else f"{self.minutes:.1f}")
        for name, target in targets.items():
            found += [shown(value, target, 4) for value in self.values.get(name, [None] * 3)]
        return found

    def order(self, target: str) -> float:
        """By what lines are sorted."""
        values = self.values.get(target, [None] * 3)
        return values[0] or (values[2] if self.seen else None) or math.inf


@dataclass
class Folds:
    """What the table is made from.

    Attributes:
        context: of the study.
        blocks: by target, the published algorithms' errors.
        ours: by target, the results that are tested on official folds.
        targets: those that the document shows: with a result on all folds.
    """

    context: Context
    blocks: Mapping[str, Mapping[str, Any]]
    ours: Mapping[str, Sequence[Result]]
    targets: Mapping[str, Target]

    @classmethod
    def of(cls, context: Context) -> "Folds":
        """Of a study's benchmarks."""
        project, params = context.project, context.project.params
        official = {
            params.benchmarks[name].target: name
            for name in project.params.benchmarks_of(context.name)
        }
        blocks = {
            target: files.read_json(project.benchmark(name))["algorithms"]
            for target, name in official.items()
        }
        ours = {
            target: [r for r in context.plain if r.target == target and _on(context, r, name)]
            for target, name in official.items()
        }
        printed = {
            target: params.targets[target]
            for target, rows in ours.items()
            if any(r.run.fold == "all" for r in rows)
        }
        return cls(context, blocks, ours, printed)

    def title(self, algorithm: str) -> str:
        """An algorithm's name as people write it."""
        return str(self.context.published.get("algorithms", {}).get(algorithm, algorithm))


def _on(context: Context, result: Result, name: str) -> bool:
    """Whether a result is tested on official folds of a benchmark, under whichever name."""
    run, benchmarks = result.run, context.project.params.benchmarks
    if run.split == name:
        return True
    if run.split not in benchmarks:
        return False
    benchmark = benchmarks[name]
    path = context.project.split(benchmark.dataset, name)
    folds = files.read_json(path)[benchmark.target]
    chosen = folds if run.fold == "all" else {"": folds.get(str(run.fold), {})}
    return set(result.held) == {i for fold in chosen.values() for i in fold.get("test", ())}


def benchmark(context: Context) -> Table:
    """Published algorithms and ours on the same entries and official folds; ours as ensembles too.

    The document shows the targets that the study has a run on with all folds; the CSV has all.
    """
    folds = Folds.of(context)
    columns = [
        Column("algorithm", left=True),
        Column("train", "crystals a fold"),
        Column("training", "CPU minutes a fold"),
    ]
    for target in folds.targets.values():
        group = f"{target.title} / {unit(target)}"
        columns += [Column("all folds", group), Column("± folds", group), Column("fold 0", group)]
    table = Table(
        "benchmark",
        ("target", "algorithm", "n_train", "cpu_minutes", "n_all", "mae_all", "folds_std",
         "mae_fold_0"),
        columns,
        "Official folds",
        "MAE of published algorithms and of ours on the same entries; ±: over the folds.",
    )  # fmt: skip
    lines = [
        *_published(folds, table), *_single(folds, table), *_ensembles(folds, table),
    ]  # fmt: skip
    first = next(iter(folds.targets), "")
    table.cells = [
        one.cells(folds.targets) for one in sorted(lines, key=lambda line: line.order(first))
    ]
    return table


def _published(folds: Folds, table: Table) -> list[Line]:
    lines = []
    for algorithm in sorted({one for block in folds.blocks.values() for one in block}):
        line = Line(folds.title(algorithm))
        for name, block in folds.blocks.items():
            if algorithm in block:
                own = block[algorithm]
                values = [own["mae_all"], deviation_of(own["folds"]), own["folds"][0]]
                table.add([name, algorithm, None, None, own["n_all"], *values], None)
                line.values[name] = values
        lines.append(line)
    for name in folds.targets:
        most = max(own["n_all"] for own in folds.blocks[name].values())
        folds.context.numbers[f"{name}.benchmark.entries"] = count(most)
        theirs = [(own["mae_all"], folds.title(key)) for key, own in folds.blocks[name].items()]
        _best(folds, name, "theirs", theirs)
    return lines


def _best(folds: Folds, name: str, whose: str, candidates: Sequence[tuple[float, str]]) -> None:
    """The best one for the text."""
    if candidates:
        value, title = min(candidates)
        key = f"{name}.benchmark.{whose}"
        folds.context.numbers.update(
            {
                key: shown(value, folds.targets[name], 4),
                f"{key}.title": title,
            }
        )


def _single(folds: Folds, table: Table) -> list[Line]:
    """Ours: single networks, and after each the ensemble of them where there are several."""
    project = folds.context.project
    speeds = results.Speeds.load(project, folds.context.name)
    best: dict[str, list[tuple[float, str]]] = {name: [] for name in folds.targets}
    lines = []
    methods = {(r.method, len(r.train)): r for name in folds.targets for r in folds.ours[name]}
    for (method, trained), first in methods.items():
        members, seen = first.run.members or 1, trained + results.validated(project, first.run)
        several = members > 1 and first.run.fold == "all"
        for ensemble in (False, True)[: 1 + several]:
            whose = "this work" + (f", ensemble of {members}" if ensemble else "")
            minutes = _minutes(folds.context, first, speeds, members if ensemble else 1)
            line = Line(f"{results.title(project, first)} ({whose})", seen, minutes)
            for name in folds.targets:
                for r in folds.ours[name]:
                    if (r.method, len(r.train)) != (method, trained):
                        continue
                    values = line.values[name] = _values(r, ensemble, line.values.get(name))
                    n_all = len(r.test) if r.run.fold == "all" else None
                    key = f"{whose}: {results.title(project, r)}"
                    table.add([name, key, seen, minutes, n_all, *values], None)
                    if values[0] is not None and not ensemble:
                        best[name].append((values[0], results.title(project, r)))
            lines.append(line)
    for name, candidates in best.items():
        _best(folds, name, "ours", candidates)
    return lines


def _values(
    result: Result, ensemble: bool, before: Sequence[float | None] | None
) -> list[float | None]:
    """MAE over all folds, its deviation over them, that of fold 0; of one fold only the last."""
    by_fold = result.of_folds() if ensemble else result.of_members_by_fold()
    if result.run.fold == "all":
        mean = result.value if ensemble else float(result.of_members().mean())
        return [mean, deviation_of(by_fold.tolist()), float(by_fold[0])]
    if before and before[2] is not None:
        return list(before)
    return [None, None, float(by_fold[0])] if result.run.fold == 0 else [None] * 3


def _ensembles(folds: Folds, table: Table) -> list[Line]:
    """Networks of several runs as one ensemble, as the study's report names them."""
    project, lines = folds.context.project, []
    for ensemble in folds.context.report.ensembles:
        wanted = list(ensemble.runs.values())
        whose = f"this work, ensemble of {sum(wanted)}"
        line = Line(f"{ensemble.title} ({whose})")
        best = []
        for name in folds.targets:
            parts = [r for one in ensemble.runs for r in folds.ours[name] if r.name == one]
            if len(parts) < len(wanted):
                continue
            joined = results.joined(parts, wanted)
            line.seen = len(parts[0].train) + results.validated(project, parts[0].run)
            by_fold = joined.of_folds().tolist()
            values = line.values[name] = [joined.value, deviation_of(by_fold), by_fold[0]]
            key = f"{whose}: {ensemble.title}"
            table.add([name, key, line.seen, None, len(joined.test), *values], None)
            best.append((name, joined.value))
        lines.append(line)
        for name, value in best:
            _best(folds, name, "ensemble", [(value, ensemble.title)])
    return lines


def _minutes(
    context: Context, result: Result, speeds: results.Speeds, networks: int
) -> float | None:
    """CPU minutes of trainings; None where crystals x epochs over a speed would not tell."""
    if not speeds.of(result.run):
        return None
    if context.project.params.models[result.run.model].training is None:  # fitted at once
        return None
    return 60 * speeds.hours(context.project, result.run, networks)
