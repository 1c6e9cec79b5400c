"""The folder that a session's agent works in: files.py (the one door) · beneath.py (how it opens) · pages.py (what it holds)."""
