# From raw files to crystals, splits and features.


CRYSTALS = [f"data/crystals/{{dataset}}/{name}" for name in engines.CRYSTALS]
RAW = {project.raw(name).name: name for name in params.raw}  # by file name


def raw_of_dataset(w):
    """Its raw file, and the table that it joins, if it does."""
    found = [project.relative(one) for one in project.raws(w.dataset)]
    return found if found[1:] else [*found, plan.NONE]


def raw_of_benchmark(w):
    return project.relative(project.raw(w.benchmark))


rule fetch:
    input:
        lambda w: settings(f"raw.{RAW[w.file]}.digest")(w),
    output:
        "data/raw/{file}",
    params:
        name=lambda w: RAW[w.file],
    threads: ALL
    priority: 1  # takes all cores: first, or cores lie idle while one long training ends
    shell:
        "crystalmesh fetch {params.name}"


rule crystals:
    input:
        raw_of_dataset,
        settings("datasets.{dataset}.digest"),
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
        raw_of_benchmark,
        CRYSTALS,
        settings("benchmarks.{benchmark}.digest"),
    output:
        "data/splits/{dataset}/{benchmark}.json",
    shell:
        "crystalmesh folds {wildcards.benchmark}"


rule published:
    input:
        raw_of_benchmark,
        settings("benchmarks.{benchmark}.digest"),
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
