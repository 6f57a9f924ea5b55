"""The document: one Typst source for every report, set from that report's tables and figures."""

import typst

from crystalmesh import files
from crystalmesh.config import Project, lookup
from crystalmesh.errors import CrystalmeshError


def build(project: Project, report: str) -> None:
    """Set paper/main.typ with the report's results as results/<report>/paper.pdf.

    The bytes depend on paper/, tables/ and figures/ alone: no system fonts, no date.
    """
    lookup(project.params.reports, report, "report")
    source = project.root / "paper" / "main.typ"
    folder = project.results(report)
    try:
        pdf, warnings = typst.Compiler(
            str(source),
            root=str(project.root),
            ignore_system_fonts=True,
            sys_inputs={"folder": "/" + folder.relative_to(project.root).as_posix()},
        ).compile_with_warnings(format="pdf")
    except (RuntimeError, OSError) as error:
        text = " ".join(str(error).split())
        raise CrystalmeshError(f"{source}: {text}; make tables and figures first") from error
    if warnings:
        text = " ".join(str(warnings[0]).split())
        raise CrystalmeshError(f"{source}: {text}; mend the source")
    if not isinstance(pdf, bytes):  # one file, as it is a PDF
        raise TypeError(f"typst gave {type(pdf).__name__}, not bytes")
    files.write_bytes(folder / "paper.pdf", pdf)
