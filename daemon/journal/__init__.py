"""What happened in a session, written down before anyone sees it.

events.py (kinds and their wire form) · frames.py (one event as one WebSocket frame) · segment.py (frames + index on disk) ·
recovery.py (what of a segment can be proven) · tail.py (the end alone) · journal.py (append) · ring.py (what was shown last) ·
cursor.py (a reader's place) · store.py (SQLite: sessions, conversations, message ids)
"""
