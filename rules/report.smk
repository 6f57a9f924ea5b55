# The report of a study. What each stage reads is said in crystalmesh.config.engines.


def for_report(stage):
    """Input function: what a stage of a study's report reads."""

    def paths(w):
        found = engines.inputs(project, w.study, STAGES[w.study][stage])
        # of features the index, which holds the checksums of the shards
        found = [f"{one}/index.json" if one.startswith("data/features/") else one for one in found]
        own = "stability" if stage == "stability" else "report"
        return [*found, *settings(f"{{study}}.{own}")(w)]

    return paths


rule stability:
    input:
        unless_given("results/{study}/stability.json", for_report("stability")),
    output:
        "results/{study}/stability.json",
    threads: ALL
    shell:
        "crystalmesh stability {wildcards.study}"


rule embeddings:
    input:
        unless_given("results/{study}/embeddings.json", for_report("embeddings")),
    output:
        "results/{study}/embeddings.json",
    shell:
        "crystalmesh embeddings {wildcards.study}"


rule tables:
    input:
        for_report("tables"),
    output:
        directory("results/{study}/tables"),
    shell:
        "crystalmesh tables {wildcards.study}"


rule figures:
    input:
        for_report("figures"),
    output:
        directory("results/{study}/figures"),
    shell:
        "crystalmesh figures {wildcards.study}"


rule document:
    input:
        for_report("document"),
    output:
        "results/{study}/paper.pdf",
    shell:
        "crystalmesh document {wildcards.study}"


rule metrics:
    input:
        for_report("metrics"),
    output:
        "results/{study}/metrics.json",
    shell:
        "crystalmesh metrics {wildcards.study}"


rule ledger:
    input:
        for_report("ledger"),
    output:
        "results/{study}/ledger.json",
    shell:
        "crystalmesh ledger {wildcards.study}"


rule crate:
    input:
        for_report("crate"),
    output:
        "results/{study}/ro-crate-metadata.json",
        "results/{study}/README.md",
    shell:
        "crystalmesh crate {wildcards.study}"


rule site:
    input:
        for_report("site"),
    output:
        directory("results/{study}/site"),
    shell:
        "crystalmesh site {wildcards.study}"
