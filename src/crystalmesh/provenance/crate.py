"""What a report's results are and how they came about: for machines (RO-Crate) and for people."""

import re
from pathlib import Path
from typing import Any

import yaml
from rocrate.model.contextentity import ContextEntity
from rocrate.model.file import File
from rocrate.rocrate import ROCrate

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.errors import CrystalmeshError
from crystalmesh.provenance import software

METADATA, README = "ro-crate-metadata.json", "README.md"
FORMATS = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".svg": "image/svg+xml",
    ".safetensors": "application/vnd.safetensors",
}
LICENSE = "https://creativecommons.org/licenses/by/4.0/"  # the data's, and so the results'
PROCESS_RUN = "https://w3id.org/ro/wfrun/process/0.5"


def build(project: Project, study: str) -> None:
    """Write ro-crate-metadata.json and README.md of results/<study>.

    The metadata follow RO-Crate and its profile Process Run Crate: every output that Git does not
    leave out with its checksum, every training as an action (inputs with checksums, settings,
    software, device, time) with the files it gave. README.md is a table of the same. Both hold wall
    times and are not compared.

    Raises:
        CrystalmeshError: the ledger or a card is missing or damaged.
    """
    folder = project.results(study)
    ledger = files.read_json(folder / "ledger.json")
    metrics = files.read_json(folder / "metrics.json")
    cards = {
        name: files.read_json(project.card(run))
        for name, run in project.params.study(study).runs.items()
    }
    try:
        metadata = describe(project, study, ledger, cards)
        table = readme(project, study, cards, metrics)
    except (KeyError, TypeError) as error:
        raise CrystalmeshError(
            f"{folder}: a card, the ledger or metrics.json has no {error}; make the study again"
        ) from error
    files.write_json(folder / METADATA, metadata)
    files.write_bytes(folder / README, table.encode())


def describe(
    project: Project, study: str, ledger: dict[str, Any], cards: dict[str, Any]
) -> dict[str, Any]:
    """The crate's metadata as JSON-LD."""
    folder = project.results(study)
    citation = _citation(project.root)
    crate = ROCrate()
    crate.name = project.params.study(study).title
    crate.description = (
        f"Checkpoints, predictions, metrics, tables, figures and document of the study '{study}'"
        " of crystalmesh"
    )
    crate.license = LICENSE
    crate.root_dataset["datePublished"] = citation["date"]
    crate.root_dataset["conformsTo"] = {"@id": PROCESS_RUN}
    for name, kind in citation["authors"]:
        crate.root_dataset.append_to("author", crate.add(_thing(crate, name, kind, name=name)))
    known = {
        name: crate.add(
            File(
                crate,
                dest_path=name,
                properties={
                    "name": name,
                    "sha256": _file(folder / name, digest),
                    "encodingFormat": FORMATS.get(Path(name).suffix, "application/octet-stream"),
                },
            )
        )
        for name, digest in ledger["outputs"].items()
        if not software.ignored(folder / name)  # a clone does not hold it
    }
    inputs = {
        name: crate.add(_thing(crate, f"../../{name}", "CreativeWork", name=name, sha256=digest))
        for name, digest in ledger["data"].items()
    }
    for name, card in cards.items():
        action = _training(crate, name, card)
        read = {place: place.removeprefix(f"results/{study}/") for place in card["data"]}
        action["object"] = [
            inputs[place] if place in inputs else known[inner]
            for place, inner in read.items()
            if place in inputs or inner in known
        ]
        made = (f"checkpoints/{name}.", f"history/{name}.", f"predictions/{name}/")
        action["result"] = [one for path, one in known.items() if path.startswith(made)]
        crate.root_dataset.append_to("mentions", action)
    graph = crate.metadata.generate()
    graph["@graph"].sort(key=lambda entity: entity["@id"])
    result: dict[str, Any] = graph
    return result


def _training(crate: ROCrate, name: str, card: dict[str, Any]) -> Any:
    """The training of a run, and the program that did it."""
    code, numerics = card["code"], card["numerics"]
    program = crate.add(
        _thing(
            crate,
            f"crystalmesh-{code['source'][:12]}",
            "SoftwareApplication",
            name="crystalmesh",
            softwareVersion=code["version"],
            identifier=code["commit"] or code["source"],
            softwareRequirements=[
                f"{package} {version}" for package, version in numerics["packages"].items()
            ],
        )
    )
    action = crate.add(
        _thing(
            crate,
            f"train-{name}",
            "CreateAction",
            name=f"training of {name}",
            description=files.canonical_json(card["settings"]),
            additionalProperty=[
                crate.add(_thing(crate, f"{name}-{key}", "PropertyValue", name=key, value=value))
                for key, value in (
                    ("numerics tier", numerics["tier"]),
                    ("device", card["device"]),
                    ("CPU", numerics["cpu"].get("model", "")),
                    ("wall time, s", card["train_seconds"]),
                    ("CPU time, s", card["cpu_seconds"]),
                )
            ],
        )
    )
    action["instrument"] = program
    return action


def _file(path: Path, digest: str) -> str:
    """The SHA-256 of an output's file; the ledger has that of a checkpoint's content."""
    return files.verified(path) if path.parent.name == "checkpoints" else digest


def _thing(crate: ROCrate, at: str, kind: str, **properties: Any) -> ContextEntity:
    name = at if "/" in at else f"#{re.sub(r'[^A-Za-z0-9_.-]+', '-', at)}"
    return ContextEntity(crate, name, properties={"@type": kind} | properties)


def _citation(root: Path) -> dict[str, Any]:
    """Who published this, and when: from CITATION.cff."""
    path = root / "CITATION.cff"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        authors = [
            (one["name"], "Organization")
            if "name" in one
            else (f"{one['given-names']} {one['family-names']}", "Person")
            for one in content["authors"]
        ]
        return {"date": str(content["date-released"]), "authors": authors}
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{path}: missing; restore it") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise CrystalmeshError(
            f"{path}: no authors or date-released ({error}); add them"
        ) from error


def readme(
    project: Project, study: str, cards: dict[str, Any], metrics: list[dict[str, Any]]
) -> str:
    """Every run of the study and each of its targets in one line."""
    lines = [
        f"# {project.params.study(study).title}",
        "",
        "The document is [paper.pdf](paper.pdf). Each run's card in `cards/` says what its training"
        " read (by checksum), all its settings, the code, the numerics, the machine and the time."
        " `ledger.json` holds the checksum of every output;"
        f" `crystalmesh verify {study}` makes them again and compares. `{METADATA}` is the same"
        " for machines (RO-Crate). This file is made by `crystalmesh crate`.",
        "",
        "| run | target | training, validation, test | result on test | networks | parameters"
        " | epochs (best) | CPU-hours | device | numerics | code |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in metrics:
        card = cards[one["run"]]
        device = card["numerics"]["cpu"].get("model", "CPU")
        device = device if card["device"] == "cpu" else card["device"]
        commit = (card["code"]["commit"] or card["code"]["source"])[:10]
        runs = list(card["runs"].values()) if "runs" in card else [card]
        first = runs[0]
        lines.append(
            f"| [{one['run']}](cards/{one['run']}.json) | {one['target']} | {one['n_train']:,},"
            f" {one['n_val']:,}, {one['n_test']:,} | {one['metric']} {one['value']:.4g}"
            f" {one['unit']} | {len(runs)} | {first['parameters']:,} | {first['epochs']}"
            f" ({first['best_epoch']}) | {card['cpu_seconds'] / 3600:.2f} | {device} |"
            f" {card['numerics']['tier']} | {commit} |"
        )
    return "\n".join(lines) + "\n"
