"""Files of one's own -> a table of predictions."""

import contextlib
import csv
import io
import itertools
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from numpy.typing import NDArray

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.data import registry, structures
from crystalmesh.data.crystals import Crystal
from crystalmesh.data.structures import Item, Source
from crystalmesh.data.validation import Rules
from crystalmesh.errors import CrystalmeshError
from crystalmesh.inference.predictor import Prediction, Predictor
from crystalmesh.learn.batches import EVALUATION_BATCH
from crystalmesh.represent import representation
from crystalmesh.workers import in_order

T = TypeVar("T")
COLUMNS = ("file", "id", "formula", "target", "value", "lower", "upper", "unit", "warning")
CHUNK = 16  # sources handed to a process at once
FEW_SOURCES = 64  # are read by this process alone: another one takes seconds to start

Prepared = tuple[Item, dict[str, dict[str, NDArray[Any]] | str]]


def stream(
    project: Project,
    paths: Sequence[str],
    predictors: Sequence[Predictor],
    jobs: int,
) -> Iterator[tuple[Item, list[Prediction] | str]]:
    """Each structure of the paths with its predictions (one a predictor), or why it has none.

    Files are read and turned into tensors by `jobs` processes; results come in the order of the
    files, and do not depend on what else is predicted.
    """
    settings = {
        p.run.representation: project.params.representation(p.run.representation)
        for p in predictors
    }
    work = partial(_prepare, rules=Rules.of(project.params), settings=settings)
    sources = structures.sources(paths)
    first = list(itertools.islice(sources, FEW_SOURCES + 1))
    if len(first) <= FEW_SOURCES or structures.STDIN in paths:
        jobs = 1
    chunks = _chunks(itertools.chain(first, sources), CHUNK)
    prepared = itertools.chain.from_iterable(in_order(work, chunks, jobs))
    for batch in _chunks(prepared, EVALUATION_BATCH):
        yield from _predicted(batch, predictors)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    return iter(lambda: list(itertools.islice(stream, size)), [])


def _prepare(
    sources: Sequence[Source], rules: Rules, settings: Mapping[str, Mapping[str, Any]]
) -> list[Prepared]:
    """Structures and their tensors of each representation, or why there are none."""
    found: list[Prepared] = []
    for source in sources:
        for item in structures.parse(source, rules):
            made: dict[str, dict[str, NDArray[Any]] | str] = {}
            for name, values in settings.items() if item.crystal is not None else ():
                try:
                    made[name] = representation(name, values).build(cast(Crystal, item.crystal))
                except Exception as error:  # one crystal never stops the others
                    made[name] = " ".join(str(error).split()) or type(error).__name__
            found.append((item, made))
    return found


def _predicted(
    batch: Sequence[Prepared], predictors: Sequence[Predictor]
) -> Iterator[tuple[Item, list[Prediction] | str]]:
    rows: list[list[Prediction]] = [[] for _ in batch]
    problems = [item.problem for item, _ in batch]
    for predictor in predictors:
        name = predictor.run.representation
        usable = []
        for row, (item, made) in enumerate(batch):
            arrays = made.get(name)
            if isinstance(arrays, dict):
                usable.append((row, item, arrays))
            elif arrays is not None:
                problems[row] = arrays
        predictions = predictor.predict([(item, arrays) for _, item, arrays in usable])
        for (row, _, _), prediction in zip(usable, predictions, strict=True):
            if math.isfinite(prediction.value):
                rows[row].append(prediction)
            else:
                problems[row] = "the network gives no finite number for it"
    for (item, _), found, problem in zip(batch, rows, problems, strict=True):
        yield item, found or problem


def table(
    project: Project,
    paths: Sequence[str],
    predictors: Sequence[Predictor],
    jobs: int,
    out: Path | None,
) -> tuple[int, int]:
    """Predict and write a table; say on stderr what was skipped, and why.

    Args:
        project: where the networks are.
        paths: see `data.structures.read`.
        predictors: the networks; each gives a row a crystal.
        jobs: processes.
        out: a CSV file with COLUMNS, or a JSON file with all fields of `Prediction`; None: CSV on
            stdout. The file appears when the table is complete.

    Returns:
        How many structures were skipped, and how many predicted.

    Raises:
        CrystalmeshError: nothing was predicted; a file that was there stays as it was.
    """
    began = time.monotonic()
    skipped = predicted = 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(registry.progress())
        sink: IO[bytes] = (
            sys.stdout.buffer if out is None else stack.enter_context(files.writing(out))
        )
        write = _Json(sink) if out is not None and out.suffix == ".json" else _Csv(sink)
        work = bar.add_task("predict", total=None)
        for item, found in stream(project, paths, predictors, jobs):
            bar.update(work, advance=1, description=f"predict: {predicted + skipped + 1} crystals")
            if isinstance(found, str):
                skipped += 1
                where = item.file if item.id in item.file else f"{item.file} ({item.id})"
                bar.console.print(
                    f"skipped {where}: {found}", markup=False, highlight=False, soft_wrap=True
                )
                continue
            predicted += 1
            for prediction in found:
                write.row(prediction)
        if out and not predicted:
            raise CrystalmeshError(
                f"nothing was predicted, for the reasons above; {out} is not written"
            )
        write.end()
    seconds = time.monotonic() - began
    said = (
        f"{predicted} crystals predicted, {skipped} skipped; {predicted / seconds:.0f} crystals/s"
    )
    print(said + (f"; {out}" if out else ""), file=sys.stderr)
    return skipped, predicted


class _Csv:
    """Predictions as rows of COLUMNS."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._write(COLUMNS)

    def _write(self, values: Iterable[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self._sink.write(text.getvalue().encode("utf-8", errors="surrogateescape"))

    def row(self, prediction: Prediction) -> None:
        values = (getattr(prediction, column) for column in COLUMNS)
        self._write("" if v is None else repr(v) if isinstance(v, float) else v for v in values)

    def end(self) -> None:
        self._sink.flush()


class _Json:
    """Predictions as a list of objects with all that is known."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink, self._lead = sink, "[\n"

    def row(self, prediction: Prediction) -> None:
        fields = {k: v for k, v in asdict(prediction).items() if v is not None and v != ()}
        self._sink.write(
            (self._lead + json.dumps(fields, ensure_ascii=False)).encode(errors="replace")
        )
        self._lead = ",\n"

    def end(self) -> None:
        self._sink.write(b"[]\n" if self._lead == "[\n" else b"\n]\n")
        self._sink.flush()
