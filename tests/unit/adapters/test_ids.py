import os
import re

from pdp.adapters.ids import new_id
from pdp.limits import IDS_DRAWN


def test_ids_are_128_bits_and_never_the_same() -> None:
    made = [new_id() for _ in range(IDS_DRAWN * 3 + 1)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in made)


def test_a_forked_process_hands_out_ids_of_its_own() -> None:
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_id().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        theirs = told.read()
    os.waitpid(child, 0)
    assert theirs
    assert theirs not in [new_id() for _ in range(IDS_DRAWN)]
