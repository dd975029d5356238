"""Constants of the VTAB protocol (Zhai et al. 2019, section 3) that several steps share."""

# VTAB-1k: the first 800 examples of train and the first 200 of val. Source: the splits train800 and val200 of
# google-research/task_adaptation, data/base.py.
ROWS_1K = {"train": 800, "val": 200}

# How many tasks VTAB has (Zhai et al. 2019).
VTAB_TASKS = 19

# Task groups in the paper's order; "own" is for folders of the user.
GROUPS = ("natural", "specialized", "structured", "own")

# Families of methods in the order of tables and figures, from most labels to none.
FAMILIES = ("supervised", "semi-supervised", "self-supervised", "generative", "from-scratch")
