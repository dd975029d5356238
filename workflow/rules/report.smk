rule report:
    input:
        jobs=jobs_of_page,
    output:
        "results/reports/{study}/{key}.json",
    log:
        "results/logs/report/{study}/{key}.log",
    benchmark:
        "results/benchmarks/report/{study}/{key}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        runtime=60,
    params:
        spec="results/specs/report/{key}.json",
    shell:
        "vtabflow report --spec {params.spec:q} --threads {threads} > {log:q} 2>&1"


rule publish:
    input:
        page=ancient("results/reports/{study}/{key}.json"),
    output:
        "results/reports/{study}/.current/{key}",
    log:
        "results/logs/publish/{study}/{key}.log",
    conda:
        "../../environment.yml"
    threads: 1
    params:
        spec="results/specs/report/{key}.json",
    shell:
        "vtabflow report --spec {params.spec:q} --threads {threads} --publish > {log:q} 2>&1"
