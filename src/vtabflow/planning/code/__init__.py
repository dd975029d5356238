"""Code identity: which code made a result, so that a refactoring keeps results and a changed loss is never overlooked.

The key of a result holds, for each **unit** of code that made it, the unit's identity. A unit is a step, a source of
images, a dataset, a network or a method (`units.py`). It consists of the **definitions** that its entry functions and
classes reach, followed name by name through the package (`definitions.py`): functions, classes, module-level
assignments and other module-level statements. Docstrings, comments, layout, annotations of functions and the text of
errors, logs and help are left out (`syntax.py`).

code.lock holds the version and the digest of every unit (`lock.py`). While a unit's code is the locked one, keys hold
the version alone ("1"), so results stay valid. When it differs, keys hold the digest too ("1+0f3a..."), so its results
get keys of their own and the old ones are kept. Then either `vtabflow code accept` takes the code over at the same
version (same results, same keys as before) or `vtabflow code bump` raises the version (new results, new keys).
`vtabflow code status` (`status.py`) says what changed, `vtabflow code verify` (`verify.py`) checks the claim that the
results are the same.
"""
