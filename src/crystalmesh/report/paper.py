"""The document: one Typst source for every report, set from that report's tables and figures."""

import typst

from crystalmesh import files
from crystalmesh.config import Project, lookup
from crystalmesh.errors import CrystalmeshError


def build(project: Project, report: str) -> None:
    """Write results/<report>/paper.pdf; see `typeset`."""
    files.write_bytes(project.results(report) / "paper.pdf", typeset(project, report))


def typeset(project: Project, report: str) -> bytes:
    """Set paper/main.typ with the report's tables and figures as a PDF.

    The bytes depend on paper/, tables/ and figures/ alone: no system fonts, no date.
    """
    lookup(project.params.reports, report, "report")
    source = project.root / "paper" / "main.typ"
    folder = project.results(report)
    for part in ("tables", "figures"):  # Typst reads these itself
        for path in sorted((folder / part).glob("*")):
            files.verified(path)
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
    return pdf
