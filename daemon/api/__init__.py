"""The HTTP API: app.py (putting it together) · guard.py (who may call) · schemas.py (what is sent) · sessions.py, events.py,
status.py, openapi.py (routes by noun) · docs.py (the page that describes them) · server.py (Hypercorn on a stream of ours)
"""
