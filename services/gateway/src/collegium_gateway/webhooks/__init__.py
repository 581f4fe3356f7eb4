"""Callbacks: where they may go, what is sent and signed, and sending it until it is taken."""
