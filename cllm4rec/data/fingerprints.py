"""SHA-256 of the content of a dataset and of its split."""

import hashlib

import numpy as np
import polars as pl

from cllm4rec.data.interactions import Interactions


def data_fingerprint(events: Interactions, users: pl.DataFrame, items: pl.DataFrame) -> str:
    """SHA-256 of ids, events and texts, without the split."""
    digest = hashlib.sha256()
    for frame in (users, items):
        for column in frame.get_columns():
            digest.update(f"{column.name}\0".encode() + "\0".join(column.cast(pl.String)).encode())
    digest.update(events.users.tobytes() + events.items.tobytes())
    digest.update(b"" if events.times is None else events.times.tobytes())
    digest.update(b"" if events.reviews is None else "\0".join(events.reviews).encode())
    return digest.hexdigest()


def split_fingerprint(part: np.ndarray) -> str:
    """SHA-256 of the part of each event, uint8 (n_events,)."""
    return hashlib.sha256(part.tobytes()).hexdigest()
