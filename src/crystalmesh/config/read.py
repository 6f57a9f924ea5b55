"""Settings files as YAML, with one line for whatever is wrong in them: where, what, what to do."""

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from crystalmesh.errors import CrystalmeshError

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)
Place = tuple[int | str, ...]  # keys from the outermost block to a setting
Files = Mapping[Place, tuple[str, Place]]  # by place in a tree, the file and the place in that
LETTERS = "A to Z, a to z, 0 to 9"
ALLOWED = {  # by pattern of the schema, what is allowed
    r"^[A-Za-z0-9_.-]+$": f"{LETTERS}, '_', '-' and '.'",
    r"^[A-Za-z0-9_-]+$": f"{LETTERS}, '_' and '-'",
    r"^[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+$": f"study/run, of {LETTERS}, '_' and '-'",
    r"^[0-9a-f]{64}$": "64 digits of 0 to 9, a to f",
}


def yaml(path: Path, name: str) -> dict[str, Any]:
    """The content of a YAML file, called `name` in messages; an empty file has no settings.

    Raises:
        CrystalmeshError: it is missing or not valid, a key stands twice in one block, or it holds
            something else than blocks, lists, text, truth values and finite numbers.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        _check_plain(content, name, {})
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{name}: missing; restore it") from error
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        what = str(error.problem).partition(" with value")[0].removeprefix("found ")
        raise CrystalmeshError(f"{name}: line {line}: {what}; merge both") from error
    except RecursionError as error:
        raise CrystalmeshError(
            f"{name}: a block holds itself, or too many others; write it without YAML anchors"
        ) from error
    except (YAMLError, ValueError, LookupError, OSError) as error:
        raise CrystalmeshError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error
    return {} if content is None else mapping(content, name)


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A value that must be a block of settings."""
    if not isinstance(value, dict):
        raise CrystalmeshError(f"{where}: not a block of settings; write `key: value` in it")
    return value


def listing(value: Any, where: str) -> list[Any]:
    """A value that must be a list."""
    if not isinstance(value, list):
        raise CrystalmeshError(f"{where}: not a list; write `[...]`, or `- ` before each item")
    return value


def _check_plain(value: Any, where: str, files: Files, place: Place = ()) -> None:
    """Refuse what a plan cannot hold: keys that are no text, dates, infinite numbers."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise CrystalmeshError(
                    f"{at(where, place, files)}: the key {key!r} is no text; put it in quotes"
                )
            _check_plain(inner, where, files, (*place, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_plain(inner, where, files, (*place, number))
    elif isinstance(value, float) and not math.isfinite(value):
        raise CrystalmeshError(
            f"{at(where, place, files)}: {value} is not a finite number; give one"
        )
    elif not isinstance(value, str | int | float | None):
        raise CrystalmeshError(
            f"{at(where, place, files)}: neither text nor a number; put it in quotes"
        )


def lookup(table: Mapping[str, T], name: str, what: str, where: str | None = None) -> T:
    """`table[name]`, or an error that names what asks for it, if known, and the nearest name."""
    if name not in table:
        hint = nearest(name, list(table))
        if where is None:
            raise CrystalmeshError(f"settings: no {what} '{name}'; {hint}")
        raise CrystalmeshError(f"{where}: no {what} '{name}'; {hint}")
    return table[name]


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a name that is not known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else "known: " + ", ".join(sorted(known))


def allowed(name: str, pattern: str) -> str:
    """What is wrong with a name that does not fit a pattern of the schema."""
    return f"'{name}' is not of the allowed characters; use {ALLOWED[pattern]}"


def parse(block: type[S], settings: Any, where: str, files: Files | None = None) -> S:
    """Settings as a block; `where` (or, of what has one, its file) says in messages what they are.

    Raises:
        CrystalmeshError: a setting is unknown, missing or of the wrong kind.
    """
    try:
        parsed = block.model_validate(settings)
    except ValidationError as error:
        raise CrystalmeshError(_explain(error, block, settings, where, files or {})) from error
    _check_plain(parsed.model_dump(mode="json"), where, files or {})  # "inf" is a number only now
    return parsed


def at(where: str, place: Place, files: Files) -> str:
    """A place as messages name it: its file, if it has one, and the keys."""
    for length in (2, 1):
        if place[:length] in files:
            where, first = files[place[:length]]
            place = first + place[length:]
            break
    return f"{where}: {'.'.join(map(str, place))}" if place else where


def _explain(
    error: ValidationError, block: type[BaseModel], settings: Any, where: str, files: Files
) -> str:
    """One complaint of pydantic as one line: where, what, and the nearest known key.

    A misspelt key is missing and unknown at once: the unknown one says more.
    """
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    by_place: dict[Place, list[str]] = {}
    for one in error.errors():
        by_place.setdefault(_place(one, settings), []).append(one["msg"])
    place = _place(first, settings)
    here = at(where, place, files)
    more = len(by_place) - 1
    tail = f" (and {more} more)" if more else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(block, first["loc"][:-1])
        hint = nearest(str(first["loc"][-1]), known) if known else "remove it"
        return f"{here}: unknown setting; {hint}{tail}"
    if first["type"] == "missing":
        what = "missing; add it"
    elif first["type"] == "string_pattern_mismatch" and first["ctx"]["pattern"] in ALLOWED:
        what = allowed(first["input"], first["ctx"]["pattern"])
    else:
        start = "Input should be "  # or, if it may be of several kinds, this or that
        others = [one.removeprefix(start) for one in by_place[place] if one.startswith(start)]
        what = start + " or ".join(others) if others else first["msg"]
    return f"{here}: {what}{tail}"


def _place(error: ErrorDetails, settings: Any) -> Place:
    """Where pydantic complains, without its own marks: the kinds that a value may be of."""
    place: Place = ()
    for part in error["loc"]:
        try:
            settings = settings[part]
        except (LookupError, TypeError):
            continue
        place += (part,)
    return (*place, error["loc"][-1]) if error["type"] == "missing" else place


def _known_keys(block: Any, location: Sequence[int | str]) -> list[str]:
    """The keys that the block at `location` below `block` may have."""
    for part in location:
        if isinstance(block, type) and issubclass(block, BaseModel):
            field = block.model_fields.get(str(part))
            block = field.annotation if field else None
            if isinstance(block, UnionType):  # a block that may be left out
                block = block.__args__[0]
        else:
            block = getattr(block, "__args__", (None, None))[-1]
    if isinstance(block, type) and issubclass(block, BaseModel):
        return list(block.model_fields)
    return []
