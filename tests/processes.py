"""Run a function in several processes joined by gloo, as DistributedDataParallel does on CPUs."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, multiprocessing


def run_in_processes(function: Callable[..., None], world_size: int, *arguments: Any) -> None:
    """Call ``function(rank, *arguments)`` in processes of one gloo group; an error in one of them is raised here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.start_processes(
        _run, args=(function, world_size, port, arguments), nprocs=world_size, start_method="fork"
    )


def _run(rank: int, function: Callable[..., None], world_size: int, port: int, arguments: tuple[Any, ...]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        function(rank, *arguments)
    finally:
        distributed.destroy_process_group()
