"""Settings files as YAML, with one line for whatever is wrong in them: where, what, what to do."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from crystalmesh.errors import CrystalmeshError

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)


def yaml(path: Path, name: str) -> Any:
    """The content of a YAML file, called `name` in messages.

    Raises:
        CrystalmeshError: it is missing or not valid, or a key stands twice in one block.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CrystalmeshError(f"{name}: missing; restore it") from error
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        what = str(error.problem).partition(" with value")[0].removeprefix("found ")
        raise CrystalmeshError(f"{name}: line {line}: {what}; merge both") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise CrystalmeshError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """`table[name]`, or an error that names the nearest known name."""
    if name not in table:
        raise CrystalmeshError(f"settings: no {what} '{name}'; {nearest(name, list(table))}")
    return table[name]


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a name that is not known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else "known: " + ", ".join(sorted(known))


def parse(block: type[S], settings: Any, where: str) -> S:
    """Settings as a block; `where` says in messages what they are.

    Raises:
        CrystalmeshError: a setting is unknown, missing or of the wrong kind.
    """
    try:
        return block.model_validate(settings)
    except ValidationError as error:
        raise CrystalmeshError(_explain(error, block, where)) from error


def _explain(error: ValidationError, block: type[BaseModel], where: str) -> str:
    """One complaint of pydantic as one line: where, what, and the nearest known key.

    A misspelt key is missing and unknown at once: the unknown one says more.
    """
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    more = len(error.errors()) - 1
    tail = f" (and {more} more)" if more else ""
    place = f"{where}: {place}" if place else where
    if first["type"] == "extra_forbidden":
        known = _known_keys(block, first["loc"][:-1])
        hint = nearest(str(first["loc"][-1]), known) if known else "remove it"
        return f"{place}: unknown setting; {hint}{tail}"
    return f"{place}: {first['msg']}{tail}"


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
