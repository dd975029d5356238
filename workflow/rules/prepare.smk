rule prepare:
    output:
        "data/stores/{dataset}/{key}.json",
    log:
        "results/logs/prepare/{dataset}/{key}.log",
    benchmark:
        "results/benchmarks/prepare/{dataset}/{key}.tsv"
    conda:
        "../../environment.yml"
    threads: prepare_threads
    resources:
        runtime=lambda wildcards: 2880 if is_downloaded(wildcards) else 240,
    params:
        spec="results/specs/prepare/{key}.json",
    shell:
        "vtabflow prepare --spec {params.spec:q} --threads {threads} > {log:q} 2>&1"
