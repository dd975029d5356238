rule prepare:
    output:
        "data/stores/{dataset}/{key}.json",
    params:
        spec="results/specs/prepare/{key}.json",
    log:
        "results/logs/prepare/{dataset}/{key}.log",
    benchmark:
        "results/benchmarks/prepare/{dataset}/{key}.tsv"
    threads: 1
    resources:
        runtime=240,
    conda:
        "../../environment.yml"
    shell:
        "vtabflow prepare --spec {params.spec:q} --threads {threads} > {log:q} 2>&1"
