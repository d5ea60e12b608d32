"""CPU time of ``import detlit`` and ``detlit --help``: must feel instant. Run: python tests/benchmarks/startup.py."""

import json
import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import detlit": [sys.executable, "-c", "import detlit"],
    "detlit --help": [sys.executable, "-m", "detlit", "--help"],
    "detlit --version": [sys.executable, "-m", "detlit", "--version"],
    "detlit fitt (a typo)": [sys.executable, "-m", "detlit", "fitt"],
    "import torch": [sys.executable, "-c", "import torch"],
}
ROUNDS = 10
MOST_FOR_IMPORT = 0.05


def cpu_seconds(command: list[str]) -> float:
    """Return the user and system time of a child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Time the commands in turn, so that a busy machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(cpu_seconds(command))
    print(f"{'command':24}{'min':>8}{'median':>8}{'max':>8}   CPU seconds of {ROUNDS} runs")
    for name, values in times.items():
        print(f"{name:24}{min(values):8.3f}{statistics.median(values):8.3f}{max(values):8.3f}")
    own = statistics.median(times["import detlit"]) - statistics.median(times["python -c pass"])
    print(f"import detlit takes {1000 * own:.1f} ms more than a bare interpreter")
    assert own < MOST_FOR_IMPORT, f"more than {1000 * MOST_FOR_IMPORT:.0f} ms"
    print(json.dumps({name: round(statistics.median(values), 4) for name, values in times.items()}))


if __name__ == "__main__":
    main()
