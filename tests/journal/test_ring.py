"""The ring: in order, within its bounds, and nothing that nobody reads."""

import pytest

from daemon.journal.ring import MOST_BYTES, MOST_FRAMES, Ring


def shown(ring, count, size=1):
    for _ in range(count):
        ring.put(b"x" * size, ring.sequence)


def test_frames_are_given_in_order_from_a_number_on():
    ring = Ring()
    ring.join()
    for at in range(5):
        ring.put(b"%d" % at, at)
    assert ring.after(0) == [(b"0", 0), (b"1", 1), (b"2", 2), (b"3", 3), (b"4", 4)]
    assert ring.after(3) == [(b"3", 3), (b"4", 4)]
    assert ring.after(ring.sequence) == []


@pytest.mark.parametrize("size", [1, 3000, MOST_BYTES * 2])
def test_ring_stays_within_its_bounds(size):
    ring = Ring()
    ring.join()
    for _ in range(3 * MOST_FRAMES // 2):
        ring.put(b"x" * size, 0)
        assert len(ring) <= MOST_FRAMES
        assert len(ring) * size <= MOST_BYTES or len(ring) == 1
    assert len(ring) == max(1, min(MOST_FRAMES, MOST_BYTES // size))
    assert ring.after(ring.sequence - len(ring))
    assert ring.after(ring.sequence - len(ring) - 1) is None


def test_nothing_is_kept_where_nobody_reads():
    ring = Ring()
    shown(ring, 3)
    assert (len(ring), ring.sequence, ring.after(0), ring.after(3)) == (0, 3, None, [])
    ring.join()
    shown(ring, 2)
    ring.leave()
    assert (len(ring), ring.after(3)) == (0, None)
    ring.join()
    shown(ring, 1)
    assert ring.after(5) == [(b"x", 5)]


def test_what_one_reader_has_read_is_kept_for_another_until_that_leaves():
    ring = Ring()
    ring.join()
    ring.join()
    shown(ring, 2)
    ring.forget()
    assert len(ring.after(0)) == 2
    ring.leave()
    assert len(ring.after(0)) == 2
    ring.forget()
    assert (len(ring), ring.after(2)) == (0, [])


def test_bytes_are_counted_anew_after_forgetting():
    ring = Ring()
    ring.join()
    for _ in range(5):
        shown(ring, 2, MOST_BYTES // 2)
        assert len(ring) == 2
        ring.forget()


def test_what_was_not_shown_after_all_is_taken_back():
    ring = Ring()
    shown(ring, 2)
    ring.join()
    shown(ring, 3, size=MOST_BYTES // 4)
    ring.take_back(4)
    assert (ring.sequence, len(ring)) == (4, 2)
    ring.take_back(2)
    assert (ring.sequence, ring.after(2)) == (2, [])
    ring.take_back(1)  # before anybody read
    assert (ring.sequence, len(ring)) == (1, 0)
    shown(ring, 4, size=MOST_BYTES // 4)
    assert len(ring) == 4  # what is gone takes no room
