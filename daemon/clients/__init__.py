"""One session's port, and who is on it.

port.py (WebSocket, health and preview on one port) · hub.py (who is connected) · client.py (one WebSocket) · commands.py (what
a client may send) · preview.py (the files) · http.py (requests and responses on h11) · stream.py (the bytes) · auth.py (tokens)
"""
