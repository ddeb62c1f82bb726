"""Generated from proto/telegrad/wire/v1 by scripts/proto, committed, never edited by hand."""
