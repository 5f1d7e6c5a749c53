"""Samples from OpenAI-compatible servers: what is sent, one server, and how work is shared among several."""
