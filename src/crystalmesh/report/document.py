"""The document of a study: the frame in paper/, its chapter, its tables and figures."""

from pathlib import Path

import typst

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError


def build(project: Project, study: str) -> None:
    """Write results/<study>/paper.pdf; see `typeset`."""
    files.write_bytes(project.results(study) / "paper.pdf", typeset(project, study))


def chapter(project: Project, study: str) -> Path:
    """The text of a study; where it has none of its own, that of any study."""
    own = project.root / "studies" / study / "chapter.typ"
    return own if own.exists() else project.root / "paper" / "plain.typ"


def typeset(project: Project, study: str) -> bytes:
    """Set paper/main.typ with the study's chapter, tables and figures as a PDF.

    The bytes depend on paper/, the chapter, tables/ and figures/ alone: no system fonts, no date.

    Raises:
        CrystalmeshError: there is no such study, it has no report, its tables or figures are not
            made yet, or Typst complains of the source.
    """
    if project.params.study(study).report is None:
        raise CrystalmeshError(f"studies/{study}/study.yaml: no `report`; add one (`{{}}` will do)")
    source = project.root / "paper" / "main.typ"
    folder = project.results(study)
    for part in ("tables", "figures"):  # Typst reads these itself
        for path in sorted((folder / part).glob("*")):
            files.verified(path)
    inputs = {"folder": folder, "chapter": chapter(project, study)}
    try:
        pdf, warnings = typst.Compiler(
            str(source),
            root=str(project.root),
            ignore_system_fonts=True,
            sys_inputs={key: f"/{project.relative(path)}" for key, path in inputs.items()},
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
