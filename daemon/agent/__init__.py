"""The agent: turns.py (the loop) · reply.py (one streamed answer) · deltas.py (text as it comes) · conversation.py (what the
model is told) · tools.py · prompt.py · models.py (the SDK, shared and late) · script.py and scripted.py (the model without a key)
"""
