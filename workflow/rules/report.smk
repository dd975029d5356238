rule report:
    input:
        packs=ancient(packs_of_page),
    output:
        "results/reports/{study}/{key}.json",
    params:
        spec="results/specs/report/{key}.json",
    log:
        "results/logs/report/{study}/{key}.log",
    benchmark:
        "results/benchmarks/report/{study}/{key}.tsv"
    threads: 1
    resources:
        runtime=60,
    conda:
        "../../environment.yml"
    shell:
        "vtabflow report --spec {params.spec:q} --threads {threads} > {log:q} 2>&1"


rule publish:
    input:
        page=ancient("results/reports/{study}/{key}.json"),
    output:
        "results/reports/{study}/.current/{key}",
    params:
        spec="results/specs/report/{key}.json",
    log:
        "results/logs/publish/{study}/{key}.log",
    threads: 1
    conda:
        "../../environment.yml"
    shell:
        "vtabflow report --spec {params.spec:q} --threads {threads} --publish > {log:q} 2>&1"
