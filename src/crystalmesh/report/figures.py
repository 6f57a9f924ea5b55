"""The figures of a report as SVG files whose bytes depend on nothing but their data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from crystalmesh import files
from crystalmesh.config import Project, lookup
from crystalmesh.data.crystals import Crystals
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report import results
from crystalmesh.report.maps import SYSTEMS
from crystalmesh.report.mesh_figure import WIDTH, Drawing, mesh
from crystalmesh.report.results import Result
from crystalmesh.report.tables import count, metric, shown, unit

STYLE: Any = {
    "svg.hashsalt": "crystalmesh",  # else the ids in the file are random
    "svg.fonttype": "path",  # the picture looks alike where the font is missing
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
}
# Okabe and Ito's colours, told apart by all readers; models take them in params.yaml's order.
# After them come Paul Tol's muted ones.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255",
    "#999933", "#44AA99", "#AA4499", "#661100", "#6699CC", "#888888",
)  # fmt: skip
MARKERS = "os^D"  # with each of them all colours
DASHES: Sequence[Any] = ("-", "--", ":", "-.")
LINES = 6  # in one panel
PANELS = 12  # of a figure with a panel a task and network
FAR = 2.5  # times the median of a panel: an error beyond is not drawn
MANY = 600  # more test crystals than this are drawn as counts in hexagons
BINS = (0, 1, 3, 10, 30, 100, 300, 1000, 10**9)  # training crystals of a space group


def build(project: Project, report: str) -> None:
    """Write results/<report>/figures/ from predictions, histories, splits, crystals and meshes."""
    settings = lookup(project.params.reports, report, "report")
    crystals = results.crystals(project, report)
    found = results.plain(results.load(project, report))
    with (
        matplotlib.rc_context(STYLE),
        files.writing_folder(project.results(report) / "figures") as folder,
    ):
        looks, single = Looks.of(project, found), results.single(project, found)
        drawings = [
            drawing
            for drawing in (
                mesh(project, report, found, crystals[settings.dataset]),
                stability(project, report),
                speed(project),
                accuracy(project, report, found, looks),
                calibration(project, found, looks),
                transfer(project, found, looks),
                maps(project, report, found),
                parity(project, single, looks),
                learning_curves(project, report, single, looks),
                space_groups(project, single, crystals, looks),
            )
            if drawing
        ]
        for drawing in drawings:
            drawing.figure.savefig(folder / f"{drawing.name}.svg", metadata={"Date": None})
        files.write_json(
            folder / "figures.json",
            {d.name: {"caption": d.caption, "alt": d.alt} for d in drawings},
        )


@dataclass(frozen=True)
class Looks:
    """One colour and marker for each method of a report, the same in all of its figures."""

    methods: Sequence[tuple[str, str, bool]]

    @classmethod
    def of(cls, project: Project, found: Sequence[Result]) -> "Looks":
        """Networks first: they are in most figures, and no two have the same colour."""
        return cls(
            sorted(_methods(found), key=lambda m: project.params.models[m[0]].training is None)
        )

    def colour(self, result: Result) -> str:
        return COLOURS[self.methods.index(result.method) % len(COLOURS)]

    def marker(self, result: Result) -> str:
        return MARKERS[self.methods.index(result.method) // len(COLOURS) % len(MARKERS)]


def _grid(panels: int, height: float, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels in rows of at most `columns`; `height` inches a row."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    # A lone panel as wide as the line looks lost: a panel takes a quarter of the line or more.
    width = WIDTH * max(columns, 2.2) / max(columns, 4) if columns < 4 else WIDTH
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    return figure, axes


# How meshes are made ------------------------------------------------------------------------------

KINDS = {
    results.PUBLISHED: ("published mesh", "#D55E00"),
    results.CANONICAL: ("canonical mesh", "#0072B2"),
}
# Names in benchmarks/representations.json, in words; canonical blue, published orange, graph green.
TIMED = {
    "original": ("published mesh, original steps", "#D55E00", ":"),
    "published": ("published mesh", "#D55E00", "-"),
    "canonical": ("canonical mesh with spglib's cell", "#0072B2", ":"),
    "complex": ("canonical complex", "#0072B2", "-"),
    "qhull": ("Qhull alone, on its points", "0.45", "--"),
    "pymatgen": ("graph by pymatgen's neighbours", "#009E73", ":"),
    "graph": ("crystal graph", "#009E73", "-"),
}
STAGES = {results.CANONICAL: "canonical mesh", results.GRAPH: "crystal graph"}


def stability(project: Project, report: str) -> Drawing:
    """The share of crystals whose mesh changes when atoms move by a little."""
    path = project.results(report) / "stability.json"
    content = files.read_json(path)
    figure = Figure(figsize=(WIDTH * 0.62, 2.1), layout="constrained")
    ax = figure.subplots()
    try:
        sizes = [float(size) for size in content["displacements"]]
        anew = min(sizes) / 10  # the place of "not displaced" on a logarithmic axis
        for kind, (name, colour) in KINDS.items():
            values = [content["described anew"][kind], *content["displaced"][kind]]
            shares = 100 * np.array(values, dtype=float)
            ax.plot(sizes, shares[1:], "o-", color=colour, markersize=3.5, label=name)
            ax.plot([anew], shares[:1], "s", color=colour, markersize=4)
        crystals = int(content["crystals"])
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
    ax.set_xscale("log")
    places = [anew, *sizes]
    ax.set_xticks(places, ["described\nanew", *(f"{size:g}" for size in sizes)])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("displacement of every atom / Å")
    ax.set_ylabel("meshes that change / %")
    ax.set_ylim(-3, 103)
    ax.legend()
    return Drawing(
        "stability",
        figure,
        f"Share of {count(crystals)} crystals whose mesh changes: when the crystal is described "
        "anew (rotated, its origin shifted, its sites permuted: squares), and when every atom "
        "moves by a small distance in a random direction.",
        "Line plot of the share of changed meshes against the displacement of the atoms.",
    )


def speed(project: Project) -> Drawing:
    """What meshes and graphs cost, as benchmarks/representations.py measured it."""
    path = project.root / "benchmarks" / "representations.json"
    content = files.read_json(path)
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots(1, 3)
    try:
        rows = content["by_atoms"]
        for name, (label, colour, dashes) in TIMED.items():
            times = [1e3 * row[name] for row in rows]
            axes[0].plot(
                [row["atoms"] for row in rows], times, dashes, color=colour, label=label,
            )  # fmt: skip
        for name, label in STAGES.items():
            stage = content["by_crystals"][name]
            sizes = [row["crystals"] for row in stage]
            rate = [row["crystals"] / row["seconds"] for row in stage]
            memory = [row["peak_bytes"] / 2**30 for row in stage]
            for ax, values in ((axes[1], rate), (axes[2], memory)):
                colour = TIMED["complex" if name == results.CANONICAL else "graph"][1]
                ax.plot(sizes, values, "o-", color=colour, markersize=3, label=label)
        machine = f"{content['machine']['processor']}, {content['machine']['cores']} cores"
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); run the benchmark again") from error
    for ax, words in zip(
        axes,
        (
            ("atoms a cell", "ms a crystal, one core"),
            ("crystals", "crystals/s, two processes"),
            ("crystals", "peak memory / GiB"),
        ),
        strict=True,
    ):
        ax.set_xscale("log")
        ax.set_xlabel(words[0])
        ax.set_ylabel(words[1])
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    axes[2].set_ylim(bottom=0)
    axes[1].legend()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=6)
    return Drawing(
        "speed",
        figure,
        "Cost of meshes and graphs, measured once by benchmarks/representations.py on "
        f"structures of the Materials Project ({machine}). Left: one crystal after the other. "
        "Middle and right: the stage that writes the features, all its processes together.",
        "Three line plots: time a crystal by atoms, crystals a second and memory by crystals.",
    )


# The results --------------------------------------------------------------------------------------


def accuracy(
    project: Project, report: str, found: Sequence[Result], looks: Looks
) -> Drawing | None:
    """The error of every model on the same crystals, against what it costs."""
    speeds = results.Speeds.load(project, report)
    shared = [
        r
        for r in results.same_crystals(found)
        if r.task.kind == "regression" and speeds.of(r.experiment) and not r.variant_of
    ]
    if not shared:
        return None
    shared = max(_by_task(shared), key=len)  # the task that most methods have
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for result in shared:
        hours = speeds.hours(project, report, result.name)
        value = float(result.of_members().mean())
        marker, colour = looks.marker(result), looks.colour(result)
        speed = speeds.of(result.experiment)["predict_crystals_per_s"]
        for ax, x in zip(axes, (hours, speed), strict=True):
            ax.plot(
                [x],
                [value],
                marker,
                color=colour,
                markersize=4.5,
                label=results.title(project, result),
            )
            if len(result.members):
                ax.plot([x], [result.value], marker, color=colour, markersize=4.5, mfc="white")
    for ax, words in zip(
        axes, ("training of one network / CPU hours", "prediction / crystals per s"), strict=True
    ):
        ax.set_xscale("log")
        ax.set_xlabel(words)
    axes[0].set_ylabel(f"test {metric(shared[0].task)} / {unit(shared[0].task)}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=6)
    return Drawing(
        "accuracy",
        figure,
        f"Test error of the {shared[0].task.title} against cost, models trained on the same "
        f"{count(len(shared[0].train))} crystals. Filled: one network (mean over its seeds); open: "
        "the ensemble of these seeds. Training costs epochs × crystals over the speed measured by "
        f"benchmarks/models.py ({speeds.machine}).",
        "Two scatter plots of the test error against training hours and prediction speed.",
    )


def calibration(project: Project, found: Sequence[Result], looks: Looks) -> Drawing | None:
    """How much more or less often than they say the intervals hold the truth, level by level."""
    groups = list(
        _by_task(_usual([r for r in results.same_crystals(found) if _network(project, r)]))
    )
    if not groups:
        return None
    levels = np.linspace(0.02, 0.98, 49)
    figure, axes = _grid(len(groups), 1.9, columns=3)
    for ax, group in zip(axes, groups, strict=True):
        for result in group:
            held = np.array([(result.p_value > 1 - level).mean() for level in levels])
            ax.plot(100 * levels, 100 * (held - levels), color=looks.colour(result), linewidth=0.9)
        ax.axhspan(-2, 2, color="0.9", zorder=0)
        ax.axhline(0, color="0.5", linewidth=0.5)
        ax.set_ylim(-7, 7)
        ax.set_title(group[0].task.title)
        ax.set_xlabel("level of the interval / %")
        ax.set_ylabel("coverage − level / %")
    _model_legend(figure, project, looks, [r for group in groups for r in group])
    return Drawing(
        "calibration",
        figure,
        "Calibration of the conformal intervals (regression) and sets (classes): by how much the "
        "share of test crystals whose true value lies inside differs from the level. Grey: 2%.",
        "Line plots of coverage minus level against the level, one panel a task.",
    )


def transfer(project: Project, found: Sequence[Result], looks: Looks) -> Drawing | None:
    """Learning curves over repeated splits, with and without pretraining."""
    repeated = results.repeated(project, found)
    if not any(r.experiment.transferred for r in repeated):
        return None
    groups = list(_by_task(repeated))
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for ax, group in zip(axes, groups, strict=True):
        lines: dict[tuple[Any, ...], list[Result]] = {}
        for result in group:
            source = result.experiment.pretrained
            lines.setdefault((result.method, source and source.name), []).append(result)
        far = FAR * float(np.median([r.value for r in group]))
        for every in lines.values():
            own = sorted((r for r in every if r.value < far), key=_train_size)
            if not own:
                continue
            values = np.array([r.of_folds().mean() for r in own])
            spread = np.array([r.of_folds().std(ddof=1) for r in own])
            name = results.title(project, own[0])
            ax.errorbar(
                [len(r.train) for r in own], values, yerr=spread, markersize=3,
                fmt=looks.marker(own[0]) + ("-" if _network(project, own[0]) else "--"),
                color=looks.colour(own[0]), capsize=1.5, elinewidth=0.8, label=name,
            )  # fmt: skip
        sizes = sorted({len(r.train) for r in group})
        ax.set_xscale("log")
        ax.set_xticks(sizes, [count(n) for n in sizes])
        ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        ax.margins(0.15)
        ax.set_title(group[0].task.title)
        ax.set_xlabel("target crystals to train on")
        ax.set_ylabel(f"test {metric(group[0].task)} / {unit(group[0].task)}")
    named: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(list(named.values()), list(named), loc="outside right center", fontsize=6)
    return Drawing(
        "transfer",
        figure,
        "Transfer learning: test error against the number of target crystals, mean and standard "
        "deviation over repeated splits. TL: all weights start from a network trained on formation "
        f"energies. An error of more than {FAR} times the median of a panel is in the table alone.",
        "Line plots of the test error against the number of target crystals.",
    )


def maps(project: Project, report: str, found: Sequence[Result]) -> Drawing | None:
    """The crystal vectors of networks, projected by PCA and t-SNE, coloured by two things."""
    path = project.results(report) / "maps.json"
    content = files.read_json(path)
    if not content:
        return None
    by_name = {r.name: r for r in found}
    figure = Figure(figsize=(WIDTH, 1.45 * 3 + 0.5), layout="constrained")
    axes = figure.subplots(3, len(content), squeeze=False)
    systems = list(SYSTEMS)
    try:
        for column, (name, one) in enumerate(content.items()):
            result = by_name[name]
            flat = {key: np.array(one[key]) for key in ("pca", "tsne")}
            system, target = np.array(one["system"]), np.array(one["target"])
            shades = [to_rgb(COLOURS[s]) for s in system]
            ways: Sequence[tuple[str, dict[str, Any]]] = (
                ("pca", {"c": shades}),
                ("tsne", {"c": shades}),
                ("tsne", {"c": target, "cmap": "viridis"}),
            )
            for row, (key, colours) in enumerate(ways):
                ax = axes[row, column]
                image = ax.scatter(*flat[key].T, s=2.2, linewidths=0, **colours)
                ax.set_xticks([])
                ax.set_yticks([])
                if not column:
                    ax.set_ylabel(("PCA", "t-SNE", "t-SNE")[row])
            name = results.title(project, result).replace(" (", ",\n(").replace("), ", "),\n")
            axes[0, column].set_title(name, fontsize=6)
            axes[1, column].set_xlabel(f"system {one['system_accuracy']:.0f}%", fontsize=6.5)
            axes[2, column].set_xlabel(f"R² {one['target_r2']:.2f}", fontsize=6.5)
        guess = max(float(one["system_most_frequent"]) for one in content.values())
        crystals = max(len(one["ids"]) for one in content.values())
        task = by_name[next(iter(content))].task
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); delete it and run again") from error
    figure.colorbar(image, ax=axes[2, :].tolist(), label=unit(task), shrink=0.9, aspect=12)
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=3, color=COLOURS[i], label=name)
        for i, name in enumerate(systems)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=7, fontsize=6)
    return Drawing(
        "maps",
        figure,
        f"What networks trained on the {task.title} make of {count(crystals)} test crystals: their "
        "vectors projected by PCA and t-SNE, coloured by crystal system (rows one and two) and by "
        f"the {task.title} (row three). Below: how often the crystal system is the most frequent "
        f"of the five nearest neighbours in all dimensions (always guessing the most frequent: "
        f"{guess:.0f}%), and how well the mean of their values predicts the property.",
        "Scatter plots of projected crystal vectors, a column a network.",
    )


def parity(project: Project, found: Sequence[Result], looks: Looks) -> Drawing | None:
    """Predicted against true value, for the largest experiment of each task and model."""
    chosen: dict[tuple[str, tuple[str, str, bool]], Result] = {}
    for result in found:  # largest first
        if result.task.kind == "regression" and _network(project, result):
            chosen.setdefault((result.experiment.task, result.method), result)
    if len(chosen) > PANELS:
        tasks = dict.fromkeys(task for task, _ in chosen)
        chosen = {
            key: result
            for key, result in chosen.items()
            if key[0] == next(iter(tasks)) or result is _first(chosen, key[0])
        }
    if not chosen:
        return None
    figure, axes = _grid(len(chosen), 1.95)
    for ax, result in zip(axes, chosen.values(), strict=True):
        colour = looks.colour(result)
        low, high = _limits(np.concatenate([result.target, result.prediction]))
        if len(result.test) > MANY:
            shades = LinearSegmentedColormap.from_list("", [_mix(colour, 0.8), _mix(colour, -0.5)])
            ax.hexbin(
                result.target, result.prediction, gridsize=45, extent=(low, high, low, high),
                mincnt=1, norm=LogNorm(), cmap=shades, linewidths=0.15,
            )  # fmt: skip
        else:
            ax.plot(
                result.target, result.prediction, "o", color=colour, alpha=0.45, markersize=2.4,
                markeredgewidth=0,
            )  # fmt: skip
        ax.plot([low, high], [low, high], color="0.25", linewidth=0.6, zorder=3)
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        task = result.task
        ax.set_title(task.title)
        ax.set_xlabel(f"true / {unit(task)}")
        ax.set_ylabel("predicted")
        ax.text(
            0.04, 0.97,
            f"MAE {shown(result.value, task)}\n{count(len(result.train))} train\n"
            f"{count(len(result.test))} test",
            transform=ax.transAxes, va="top", fontsize=6,
        )  # fmt: skip
    _model_legend(figure, project, looks, list(chosen.values()))
    return Drawing(
        "parity",
        figure,
        "Predicted against true values of the test crystals, for the largest experiment of each "
        "task and network (where these are many, of the first task, and of one network for the "
        "others). The line is equality. Where test crystals are many, a darker hexagon "
        "holds more of them (logarithmic scale).",
        "Scatter plots of predicted against true values, one a task and network.",
    )


def _first(chosen: Mapping[tuple[str, tuple[str, str, bool]], Result], task: str) -> Result:
    """Of a task's results the one that learned from most crystals."""
    own = [result for (name, _), result in chosen.items() if name == task]
    return max(own, key=_train_size)


def _network(project: Project, result: Result) -> bool:
    """Whether the experiment trains a network, and on all it learns from anew."""
    model = project.params.models[result.experiment.model]
    return model.training is not None and not result.experiment.transferred


def _usual(found: Sequence[Result]) -> list[Result]:
    """Without variants and, where all methods are too many for a panel, those of few tasks."""
    found = [r for r in found if not r.variant_of]
    tasks = {m: len({r.experiment.task for r in found if r.method == m}) for m in _methods(found)}
    if len(tasks) <= LINES:
        return [*found]
    most = sorted(tasks.values(), reverse=True)[LINES - 1]
    return [r for r in found if tasks[r.method] > min(most, max(tasks.values()) - 1)]


def _methods(found: Sequence[Result]) -> list[tuple[str, str, bool]]:
    return list(dict.fromkeys(r.method for r in found))


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """The range of the middle 99.8 % of values, a little widened: one outlier is no axis."""
    low, high = np.percentile(values, [0.1, 99.9])
    margin = 0.04 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def _mix(colour: str, share: float) -> tuple[float, float, float]:
    """A colour mixed with white (share > 0) or with black (share < 0)."""
    other = 1.0 if share > 0 else 0.0
    r, g, b = (abs(share) * other + (1 - abs(share)) * part for part in to_rgb(colour))
    return r, g, b


def _by_task(found: Sequence[Result]) -> Iterator[list[Result]]:
    """The results of each task in turn."""
    for task in dict.fromkeys(r.experiment.task for r in found):
        yield [r for r in found if r.experiment.task == task]


def learning_curves(
    project: Project, report: str, found: Sequence[Result], looks: Looks
) -> Drawing:
    """Validation metric by epoch, and test metric by the number of training crystals."""
    groups = list(_by_task(found))
    drawn = _usual([r for r in found if _network(project, r)])
    sizes = any(len({len(r.train) for r in group}) > 1 for group in groups)
    figure, axes = _grid(len(groups) * (2 if sizes else 1), 1.9, columns=max(len(groups), 1))
    for ax, group in zip(axes, groups, strict=False):
        task, highest = group[0].task, []
        order = sorted({len(r.train) for r in group}, reverse=True)
        for result in (r for r in group if r in drawn):
            epochs, values = results.history(project, report, result.name)
            highest.append(np.percentile(values, 97))
            ax.plot(
                epochs, values,
                color=looks.colour(result),
                linestyle=DASHES[min(order.index(len(result.train)), len(DASHES) - 1)],
                label=count(len(result.train)),
            )  # fmt: skip
        ax.set_title(task.title)
        ax.set_xlabel("epoch")
        ax.set_ylabel(f"validation {metric(task)} / {unit(task)}")
        if task.kind == "regression":
            _log_axis(ax.yaxis, ax.set_yscale)
            ax.set_ylim(top=max(highest) * 1.15)
        lines = [
            Line2D([], [], color="0.3", linestyle=DASHES[min(i, len(DASHES) - 1)], label=count(n))
            for i, n in enumerate(order)
        ]
        ax.legend(handles=lines, title="train crystals", title_fontsize=6, handlelength=2.2)
    for ax, group in zip(axes[len(groups) :], groups, strict=False):
        task = group[0].task
        for method in dict.fromkeys(r.method for r in group if r in drawn):
            own = sorted((r for r in group if r.method == method), key=_train_size)
            bounds = np.array([results.interval(r.losses) for r in own]).T
            values = np.array([r.value for r in own])
            ax.errorbar(
                [len(r.train) for r in own], values, yerr=np.abs(bounds - values), fmt="o-",
                color=looks.colour(own[0]), markersize=3, capsize=1.5, elinewidth=0.8,
            )  # fmt: skip
        ends = [f([len(r.train) for r in group if r in drawn]) for f in (min, max)]
        ax.set_xscale("log")
        ax.set_xticks(sorted(set(ends)), [count(n) for n in sorted(set(ends))])
        ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        if task.kind == "regression":
            _log_axis(ax.yaxis, ax.set_yscale)
        ax.margins(0.15)
        ax.set_xlabel("training crystals")
        ax.set_ylabel(f"test {metric(task)} / {unit(task)}")
    _model_legend(figure, project, looks, drawn)
    above = "the metric on the validation crystals by epoch"
    below = (
        f"Above: {above}; the style of the line tells the number of training crystals. Below: the "
        f"test metric against that number, with {results.LEVEL}% bootstrap intervals."
    )
    return Drawing(
        "learning_curves",
        figure,
        f"Learning curves. {below}" if sizes else f"Learning curves: {above}.",
        "Line plots of the validation metric by epoch, one panel a task.",
    )


def _train_size(result: Result) -> int:
    return len(result.train)


def _log_axis(axis: Any, set_scale: Any, ticks: Sequence[float] = (1, 2, 5)) -> None:
    """A logarithmic axis with plain numbers at these places of each decade."""
    set_scale("log")
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=ticks, numticks=12))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:,g}"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _model_legend(
    figure: Figure,
    project: Project,
    looks: Looks,
    drawn: Sequence[Result],
    extra: Sequence[Line2D] = (),
) -> None:
    """The methods that are drawn, in their colours."""
    methods = {r.method: r for r in drawn}
    handles = [
        Line2D(
            [], [], color=looks.colour(r), marker=looks.marker(r), markersize=3,
            label=results.title(project, r),
        )
        for r in sorted(methods.values(), key=lambda r: looks.methods.index(r.method))
    ] + list(extra)  # fmt: skip
    wide = any(len(str(handle.get_label())) > 40 for handle in handles)
    figure.legend(
        handles=handles, loc="outside upper center", ncols=min(len(handles), 2 if wide else 3)
    )


def space_groups(
    project: Project, found: Sequence[Result], crystals: Mapping[str, Crystals], looks: Looks
) -> Drawing:
    """The metric against how often the test crystal's space group occurs in training."""
    groups = list(_by_task(found))
    figure, axes = _grid(len(groups), 2.2)
    edges = np.array(BINS)
    drawn = []
    for ax, group in zip(axes, groups, strict=True):
        task = group[0].task
        chosen = _compared(group)
        last = 0
        for place, (result, dashed) in enumerate(chosen):
            seen = results.frequency(result, crystals[result.experiment.dataset])
            known = seen[:, 0] > 0
            which = np.searchsorted(edges, seen[known, 1], side="right") - 1
            losses = result.losses[known]
            bins = [b for b in range(len(edges) - 1) if (which == b).any()]
            means = np.array([losses[which == b].mean() for b in bins])
            bounds = np.array([results.interval(losses[which == b]) for b in bins]).T
            ax.errorbar(
                np.array(bins) + 0.12 * (place - (len(chosen) - 1) / 2), means,
                yerr=np.abs(bounds - means), markersize=2.8,
                fmt=looks.marker(result) + ("--" if dashed else "-"),
                color=looks.colour(result), capsize=1.2, elinewidth=0.7,
                markerfacecolor="white" if dashed else None,
            )  # fmt: skip
            last = max(last, *bins)
        ax.set_xticks(
            range(last + 1), [_bin_name(b) for b in range(last + 1)],
            rotation=50, ha="right", rotation_mode="anchor",
        )  # fmt: skip
        ax.set_title(task.title)
        ax.set_ylabel(f"test {metric(task)} / {unit(task)}")
        ax.set_ylim(bottom=0)
        drawn += chosen
    figure.supxlabel("training crystals of the test crystal's space group", fontsize=7)
    same = [
        Line2D([], [], color=looks.colour(result), linestyle="--", marker="o", markersize=3,
               markerfacecolor="white", label="CGCNN on the published mesh's crystals")
        for result, dashed in drawn
        if dashed
    ][:1]  # fmt: skip
    _model_legend(figure, project, looks, [result for result, _ in drawn], same)
    return Drawing(
        "space_groups",
        figure,
        "Test metric against the number of training crystals that share the test crystal's space "
        "group: the largest experiment of each network, with "
        f"{results.LEVEL}% bootstrap intervals over the test crystals.",
        "Test metric by the frequency of the space group among the training crystals.",
    )


def _compared(group: Sequence[Result]) -> list[tuple[Result, bool]]:
    """Of one task, each method's largest experiment (False), and CGCNN on the mesh's crystals."""
    chosen: dict[tuple[str, str, bool], Result] = {}
    for result in group:  # largest first
        if not result.experiment.transferred:
            chosen.setdefault(result.method, result)
    if len(chosen) > LINES:  # the graph, the meshes, and of the others the best
        kept = sorted(chosen.values(), key=_badness)[: LINES - 3]
        chosen = {
            method: result
            for method, result in chosen.items()
            if result in kept or result.mesh or result.experiment.representation == results.GRAPH
        }
    mesh = results.largest(group, group[0].experiment.task, results.PUBLISHED)
    same = results.equal(group, mesh, results.GRAPH) if mesh else None
    pairs = [(result, False) for result in chosen.values()]
    return pairs if same is None or same in chosen.values() else [*pairs, (same, True)]


def _badness(result: Result) -> float:
    """Less is better, whatever the metric."""
    return -result.value if result.task.kind == "classification" else result.value


def _bin_name(number: int) -> str:
    low, high = BINS[number], BINS[number + 1] - 1
    if number == len(BINS) - 2:
        return f"{count(low)}+"
    return count(low) if low == high else f"{count(low)}–{count(high)}"
