# A run: trained, predicted, evaluated; and calibrated where people predict with it.


def run_of(w):
    return params.studies[w.study].runs[w.run]


def read(w):
    """What a run reads of the data; the index holds the checksums of the features' shards."""
    run = run_of(w)
    return [
        project.relative(project.features(run.dataset, run.representation) / "index.json"),
        project.relative(project.split(run.dataset, run.split)),
        *(one.format(dataset=run.dataset) for one in CRYSTALS),
    ]


def start(w):
    """The checkpoint that a training starts from or is taught by."""
    run = run_of(w)
    if run.before is None:
        return plan.NONE
    return project.relative(project.checkpoint(params.run(run.before)))


rule train:
    input:
        unless_given(
            "results/{study}/history/{run}.csv",  # given with the checkpoint, or with predictions
            read,
            start,
            settings("{study}.{run}"),
        ),
    output:
        "results/{study}/checkpoints/{run}.safetensors",
        "results/{study}/history/{run}.csv",
        "results/{study}/cards/{run}.json",
    shell:
        "crystalmesh train {wildcards.study}/{wildcards.run}"


rule predictions:
    input:
        unless_given(
            "results/{study}/predictions/{run}",
            "results/{study}/checkpoints/{run}.safetensors",
            read,
        ),
    output:
        directory("results/{study}/predictions/{run}"),
    shell:
        "crystalmesh predictions {wildcards.study}/{wildcards.run}"


rule evaluate:
    input:
        unless_given(
            "results/{study}/metrics/{run}.json",
            "results/{study}/predictions/{run}",
            "results/{study}/checkpoints/{run}.safetensors",  # tells the settings
        ),
    output:
        "results/{study}/metrics/{run}.json",
    shell:
        "crystalmesh evaluate {wildcards.study}/{wildcards.run}"


rule calibrate:
    input:
        unless_given(
            "results/{serving}/calibration/{study}/{run}.{target}.safetensors",
            read,
            "results/{study}/checkpoints/{run}.safetensors",
        ),
    output:
        "results/{serving}/calibration/{study}/{run}.{target}.safetensors",
    shell:
        "crystalmesh calibrate {wildcards.study}/{wildcards.run} {wildcards.target}"
