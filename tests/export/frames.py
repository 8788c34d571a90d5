"""Tables of ratings for tests of the export."""

import numpy as np
import pandas as pd


def make_frame(strings=False, users=40, items=25, seed=0):
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * items)[: users * items // 3]
    frame = pd.DataFrame({"user": pairs // items, "item": pairs % items, "rating": rng.integers(1, 6, len(pairs))})
    frame["kind"] = np.where(frame["item"] % 2, "odd|all", "all")
    if strings:
        frame = frame.assign(user="u" + frame["user"].astype(str), item=frame["item"].astype(str).str.zfill(3) + "é")
    return frame
