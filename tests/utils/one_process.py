"""The command line as one of several processes, each with its own options; run by test_distributed.py."""

import json
import os
import sys

from cflightning.__main__ import main

if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    sys.exit(main([*told["all"], *told.get(rank, [])]))
