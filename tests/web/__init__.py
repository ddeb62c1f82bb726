"""The web page: its HTTP, and what a real browser makes of it."""
