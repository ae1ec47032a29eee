"""Work done at once, in threads."""

import threading
from collections.abc import Callable, Iterable


def run_threads(works: Iterable[Callable[[], object]], limit_s: float = 120) -> None:
    """Run each in a thread and wait for all; the first fault of any is raised here."""
    faults: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit_s)
        assert not thread.is_alive()
    if faults:
        raise faults[0]
