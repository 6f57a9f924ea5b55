"""What meshes and graphs cost: figures of this study alone."""

from matplotlib.figure import Figure

from crystalmesh import files
from crystalmesh.errors import CrystalmeshError
from crystalmesh.report.figures.style import WIDTH, Drawing, legend_above
from crystalmesh.report.own import Context

# Names in benchmarks/representations.json: words, colour, line; colours as in `stability`.
TIMED = {
    "original": ("published mesh, original steps", "#0072B2", ":"),
    "published": ("published mesh", "#0072B2", "-"),
    "canonical": ("canonical mesh with spglib's cell", "#D55E00", ":"),
    "complex": ("canonical complex", "#D55E00", "-"),
    "qhull": ("Qhull alone, on its points", "0.45", "--"),
    "pymatgen": ("graph by pymatgen's neighbours", "#009E73", ":"),
    "graph": ("crystal graph", "#009E73", "-"),
}
# Stages that write features, as the benchmark names them, and whose colour they have.
STAGES = {"mesh.canonical": "complex", "graph.cgcnn": "graph"}
AXES = (
    ("atoms a cell", "ms a crystal, one core"),
    ("crystals", "crystals/s, two processes"),
    ("crystals", "peak memory / GiB"),
)


def speed(context: Context) -> Drawing:
    """Time by atoms, and rate and memory by crystals, as benchmarks/representations.py has them."""
    path = context.project.root / "benchmarks" / "representations.json"
    content = files.read_json(path)
    figure = Figure(figsize=(WIDTH, 2.2), layout="constrained")
    axes = figure.subplots(1, 3)
    lines = []
    try:
        rows = content["by_atoms"]
        atoms = [row["atoms"] for row in rows]
        for name, (label, colour, dashes) in TIMED.items():
            times = [1e3 * row[name] for row in rows]
            lines += axes[0].plot(atoms, times, dashes, color=colour, label=label)
        for name, like in STAGES.items():
            stage = content["by_crystals"][name]
            sizes = [row["crystals"] for row in stage]
            rate = [row["crystals"] / row["seconds"] for row in stage]
            memory = [row["peak_bytes"] / 2**30 for row in stage]
            axes[1].plot(sizes, rate, "o-", color=TIMED[like][1], markersize=3)
            axes[2].plot(sizes, memory, "o-", color=TIMED[like][1], markersize=3)
        machine = f"{content['machine']['processor']}, {content['machine']['cores']} cores"
    except (KeyError, TypeError, ValueError) as error:
        raise CrystalmeshError(f"{path}: damaged ({error}); run the benchmark again") from error
    for ax, (below, aside) in zip(axes, AXES, strict=True):
        ax.set_xscale("log")
        ax.set_xlabel(below)
        ax.set_ylabel(aside)
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    axes[2].set_ylim(bottom=0)
    legend_above(figure, lines)
    return Drawing(
        "speed",
        figure,
        "Cost of meshes and graphs, measured once by benchmarks/representations.py on "
        f"structures of the Materials Project ({machine}). Left: one crystal after the other. "
        "Middle and right, in the same colours: the stages that write the features of the "
        "canonical mesh and of the crystal graph, all processes together.",
        "Three line plots: time a crystal by atoms, crystals a second and memory by crystals.",
    )


FIGURES = [speed]
