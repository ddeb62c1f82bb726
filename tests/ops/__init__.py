"""Ops and gradients."""
