"""A process with a bench that a test kills: prints the child's pid, then has it work."""

import sys
import threading

from infrastructure.bench.bench import Bench
from infrastructure.bench.process import ChildLimits
from infrastructure.bench.refusals import query_too_large
from tests.security import bench_work

if __name__ == "__main__":
    bench = Bench(ChildLimits(400, 60.0), query_too_large)
    # From a thread that ends: the child's life is the process's, not the thread's.
    starter = threading.Thread(target=lambda: print(bench.call(bench_work.pid), flush=True))
    starter.start()
    starter.join()
    work = {"idle": None, "python": bench_work.spin, "c": bench_work.hold_in_c}[sys.argv[1]]
    threading.Event().wait(60) if work is None else bench.call(work, *([60] if work is bench_work.hold_in_c else []))
