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


if PLAN:

    rule all:
        default_target: True
        input:
            f"results/reports/{PLAN.study.study}/.current/{PLAN.page['key']}",

    rule prepared:
        input:
            [
                spec["receipt"]
                for spec in PLAN.stores.values()
                if not Path(spec["manifest"]).exists()
            ],

    rule pretrained:
        input:
            [
                spec["receipt"]
                for spec in PLAN.encoders.values()
                if not keys.is_complete(spec)
            ],

    rule finetuned:
        input:
            [
                pack["receipt"]
                for pack in PLAN.packs.values()
                if not keys.is_complete(pack)
            ],
