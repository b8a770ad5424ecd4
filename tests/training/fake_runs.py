"""What processes of a launcher do in the place of training. Imports nothing, so that they start at once."""

import os
import signal
import time
from pathlib import Path


def use(devices: list[str], folder: Path, seconds: float) -> None:
    """Takes devices for a while; fails if another process has one of them."""
    locks = [folder / device for device in devices]
    for lock in locks:
        lock.touch(exist_ok=False)
    time.sleep(seconds)
    for lock in locks:
        lock.unlink()


def die_once(folder: Path) -> None:
    if not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def hang_once(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    if (folder / "hung").exists():
        return
    (folder / "hung").touch()
    for _ in range(8):  # longer than the limit, but not without progress
        (folder / "progress.json").write_text("{}")
        time.sleep(0.4)
    time.sleep(600)
