rule pretrain:
    input:
        store=store_of_encoder,
    output:
        "results/encoders/{method}/{key}.json",
    log:
        "results/logs/pretrain/{method}/{key}.log",
    benchmark:
        "results/benchmarks/pretrain/{method}/{key}.tsv"
    conda:
        "../../environment.yml"
    threads: job_threads
    resources:
        gpu=lambda wildcards: spec_of("pretrain", wildcards.key).gpus,
        runtime=2880,
    params:
        spec="results/specs/pretrain/{key}.json",
    shell:
        "vtabflow pretrain --spec {params.spec:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
