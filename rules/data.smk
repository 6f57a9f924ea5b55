# From raw files to crystals, splits and features.


CRYSTALS = [f"data/crystals/{{dataset}}/{name}" for name in engines.CRYSTALS]


rule fetch:
    input:
        settings("datasets.{dataset}.raw"),
    output:
        "data/raw/{dataset}.json.gz",
    threads: ALL
    priority: 1  # takes all cores: first, or cores lie idle while one long training ends
    shell:
        "crystalmesh fetch {wildcards.dataset}"


rule fetch_benchmark:
    input:
        settings("benchmarks.{benchmark}.raw"),
    output:
        "data/raw/{benchmark}.csv.gz",
    shell:
        "crystalmesh fetch {wildcards.benchmark}"


rule crystals:
    input:
        "data/raw/{dataset}.json.gz",
        settings("datasets.{dataset}.crystals"),
    output:
        CRYSTALS,
    threads: ALL
    priority: 1
    shell:
        "crystalmesh crystals {wildcards.dataset}"


rule split:
    input:
        CRYSTALS,
        settings("splits.{dataset}-{split}.digest"),
    output:
        "data/splits/{dataset}/{split}.json",
    shell:
        "crystalmesh split {wildcards.dataset} {wildcards.split}"


rule folds:
    input:
        "data/raw/{benchmark}.csv.gz",
        CRYSTALS,
        settings("benchmarks.{benchmark}.folds"),
    output:
        "data/splits/{dataset}/{benchmark}.json",
    shell:
        "crystalmesh folds {wildcards.benchmark}"


rule published:
    input:
        "data/raw/{benchmark}.csv.gz",
        settings("benchmarks.{benchmark}.folds"),
    output:
        "results/benchmarks/{benchmark}.json",
    shell:
        "crystalmesh published {wildcards.benchmark}"


def of_features(w):
    """The split that says which crystals get a representation, if not all do; and its digest."""
    features = params.features[w.dataset][w.representation]
    split = project.split(w.dataset, features.split) if features.split else project.root / plan.NONE
    key = f"features.{w.dataset}-{w.representation.replace('.', '_')}.digest"
    return [project.relative(split), *settings(key)({})]


rule represent:
    input:
        CRYSTALS,
        of_features,
    output:
        "data/features/{dataset}/{representation}/index.json",
    threads: ALL
    priority: 1
    shell:
        "crystalmesh represent {wildcards.dataset} {wildcards.representation}"
