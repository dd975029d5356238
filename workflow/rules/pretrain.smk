rule pretrain:
    input:
        store=ancient(store_of_encoder),
    output:
        "results/encoders/{method}/{key}.json",
    params:
        spec="results/specs/pretrain/{key}.json",
    log:
        "results/logs/pretrain/{method}/{key}.log",
    benchmark:
        "results/benchmarks/pretrain/{method}/{key}.tsv"
    threads: job_threads
    resources:
        gpu=1,
        runtime=2880,
    conda:
        "../../environment.yml"
    shell:
        "vtabflow pretrain --spec {params.spec:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
