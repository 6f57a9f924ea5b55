"""The tables of a study and every number of its text, from predictions, metrics and counts.

Each table is written twice: NAME.csv with full precision for people's own analyses, and NAME.json
with the cells as the document prints them. `numbers.json` is one flat dictionary for the text.

table.py     what a table is, and how values are printed
data.py      entries, labels and splits
runs.py      every run, all models on the same crystals, intervals, space groups
record.py    settings, raw files, packages
beside.py    one network beside another on the same crystals; for the tables of a study
benchmark.py official folds, beside published algorithms; for the tables of a study
repeated.py  repeated splits and transfer learning; for the tables of a study

The tables that one study alone has stand in studies/<study>/tables.py: a list `TABLES` of functions
from a Context to a Table.
"""

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.report import own
from crystalmesh.report.own import Context
from crystalmesh.report.tables import data, record, runs

COMMON = (
    data.entries, data.labels, runs.runs, runs.models, runs.uncertainty, runs.space_groups,
    record.settings, record.checksums, record.software,
)  # fmt: skip


def build(project: Project, study: str) -> None:
    """Write results/<study>/tables/; a table without rows is left out.

    Raises:
        CrystalmeshError: something that an earlier stage makes is missing or damaged.
    """
    context = Context.load(project, study)
    functions = [*own.functions(project, study, "tables", "TABLES"), *COMMON]
    tables = [table for table in (make(context) for make in functions) if table.rows]
    names = [table.name for table in tables if table.columns]
    numbers = context.numbers | record.prose(context) | {"tables": names}
    with files.writing_folder(project.results(study) / "tables") as folder:
        for table in tables:
            table.write(folder)
        files.write_json(folder / "numbers.json", numbers)
