"""Who writes and prints is known without torch."""

import os
import subprocess
import sys

import pytest
import torch

from vtabflow.runtime import distributed

CODE = """
import sys
from vtabflow.runtime.distributed import is_distributed, is_main_process
print(is_distributed(), is_main_process(), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "False True False"),
        ({"WORLD_SIZE": "1", "RANK": "0"}, "False True False"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "True True False"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "True False False"),
    ],
)
def test_the_environment_of_torchrun_is_read_without_torch(environment, expected):
    run = subprocess.run(
        [sys.executable, "-c", CODE], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == expected


def test_one_process_is_the_whole_group():
    x = torch.ones(3, requires_grad=True)
    assert distributed.gathered(x) is x and distributed.local_batch_size(7) == 7
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    distributed.init_process_group()
    distributed.destroy_process_group()
    distributed.average([x.detach()])
    assert x.tolist() == [1, 1, 1]
