"""Find the data mixture for the scale you will train at.

Every job is a module: `python -m autoscale_exp.<job>`, with `prepare`, `train`, `fit` and `report`.
"""

import signal
import sys

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while a job still imports: no traceback, base/job.py goes on
