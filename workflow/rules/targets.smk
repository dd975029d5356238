rule prepared:
    input:
        missing_stores,


rule pretrained:
    input:
        missing_encoders,


rule finetuned:
    input:
        missing_jobs,


wildcard_constraints:
    key="[0-9a-f]{16}",
    dataset="[a-z0-9-]+",
    method="[a-z0-9-]+",
    study="[a-z0-9-]+",


localrules:
    all,
    prepared,
    pretrained,
    finetuned,
    publish,
