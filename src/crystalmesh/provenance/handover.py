"""What Snakemake and DVC must know of each other's work, so that neither repeats it."""

import json
import shutil
import sys
from base64 import urlsafe_b64decode
from collections.abc import Collection
from pathlib import Path


def forget(root: Path) -> None:
    """Drop Snakemake's records of outputs that something else has made again since.

    Such a record says which inputs the output was made of, and would be taken for true. The time
    of the output at the end of its job is part of the record; without records, times decide.
    """
    for record in (root / ".snakemake" / "metadata").glob("*"):
        try:
            output = root / urlsafe_b64decode(record.name).decode()
            if output.is_dir():  # Snakemake keeps its time in a file
                output /= ".snakemake_timestamp"
            if json.loads(record.read_text())["endtime"] != output.stat().st_mtime:
                record.unlink()
        except (OSError, ValueError, KeyError):
            # not there any more, being written, or in another layout: let nothing rest on it
            shutil.rmtree(record, ignore_errors=True)
            record.unlink(missing_ok=True)


def record(root: Path, commands: Collection[str]) -> list[str]:
    """Tell DVC that the outputs of these commands are up to date; the stages that were news to it.

    This is `dvc commit --force` of the stages. Files stay what they are (no links into the cache),
    for a new time would be a change to Snakemake. Where DVC cannot be told (another DVC is at
    work, or this is no Git repository), a line on stderr says so: DVC will run the stages again.
    """
    if not (root / ".dvc").is_dir():
        return []  # no project of DVC's; it would look for one in the folders above
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    changed = []
    try:
        with Repo(str(root)) as repo, repo.lock:
            for stage in repo.index.stages:
                # dvc.yaml says before the command where to find it
                command = stage.cmd[stage.cmd.index("crystalmesh ") :]
                if command in commands and stage.changed():
                    stage.save()
                    stage.commit(relink=False)
                    changed.append(stage)
            for path in {stage.path: None for stage in changed}:  # each has a lock of its own
                own = [stage for stage in changed if stage.path == path]
                own[0].dvcfile.dump_stages(own, update_pipeline=False)
    except DvcException as error:
        print(f"DVC was not told of this run: {' '.join(str(error).split())}", file=sys.stderr)
        return []
    return [stage.addressing for stage in changed]
