"""Studies as plain dictionaries, altered."""

import copy


def changed(smoke: dict, place: str, value: object) -> dict:
    raw = copy.deepcopy(smoke)
    *way, last = place.split(".")
    target = raw
    for part in way:
        target = target.setdefault(part, {})
    target[last] = value
    return raw
