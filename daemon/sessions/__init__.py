"""Sessions: lifecycle.py (the table) · record.py (what is kept and shown) · mailbox.py (prompts that wait) · session.py (one
session: its state) · opening.py (what it owns, in order) · registry.py (which sessions there are; one task each) ·
recovery.py (those that an earlier daemon left alive)
"""
