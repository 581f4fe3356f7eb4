"""Tenants, projects, keys and budgets: what they are, who may change them, and what gateways are told of them."""
