"""study.yaml -> runs: blocks that people write, multiplied out and named.

`runs` is a list of blocks. A block with `runs` in it is a group: its other settings are those of
every block inside. In any other block a list stands for one run each:

    runs:
    - split: matbench_log_k
      size: 1250
      name: "{target}-{model}-1250"
      runs:
      - {target: [log_k, log_g], model: [cgcnn, schnet], members: 5}   # four runs
      - {targets: [log_k, log_g], model: delaunay}                     # one network, two targets

`target` (a list: one run each) or `targets` (of one network) must be given. `training` of a group
and of its blocks are merged, the inner one's settings first; null takes a setting out. `name` may
hold {target}, {model}, {representation}, {size}, {split} and {start}, and `split` {target}; of
`targets` the first one is the {target}.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from crystalmesh.config.read import listing, lookup, mapping, parse
from crystalmesh.config.schema import Model, Run
from crystalmesh.errors import CrystalmeshError

NAME = "{target}-{model}"
RESERVED = ("report", "stability")  # digests of a plan that are of no run: see `plan.digests`
MULTIPLIED = ("target", "model", "representation", "size", "split", "seed", "start")


def expand(
    study: str, tree: Mapping[str, Any], models: Mapping[str, Model], where: str
) -> dict[str, Run]:
    """The runs of a study by name, in their order.

    Args:
        study: its name.
        tree: the content of study.yaml.
        models: all of them: a run reads what its model reads, unless it says otherwise.
        where: of study.yaml, for messages.

    Raises:
        CrystalmeshError: a block is no run, it has no such model, or two runs have one name.
    """
    runs: dict[str, Run] = {}
    names: dict[str, str] = {}  # by what they are in small letters: some file systems see no more
    above = {"dataset": tree.get("dataset")}
    for place, block in _blocks(tree.get("runs"), above, f"{where}: runs"):
        for settings in _multiplied(block, place):
            if "model" in settings:
                model = lookup(models, str(settings["model"]), "model", f"{place}.model")
                settings.setdefault("representation", model.representation)
            name = _name(settings, place)
            run = parse(Run, settings | {"study": study, "name": name}, place)
            if name.casefold() in RESERVED:
                raise CrystalmeshError(
                    f"{place}.name: '{name}' is kept for reports; choose another"
                )
            other = names.setdefault(name.casefold(), name)
            if name in runs:
                raise CrystalmeshError(f"{place}: a second run '{name}'; give one of both a `name`")
            if name != other:
                raise CrystalmeshError(
                    f"{place}: run '{name}' differs from '{other}' in case only; give one a `name`"
                )
            runs[name] = run
    return runs


def _blocks(
    blocks: Any, above: Mapping[str, Any], place: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The innermost blocks with all that is inherited, and where each stands."""
    for number, content in enumerate([] if blocks is None else listing(blocks, place)):
        here = f"{place}.{number}"
        block = mapping(content, here)
        own = {**above, **{key: value for key, value in block.items() if key != "runs"}}
        if block.get("training") is not None:
            inner = mapping(block["training"], f"{here}.training")
            own["training"] = {**(above.get("training") or {}), **inner}
        given = [key for key in ("target", "targets") if block.get(key) is not None]
        if len(given) == 2:
            raise CrystalmeshError(f"{here}: has both `target` and `targets`; leave out one")
        if given:  # the inner one counts
            own.pop("targets" if given == ["target"] else "target", None)
        if "runs" in block:
            yield from _blocks(block["runs"], own, f"{here}.runs")
        else:
            yield here, own


def _multiplied(block: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """A block for each combination of what it lists; `target` becomes `targets`."""
    keys = [key for key in MULTIPLIED if isinstance(block.get(key), list)]
    for values in itertools.product(*(block[key] for key in keys)):
        one = {key: value for key, value in block.items() if value is not None}
        one |= dict(zip(keys, values, strict=True))
        if "target" in one:
            one["targets"] = [one.pop("target")]
        first = (listing(one.get("targets", []), f"{where}.targets") or [""])[0]
        if "split" in one:
            one["split"] = str(one["split"]).replace("{target}", str(first))
        yield one


def _name(settings: dict[str, Any], where: str) -> str:
    """The run's name, its pattern filled in."""
    pattern = str(settings.pop("name", NAME))
    facts = {key: str(settings.get(key, "all" if key == "size" else "")) for key in MULTIPLIED}
    facts["target"] = str((settings.get("targets") or [""])[0])
    facts["start"] = facts["start"].rpartition("/")[2]
    facts["representation"] = facts["representation"].replace(".", "_")  # a name has no dot
    try:
        return pattern.format(**facts)
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise CrystalmeshError(
            f"{where}.name: '{pattern}' cannot be filled in ({error})"
        ) from error
