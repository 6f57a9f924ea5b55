"""Slurm with one node, this machine, for as long as a command runs: a cluster in small.

    python -m tests.workflow.slurm_node -- snakemake --workflow-profile profiles/slurm \
        --max-threads 2 --slurm-status-command squeue demo

Needs munged, slurmctld and slurmd (Debian: slurm-wlm) and root. Everything lies in a temporary
folder and is gone in the end. There is no accounting, so Snakemake has to ask squeue how its jobs
are.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.workflow.conftest import BIN

DAEMONS = ("munged", "slurmctld", "slurmd")
SECONDS = 30  # until the node must be ready
CONFIG = """\
ClusterName=small
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# The executor starts `srun` in a job without SLURM_CONF, as a cluster has it in its usual place.
SRUN = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


def installed() -> bool:
    """Whether this machine has Slurm, and whether this process may start it."""
    return os.geteuid() == 0 and all(map(found, DAEMONS))


def found(program: str) -> str | None:
    """Where a program lies; daemons are not on everybody's PATH."""
    return shutil.which(program, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def node(folder: Path) -> Iterator[dict[str, str]]:
    """A running node; what a command that is to use it needs in its environment.

    Args:
        folder: an empty one, in which the node keeps its state and its logs.

    Raises:
        RuntimeError: it is not ready in time; the logs are in the message.
    """
    for name in ("bin", "state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o600)
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            ports=free_ports(2),
            cpus=len(os.sched_getaffinity(0)),
            memory=psutil.virtual_memory().total >> 20,  # MiB
        )
    )
    srun = folder / "bin" / "srun"
    srun.write_text(SRUN.format(folder=folder, srun=found("srun")))
    srun.chmod(0o755)
    path = os.pathsep.join([str(srun.parent), str(BIN), os.environ["PATH"]])
    variables = {"SLURM_CONF": str(config), "PATH": path}
    munge = [f"--{name}={folder}/munge.{name}" for name in ("socket", "key-file", "seed-file")]
    munge = [option.replace("munge.key-file", "munge.key") for option in munge]
    commands = {
        "munged": ["--foreground", "--force", f"--pid-file={folder}/munged.pid", *munge],
        "slurmctld": ["-D", "-c", "-f", str(config)],
        "slurmd": ["-D", "-c", "-f", str(config)],
    }
    running: list[subprocess.Popen[bytes]] = []
    try:
        for daemon, options in commands.items():
            with (folder / f"{daemon}.log").open("wb") as log:
                command = [str(found(daemon)), *options]
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        _wait(folder, os.environ | variables)
        yield variables
    finally:
        # Jobs first: a daemon's end is not theirs.
        subprocess.run(["scancel", "--partition=main"], env=os.environ | variables, check=False)
        while _said(["squeue", "--noheader"], os.environ | variables):
            time.sleep(0.2)
        for process in reversed(running):
            process.terminate()
            process.wait()


def _said(command: list[str], variables: dict[str, str]) -> str:
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    return ended.stdout.strip()


def _wait(folder: Path, variables: dict[str, str]) -> None:
    end = time.monotonic() + SECONDS
    while _said(["sinfo", "--noheader", "--format=%T"], variables) != "idle":
        if time.monotonic() > end:
            logs = (path.read_text(errors="replace") for path in sorted(folder.glob("*.log")))
            raise RuntimeError("\n".join(["the node is not ready:", *logs]))
        time.sleep(0.2)


def main() -> None:
    command = sys.argv[1:]
    if command[:1] == ["--"]:
        del command[0]
    if not command:
        sys.exit(__doc__)
    if not installed():
        sys.exit(f"{', '.join(DAEMONS)}: all of them and root are needed")
    with tempfile.TemporaryDirectory() as folder, node(Path(folder)) as variables:
        program = shutil.which(command[0], path=variables["PATH"]) or command[0]
        code = subprocess.call([program, *command[1:]], env=os.environ | variables)
    sys.exit(code)


if __name__ == "__main__":
    main()
