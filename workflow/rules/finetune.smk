rule finetune:
    input:
        needs=inputs_of_job,
    output:
        "results/jobs/{key}.json",
    log:
        "results/logs/finetune/{key}.log",
    benchmark:
        "results/benchmarks/finetune/{key}.tsv"
    conda:
        "../../environment.yml"
    threads: job_threads
    resources:
        gpu=1,
        runtime=1440,
    params:
        spec="results/specs/finetune/{key}.json",
    shell:
        "vtabflow finetune --spec {params.spec:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
