"""Reading and writing: every output is complete or absent, and equal content gives equal bytes."""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from crystalmesh import integrity
from crystalmesh.errors import CrystalmeshError

CHUNK = 1 << 20


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at `path` only when the block ends without an error.

    The bytes go to a temporary name in the same folder, are synced to disk, and are renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    handle, name = tempfile.mkstemp(".part", _unfinished(path), path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private; published results follow the ordinary umask-free 0644.
        temporary.chmod(0o644)
        if integrity.watched():
            integrity.wrote(path, sha256(temporary))
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:  # a full disk does not say where it is full
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder that replaces `path` only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = Path(tempfile.mkdtemp(".part", _unfinished(path), path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # as `writing` leaves it, whatever the umask
                if integrity.watched():
                    integrity.wrote(path / file.relative_to(temporary), sha256(file))
        if path.exists():
            # A folder cannot be replaced in one step: the old one steps aside first.
            old = Path(tempfile.mkdtemp(".part", _unfinished(path), path.parent))
            path.rename(old / path.name)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unfinished(path: Path) -> str:
    """How the names of this process's unfinished versions of `path` begin."""
    return f".{path.name}.{platform.node()}-{os.getpid()}-"


def _sweep(path: Path) -> None:
    """Remove what a process that was killed on this machine has left of `path`."""
    mine = re.compile(re.escape(f".{path.name}.{platform.node()}-") + r"([0-9]+)-.*\.part")
    for left in path.parent.iterdir():
        found = mine.fullmatch(left.name)
        if found is None or int(found[1]) == os.getpid():
            continue
        try:
            os.kill(int(found[1]), 0)
        except ProcessLookupError:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        except PermissionError:
            pass  # alive, and somebody else's


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, all or nothing."""
    with writing(path) as stream:
        stream.write(content)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and the shortest floats that read back equal, ending in a newline."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as canonical JSON."""
    write_bytes(path, canonical_json(value).encode())


def read_bytes(path: Path) -> bytes:
    """The whole of a file of ours, as it was written: see `integrity.check`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{path}: missing; run the stage that makes it") from error
    if integrity.watched():
        integrity.check(path, hashlib.sha256(content).hexdigest())
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; a missing or broken one is the user's to mend."""
    try:
        return json.loads(read_bytes(path))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CrystalmeshError(f"{path}: not valid JSON ({error}); make it again") from error


def write_gzip_json(path: Path, value: Any) -> None:
    """Write gzip-compressed JSON whose bytes hold neither a time nor a file name."""
    write_gzip(path, json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def write_gzip(path: Path, text: str) -> None:
    """Write gzip-compressed text whose bytes hold neither a time nor a file name."""
    with (
        writing(path) as stream,
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed,
    ):
        packed.write(text.encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; floats as repr, so that they read back equal; None as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if v is None else repr(v) if type(v) is float else v for v in row])
    write_bytes(path, text.getvalue().encode())


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header as one dictionary a row."""
    try:
        return list(csv.DictReader(io.StringIO(read_bytes(path).decode(), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], note: str | None = None) -> None:
    """Write arrays as safetensors, with at most one metadata entry (several come in no order)."""
    metadata = {"note": note} if note is not None else None
    arrays = {name: np.require(tensors[name], requirements="C") for name in sorted(tensors)}
    write_bytes(path, save(arrays, metadata))


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file; a missing or damaged one is the user's to mend."""
    content = read_bytes(path)
    try:
        return load(content)
    except Exception as error:  # safetensors raises its own type, not exported as a class to catch
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error


def read_note(path: Path) -> str:
    """The note that `write_tensors` left in a safetensors file."""
    content = read_bytes(path)
    try:
        # The format: the length of the header in 8 bytes, the header as JSON, the numbers.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return str(header["__metadata__"]["note"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{path}: missing; run the stage that makes it") from error
    return digest.hexdigest()


def verified(path: Path) -> str:
    """SHA-256 of a file which must hold what was written to it: see `integrity.check`."""
    digest = sha256(path)
    integrity.check(path, digest)
    return digest
