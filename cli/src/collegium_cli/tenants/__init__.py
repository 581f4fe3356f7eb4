"""Tenants, their keys and limits, their privacy, and the audit trail."""
