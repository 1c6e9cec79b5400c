"""A journal to write to, and one that lies on disk in three segments."""

import pytest

from tests.journal.history import SMALL, note, opened


@pytest.fixture
def written(tmp_path):
    with opened(tmp_path) as (journal, _):
        yield journal


@pytest.fixture
def segmented(tmp_path):
    """A closed journal of three segments."""
    folder = tmp_path / "segmented"
    with opened(folder, limit=SMALL) as (journal, _):
        while len(journal._segments) < 3 or journal._segments[-1].last < journal._segments[-1].first + 3:
            note(journal, f"{journal.offset + 1}")
        firsts = [segment.first for segment in journal._segments]
        assert journal.first == 1
        return folder, firsts, journal.offset
